"""What happens to a session's connection, as facts: gaps, deafness, encryption, and what was done about faults."""

from __future__ import annotations

from capture.clock import SessionClock
from capture.writer import SessionWriter
from contracts.events import (
    EncryptionChanged,
    GapRecorded,
    RecorderDeafened,
    RecorderUndeafened,
    RecoveryBegun,
)


class Continuity:
    """Remembers from one take to the next."""

    def __init__(self, *, writer: SessionWriter, clock: SessionClock) -> None:
        self._writer = writer
        self._clock = clock
        self._cause = "start"
        self._channel_id = 0
        self._lost: tuple[int, str] | None = None
        self._deafened = False
        self._dave_version = 0
        self.take = 0

    def resumed(self, cause: str, *, from_ns: int) -> None:
        """The session goes on after a restart of the recorder; nothing was heard since `from_ns` on its clock."""
        self._cause, self._lost = "restart", (from_ns, cause)

    def cause_of(self, channel_id: int) -> str:
        """Why the next take opens, in this channel."""
        return "move" if self._channel_id not in {0, channel_id} else self._cause

    def opened(self, take: int, *, channel_id: int, dave_version: int) -> None:
        """A take opened; the gap before it is known now."""
        self.take, self._channel_id, self._dave_version = take, channel_id, dave_version
        self._cause = "reconnect"
        if self._lost is not None:
            (from_ns, cause), self._lost = self._lost, None
            self._writer.write(GapRecorded, take=take, from_ns=from_ns, to_ns=self._clock.now_ns(), cause=cause)

    def lost(self, cause: str, deaf_since_ns: int) -> None:
        """The connection is lost; `deaf_since_ns` on CLOCK_BOOTTIME."""
        if self.take and self._lost is None:
            self._lost = (self._clock.at_ns(deaf_since_ns), cause)

    def encrypted(self, dave_version: int) -> None:
        """DAVE's version in force."""
        if self.take and dave_version != self._dave_version:
            self._dave_version = dave_version
            self._writer.write(EncryptionChanged, take=self.take, dave_version=dave_version)

    def deafened(self, deafened: bool) -> None:  # noqa: FBT001  # a state, as told
        """Whether a moderator deafened the recorder."""
        if deafened != self._deafened:
            self._deafened = deafened
            self._writer.write(RecorderDeafened if deafened else RecorderUndeafened, take=self.take)

    @property
    def deaf(self) -> bool:
        """Whether Discord sends no audio because a moderator wants it so."""
        return self._deafened

    def recovered(self, action: str, cause: str) -> None:
        """Something was done about a fault."""
        self._writer.write(RecoveryBegun, take=self.take, action=action, cause=cause)

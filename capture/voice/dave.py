"""End-to-end decryption (DAVE) of one SSRC's frames, strictly first in, first out.

A frame that cannot be opened yet waits, and all behind it wait with it: opening a later one first would move davey's
replay window past the earlier. Waiting ends when the key comes (a welcome, a commit, the user's name), or after a while
with the reason as the packet's outcome. It ends, too, when none of those before can be opened and a later one can: a
sender's keys only go forward, so the key of the earlier (from before our welcome) will never come. Without that, they
would hold up the others until those keys are gone as well.

A failed try moves no window, so an SSRC that the gateway never names can be tried against every member without an SSRC:
only the sender's key opens the frame. Frames that wait are tried again only when something changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

import davey
import msgspec

from capture.voice.reorder import distance
from contracts.packets import SILENCE_FRAME, Outcome, Packet

HOLD_NS: Final = 2_000_000_000  # a key that was under way has come by then
UNKNOWN_HOLD_NS: Final = 5_000_000_000  # op 5 may come late, or never
HELD_PACKETS: Final = 512  # per SSRC: ten seconds of speech
MARKER: Final = b"\xfa\xfa"  # ends every encrypted frame
AUDIO: Final = davey.MediaType.audio


class Group(Protocol):
    """What the live connection knows about the encrypted group; read anew for every frame."""

    @property
    def session(self) -> davey.DaveSession | None:
        """Davey's session; it is replaced and reset while the call goes on."""

    @property
    def earlier_session(self) -> davey.DaveSession | None:
        """That of the group before, while its keys live."""

    @property
    def plain_allowed(self) -> bool:
        """Whether a plain frame is what it should be: DAVE is off, or was a moment ago, or will be in a moment."""

    def unclaimed(self) -> Iterable[int]:
        """Members of the group who have no SSRC yet."""


class Sealed(msgspec.Struct, gc=False):
    """A packet whose payload is not opened yet; `arrival_ns` on CLOCK_BOOTTIME.

    `decided` if nothing can open it; `refused` is why the last try failed.
    """

    sequence: int
    timestamp: int
    arrival_ns: int
    payload: bytes
    level: int
    decided: Outcome | None = None
    refused: Outcome = Outcome.NO_KEY


class Heard(msgspec.Struct, frozen=True, gc=False):
    """A packet with its outcome; the record of it, but for the batch's base."""

    sealed: Sealed
    payload: bytes
    outcome: Outcome

    def packet(self, base_ns: int) -> Packet:
        """The record, with its arrival in microseconds after `base_ns` (same clock as `arrival_ns`)."""
        sealed = self.sealed
        offset_us = (sealed.arrival_ns - base_ns) // 1000
        return Packet(sealed.sequence, sealed.timestamp, offset_us, self.payload, self.outcome, sealed.level)


class FrameOpener:
    """Opens the frames of one SSRC.

    Parameters
    ----------
    identified
        Called with the user id when a key told whose SSRC this is.

    Attributes
    ----------
    user_id
        Whose SSRC it is, once known.
    opened_ns
        Arrival of the frame that was opened last, on CLOCK_BOOTTIME; 0 before the first.
    """

    def __init__(self, group: Group, identified: Callable[[int], None]) -> None:
        self._group = group
        self._identified = identified
        self._held: list[Sealed] = []
        self._tried = 0  # so many of them, with `_keys`
        self._keys: tuple[object, ...] = ()
        self.user_id: int | None = None
        self.opened_ns = 0

    @property
    def held(self) -> int:
        """Packets that wait for a key."""
        return len(self._held)

    @property
    def held_since_ns(self) -> int | None:
        """Arrival of the oldest packet that waits for a key; None if none does."""
        return self._held[0].arrival_ns if self._held else None

    def push(self, sealed: Sealed, now_ns: int) -> list[Heard]:
        """Take the next packet in order; what is decided now."""
        payload = sealed.payload
        if sealed.decided is not None:
            return [Heard(sealed, payload, sealed.decided)]
        if not payload:
            return [Heard(sealed, b"", Outcome.PADDING)]
        if payload == SILENCE_FRAME:  # never encrypted
            return [Heard(sealed, SILENCE_FRAME, Outcome.SILENCE)]
        if not self._held:  # as nearly always
            opened = self._open(payload)
            if isinstance(opened, bytes):
                self.opened_ns = sealed.arrival_ns
                return [Heard(sealed, opened, Outcome.VOICE)]
        self._held.append(sealed)
        return self.retry(now_ns)

    def retry(self, now_ns: int) -> list[Heard]:
        """What can be decided of the packets that wait."""
        decided = self._try_held()
        while self._held and self._hopeless(self._held[0], now_ns):
            decided.append(self._refuse(0))
        return decided

    def give_up(self) -> list[Heard]:
        """All that waits, each opened or with the reason why not: the take is over."""
        decided = self._try_held()
        while self._held:
            decided.append(self._refuse(0))
        return decided

    def _try_held(self) -> list[Heard]:
        """Try those that were not tried with the present keys; one that opens ends the waiting of all before it."""
        keys = self._present_keys()
        if keys != self._keys:
            self._keys, self._tried = keys, 0
        decided: list[Heard] = []
        while self._tried < len(self._held):
            sealed = self._held[self._tried]
            opened = self._open(sealed.payload)
            if isinstance(opened, Outcome):
                sealed.refused = opened
                self._tried += 1
                continue
            self.opened_ns = sealed.arrival_ns
            decided += self._refuse_before(sealed)
            del self._held[self._tried]
            decided.append(Heard(sealed, opened, Outcome.VOICE))
        return decided

    def _refuse_before(self, opened: Sealed) -> list[Heard]:
        """Give up those that were sent before `opened`, and failed; those sent later may have newer keys."""
        failed = self._held[: self._tried]
        before = [index for index, each in enumerate(failed) if distance(each.sequence, opened.sequence) > 0]
        return [self._refuse(index) for index in reversed(before)][::-1]

    def _refuse(self, index: int) -> Heard:
        sealed = self._held.pop(index)
        self._tried -= index < self._tried
        return Heard(sealed, sealed.payload, sealed.refused)

    def _hopeless(self, sealed: Sealed, now_ns: int) -> bool:
        if sealed.refused is Outcome.PLAINTEXT or len(self._held) > HELD_PACKETS:
            return True
        patience_ns = UNKNOWN_HOLD_NS if sealed.refused is Outcome.UNKNOWN_SPEAKER else HOLD_NS
        return now_ns - sealed.arrival_ns > patience_ns

    def _present_keys(self) -> tuple[object, ...]:
        """What decides whether a frame can be opened; the same as long as another try is vain."""
        group, user_id = self._group, self.user_id
        session, earlier = group.session, group.earlier_session
        epoch = None if session is None else session.epoch
        ready = session is not None and session.ready
        candidates = tuple(group.unclaimed()) if user_id is None else ()
        return session, epoch, ready, earlier, user_id, candidates, group.plain_allowed

    def _open(self, payload: bytes) -> bytes | Outcome:
        """The frame, by the present group's keys, else by those of the one before; plain ones at their time."""
        group = self._group
        session = group.session
        opened = Outcome.NO_KEY if session is None else self._open_with(session, payload)
        if isinstance(opened, bytes):
            return opened
        earlier = group.earlier_session
        if earlier is not None:
            late = self._open_with(earlier, payload)
            if isinstance(late, bytes):
                return late
        if group.plain_allowed and not (payload.endswith(MARKER) and (session or earlier)):
            return payload
        return opened

    def _open_with(self, session: davey.DaveSession, payload: bytes) -> bytes | Outcome:
        user_id = self.user_id
        return self._identify(session, payload) if user_id is None else _decrypt(session, user_id, payload)

    def _identify(self, session: davey.DaveSession, payload: bytes) -> bytes | Outcome:
        """Try every member without an SSRC: only the sender's key opens the frame."""
        if not session.ready:
            return Outcome.NO_KEY
        for user_id in self._group.unclaimed():
            opened = _decrypt(session, user_id, payload)
            if isinstance(opened, bytes):
                self.user_id = user_id
                self._identified(user_id)
                return opened
        return Outcome.UNKNOWN_SPEAKER


def _decrypt(session: davey.DaveSession, user_id: int, payload: bytes) -> bytes | Outcome:
    """The Opus frame, or why there is none: davey tells the reason in its message only."""
    try:
        return session.decrypt(user_id, AUDIO, payload)
    except ValueError as error:
        reason = str(error)
    if "NoDecryptorForUser" in reason or not session.ready:
        return Outcome.NO_KEY
    if "UnencryptedWhenPassthroughDisabled" in reason:
        return Outcome.PLAINTEXT
    return Outcome.WRONG_KEY

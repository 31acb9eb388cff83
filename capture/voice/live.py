"""What the packet path reads of the live voice connection: keys, the encrypted group, and whose SSRC is whose.

Read anew for every datagram, never copied: keys, sessions and SSRCs are replaced while the call goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import davey

from capture.voice.client import RecordingVoiceClient


class LiveConnection:
    """The voice client as a `capture.voice.tap.Connection`."""

    def __init__(self, client: RecordingVoiceClient) -> None:
        self._client = client
        self._state = client._connection  # noqa: SLF001  # discord.py shows the state to its own voice clients only
        self._keys = self._state.keys
        self._key: tuple[Any, bytes] = (None, b"")

    @property
    def mode(self) -> str:
        """Transport encryption mode."""
        return str(self._state.mode)

    @property
    def key(self) -> bytes:
        """Transport key; empty until Discord sent it."""
        secret = self._state.secret_key
        if secret is not self._key[0]:
            self._key = (secret, bytes(secret or b""))
        return self._key[1]

    @property
    def own_ssrc(self) -> int:
        """The recorder's own SSRC; 0 before it has one."""
        return int(self._state.ssrc or 0)

    @property
    def dave_version(self) -> int:
        """DAVE's protocol version; 0 = off."""
        return self._keys.version

    @property
    def has_keys(self) -> bool:
        """Whether the encrypted group took us in, or there is none."""
        session = self.session
        return not self.dave_version or (session is not None and session.ready)

    @property
    def session(self) -> davey.DaveSession | None:
        """The DAVE session of the present group."""
        return self._keys.session

    @property
    def earlier_session(self) -> davey.DaveSession | None:
        """That of the group before, while its keys live."""
        return self._keys.earlier

    @property
    def keys_changed_ns(self) -> int:
        """When the group's keys changed last, on CLOCK_BOOTTIME."""
        return self._keys.changed_ns

    @property
    def plain_allowed(self) -> bool:
        """Whether a plain frame is what it should be: DAVE is off, or was a moment ago, or will be in a moment."""
        return self._keys.plain_allowed

    def unclaimed(self) -> Iterable[int]:
        """Members of the encrypted group, or of the one before, whose SSRC the gateway has not named."""
        members = {
            int(user) for group in (self.session, self.earlier_session) if group for user in group.get_user_ids()
        }
        named = self._client._id_to_ssrc  # noqa: SLF001  # voice_recv's map, by user
        return sorted(members - named.keys() - {self._state.user.id})

    def user_of(self, ssrc: int) -> int | None:
        """Whose SSRC it is, as the gateway said."""
        user: int | None = self._client._ssrc_to_id.get(ssrc)  # noqa: SLF001  # voice_recv's map, by SSRC
        return user

    def is_video(self, ssrc: int) -> bool:
        """Whether the gateway announced it as video or its retransmission."""
        return ssrc in self._client.video_ssrcs

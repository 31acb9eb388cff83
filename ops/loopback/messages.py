"""Messages, kept in memory with their files, by Discord's rules for them."""

import time
from collections.abc import Mapping
from typing import Any, TypeAlias

from ops.loopback import guild, limits
from ops.loopback.errors import ApiError

DISCORD_EPOCH_MS = 1_420_070_400_000  # snowflakes count milliseconds from 2015
CREATED_AT = "2026-01-01T00:00:00.000000+00:00"
LISTS = ("embeds", "attachments", "mentions", "mention_roles", "components")
KEPT_ON_EDIT = ("content", "embeds", "components", "flags", "attachments")

Message: TypeAlias = dict[str, Any]
Files: TypeAlias = Mapping[str, bytes]


class Messages:
    """
    Every message of every guild.

    Attributes
    ----------
    by_id
        Messages by id, as last edited; deleted ones are gone.
    files
        Contents of attachments by message id and file name.
    edits
        How often each message was edited, by id.
    attachment_bytes
        The largest file that is taken.
    """

    def __init__(self) -> None:
        self.by_id: dict[str, Message] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.edits: dict[str, int] = {}
        self.attachment_bytes = guild.ATTACHMENT_BYTES
        self._last_id = 0

    def new_id(self) -> str:
        """A snowflake of now, which was never used here."""
        self._last_id = max(self._last_id + 1, (time.time_ns() // 1_000_000 - DISCORD_EPOCH_MS) << 22)
        return str(self._last_id)

    def create(self, base: Mapping[str, Any], body: Mapping[str, Any], files: Files | None = None) -> Message:
        """A new message by the bot; raises ApiError if it breaks a rule."""
        message: Message = {
            "id": self.new_id(),
            "type": 0,
            "content": "",
            "author": guild.bot_user(),
            "timestamp": CREATED_AT,
            "edited_timestamp": None,
            "tts": False,
            "mention_everyone": False,
            "pinned": False,
            "flags": 0,
            **{name: [] for name in LISTS},
            **base,
            **{name: value for name, value in body.items() if value is not None},
        }
        return self._store(message, files or {})

    def edit(self, message_id: str, body: Mapping[str, Any], files: Files | None = None) -> Message:
        """What is named in `body` is replaced; raises ApiError if there is no such message, or a rule is broken."""
        before = self.find(message_id)
        changes = {name: body[name] for name in KEPT_ON_EDIT if name in body}
        if int(before["flags"]) & limits.IS_V2 and not int(changes.get("flags") or limits.IS_V2) & limits.IS_V2:
            raise ApiError(400, 50035, "Invalid Form Body\nIn flags: a message of components v2 stays one")
        changes["flags"] = int(before["flags"]) | int(changes.get("flags") or 0)
        changes |= {name: [] for name in LISTS if name in changes and changes[name] is None}
        if changes.get("content", "") is None:
            changes["content"] = ""
        stored = self._store({**before, **changes, "edited_timestamp": CREATED_AT}, files or {})
        self.edits[message_id] = self.edits.get(message_id, 0) + 1
        return stored

    def find(self, message_id: str) -> Message:
        """A message; raises ApiError if there is none."""
        if message_id not in self.by_id:
            raise ApiError(404, 10008, "Unknown Message")
        return self.by_id[message_id]

    def delete(self, message_id: str) -> None:
        """Somebody deletes a message; raises ApiError if there is none."""
        self.find(message_id)
        self.by_id.pop(message_id)
        self.files.pop(message_id, None)

    def in_channel(self, channel_id: int) -> list[Message]:
        """The messages of a channel that everybody sees, oldest first."""
        public = (each for each in self.by_id.values() if not int(each["flags"]) & limits.EPHEMERAL)
        return [each for each in public if each["channel_id"] == str(channel_id)]

    def _store(self, message: Message, files: Files) -> Message:
        names = [*(each["filename"] for each in message["attachments"] if "filename" in each), *files]
        if any(len(content) > self.attachment_bytes for content in files.values()):
            raise ApiError(413, 40005, "Request entity too large")
        limits.check_message(message, attachments=names)
        message["attachments"] = [self._attachment(each) for each in dict.fromkeys(names)]
        self.by_id[message["id"]] = message
        if files:
            self.files.setdefault(message["id"], {}).update(files)
        return message

    def _attachment(self, name: str) -> dict[str, Any]:
        url = f"https://cdn.discordapp.com/attachments/{name}"
        return {"id": self.new_id(), "filename": name, "size": 1, "url": url, "proxy_url": url}

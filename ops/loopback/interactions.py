"""Interactions: what a person did, and what the bot answers, by Discord's rules for both.

The first answer is due in 3 s, once; the token then works for 15 min. Later than that, and twice, are refused with
the codes that Discord uses.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from ops.loopback import guild, limits
from ops.loopback.errors import ApiError
from ops.loopback.messages import Files, Message, Messages
from ops.loopback.plan import Person
from ops.loopback.room import Room

ACKNOWLEDGE_S: Final = 3.0
TOKEN_S: Final = 15 * 60.0
COMMAND, COMPONENT, AUTOCOMPLETE, MODAL_SUBMIT = 2, 3, 4, 5  # kinds of interaction
MESSAGE, DEFERRED, DEFERRED_UPDATE, UPDATE, CHOICES, MODAL = 4, 5, 6, 7, 8, 9  # kinds of callback
ALLOWED: Final = {
    COMMAND: {MESSAGE, DEFERRED, MODAL},
    COMPONENT: {MESSAGE, DEFERRED, DEFERRED_UPDATE, UPDATE, MODAL},
    AUTOCOMPLETE: {CHOICES},
    MODAL_SUBMIT: {MESSAGE, DEFERRED, DEFERRED_UPDATE, UPDATE},
}
WAIT_S: Final = 15.0  # of a test for the bot; a slow machine is not a failure


class Interaction:
    """
    One use of a command, button, autocompletion or modal.

    Attributes
    ----------
    about
        The INTERACTION_CREATE payload.
    answered_s
        How long the bot took for its first answer; None before.
    messages
        Ids of the messages that answer it, the original first; None for an original that is only promised.
    modal, choices
        What the bot opened or offered.
    """

    def __init__(self, about: dict[str, Any], *, source: Message | None, now_s: float) -> None:
        self.about = about
        self.source = source
        self.made_s = now_s
        self.answered_s: float | None = None
        self.callback: dict[str, Any] = {}
        self.messages: list[str | None] = []
        self.promised_flags = 0
        self.modal: dict[str, Any] | None = None
        self.choices: list[dict[str, Any]] | None = None
        self._changed = asyncio.Event()

    @property
    def id(self) -> str:
        """Its snowflake."""
        return str(self.about["id"])

    @property
    def token(self) -> str:
        """What answers it."""
        return str(self.about["token"])

    def notify(self) -> None:
        """Something about it changed."""
        self._changed.set()

    async def wait(self, condition: Callable[[], bool], *, timeout_s: float = WAIT_S) -> None:
        """Wait until `condition` holds, which is asked whenever the bot does something; raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class Interactions:
    """Every interaction, by id; `skew_s` makes the clock go ahead, so that nobody waits for a quarter of an hour."""

    def __init__(self, messages: Messages) -> None:
        self.by_id: dict[str, Interaction] = {}
        self.skew_s = 0.0
        self._by_token: dict[str, Interaction] = {}
        self._messages = messages

    def open(
        self,
        room: Room,
        person: Person,
        *,
        kind: int,
        data: Mapping[str, Any],
        locale: str = "en-US",
        channel_id: int | None = None,
        source: Message | None = None,
    ) -> Interaction:
        """A person does something; what to dispatch is the result's `about`."""
        about = guild.interaction(
            room,
            person,
            interaction_id=self._messages.new_id(),
            kind=kind,
            data=data,
            locale=locale,
            channel_id=channel_id,
            message=source,
        )
        made = Interaction(about, source=source, now_s=self._now_s())
        self.by_id[made.id] = self._by_token[made.token] = made
        return made

    def answer(self, interaction_id: str, token: str, body: Mapping[str, Any], files: Files) -> dict[str, Any]:
        """The bot's first answer; what the route returns. Raises ApiError if it comes late, twice, or is no answer."""
        made = self.by_id.get(interaction_id)
        if made is None or made.token != token or self._now_s() - made.made_s > ACKNOWLEDGE_S:
            raise ApiError(404, 10062, "Unknown interaction")
        if made.answered_s is not None:
            raise ApiError(400, 40060, "Interaction has already been acknowledged.")
        kind = int(body["type"])
        if kind not in ALLOWED[made.about["type"]]:
            raise ApiError(400, 50035, f"Invalid Form Body\nIn type: {kind} does not answer this interaction")
        data = body.get("data") or {}
        message = self._perform(made, kind, data, files)
        made.answered_s, made.callback = self._now_s() - made.made_s, dict(body)
        made.notify()
        about = {"id": interaction_id, "type": made.about["type"]}
        if message is None:
            return {"interaction": about, "resource": {"type": kind}}
        ephemeral = bool(int(message["flags"]) & limits.EPHEMERAL)
        about |= {"response_message_id": message["id"], "response_message_ephemeral": ephemeral}
        return {"interaction": about, "resource": {"type": kind, "message": message}}

    def _perform(self, made: Interaction, kind: int, data: Mapping[str, Any], files: Files) -> Message | None:
        if kind == MESSAGE:
            return self._say(made, data, files)
        if kind == UPDATE:
            return self._update(made, data, files)
        if kind == DEFERRED:
            made.messages.append(None)
            made.promised_flags = int(data.get("flags") or 0)
        elif kind == DEFERRED_UPDATE:
            made.messages.append(made.source["id"] if made.source else None)
        elif kind == CHOICES:
            limits.check_choices(data.get("choices") or [])
            made.choices = list(data.get("choices") or [])
        elif kind == MODAL:
            limits.check_modal(data)
            made.modal = dict(data)
        return None

    def _update(self, made: Interaction, data: Mapping[str, Any], files: Files) -> Message:
        if made.source is None:
            raise ApiError(400, 50035, "Invalid Form Body\nIn type: there is no message to update")
        made.messages.append(made.source["id"])
        return self._messages.edit(made.source["id"], data, files)

    def _say(self, made: Interaction, body: Mapping[str, Any], files: Files) -> Message:
        about = {"id": made.id, "type": made.about["type"], "user": made.about["member"]["user"]}
        base = {"channel_id": made.about["channel_id"], "webhook_id": str(guild.APPLICATION_ID)}
        message = self._messages.create({**base, "interaction_metadata": about}, body, files)
        made.messages.append(message["id"])
        made.notify()
        return message

    # --- by the token, after the first answer

    def by_token(self, token: str) -> Interaction:
        """The interaction whose token it is; raises ApiError once it expired."""
        made = self._by_token.get(token)
        if made is None or self._now_s() - made.made_s > TOKEN_S:
            raise ApiError(401, 50027, "Invalid Webhook Token")
        if made.answered_s is None:
            raise ApiError(404, 10015, "Unknown Webhook")
        return made

    def follow_up(self, token: str, body: Mapping[str, Any], files: Files) -> Message:
        """A further message; after a deferred answer, the first one is that answer."""
        made = self.by_token(token)
        if made.messages and made.messages[0] is None:
            return self.edit(token, "@original", body, files)
        return self._say(made, body, files)

    def get(self, token: str, message_id: str) -> Message:
        """A message that answers it."""
        return self._messages.find(self._resolve(self.by_token(token), message_id))

    def edit(self, token: str, message_id: str, body: Mapping[str, Any], files: Files) -> Message:
        """Edit a message that answers it; a promised one is written now."""
        made = self.by_token(token)
        if message_id == "@original" and made.messages and made.messages[0] is None:
            promised = made.promised_flags & limits.EPHEMERAL
            written = self._say(made, {**body, "flags": int(body.get("flags") or 0) | promised}, files)
            made.messages[0] = made.messages.pop()
            return written
        edited = self._messages.edit(self._resolve(made, message_id), body, files)
        made.notify()
        return edited

    def delete(self, token: str, message_id: str) -> None:
        """Delete a message that answers it."""
        self._messages.delete(self._resolve(self.by_token(token), message_id))

    @staticmethod
    def _resolve(made: Interaction, message_id: str) -> str:
        if message_id != "@original":
            return message_id
        if not made.messages or made.messages[0] is None:
            raise ApiError(404, 10008, "Unknown Message")
        return made.messages[0]

    def _now_s(self) -> float:
        return time.monotonic() + self.skew_s

"""A person at Discord's client: types commands, presses buttons, fills in modals, and sees what others see.

    ada = server.person(ADA)
    used = await ada.types("/record start", name="Evening")
    await used.reads("Recording")
    pressed = await ada.presses(panel, "Stop")

It offers what Discord's client would offer: only commands that the bot synced and the person may use, only buttons
that are in the message, names in the person's language.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ops.loopback import guild, limits
from ops.loopback.errors import ClientError
from ops.loopback.interactions import AUTOCOMPLETE, COMMAND, COMPONENT, MODAL_SUBMIT, WAIT_S, Interaction
from ops.loopback.members import person_member
from ops.loopback.messages import Message
from ops.loopback.plan import Person
from ops.loopback.rest import Rest
from ops.loopback.room import Room

USER, CHANNEL, ROLE = 6, 7, 8  # types of options that are resolved
STRING = 3
MESSAGE_COMMAND = 3
ROLE_SELECT = 6  # a component


class Surroundings(Protocol):
    """What a person's client needs from the server."""

    rest: Rest

    def dispatch(self, event: str, data: dict[str, Any]) -> None:
        """Tell the bot an event of the main gateway."""


class Use:
    """What a person did, and what came of it."""

    def __init__(self, made: Interaction, rest: Rest) -> None:
        self.made = made
        self._rest = rest

    @property
    def answers(self) -> list[Message]:
        """The messages that answer it and still exist, the original first."""
        by_id = self._rest.messages.by_id
        return [by_id[each] for each in self.made.messages if each is not None and each in by_id]

    @property
    def text(self) -> str:
        """All text of the answers."""
        return "\n".join(text_of(message) for message in self.answers)

    async def acknowledged(self, *, timeout_s: float = WAIT_S) -> float:
        """Wait for the bot's first answer; the seconds it took. Raises TimeoutError."""
        await self.made.wait(lambda: self.made.answered_s is not None, timeout_s=timeout_s)
        return self.made.answered_s or 0.0

    async def reads(self, wanted: str = "", *, timeout_s: float = WAIT_S) -> str:
        """Wait until the answers hold `wanted` (and anything at all); their text. Raises ClientError with it."""
        try:
            await self.made.wait(lambda: bool(self.answers) and wanted in self.text, timeout_s=timeout_s)
        except TimeoutError as error:
            raise ClientError(f"{wanted!r} was not said, but: {self.text!r}") from error
        return self.text

    async def opens(self, *, timeout_s: float = WAIT_S) -> dict[str, Any]:
        """Wait for the modal. Raises TimeoutError."""
        await self.made.wait(lambda: self.made.modal is not None, timeout_s=timeout_s)
        return self.made.modal or {}

    @property
    def ephemeral(self) -> bool:
        """Whether only the person sees the answers."""
        return all(int(message["flags"]) & limits.EPHEMERAL for message in self.answers)


class Client:
    """One person's client, in one room's guild."""

    def __init__(self, room: Room, person: Person, around: Surroundings, *, locale: str = "en-US") -> None:
        self.person = person
        self.locale = locale
        self._room = room
        self._around = around
        self._rest = around.rest

    # --- what the person does

    async def types(self, command: str, *, channel_id: int | None = None, **options: Any) -> Use:
        """Use a slash command; raises ClientError if there is none, or an option is not one of its."""
        data = self._command(command, options)
        return self._act(COMMAND, data, channel_id=channel_id)

    async def completes(self, command: str, option: str, typed: str, **others: Any) -> list[dict[str, Any]]:
        """What the client offers while the person types an option."""
        data = self._command(command, {**others, option: typed}, focused=option)
        use = self._act(AUTOCOMPLETE, data)
        await use.made.wait(lambda: use.made.choices is not None)
        return use.made.choices or []

    async def presses(self, message: Message, label: str) -> Use:
        """Press a button by what stands on it; raises ClientError if there is none such."""
        current = self._rest.messages.find(message["id"])
        button = next((each for each in buttons_of(current) if each.get("label") == label), None)
        if button is None or button.get("disabled") or "custom_id" not in button:
            raise ClientError(
                f"no button {label!r} to press; there are {[b.get('label') for b in buttons_of(current)]}"
            )
        return self._act(COMPONENT, {"component_type": limits.BUTTON, "custom_id": button["custom_id"]}, source=current)

    async def picks(self, message: Message, custom_id: str, values: Sequence[str]) -> Use:
        """Choose from a select."""
        current = self._rest.messages.find(message["id"])
        select = next((each for each in limits.walk(current["components"]) if each.get("custom_id") == custom_id), None)
        if select is None:
            raise ClientError(f"no select {custom_id!r}")
        data = {"component_type": select["type"], "custom_id": custom_id, "values": list(values)}
        if select["type"] == ROLE_SELECT:
            data["resolved"] = {"roles": {value: self._role(value) for value in values}}
        return self._act(COMPONENT, data, source=current)

    async def fills(self, use: Use, **fields: Any) -> Use:
        """Fill in the modal that `use` opened, by the fields' custom ids, and send it."""
        modal = await use.opens()
        filled = [_fill(each, fields) for each in modal["components"]]
        data = {"custom_id": modal["custom_id"], "components": [each for each in filled if each]}
        if fields:
            raise ClientError(f"the modal has no {', '.join(fields)}")
        return self._act(MODAL_SUBMIT, data, source=use.made.source)

    async def uses(self, command: str, message: Message) -> Use:
        """Use a command from a message's menu."""
        found = self._find(command, kind=MESSAGE_COMMAND)
        data = {
            "id": found["id"],
            "name": found["name"],
            "type": MESSAGE_COMMAND,
            "target_id": message["id"],
            "resolved": {"messages": {message["id"]: message}},
        }
        return self._act(COMMAND, data, channel_id=int(message["channel_id"]))

    def _act(
        self, kind: int, data: Mapping[str, Any], *, channel_id: int | None = None, source: Message | None = None
    ) -> Use:
        if channel_id is None and source is not None:
            channel_id = int(source["channel_id"])
        made = self._rest.interactions.open(
            self._room, self.person, kind=kind, data=data, locale=self.locale, channel_id=channel_id, source=source
        )
        self._around.dispatch("INTERACTION_CREATE", made.about)
        return Use(made, self._rest)

    # --- what the client offers

    def _command(self, command: str, options: Mapping[str, Any], *, focused: str = "") -> dict[str, Any]:
        root_name, *path = command.removeprefix("/").split()
        root = self._find(root_name, kind=limits.CHAT_INPUT)
        if not self._may_use(root):
            raise ClientError(f"{self.person.name} is not offered /{root_name}")
        leaf, inner = root, []
        for name in path:
            leaf = self._pick(leaf.get("options") or [], name)
            inner.append(leaf)
        filled, resolved = self._fill_options(leaf.get("options") or [], dict(options), focused)
        for level in reversed(inner):
            filled = [{"name": level["name"], "type": level["type"], "options": filled}]
        data = {"id": root["id"], "name": root["name"], "type": limits.CHAT_INPUT, "options": filled}
        data |= {"guild_id": root["guild_id"]} if "guild_id" in root else {}
        return {**data, **({"resolved": resolved} if resolved else {})}

    def _fill_options(
        self, known: Sequence[Mapping[str, Any]], given: dict[str, Any], focused: str
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        filled: list[dict[str, Any]] = []
        resolved: dict[str, Any] = {}
        for name, value in given.items():
            option = self._pick(known, name)
            sent = self._choose(option, value)
            one = {"name": option["name"], "type": option["type"], "value": sent}
            filled.append({**one, "focused": True} if name == focused else one)
            self._resolve(option["type"], str(sent), resolved)
        missing = [
            option["name"]
            for option in known
            if option.get("required") and option["name"] not in {each["name"] for each in filled}
        ]
        if missing and not focused:
            raise ClientError(f"the client asks for {', '.join(missing)} first")
        return filled, resolved

    def _choose(self, option: Mapping[str, Any], value: Any) -> Any:
        """A choice by what the person sees, or the value itself."""
        for choice in option.get("choices") or []:
            seen = (choice.get("name_localizations") or {}).get(self.locale, choice["name"])
            if value in {seen, choice["value"]}:
                return choice["value"]
        if option.get("choices"):
            raise ClientError(f"{value!r} is not one of the choices of {option['name']}")
        return str(value) if option["type"] in {STRING, USER, CHANNEL, ROLE} else value

    def _resolve(self, kind: int, value: str, resolved: dict[str, Any]) -> None:
        if kind == CHANNEL:
            found = next(each for each in guild.channels(self._room) if each["id"] == value)
            resolved.setdefault("channels", {})[value] = found | {"permissions": "0"}
        elif kind == USER:
            who = next(each for each in self._room.spec.plan.people if str(each.user_id) == value)
            about = person_member(who, self._room.roles.of_person(who.user_id))
            resolved.setdefault("users", {})[value] = about["user"]
            inside = {name: field for name, field in about.items() if name != "user"}
            resolved.setdefault("members", {})[value] = inside | {"permissions": "0"}
        elif kind == ROLE:
            resolved.setdefault("roles", {})[value] = self._role(value)

    def _role(self, role_id: str) -> dict[str, Any]:
        return next(each for each in self._room.roles.objects() if each["id"] == role_id)

    def _find(self, name: str, *, kind: int) -> dict[str, Any]:
        commands = self._rest.commands
        every = [*commands.get(None, []), *commands.get(str(self._room.spec.guild_id), [])]
        return self._pick([each for each in every if each.get("type", 1) == kind], name)

    def _pick(self, named: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
        """By the name in the person's language, or the one that is everybody's."""
        for each in named:
            if name in {each["name"], (each.get("name_localizations") or {}).get(self.locale)}:
                return dict(each)
        raise ClientError(f"there is no {name!r}; there are {[each['name'] for each in named]}")

    def _may_use(self, command: Mapping[str, Any]) -> bool:
        wanted = command.get("default_member_permissions")
        return not wanted or bool(self._room.roles.person_may(self.person.user_id) & int(wanted))

    # --- what the person sees

    def sees(self, channel_id: int | None = None) -> list[Message]:
        """The public messages of a channel, the text channel if none is given."""
        where = channel_id or int(guild.channels(self._room)[-1]["id"])
        return self._rest.messages.in_channel(where)


def text_of(message: Mapping[str, Any]) -> str:
    """Everything that can be read in a message."""
    parts = [message.get("content") or ""]
    parts += [embed.get("description") or "" for embed in message.get("embeds") or []]
    parts += [each["content"] for each in limits.walk(message.get("components") or []) if each.get("content")]
    return "\n".join(part for part in parts if part)


def buttons_of(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The buttons of a message."""
    return [each for each in limits.walk(message.get("components") or []) if each["type"] == limits.BUTTON]


def _fill(component: Mapping[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """A modal's component as it is sent: nothing of plain text, the others with what the person put in."""
    if component["type"] == limits.LABEL:
        return {"type": limits.LABEL, "id": 0, "component": _fill(component["component"], fields)}
    if component["type"] == limits.ROW:
        return {"type": limits.ROW, "id": 0, "components": [_fill(each, fields) for each in component["components"]]}
    if "custom_id" not in component:
        return {}
    value = fields.pop(component["custom_id"], component.get("value", ""))
    sent = {"type": component["type"], "id": 0, "custom_id": component["custom_id"]}
    if component["type"] == limits.TEXT_INPUT:
        least, most = component.get("min_length") or 0, component.get("max_length") or 4000
        if not least <= len(value) <= most or (component.get("required", True) and not value):
            raise ClientError(f"the client wants {least} to {most} characters in {component['custom_id']}")
        return {**sent, "value": value}
    return {**sent, "values": list(value)} if isinstance(value, (list, tuple)) else {**sent, "value": value}

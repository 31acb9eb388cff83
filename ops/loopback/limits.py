"""Discord's own rules for messages, modals and commands; who breaks one gets 400 with the path of the fault.

Sources: Discord's API reference, Components (limits of each component), Application Commands (naming, options,
choices), Message (2000 characters; a message of components v2 carries neither content nor embeds).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ops.loopback.errors import ApiError

MESSAGE_CHARACTERS = 2_000
COMPONENTS_CHARACTERS = 4_000  # of all text in a message of components v2
COMPONENTS = 40  # nested ones counted
CUSTOM_ID_CHARACTERS = 100
LABEL_CHARACTERS = 80
URL_CHARACTERS = 512
ROW_BUTTONS = 5
CHOICES = 25
OPTION_CHARACTERS = 100
TITLE_CHARACTERS = 45  # of a modal
MODAL_COMPONENTS = 5
DESCRIPTION_CHARACTERS = 100
VOICE_STATUS_CHARACTERS = 500
COMMAND_CHARACTERS = 8_000  # of names, descriptions and values of one command, in any one language
IS_V2 = 1 << 15
EPHEMERAL = 1 << 6
CHAT_NAME = re.compile(r"[-_'\w]{1,32}")
CHAT_INPUT, SUBCOMMAND, GROUP = 1, 1, 2
ROW, BUTTON, SELECT, TEXT_INPUT, TEXT, LABEL = 1, 2, 3, 4, 10, 18
SELECTS = {3, 5, 6, 7, 8}
LINK_STYLE = 5


def check_message(message: Mapping[str, Any], *, attachments: Sequence[str] = ()) -> None:
    """A message as it would be stored; `attachments` are the names of its files."""
    components = message.get("components") or []
    is_v2 = bool(int(message.get("flags") or 0) & IS_V2)
    if len(message.get("content") or "") > MESSAGE_CHARACTERS:
        _refuse("content", f"Must be {MESSAGE_CHARACTERS} or fewer in length.")
    if is_v2 and (message.get("content") or message.get("embeds")):
        _refuse("flags", "MESSAGE_CANNOT_USE_LEGACY_FIELDS_WITH_COMPONENTS_V2")
    if not (components or attachments or message.get("content") or message.get("embeds")):
        raise ApiError(400, 50006, "Cannot send an empty message")
    if not is_v2 and any(each["type"] != ROW for each in components):
        _refuse("components", 'Value of field "type" must be one of (1,).')
    check_components(components)


def check_components(components: Sequence[Mapping[str, Any]]) -> None:
    """The components of a message."""
    every = list(walk(components))
    if len(every) > COMPONENTS:
        _refuse("components", f"COMPONENT_MAX_TOTAL_COMPONENTS_EXCEEDED: {len(every)} of {COMPONENTS}")
    if sum(len(each.get("content") or "") for each in every) > COMPONENTS_CHARACTERS:
        _refuse("components", f"COMPONENT_DISPLAYABLE_TEXT_SIZE_EXCEEDED: more than {COMPONENTS_CHARACTERS}")
    ids = [each["custom_id"] for each in every if each.get("custom_id") is not None]
    if len(ids) != len(set(ids)):
        _refuse("components", "COMPONENT_CUSTOM_ID_DUPLICATED")
    for each in every:
        _check_component(each)


def _check_component(each: Mapping[str, Any]) -> None:
    kind = each["type"]
    if kind in SELECTS | {TEXT_INPUT} or (kind == BUTTON and each.get("style") != LINK_STYLE):
        _length("custom_id", each.get("custom_id") or "", 1, CUSTOM_ID_CHARACTERS)
    if kind == ROW:
        inside = each.get("components") or []
        if not 1 <= len(inside) <= ROW_BUTTONS or (len(inside) > 1 and any(one["type"] != BUTTON for one in inside)):
            _refuse("components", "a row holds 1 to 5 buttons, or one select")
    if kind == BUTTON:
        _length("label", each.get("label") or (each.get("emoji") and "x") or "", 1, LABEL_CHARACTERS)
        if each.get("style") == LINK_STYLE:
            _length("url", each.get("url") or "", 1, URL_CHARACTERS)
    if kind == TEXT:
        _length("content", each.get("content") or "", 1, COMPONENTS_CHARACTERS)
    if kind == SELECT:
        options = each.get("options") or []
        _count("options", options, 1, CHOICES)
        for option in options:
            _length("options.label", option["label"], 1, OPTION_CHARACTERS)
            _length("options.value", option["value"], 1, OPTION_CHARACTERS)


def check_modal(modal: Mapping[str, Any]) -> None:
    """A modal."""
    _length("custom_id", modal.get("custom_id") or "", 1, CUSTOM_ID_CHARACTERS)
    _length("title", modal.get("title") or "", 1, TITLE_CHARACTERS)
    _count("components", modal.get("components") or [], 1, MODAL_COMPONENTS)
    for each in modal["components"]:
        if each["type"] not in {ROW, TEXT, LABEL}:
            _refuse("components", f"no component of type {each['type']} stands in a modal by itself")
        if each["type"] == LABEL:
            _length("label", each.get("label") or "", 1, TITLE_CHARACTERS)
            if each.get("description") is not None:
                _length("description", each["description"], 1, DESCRIPTION_CHARACTERS)
    for each in walk(modal["components"]):
        _check_component(each)


def check_choices(choices: Sequence[Mapping[str, Any]]) -> None:
    """The answer to an autocompletion."""
    _count("choices", choices, 0, CHOICES)
    for choice in choices:
        for name in (choice["name"], *(choice.get("name_localizations") or {}).values()):
            _length("choices.name", name, 1, OPTION_CHARACTERS)
        _length("choices.value", str(choice["value"]), 1, OPTION_CHARACTERS)


def check_command(command: Mapping[str, Any]) -> None:
    """One application command."""
    is_chat = command.get("type", CHAT_INPUT) == CHAT_INPUT
    _check_names(command, is_chat=is_chat)
    if is_chat:
        _check_options(command.get("options") or [])
        size = _characters(command)
        if size > COMMAND_CHARACTERS:
            _refuse("options", f"APPLICATION_COMMAND_TOO_LARGE: {size} of {COMMAND_CHARACTERS}")


def _check_options(options: Sequence[Mapping[str, Any]]) -> None:
    _count("options", options, 0, CHOICES)
    required = [bool(option.get("required")) for option in options]
    if required != sorted(required, reverse=True):
        _refuse("options", "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID: required ones come first")
    for option in options:
        _check_names(option, is_chat=True)
        if option.get("choices") and option.get("autocomplete"):
            _refuse("options", "choices and autocomplete exclude each other")
        check_choices(option.get("choices") or [])
        _check_options(option.get("options") or [])


def _check_names(named: Mapping[str, Any], *, is_chat: bool) -> None:
    for name in (named["name"], *(named.get("name_localizations") or {}).values()):
        if is_chat and (not CHAT_NAME.fullmatch(name) or name != name.lower()):
            _refuse("name", f"APPLICATION_COMMAND_INVALID_NAME: {name!r}")
        _length("name", name, 1, 32)
    if is_chat:
        for text in (named.get("description") or "", *(named.get("description_localizations") or {}).values()):
            _length("description", text, 1, DESCRIPTION_CHARACTERS)


def _characters(command: Mapping[str, Any]) -> int:
    """The size that counts: of each name, description and value its longest translation."""
    size = 0
    for field in ("name", "description"):
        texts = [command.get(field) or "", *(command.get(f"{field}_localizations") or {}).values()]
        size += max(len(text) for text in texts)
    size += sum(len(str(choice["value"])) + len(choice["name"]) for choice in command.get("choices") or [])
    return size + sum(_characters(option) for option in command.get("options") or [])


def walk(components: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Every component, with those inside it."""
    for each in components:
        yield each
        yield from walk(each.get("components") or [])
        for name in ("accessory", "component"):
            if each.get(name):
                yield from walk([each[name]])


def _length(field: str, text: str, least: int, most: int) -> None:
    if not least <= len(text) <= most:
        _refuse(field, f"BASE_TYPE_BAD_LENGTH: {len(text)} characters; {least} to {most} are allowed")


def _count(field: str, items: Sequence[Any], least: int, most: int) -> None:
    if not least <= len(items) <= most:
        _refuse(field, f"BASE_TYPE_BAD_LENGTH: {len(items)}; {least} to {most} are allowed")


def _refuse(field: str, why: str) -> None:
    raise ApiError(400, 50035, f"Invalid Form Body\nIn {field}: {why}")

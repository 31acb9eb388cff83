"""Everything that was ever written stays readable."""

from __future__ import annotations

import importlib
import pkgutil
from io import BytesIO

import msgspec
import pytest

import contracts
from contracts import (
    bundle,
    directory,
    events,
    keys,
    nkeys,
    packets,
    permissions,
    recipes,
    settings,
    streams,
    subjects,
    tokens,
)
from contracts.jetstream.revoked import Revocation
from tests import golden
from tests.golden import BUNDLE_FILE, BUNDLE_HEADER, BUNDLE_MESSAGES, FOLDER, GOLDEN, Golden

IN_THE_BUNDLE = {bundle.BundleHeader, bundle.BundleMessage, bundle.BundleEnd}
NO_WIRE_FORM_OF_THEIR_OWN = {
    packets.Packet,  # inside a batch
    events.TrackCount,  # inside SessionEnded
    directory.Archived,  # inside an entry
    directory.Keeping,  # as above
    settings.Settings,
    streams.StreamDefinition,
    keys.PrivateKey,
    keys.KnownKey,
    tokens.TokenKind,
    nkeys.NkeySeed,
    permissions.Permissions,
    subjects.PacketSubject,
    subjects.FactSubject,
    subjects.RenderSubject,
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_file_decodes_to_what_it_meant(name: str):
    """Bytes written by any version decode to the same value in this one."""
    case = GOLDEN[name]
    assert case.decode((FOLDER / name).read_bytes()) == case.value


def test_the_golden_bundle_reads_to_what_it_meant():
    """A bundle written by any version opens in this one."""
    reader = bundle.BundleReader(BytesIO((FOLDER / BUNDLE_FILE).read_bytes()))
    assert (reader.header, tuple(reader.messages())) == (BUNDLE_HEADER, BUNDLE_MESSAGES)


def test_the_golden_files_show_every_field():
    """No field stands at its default in all values of its kind: else the files would prove nothing about it."""
    hidden: dict[str, bool] = {}
    for case in GOLDEN.values():
        for field in msgspec.structs.fields(case.value):
            name = f"{type(case.value).__qualname__}.{field.name}"
            value = getattr(case.value, field.name)
            at_default = field.default is not msgspec.NODEFAULT and value == field.default
            hidden[name] = hidden.get(name, True) and at_default
    assert [name for name, still in hidden.items() if still] == []


def test_every_struct_of_the_wire_has_a_golden_file():
    """A new tag, or a new struct, comes with its golden file: see tests/golden.py."""
    covered = {type(case.value) for case in GOLDEN.values()} | IN_THE_BUNDLE | NO_WIRE_FORM_OF_THEIR_OWN
    nested = {type(live) for live in GOLDEN["status.json"].value.sessions}
    missing = {kind.__qualname__ for kind in _structs() - covered - nested if kind.__subclasses__() == []}
    assert not missing, f"no golden file in tests/data/golden for {sorted(missing)}"


def test_every_tag_is_the_name_of_its_golden_file():
    """`<tag>.json` holds the tag."""
    for kind in _structs():
        tag = kind.__struct_config__.tag
        if isinstance(tag, str) and not kind.__subclasses__():
            assert type(GOLDEN[f"{tag}.json"].value) is kind


def test_every_golden_file_is_in_the_table():
    """No file stands there unread."""
    files = {path.name for path in FOLDER.iterdir()} - {"README.md"}
    assert files == {*GOLDEN, BUNDLE_FILE}


@pytest.mark.parametrize("name", GOLDEN)
def test_what_is_written_today_reads_back(name: str):
    """Encode and decode are inverses."""
    case: Golden = GOLDEN[name]
    assert case.decode(case.encode(case.value)) == case.value


def test_a_recipe_keeps_its_name_for_ever():
    """The name of a render of an old recipe is what it always was."""
    assert recipes.render_name(golden.RECIPE, log_end=4321, engine="1") == "e33248072a5ec630"
    assert [recipes.render_name(recipe, log_end=1, engine="1") for recipe in recipes.DEFAULT_RECIPES] == [
        "3efb666b77dce37f",
        "9ce0196549f07b48",
        "7c6d4d1ac20caf5c",
        "cffa842be8a69163",
        "158cea488bf37737",
    ]


def test_an_entry_is_made_of_facts():
    """The golden facts fold into a directory entry."""
    entry = directory.fold_entry(None, GOLDEN["session_started.1.json"].value)
    entry = directory.fold_entry(entry, GOLDEN["session_ended.1.json"].value)
    assert entry is not None
    assert (entry.recorded, entry.undecryptable, entry.lost) == (195, 2, 4)


def _structs() -> set[type[msgspec.Struct]]:
    """Every struct that a module directly below `contracts` defines, and what a bucket holds."""
    found: set[type[msgspec.Struct]] = {Revocation}
    for module in pkgutil.iter_modules(contracts.__path__, "contracts."):
        if not module.ispkg:
            names = vars(importlib.import_module(module.name)).values()
            found |= {
                kind
                for kind in names
                if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__module__ == module.name
            }
    return found

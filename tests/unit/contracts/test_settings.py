"""Settings are typed, and every problem is told at once."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import SettingsError
from contracts.settings import PREFIX, Settings, describe, load_settings, variable

README = Path(__file__).parents[3] / "README.md"
TOKEN, PASSWORD = "a-secret-token", "a-secret-password"
FIELDS = [field.name for field in msgspec.structs.fields(Settings)]


def problems(environ: dict[str, str], **options: tuple[str, ...]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ, **options)
    assert str(caught.value).splitlines() == caught.value.problems
    return caught.value.problems


def test_every_problem_is_told_at_once_by_name():
    """Wrong, unknown and missing ones together, each with what it needs."""
    environ = {
        "RETOLD_GATEWAY_PORT": "99999",
        "RETOLD_LINK_HOURS": "soon",
        "RETOLD_NATS_URL": "127.0.0.1:4222",
        "RETOLD_AUTO_RENDER": "perhaps",
        "RETOLD_LOG_LEVEL": "loud",
        "RETOLD_GATWAY_PORT": "80",
        "PATH": "/bin",
    }
    found = problems(environ, required=("discord_token",))
    assert {line.split(":")[0] for line in found} == {*environ, "RETOLD_DISCORD_TOKEN"} - {"PATH"}
    assert "RETOLD_GATEWAY_PORT: Expected `int` <= 65535" in found
    assert "RETOLD_GATWAY_PORT: no such setting" in found
    assert "RETOLD_DISCORD_TOKEN: required, and not set" in found


def test_an_empty_environment_is_all_defaults():
    """No variable is needed unless a service says so."""
    assert load_settings({}) == Settings()


def test_links_point_to_the_port_that_is_served():
    """Another port is enough: the address of links follows it, unless it is set."""
    assert load_settings({"RETOLD_GATEWAY_PORT": "9000"}).public_url == "http://127.0.0.1:9000"
    assert load_settings({"RETOLD_GATEWAY_PORT": "0"}).public_url == "http://127.0.0.1:8080"
    both = {"RETOLD_GATEWAY_PORT": "9000", "RETOLD_PUBLIC_URL": "https://recordings.example.org"}
    assert load_settings(both).public_url == "https://recordings.example.org"


@pytest.mark.parametrize("name", FIELDS)
def test_an_empty_variable_is_absent(name: str):
    """`RETOLD_X=` in a file of settings means the default, and is missing where it is required."""
    assert load_settings({variable(name): ""}) == Settings()
    assert problems({variable(name): ""}, required=(name,)) == [f"{variable(name)}: required, and not set"]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("discord_token", "123", "123"),
        ("data", "/srv/x", Path("/srv/x")),
        ("gateway_port", "0", 0),
        ("link_hours", "0.5", 0.5),
        ("auto_render", "False", False),
        ("auto_render", "1", True),
        ("mixer_jobs", "64", 64),
        ("nats_url", "tls://user:pw@host:4222", "tls://user:pw@host:4222"),
        ("log_level", "debug", "debug"),
    ],
)
def test_text_becomes_its_type(name: str, text: str, value: object):
    """Each setting is what its type says."""
    assert getattr(load_settings({variable(name): text}), name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gateway_port", "-1"),
        ("gateway_port", "eighty"),
        ("gateway_port", "80.5"),
        ("link_hours", "0"),
        ("link_hours", "745"),
        ("link_hours", "nan"),
        ("link_hours", "inf"),
        ("mixer_jobs", "0"),
        ("auto_render", "2"),
        ("public_url", "retold.example"),
        ("public_url", "http://a b"),
        ("public_url", "http://a\n"),
        ("nats_url", "nats://a\n"),
        ("discord_gateway_url", "http://x"),
        ("discord_api_url", "https://a\n"),
        ("log_level", "INFO"),
        ("log_level", "info\n"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, text: str):
    """One problem, and it starts with the variable."""
    (problem,) = problems({variable(name): text})
    assert problem.startswith(f"{variable(name)}: ")


@given(st.dictionaries(st.sampled_from(FIELDS), st.text(st.characters(exclude_categories=["Cs"]), max_size=20)))
def test_any_text_is_a_setting_or_a_problem(values: dict[str, str]):
    """Nothing but SettingsError comes out, with one line per variable."""
    environ = {variable(name): text for name, text in values.items()}
    try:
        load_settings(environ)
    except SettingsError as error:
        named = {problem.split(":")[0] for problem in error.problems}
    else:
        named = set()
    assert named <= set(environ)


def test_no_secret_is_shown():
    """Neither by repr and str, nor by rich, nor in a problem."""
    environ = {"RETOLD_DISCORD_TOKEN": TOKEN, "RETOLD_NATS_URL": f"nats://me:{PASSWORD}@host:4222"}
    settings = load_settings(environ)
    wrong = problems({**environ, "RETOLD_NATS_URL": f"me:{PASSWORD}@host", "RETOLD_FOO": PASSWORD})
    for shown in (repr(settings), str(settings), f"{settings}", str(settings.__rich_repr__()), str(wrong)):
        assert TOKEN not in shown
        assert PASSWORD not in shown


def test_every_setting_has_help():
    """A sentence, and a variable that follows from the field's name."""
    rows = describe()
    assert [row[0] for row in rows] == [PREFIX + name.upper() for name in FIELDS]
    assert all(text.endswith(".") for _, _, text in rows)


def test_the_readme_shows_the_settings_as_they_are():
    """The README's table holds every setting, in order, with its default and its help, and no other."""
    text = README.read_text(encoding="utf-8")
    header = re.escape("| Variable | Default | What it does |")
    match = re.search(rf"^{header}\n\|[-| :]+\|\n((?:\|.*\|\n)+)", text, flags=re.MULTILINE)
    assert match, "the README has no table of settings"
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in match[1].splitlines()]
    assert [(name.strip("`"), default.strip("`"), help_text) for name, default, help_text in rows] == describe()

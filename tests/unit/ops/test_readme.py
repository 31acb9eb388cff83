"""The README is true: every command in it parses, every make target exists, every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ops.cli.main import COMMANDS as MODULES
from ops.cli.main import parser

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].strip().removeprefix(".venv/bin/")
    for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    for line in map(str.strip, block.splitlines())
]
RETOLD = [command for command in COMMANDS if command.startswith("retold ")]
MAKE = sorted(
    {command.split()[1] for command in COMMANDS if command.startswith("make ")}
    | set(re.findall(r"`make (\w+)", README))
)


@pytest.mark.parametrize("command", RETOLD)
def test_every_command_of_the_readme_parses(command: str) -> None:
    """What the README tells people to type is understood as it stands."""
    parsed = parser().parse_args(shlex.split(command)[1:])
    assert callable(parsed.run)


@pytest.mark.parametrize("target", MAKE)
def test_every_make_target_of_the_readme_exists(target: str) -> None:
    """The README names no target that the Makefile lacks."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_the_table_of_commands_is_complete() -> None:
    """Every command that exists stands in the README's table, and every one of the table exists."""
    table = README.partition("| command | what it does |")[2].partition("\n\n")[0]
    told = {
        name
        for cell in re.findall(r"^\| (.*?) \|", table, flags=re.MULTILINE)
        for name in re.findall(r"`retold (\w+)", cell)
    }
    assert told == set(_subcommands())


@pytest.mark.parametrize(("module", "commands"), MODULES.items())
def test_a_command_loads_the_module_that_adds_it(module: str, commands: tuple[str, ...]) -> None:
    """And no other command is added with it than those that the table of modules says."""
    assert all(_subcommands(command) == list(commands) for command in commands), module


def _subcommands(command: str = "") -> list[str]:
    actions = [action for action in parser(command)._actions if action.choices]
    return list(actions[0].choices or ())


def test_every_link_of_the_readme_leads_to_a_file() -> None:
    """Relative links and pictures exist in the tree."""
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target

"""What docker-compose.yml and the Dockerfiles say, read without Docker."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parent.parent
COMPOSE: Final = ROOT / "docker-compose.yml"
DOCKERFILES: Final = ROOT / "ops" / "deploy" / "docker"

# The innermost ${NAME}, ${NAME:-default} or ${NAME:?message}
REFERENCE: Final = re.compile(r"\$\{(?P<name>\w+)(?:(?P<operator>:-|:\?)(?P<text>[^${}]*))?\}")
DURATION_S: Final = {"s": 1, "m": 60}


@dataclass
class Image:
    """A Dockerfile: its instructions in order, and what they come to in the last stage."""

    path: Path
    instructions: list[tuple[str, str]]
    environ: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    copies: list[tuple[str, str]] = field(default_factory=list)
    user: str = ""

    def all(self, name: str) -> list[str]:
        """The arguments of every such instruction."""
        return [arguments for instruction, arguments in self.instructions if instruction == name]


def read_compose(environ: Mapping[str, str]) -> dict[str, Any]:
    """The compose file as Compose sees it in this environment; KeyError names a required variable that is not set."""
    return interpolated(yaml.safe_load(COMPOSE.read_text()), environ)


def references() -> list[tuple[str, str]]:
    """(name, operator) of every variable the compose file refers to."""
    text = "\n".join(line.split(" #")[0] for line in COMPOSE.read_text().splitlines() if not line.startswith("#"))
    return re.findall(r"\$\{(\w+)(:-|:\?)?", text)


def read_image(path: Path) -> Image:
    """A Dockerfile."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    image = Image(path, [_split(line) for line in text.splitlines() if line.strip()])
    for name, arguments in image.instructions:
        match name:
            case "COPY" if not arguments.startswith("--from"):
                *sources, target = arguments.split()
                image.copies += [(source, target) for source in sources]
            case "ENV":
                image.environ |= dict(pair.split("=", 1) for pair in shlex.split(arguments))
            case "ENTRYPOINT":
                image.entrypoint = json.loads(arguments)
            case "CMD":
                image.command = json.loads(arguments)
            case "HEALTHCHECK" if arguments != "NONE":
                image.health = json.loads(arguments.removeprefix("CMD"))
            case "USER":
                image.user = arguments
    return image


def mounts(service: Mapping[str, Any]) -> dict[str, str]:
    """Volume by mount point; an empty name for memory."""
    named = [volume.split(":") for volume in service.get("volumes", ())]
    memory = [mount.split(":")[0] for mount in service["tmpfs"]]
    return dict.fromkeys(memory, "") | {parts[1]: parts[0] for parts in named}


def seconds(duration: str) -> float:
    """A duration of Compose, such as `90s`."""
    return float(duration[:-1]) * DURATION_S[duration[-1]]


def _split(line: str) -> tuple[str, str]:
    name, _, arguments = line.strip().partition(" ")
    return name.upper(), arguments.strip()


def interpolated(value: Any, environ: Mapping[str, str]) -> Any:
    """With the variables of this environment in it; KeyError names a required one that is not set."""
    match value:
        case dict():
            return {key: interpolated(item, environ) for key, item in value.items()}
        case list():
            return [interpolated(item, environ) for item in value]
        case str():
            while (found := REFERENCE.search(value)) is not None:
                value = value[: found.start()] + _resolve(found, environ) + value[found.end() :]
            return value
        case _:
            return value


def _resolve(reference: re.Match[str], environ: Mapping[str, str]) -> str:
    name, operator = reference["name"], reference["operator"]
    if text := environ.get(name, ""):
        return text
    if operator == ":?":
        raise KeyError(name)
    return reference["text"] or ""

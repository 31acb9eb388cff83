"""The catalogue: every sentence the bot says, by key and language.

A file per language, `en.toml` and `de.toml`, with the same keys and the same fields in each (tested); whoever adds a
language adds a file. English stands in for every other language.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

DEFAULT: Final = "en"
LANGUAGES: Final = ("en", "de")
KIB: Final = 1024


class Words:
    """The sentences in one language: `words("stop.done", duration="1:02")`."""

    def __init__(self, language: str, sentences: Mapping[str, str]) -> None:
        self.language = language
        self._sentences = sentences

    def __call__(self, key: str, **fields: object) -> str:
        """A sentence with its fields filled in; KeyError if there is none: a test speaks every one."""
        return self._sentences[key].format(**fields)

    def has(self, key: str) -> bool:
        """Whether there is such a sentence."""
        return key in self._sentences

    def list_of(self, names: Iterable[str]) -> str:
        """`Ada, Bela and Chiyo`; the word for nobody if there is none."""
        *most, last = names or [self("word.nobody")]
        return f"{', '.join(most)} {self('word.and')} {last}" if most else last


@cache
def words_in(locale: str) -> Words:
    """The words for one of Discord's locales (`de`, `en-GB`), English if there are none."""
    language = locale.partition("-")[0]
    chosen = language if language in LANGUAGES else DEFAULT
    return Words(chosen, sentences(chosen))


@cache
def sentences(language: str) -> dict[str, str]:
    """Every sentence of a language by `section.name`."""
    text = files("capture.words").joinpath(f"{language}.toml").read_text(encoding="utf-8")
    return dict(_flat("", tomllib.loads(text)))


def _flat(prefix: str, table: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, str):
            yield prefix + name, value.strip()
        else:
            yield from _flat(f"{prefix}{name}.", value)


def clock(seconds: float) -> str:
    """A length or a place on the session clock: `0:07`, `62:03` is `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float) -> str:
    """Bytes for people: `512 B`, `4.2 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < KIB:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= KIB
    return f"{count:.1f} GiB"


def moment(unix_s: float, style: str = "f") -> str:
    """A moment as every reader's client shows it in their own time; style `R` is relative, `f` date and time."""
    return f"<t:{int(unix_s)}:{style}>"

"""Everything the bot says, in every language: the same sentences, and a golden file for people to read."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest
from discord import app_commands

from capture.commands.group import Record
from capture.commands.names import names_in
from capture.words.catalogue import LANGUAGES, clock, sentences, size, words_in

GOLDEN = Path(__file__).parents[2] / "data" / "replies.txt"
CAPTURE = Path(__file__).parents[3] / "capture"
EXAMPLES = {
    "ago": "1m",
    "all": 5000,
    "alone": 60,
    "at": "1:02:03",
    "cause": "voice_ended",
    "channel": "Tavern",
    "code": "12345 67890",
    "consent": "opt-in",
    "count": 3,
    "db": -21,
    "duration": "2:31:07",
    "elapsed": "31:07",
    "expires": "<t:1790000000:R>",
    "date": "<t:1790000000:D>",
    "format": "MP3, one file",
    "grace": "24 h",
    "kept": "What is recorded is deleted after 30 days.",
    "hours": 12,
    "length": "1:00",
    "level": "-21 dB",
    "loss": 0.2,
    "lost": 4,
    "message": "…",
    "minimum": 2,
    "minutes": 5,
    "most": "15m",
    "name": "Ada",
    "names": "tabletop, podcast, raw",
    "packets": 500,
    "page": 2,
    "pages": 3,
    "people": "Ada, Bela",
    "percent": 40,
    "permissions": "Connect",
    "preset": "podcast",
    "reason": "…",
    "recorded": 4990,
    "saved": "31:06",
    "seconds": 10,
    "sessions": 2,
    "settings": "Ada +3 dB",
    "since": "<t:1790000000:R>",
    "size": "4.2 MiB",
    "text": "The dragon wakes",
    "undecryptable": 0,
    "url": "https://…",
    "value": "Tavern",
    "version": 1,
    "when": "<t:1790000000:f>",
    "who": "@Chiyo",
    "why": "you said so",
    "downloads": "managers only",
}


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_every_language_says_the_same():
    """The same keys in each file, with the same fields in each sentence."""
    english, *others = ({key: fields(text) for key, text in sentences(each).items()} for each in LANGUAGES)
    assert all(other == english for other in others)


def test_the_golden_file_is_what_is_said():
    """`tests/data/replies.txt` holds every sentence with examples filled in; write it anew when words change."""
    lines = []
    for key in sorted(sentences("en")):
        lines.append(f"[{key}]")
        lines += [f"{language}: {words_in(language)(key, **EXAMPLES)}" for language in LANGUAGES]
    said = "\n".join(lines) + "\n"
    if not GOLDEN.exists():
        GOLDEN.write_text(said, encoding="utf-8")
    assert GOLDEN.read_text(encoding="utf-8") == said


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_reply_fits_into_a_message(language: str):
    """Each sentence with its examples is well below 2000 characters, with no blank ends and no double blanks."""
    for key in sentences(language):
        text = words_in(language)(key, **EXAMPLES)
        assert 0 < len(text) < 1800, key
        assert text == text.strip(), key
        assert "  " not in text, key


def test_every_sentence_is_used():
    """A key that no code names, nor builds from a prefix, says nothing to anybody."""
    code = "\n".join(path.read_text() for path in CAPTURE.rglob("*.py"))
    sections = {prefix.removesuffix(".") for prefix in re.findall(r'f"([a-z_]+\.)\{', code)} | {"panel", "card"}
    fields_of_forms = {"title", "label", "word"}
    unused = [
        key
        for key in sentences("en")
        if f'"{key}"' not in code
        and f"'{key}'" not in code
        and key.partition(".")[0] not in sections
        and key.partition(".")[2] not in fields_of_forms
    ]
    assert unused == []


def test_every_name_of_a_command_is_translated():
    """Names, descriptions and choices of all commands and options have their German."""
    german = names_in("de")

    def texts(command: app_commands.Command | app_commands.Group) -> list[str]:
        own = [command._locale_name.message, command._locale_description.message]
        if isinstance(command, app_commands.Group):
            return own + [text for each in command.commands for text in texts(each)]
        for option in command._params.values():
            own += [str(option.display_name), str(option.description)]
        return own

    missing = [text for text in texts(Record(None)) if text not in german]
    assert missing == []


def test_languages_of_discord_fall_back_to_english():
    """`de` and `de-AT` are German, everything without a file is English."""
    assert words_in("de").language == "de"
    assert words_in("pt-BR").language == words_in("en-GB").language == words_in("").language == "en"


def test_lengths_and_sizes_are_written_for_people():
    """Whole seconds, hours only when there are any; sizes in steps of 1024."""
    assert [clock(each) for each in (0, 7.9, 61, 3600, 36_061)] == ["0:00", "0:07", "1:01", "1:00:00", "10:01:01"]
    assert [size(each) for each in (0, 1023, 1024, 4.2 * 2**20, 3 * 2**30)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "4.2 MiB",
        "3.0 GiB",
    ]


def test_lists_of_people_read_well():
    """`Ada`, `Ada and Bela`, `Ada, Bela and Chiyo`; somebody's word for nobody."""
    words = words_in("en")
    assert [words.list_of(names) for names in ([], ["Ada"], ["Ada", "Bela"], ["Ada", "Bela", "Chiyo"])] == [
        "nobody",
        "Ada",
        "Ada and Bela",
        "Ada, Bela and Chiyo",
    ]

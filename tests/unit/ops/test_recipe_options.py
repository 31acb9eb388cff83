"""`retold mix`: options add up to a recipe, and what makes no sense is refused by the option's name."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from contracts.clock import NS_PER_SECOND, TICKS_PER_SECOND
from contracts.directory import SessionEntry
from contracts.errors import RetoldError
from contracts.presets import PRESETS, save_preset
from contracts.recipes import Recipe
from ops.cli.main import parser
from ops.cli.recipe_options import build_recipe

ENTRY = SessionEntry(
    session="s",
    guild_id="1",
    guild_name="g",
    channel_id="2",
    channel_name="c",
    started_unix_ns=0,
    duration_ns=600 * NS_PER_SECOND,
    people={"100": "Ada", "200": "Bela"},
)


def recipe(line: str, data: Path = Path("/nowhere")) -> Recipe:
    return build_recipe(parser().parse_args(["mix", "s", *shlex.split(line)]), ENTRY, data)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", Recipe()),
        ("--tracks", Recipe(output="tracks", format="flac")),
        ("--format m4a --bitrate 160", Recipe(format="m4a", bitrate_kbps=160)),
        ("--vbr 2", Recipe(vbr_quality=2)),
        ("--tracks --format wav --bits 24", Recipe(output="tracks", format="wav", bits=24)),
        ("--container zip", Recipe(output="tracks", format="flac", container="zip")),
        ("--container matroska", Recipe(output="tracks", format="opus", container="matroska")),
        ("--container reaper --format wav", Recipe(output="tracks", format="wav", container="reaper")),
        ("--mute ada --gain Bela=-3 --from 1:00 --to 2:00", None),
        ("--last 5:00", Recipe(start_tick=300 * TICKS_PER_SECOND)),
        ("--last 1:00:00 --to now", Recipe()),
        ("--loudness off --no-levelling", Recipe(loudness="off", levelling=False)),
        ("--loudness followed --levelling", Recipe()),
        ("--tracks --loudness exact --levelling", None),
        ("--gate -50 --silence trim --no-chapters", Recipe(gate_db=-50.0, silence="trim", chapters=False)),
        ("--alignment arrival", Recipe(alignment="arrival")),
        ("--preset podcast", PRESETS["podcast"]),
        ("--preset podcast --format flac", Recipe(format="flac", loudness="exact")),
        ("--preset podcast --vbr 1", Recipe(vbr_quality=1, loudness="exact")),
        ("--preset tabletop --silence keep", Recipe(bitrate_kbps=96)),
        ("--preset raw", PRESETS["raw"]),
        ("--preset raw --format wav --bits 24", Recipe(output="tracks", format="wav", container="zip", bits=24)),
        ("--preset raw --container files", Recipe(output="tracks", format="flac")),
    ],
)
def test_options_add_up(line: str, expected: Recipe | None):
    found = recipe(line)
    assert found == found.canonical()
    if expected is not None:
        assert found == expected


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--format flac --bitrate 128", "--bitrate"),
        ("--format opus --vbr 3", "--vbr"),
        ("--vbr 3 --bitrate 128", "--vbr"),
        ("--vbr 12", "--vbr"),
        ("--bitrate 5000", "--bitrate"),
        ("--bits 24", "--bits"),
        ("--container audacity --format mp3", "--container"),
        ("--gate 5", "--gate"),
        ("--gain Ada=99", "--gain"),
        ("--gain Ada", "--gain"),
        ("--gain Ada=loud", "--gain"),
        ("--gain Ada=nan", "--gain"),
        ("--same-room --alignment follow", "--same-room"),
        ("--from 2:00 --to 1:00", "--to"),
        ("--from 2:00 --last 1:00", "--last"),
        ("--mute Zoe", "Zoe"),
        ("--preset nothing", "preset nothing"),
        ("--preset ../../etc", "no name of a preset"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(line: str, words: str):
    with pytest.raises(RetoldError, match=words):
        recipe(line)


def test_a_preset_of_ones_own_is_the_recipe_without_its_range(tmp_path: Path):
    """Kept, found again, changed by options, and listed where another is asked for."""
    kept = recipe("--format m4a --loudness exact --gain Ada=3 --from 1:00 --to 2:00")
    path = save_preset("our-show", kept, tmp_path)
    assert "start_tick" not in json.loads(path.read_text())
    again = recipe("--preset our-show --bitrate 96", tmp_path)
    assert again == Recipe(format="m4a", loudness="exact", gain_db={"100": 3.0}, bitrate_kbps=96)
    with pytest.raises(RetoldError, match="raw, our-show"):
        recipe("--preset other", tmp_path)


def test_a_preset_that_comes_with_retold_is_not_overwritten(tmp_path: Path):
    with pytest.raises(RetoldError, match="take another name"):
        save_preset("podcast", Recipe(), tmp_path)

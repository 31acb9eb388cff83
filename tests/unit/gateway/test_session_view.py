"""What the page says, from the directory's entry and the artifacts alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from contracts.artifacts import Artifact
from contracts.directory import SessionEntry
from contracts.jetstream.objects import StoredArtifact
from contracts.recipes import Recipe
from gateway.pages.render import STATIC, render_error, render_session
from gateway.pages.session import HUES, LIVE_REFRESH_S, RENDER_REFRESH_S, Looking, SessionView, describe_session

SECOND = 1_000_000_000
START = 1_790_000_000 * SECOND
END = START + 90 * SECOND


def entry(**fields: object) -> SessionEntry:
    values = {
        "session": "s",
        "guild_id": "1",
        "guild_name": "G",
        "channel_id": "2",
        "channel_name": "C",
        "started_unix_ns": START,
        "ended_unix_ns": END,
        "duration_ns": 90 * SECOND,
    }
    return SessionEntry(**(values | fields))


def stored(recipe: Recipe, *, user: str | None = None, rendered: int = END, name: str = "") -> StoredArtifact:
    artifact = Artifact(
        name=name or f"{rendered}-{user or 'mix'}.{recipe.format}",
        session="s",
        filename=f"{user or 'mix'}.{recipe.format}",
        recipe=recipe,
        log_end=1,
        engine="e",
        sha256="0" * 64,
        bytes=1,
        duration_ticks=48_000 * 90,
        rendered_unix_ns=rendered,
        user_id=user,
        speaker="Speaker" if user else "",
    )
    return StoredArtifact(artifact, "n", 1_000, 131_072, 1, "0" * 64, 1, ((1, 1),))


def view(entry: SessionEntry, artifacts: Sequence[StoredArtifact] = (), *, now: int = END + SECOND) -> SessionView:
    looking = Looking(base="/s/t.t.t", may=("remix",), expires_unix_s=1_790_086_400, now_unix_ns=now)
    return describe_session(entry, artifacts, looking=looking)


MIX = stored(Recipe())


@pytest.mark.parametrize(
    ("of", "artifacts", "now", "state", "refresh_s"),
    [
        (entry(ended_unix_ns=None, duration_ns=None), (), START + SECOND, "live", LIVE_REFRESH_S),
        (entry(ended_unix_ns=None, duration_ns=None), (MIX,), START + SECOND, "live", 0),
        (entry(), (), END + SECOND, "rendering", RENDER_REFRESH_S),
        (entry(), (), END + 2 * 3600 * SECOND, "empty", 0),
        (entry(), (MIX,), END + SECOND, "ready", 0),
    ],
)
def test_the_state_follows_from_the_end_and_the_files(
    of: SessionEntry, artifacts: tuple[StoredArtifact, ...], now: int, state: str, refresh_s: int
) -> None:
    """And the page never loads itself again while there is something to play."""
    shown = view(of, artifacts, now=now)
    assert (shown.state, shown.refresh_s) == (state, refresh_s)
    assert render_session(shown)


def test_the_default_mix_plays_first_and_the_newest_of_its_kind() -> None:
    """A later re-mix does not take the default's place; an older default does not either."""
    old, new = stored(Recipe(), rendered=END), stored(Recipe(), rendered=END + 1)
    remix = stored(Recipe(mute=("1",)), rendered=END + 2)
    wav = stored(Recipe(format="wav"), rendered=END)
    shown = view(entry(), [remix, old, wav, new])
    assert [file.format for file in shown.mix] == ["MP3", "WAV"]
    assert shown.mix[0].url == f"/s/t.t.t/d/{new.artifact.name}/mix.mp3"
    assert [file.note for file in shown.others] == ["without 1", ""]


def test_the_report_is_a_download_and_neither_a_mix_nor_a_waveform() -> None:
    """The newest one, beside what was received."""
    report = Recipe(output="report", format="json")
    old, new = stored(report, name="0-old.json", rendered=END), stored(report, name="1-new.json", rendered=END + 1)
    seen = view(entry(), [old, MIX, new])
    assert seen.report is not None
    assert "1-new.json" in seen.report.url
    assert not seen.others
    assert not seen.bundles
    assert seen.report.url.encode() in render_session(seen)
    assert view(entry(), [MIX]).report is None


def test_a_speaker_is_one_row_with_every_format() -> None:
    """Named as the directory names them, or as the artifact does; in order of names."""
    files = [
        stored(Recipe(output="tracks", format=sort), user=user) for user in ("7", "8") for sort in ("opus", "flac")
    ]
    shown = view(entry(people={"8": "Anna"}), files)
    assert [(track.speaker, [file.format for file in track.files]) for track in shown.lanes] == [
        ("Anna", ["FLAC", "Opus"]),
        ("Speaker", ["FLAC", "Opus"]),
    ]


def test_an_entry_without_words_still_makes_a_page() -> None:
    """A session that the directory does not describe: no guild, no channel, no people."""
    shown = view(entry(guild_name="", channel_name="", ended_unix_ns=None, duration_ns=None), now=START - SECOND)
    assert shown.title == "Recording"
    assert shown.duration == "0:00"
    assert b"#" not in render_session(shown).split(b"<main>")[1].split(b"</section>")[0]


def test_every_hue_is_in_the_style_sheet() -> None:
    """A speaker never gets a colour that does not exist."""
    style = (STATIC / "page.css").read_text()
    assert all(f".hue-{hue} " in style for hue in range(HUES))


def test_the_page_of_a_problem_escapes() -> None:
    """Whatever its words are."""
    assert b"<i>" not in render_error("<i>", "<i>", 404)

"""Tags and chapters in the words of each format."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from contracts.clock import TICKS_PER_SECOND
from mixer.formats.about import OPENING, About, Chapter, comments, divide
from mixer.formats.projects import audacity_labels, reaper_project

MARKS = st.lists(st.tuples(st.integers(-10, 10_000), st.text(max_size=5)), max_size=8)


@given(marks=MARKS, ticks=st.integers(1, 9_000))
def test_chapters_tile_the_file(marks: list[tuple[int, str]], ticks: int):
    """From the beginning to the end without a gap; every mark inside begins one; no marks, no chapters."""
    found = divide(marks, ticks)
    inside = {tick for tick, _ in marks if 0 <= tick < ticks}
    assert bool(found) == bool(inside)
    if found:
        assert (found[0].start_tick, found[-1].stop_tick) == (0, ticks)
        assert all(one.stop_tick == other.start_tick for one, other in pairwise(found))
        assert {chapter.start_tick for chapter in found} == inside | {0}


def test_what_comes_before_the_first_note_has_a_name():
    assert divide([(100, "a")], 200) == (Chapter(0, 100, OPENING), Chapter(100, 200, "a"))
    assert divide([(0, "a")], 200) == (Chapter(0, 200, "a"),)


def test_comments_count_hours():
    late = Chapter(round(3723.4567 * TICKS_PER_SECOND), 200_000_000, "x")
    assert comments(About({"title": "T", "artist": ""}, (late,))) == {
        "TITLE": "T",
        "CHAPTER000": "01:02:03.456",
        "CHAPTER000NAME": "x",
    }


@given(text=st.text(max_size=60))
def test_any_text_stays_on_its_line(text: str):
    """Notes are anybody's words: no tab, newline or quote of them changes a file's structure."""
    (line,) = audacity_labels([(48_000, text)]).decode().splitlines()
    assert line.count("\t") == 2
    project = reaper_project([(text, "a.flac")], [(0, text)], ticks=1, kind="flac", unix_s=0).decode()
    assert len(project.splitlines()) == project.count("\n") == 17

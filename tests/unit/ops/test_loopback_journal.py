"""The journal answers what was owed and who spoke when."""

from typing import Any

from ops.loopback.journal import Journal, SentFrame

MS = 1_000_000


def frame(at_ms: int, **changes: Any) -> SentFrame:
    given: dict[str, Any] = {
        "user_id": "1",
        "ssrc": 7,
        "sequence": at_ms // 20,
        "timestamp": at_ms * 48,
        "opus": b"opus",
        "sent_unix_ns": at_ms * MS,
        "sent_monotonic_ns": at_ms * MS,
        "in_group": True,
        "fate": "sent",
        "kind": "voice",
    }
    return SentFrame(**given | changes)


def journal_of(*frames: SentFrame) -> Journal:
    journal = Journal()
    for one in frames:
        journal.add(one)
    return journal


def test_only_what_left_the_network_for_a_member_is_owed():
    """Dropped, withheld and unreadable frames are not owed; padding is owed as a packet but is no Opus."""
    voice, padding = frame(0), frame(20, kind="padding", opus=b"")
    journal = journal_of(
        voice,
        padding,
        frame(40, fate="dropped"),
        frame(60, fate="withheld", in_group=False),
        frame(80, in_group=False),
        frame(100, user_id="2", kind="silence"),
    )
    assert list(journal.owed("1")) == [voice, padding]
    assert {user: len(frames) for user, frames in journal.owed_opus().items()} == {"1": 1, "2": 1}


def test_frames_in_a_row_are_one_spell_of_speech():
    """Short gaps are bridged, long ones part; silence and padding do not count; intervals are half-open."""
    spurt = [frame(at) for at in range(0, 200, 20)]
    later = [frame(at) for at in range(1000, 1100, 20)]
    quiet = [frame(at, kind="silence") for at in range(200, 300, 20)]
    journal = journal_of(*spurt[:3], *spurt[6:], *quiet, *later, frame(1080, user_id="2"))
    assert journal.spoke_unix_s == {"1": [(0.0, 0.2), (1.0, 1.1)], "2": [(1.08, 1.1)]}

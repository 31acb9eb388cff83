"""What becomes of sessions follows from age, space, pins and graces alone."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from contracts.directory import Archived, Keeping, SessionEntry
from contracts.ids import new_id
from contracts.settings import Settings
from ops.retention import (
    DAY_S,
    NS,
    Archive,
    Delete,
    Erase,
    Held,
    Policy,
    Spare,
    Step,
    Warn,
    judge,
    read_policy,
)

NOW_NS = 2_000_000_000 * NS
DAY_NS = DAY_S * NS
MONTH = Policy(keep_s=30 * DAY_S, warn_s=3 * DAY_S, grace_s=DAY_S)


def held(age_days: float, *, size: int = 10, guild: str = "1", running: bool = False, **keeping: object) -> Held:
    """A session that ended so long ago."""
    ended_ns = NOW_NS - round(age_days * DAY_NS)
    entry = SessionEntry(
        session=new_id(ended_ns // 1_000_000),
        guild_id=guild,
        guild_name="",
        channel_id="2",
        channel_name="",
        started_unix_ns=ended_ns - NS,
        ended_unix_ns=None if running else ended_ns,
        keeping=Keeping(**keeping),
    )
    return Held(entry, size)


def only(each: Held, policy: Policy, now_ns: int = NOW_NS) -> Step | None:
    steps = judge([each], policy, now_ns)
    return steps[0] if steps else None


def after(each: Held, step: Step | None) -> Held:
    """The session after a step was done."""
    change = msgspec.structs.replace
    keeping = each.entry.keeping
    match step:
        case Warn():
            keeping = change(keeping, going_unix_ns=step.going_unix_ns, going_why=step.why)
        case Spare():
            keeping = change(keeping, going_unix_ns=None, going_why="")
        case _:
            pass
    return Held(change(each.entry, keeping=keeping), each.bytes)


def test_nothing_goes_unless_somebody_set_so():
    """Without a limit a session of a hundred years stays."""
    assert judge([held(36_500)], Policy(), NOW_NS) == []


def test_it_is_told_before_it_goes_and_goes_when_it_was_told():
    """Three days before, to the day; not a moment sooner, also where nobody looked for weeks."""
    each = held(20)
    assert only(each, MONTH) is None
    at_warning = NOW_NS + 7 * DAY_NS
    step = only(each, MONTH, at_warning)
    assert step == Warn(each.entry.session, NOW_NS + 10 * DAY_NS, "age")
    told = after(each, step)
    assert only(told, MONTH, NOW_NS + 10 * DAY_NS - 1) is None
    assert only(told, MONTH, NOW_NS + 10 * DAY_NS) == Delete(each.entry.session, "age")
    late = held(400)
    assert only(late, MONTH) == Warn(late.entry.session, NOW_NS + 3 * DAY_NS, "age")


def test_a_server_may_have_less_but_not_more():
    """The lower limit counts."""
    policy = msgspec.structs.replace(MONTH, warn_s=0, guild_keep_s={"1": 7 * DAY_S, "2": 300 * DAY_S})
    assert only(held(10, guild="1"), policy) is not None
    assert only(held(10, guild="2"), policy) is None
    assert only(held(40, guild="2"), policy) is not None
    alone = Policy(guild_keep_s={"1": 7 * DAY_S})
    assert only(held(10, guild="1"), alone) is not None
    assert only(held(10, guild="3"), alone) is None


def test_a_pin_and_a_running_recording_stay():
    """Neither age, nor space, nor the archive takes them; a pin takes back what was told."""
    policy = Policy(keep_s=1, quota_bytes=1, archive_s=1, archives=True)
    assert only(held(400, pinned=True), policy) is None
    assert only(held(400, running=True), policy) is None
    gone = held(400, pinned=True, going_unix_ns=NOW_NS, going_why="age")
    assert only(gone, policy) == Spare(gone.entry.session)


def test_who_changes_the_limit_spares_what_was_told():
    """Longer, or none at all: it does not go, and is told anew in its time."""
    told = held(29, going_unix_ns=NOW_NS + DAY_NS, going_why="age")
    for policy in (Policy(warn_s=3 * DAY_S), msgspec.structs.replace(MONTH, keep_s=60 * DAY_S)):
        assert only(told, policy) == Spare(told.entry.session)


def test_a_deleted_one_is_erased_when_its_grace_is_over():
    """Whoever deleted it, and pinned or not."""
    young = held(1, deleted_unix_ns=NOW_NS - DAY_NS + 1)
    old = held(1, deleted_unix_ns=NOW_NS - DAY_NS, pinned=True)
    assert judge([young, old], MONTH, NOW_NS) == [Erase(old.entry.session)]


def test_for_space_the_oldest_go_and_no_more_than_needed():
    """Ten of ten bytes, a limit of 75: three go now, and the next is told, to be a tenth below."""
    sessions = [held(age, size=10) for age in range(10, 0, -1)]
    policy = Policy(quota_bytes=75, warn_s=DAY_S, grace_s=DAY_S)
    assert judge(sessions, policy, NOW_NS) == [
        *(Delete(each.entry.session, "space") for each in sessions[:3]),
        Warn(sessions[3].entry.session, NOW_NS + DAY_NS, "space"),
    ]


def test_where_there_is_an_archive_space_is_made_there():
    """Nothing is deleted for want of space."""
    sessions = [held(age, size=10) for age in range(10, 0, -1)]
    steps = judge(sessions, Policy(quota_bytes=75, archives=True), NOW_NS)
    assert steps == [Archive(each.entry.session) for each in sessions[:3]]


def test_what_came_back_from_the_archive_stays_for_as_long_as_what_is_new():
    """Otherwise whoever listens to it would bring it back again and again."""
    policy = Policy(archive_s=30 * DAY_S, archives=True)
    assert only(held(31), policy) is not None
    assert only(held(400, fetched_unix_ns=NOW_NS - DAY_NS), policy) is None
    assert only(held(400, fetched_unix_ns=NOW_NS - 30 * DAY_NS), policy) is not None
    assert only(held(400, archived=Archived(unix_ns=1)), policy) is None


def test_an_archived_session_goes_by_age_like_any_other():
    """What is in the archive is not kept for ever for that."""
    each = held(31, archived=Archived(unix_ns=1))
    assert only(each, msgspec.structs.replace(MONTH, warn_s=0)) == Delete(each.entry.session, "age")


def test_settings_say_the_policy():
    """The archive's age counts only where there is an archive."""
    settings = Settings(retention="4w", quota_gb=1.5, warn_hours=2, grace_hours=3, archive_after="1w")
    policy = read_policy(settings, {"1": 7, "2": 0})
    assert policy == Policy(
        keep_s=28 * DAY_S,
        quota_bytes=1_500_000_000,
        warn_s=7200,
        grace_s=10_800,
        guild_keep_s={"1": 7 * DAY_S},
    )
    with_archive = read_policy(msgspec.structs.replace(settings, s3_bucket="b"), {})
    assert (with_archive.archive_s, with_archive.archives) == (7 * DAY_S, True)


AGES = st.lists(st.floats(0, 100, allow_nan=False), min_size=1, max_size=12)


@given(AGES, st.integers(0, 200), st.integers(0, 60), st.integers(0, 10))
def test_doing_the_steps_leaves_nothing_to_be_done_at_once(ages: list[float], quota: int, keep: int, warn: int):
    """A second look right after finds nothing new: no session is told, or spared, in a circle."""
    policy = Policy(keep_s=keep * DAY_S or None, quota_bytes=quota or None, warn_s=warn * DAY_S, grace_s=DAY_S)
    sessions = [held(age) for age in ages]
    for _ in range(2):
        steps = {step.session: step for step in judge(sessions, policy, NOW_NS)}
        sessions = [
            after(each, steps.get(each.entry.session))
            for each in sessions
            if not isinstance(steps.get(each.entry.session), Delete)
        ]
    assert judge(sessions, policy, NOW_NS) == []

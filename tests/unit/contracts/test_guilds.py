"""Settings of guilds: what a person said about being recorded, and when a channel is recorded by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from contracts.guilds import CONSENT_MODES, AutoRule, GuildSettings

USERS = st.sampled_from(["1", "2", "3"])
CHOICES = st.lists(st.tuples(USERS, st.sampled_from(["in", "out"])), max_size=8)


def chosen(choices: list[tuple[str, str]], mode: str) -> GuildSettings:
    settings = GuildSettings(guild_id="9", consent=mode)
    for user_id, choice in choices:
        settings = settings.with_choice(user_id, choice)
    return settings


@given(CHOICES, st.sampled_from(CONSENT_MODES), USERS)
def test_the_last_word_of_a_person_holds(choices: list[tuple[str, str]], mode: str, user_id: str):
    """Who said `out` last is recorded in no mode, who said `in` last in every; silence means yes, but for opt-in."""
    said = [choice for who, choice in choices if who == user_id]
    expected = said[-1] == "in" if said else mode != "opt-in"
    assert chosen(choices, mode).records(user_id) is expected


@given(CHOICES, USERS)
def test_who_is_forgotten_never_chose(choices: list[tuple[str, str]], user_id: str):
    """`without` leaves nothing of the person, and the others as they were."""
    settings = chosen(choices, "opt-in").without(user_id)
    assert settings == chosen([each for each in choices if each[0] != user_id], "opt-in")


@given(st.integers(0, 23), st.integers(0, 23))
def test_hours_of_a_rule_may_pass_midnight(start: int, stop: int):
    """It holds in each of the half-open range's hours, counted around the clock; the whole day if both are equal."""
    rule = AutoRule(channel_id="1", from_hour=start, to_hour=stop)
    length = (stop - start) % 24 or 24
    assert {hour for hour in range(24) if rule.at(hour)} == {(start + each) % 24 for each in range(length)}

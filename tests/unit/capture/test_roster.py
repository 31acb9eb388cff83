"""A fact about a newcomer waits a moment for the name, and says when they came."""

from __future__ import annotations

from types import SimpleNamespace

from capture.roster import NAME_WAIT_NS, Newcomer, Roster

BOT, ADA, BELA = 1, 2, 3


class Guild:
    """The names that the main gateway has told."""

    def __init__(self) -> None:
        self.me = SimpleNamespace(id=BOT)
        self.names: dict[int, str] = {}

    def get_member(self, user_id: int) -> SimpleNamespace | None:
        """As discord.py's."""
        name = self.names.get(user_id)
        return None if name is None else SimpleNamespace(display_name=name, bot=name.endswith("bot"))


def roster() -> tuple[Guild, list[Newcomer], Roster]:
    guild, told = Guild(), []
    return guild, told, Roster(guild, told.append)


def test_a_known_name_is_told_at_once():
    """Once, however often the gateway says so; and never about the recorder."""
    guild, told, people = roster()
    guild.names = {ADA: "Ada", BELA: "A bot"}
    for user in (ADA, ADA, BOT, BELA):
        people.add(user, at_ns=5)
    assert told == [Newcomer(ADA, 5, "Ada", bot=False), Newcomer(BELA, 5, "A bot", bot=True)]


def test_a_name_that_comes_later_is_waited_for():
    """The fact carries the moment of coming."""
    guild, told, people = roster()
    people.add(ADA, at_ns=5)
    people.tick(now_ns=5 + NAME_WAIT_NS - 1)
    assert told == []
    guild.names = {ADA: "Ada"}
    people.tick(now_ns=5 + NAME_WAIT_NS - 1)
    people.tick(now_ns=5 + NAME_WAIT_NS)
    assert told == [Newcomer(ADA, 5, "Ada", bot=False)]


def test_a_name_that_never_comes_is_empty():
    """After the wait, at the end, or when they leave again: nobody is forgotten."""
    for tell in (
        lambda people: people.tick(now_ns=NAME_WAIT_NS),
        lambda people: people.flush(),
        lambda people: people.remove(ADA),
    ):
        _guild, told, people = roster()
        people.add(ADA, at_ns=0)
        tell(people)
        people.flush()
        assert told == [Newcomer(ADA, 0, "", bot=False)]


def test_who_leaves_can_come_again():
    """Leaving is told once, and only about who was there."""
    guild, told, people = roster()
    guild.names = {ADA: "Ada"}
    assert not people.remove(ADA)
    people.add(ADA, at_ns=1)
    assert people.remove(ADA)
    assert not people.remove(ADA)
    people.add(ADA, at_ns=9)
    assert [newcomer.at_ns for newcomer in told] == [1, 9]

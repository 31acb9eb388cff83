"""Who says what, from when to when: a call as a value, made from a seed.

Times are seconds since the talk's start, on a grid of 20 ms. People who join in mid-call are absent before; those who
leave are absent after. Nobody speaks while absent, nobody overlaps himself, everybody speaks at least once.
"""

import random
from collections import defaultdict

import msgspec

from ops.loopback.errors import PlanError

FRAMES_PER_S = 50
MAX_SPEAKERS = 50
MIN_SECONDS, MAX_SECONDS = 5.0, 3600.0
LEAD_S = 0.5  # before the first word and between a join and the newcomer's first word: the time for keys to change
TAIL_S = 0.5  # after the last word: the final silence frames and late packets
SHORTEST_S, LONGEST_S = 0.6, 6.0  # of an utterance
PAUSE_S = (0.6, 2.5)  # between the turns of a conversation
OWN_PAUSE_S = 0.6  # least silence between two utterances of one person: long enough to be judged
OVERLAP_SHARE = 0.25  # of turns begin before the last speaker has ended
MID_CALL_SECONDS = 12.0  # shorter calls have no room for joins and leaves
FIRST_USER_ID = 300_000_000_000_000_001
NAMES = ("Ada", "Bela", "Chiyo", "Dara", "Enzo", "Femi", "Gwen", "Hugo", "Ines", "Jomo")


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody in the call; `voice` numbers the voice, equal numbers sound alike."""

    user_id: int
    name: str
    voice: int = 0


class Utterance(msgspec.Struct, frozen=True, kw_only=True):
    """One person speaks from `start_s` to `stop_s`."""

    user_id: int
    start_s: float
    stop_s: float


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """One person joins or leaves at `at_s`."""

    user_id: int
    at_s: float


class CallPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A call of `seconds`: who, what is said, who joins and who leaves in mid-call."""

    people: tuple[Person, ...]
    utterances: tuple[Utterance, ...]
    joins: tuple[Presence, ...] = ()
    leaves: tuple[Presence, ...] = ()
    seconds: float
    seed: int = 0

    def present_at_start(self) -> tuple[Person, ...]:
        """Everybody whose first act is not to join."""
        joining = {join.user_id for join in self.joins}
        return tuple(person for person in self.people if person.user_id not in joining)


def make_plan(*, seconds: float, speakers: int, seed: int, joins: bool = True) -> CallPlan:
    """
    A conversation of `speakers` people (1..50) over `seconds` (5..3600), the same for the same `seed`.

    With `joins` and 12 s or more: one of three or more people joins and another leaves in mid-call;
    one of two joins late.

    Raises
    ------
    PlanError
        If not everybody can get a word in.
    """
    if not 1 <= speakers <= MAX_SPEAKERS or not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise PlanError(f"1 to {MAX_SPEAKERS} speakers and {MIN_SECONDS:g} to {MAX_SECONDS:g} seconds can be planned")
    rng = random.Random(f"{seed}/{speakers}/{seconds}")  # noqa: S311 - repeatable by design
    people = tuple(
        Person(user_id=FIRST_USER_ID + number, name=_name(number), voice=number) for number in range(speakers)
    )
    windows = _windows(people, seconds, rng, mid_call=joins and seconds >= MID_CALL_SECONDS)
    return CallPlan(
        people=people,
        utterances=_conversation(windows, seconds, rng),
        joins=tuple(Presence(user_id=user, at_s=start) for user, (start, _) in windows.items() if start > 0),
        leaves=tuple(Presence(user_id=user, at_s=stop) for user, (_, stop) in windows.items() if stop < seconds),
        seconds=seconds,
        seed=seed,
    )


def _name(number: int) -> str:
    round_, name = divmod(number, len(NAMES))
    return NAMES[name] + (f" {round_ + 1}" if round_ else "")


def _windows(
    people: tuple[Person, ...], seconds: float, rng: random.Random, *, mid_call: bool
) -> dict[int, tuple[float, float]]:
    """From when to when each person is present."""
    windows = {person.user_id: (0.0, seconds) for person in people}
    if not mid_call or len(people) == 1:
        return windows
    joining, *others = rng.sample(list(windows), len(windows))
    windows[joining] = (_grid(seconds * rng.uniform(0.25, 0.45)), seconds)
    if len(others) > 1:
        windows[others[0]] = (0.0, _grid(seconds * rng.uniform(0.6, 0.75)))
    return windows


def _conversation(windows: dict[int, tuple[float, float]], seconds: float, rng: random.Random) -> tuple[Utterance, ...]:
    """First everybody's one certain utterance, then turns into the remaining time."""
    taken: dict[int, list[Utterance]] = defaultdict(list)
    for number, user in enumerate(rng.sample(list(windows), len(windows))):
        taken[user].append(_certain(user, windows[user], number / len(windows), rng))
    cursor = LEAD_S
    while cursor < seconds - TAIL_S:
        user = rng.choice(list(windows))
        length_s = rng.uniform(SHORTEST_S, LONGEST_S)
        turn = Utterance(user_id=user, start_s=_grid(cursor), stop_s=_grid(cursor + length_s))
        if _fits(turn, windows[user], taken[user]):
            taken[user].append(turn)
            cursor += length_s * (rng.uniform(0.5, 0.9) if rng.random() < OVERLAP_SHARE else 1.0)
        cursor += rng.uniform(*PAUSE_S)
    everything = [utterance for own in taken.values() for utterance in own]
    return tuple(sorted(everything, key=lambda utterance: (utterance.start_s, utterance.user_id)))


def _certain(user: int, window: tuple[float, float], share: float, rng: random.Random) -> Utterance:
    """An utterance at about `share` of the person's time in the call."""
    first, last = window[0] + LEAD_S, window[1] - TAIL_S
    length_s = min(rng.uniform(1.0, 3.0), last - first)
    if length_s < SHORTEST_S:
        raise PlanError
    start = first + share * (last - first - length_s)
    return Utterance(user_id=user, start_s=_grid(start), stop_s=_grid(start + length_s))


def _fits(turn: Utterance, window: tuple[float, float], own: list[Utterance]) -> bool:
    inside = window[0] + LEAD_S <= turn.start_s and turn.stop_s <= window[1] - TAIL_S
    return inside and all(
        turn.stop_s + OWN_PAUSE_S <= other.start_s or other.stop_s + OWN_PAUSE_S <= turn.start_s for other in own
    )


def _grid(seconds: float) -> float:
    return round(seconds * FRAMES_PER_S) / FRAMES_PER_S

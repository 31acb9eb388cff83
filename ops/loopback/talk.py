"""A plan, performed in real time: one time line of acts for everybody in the room, each act at its absolute time."""

import asyncio
import heapq
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import NamedTuple

from ops.loopback.plan import CallPlan, Person, Utterance
from ops.loopback.room import Room
from ops.loopback.rtp import SILENCE
from ops.loopback.voices import voice

FRAME_NS = 20_000_000
NS_PER_S = 1_000_000_000
SILENCE_FRAMES = 5  # end a spurt
ANNOUNCE_NS = 40_000_000  # op 5 goes ahead of the first frame
PROGRESS_NS = 100_000_000
SPEAKING, QUIET = 1, 0  # op 5: microphone, nothing
AFTERGLOW_S = 0.1  # late datagrams of the last frames arrive: more than the longest reordering

Progress = Callable[[float, float], None]


class Act(NamedTuple):
    """What happens at `due_ns`, counted from the talk's start."""

    due_ns: int
    perform: Callable[[int], None]


async def perform(room: Room, *, progress: Progress | None = None) -> None:
    """
    Run the room's plan to its end, in real time.

    `progress` is called about every 100 ms with the seconds that have passed and the plan's seconds.
    """
    plan = room.spec.plan
    await asyncio.to_thread(prepare, plan)
    room.journal.started_unix_ns, start_ns = time.time_ns(), time.monotonic_ns()
    room.journal.started_monotonic_ns = start_ns
    lines = [_person_line(room, person) for person in plan.people]
    if progress is not None:
        lines.append(_progress_line(plan.seconds, progress))
    for act in heapq.merge(*lines, key=lambda act: act.due_ns):
        await _until(start_ns + act.due_ns)
        act.perform(start_ns + act.due_ns)
    await _until(start_ns + round(plan.seconds * NS_PER_S))
    await asyncio.sleep(AFTERGLOW_S + room.spec.network.jitter_ms / 1e3)


def prepare(plan: CallPlan) -> None:
    """Encode the plan's voices ahead of time, so that talking costs no encoder."""
    for person in plan.people:
        voice(person.voice)


async def _until(due_ns: int) -> None:
    """Return at `due_ns` (CLOCK_MONOTONIC) or at once if it is past."""
    wait_ns = due_ns - time.monotonic_ns()
    if wait_ns > 0:
        await asyncio.sleep(wait_ns / NS_PER_S)


def _progress_line(seconds: float, progress: Progress) -> Iterator[Act]:
    for due_ns in range(0, round(seconds * NS_PER_S) + 1, PROGRESS_NS):
        yield Act(due_ns, lambda _, at_s=due_ns / NS_PER_S: progress(at_s, seconds))  # type: ignore[misc]  # bound now


def _person_line(room: Room, person: Person) -> Iterator[Act]:
    """Everything one person does, in order of time."""
    plan, user_id = room.spec.plan, person.user_id
    rng = random.Random(f"{plan.seed}/{user_id}")  # noqa: S311 - repeatable by design
    phase_ns = rng.randrange(FRAME_NS)  # people's frames do not fall together
    lines: list[Iterator[Act]] = [
        iter([Act(_ns(join.at_s), lambda _: room.join(person)) for join in plan.joins if join.user_id == user_id]),
        iter(
            [Act(_ns(leave.at_s), lambda _: room.leave(user_id)) for leave in plan.leaves if leave.user_id == user_id]
        ),
    ]
    own = [utterance for utterance in plan.utterances if utterance.user_id == user_id]
    lines.append(chain.from_iterable(_utterance_line(room, said, person.voice, phase_ns, rng) for said in own))
    return heapq.merge(*lines, key=lambda act: act.due_ns)


def _utterance_line(
    room: Room, utterance: Utterance, voice_number: int, phase_ns: int, rng: random.Random
) -> Iterator[Act]:
    start_ns = _ns(utterance.start_s) + phase_ns
    frames = max(1, round((utterance.stop_s - utterance.start_s) * NS_PER_S / FRAME_NS))
    user_id = utterance.user_id
    speech = voice(voice_number).utterance(frames, rng=rng)
    yield Act(start_ns - ANNOUNCE_NS, lambda _: room.announce(user_id, speaking=SPEAKING))
    due_ns = start_ns
    for opus in speech:
        yield Act(due_ns, partial(room.send_frame, user_id, opus, "voice"))
        due_ns += FRAME_NS
    for _ in range(SILENCE_FRAMES):
        yield Act(due_ns, partial(room.send_frame, user_id, SILENCE, "silence"))
        due_ns += FRAME_NS
    yield Act(due_ns, lambda _: room.announce(user_id, speaking=QUIET))


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)

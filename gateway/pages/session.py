"""What the page of a session says: entry, artifacts and story, made ready for the template. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from contracts.clock import FRAME_TICKS, NS_PER_SECOND, ticks_to_seconds
from contracts.directory import SessionEntry
from contracts.jetstream.objects import StoredArtifact
from contracts.links import Permission
from gateway.mixes import Mix
from gateway.pages import words
from gateway.pages.files import Choice, FileView, TrackView, choose, name_speaker, view_file
from gateway.story import Received, Story

HUES: Final = 8  # colours of the style sheet
LIVE_REFRESH_S: Final = 15
RENDER_REFRESH_S: Final = 5
RENDERING_S: Final = 3600  # an hour after the end nothing is being rendered any more; looking again would be in vain


class PersonView(msgspec.Struct, frozen=True):
    """Somebody who was there, and what was received of them."""

    user: str
    name: str
    initial: str
    hue: int
    received: Received | None = None

    @property
    def talked(self) -> str:
        """How much there is to hear of them."""
        packets = self.received.recorded if self.received else 0
        return words.say_seconds(ticks_to_seconds(packets * FRAME_TICKS))


class NoteView(msgspec.Struct, frozen=True):
    """A marked moment."""

    at: str
    at_s: float
    text: str
    author: str


class MixView(msgspec.Struct, frozen=True):
    """A mix that is being made, or could not be."""

    job: str
    what: str
    state: str
    percent: int
    reason: str


class Looking(msgspec.Struct, frozen=True, kw_only=True):
    """Who looks at the page.

    Attributes
    ----------
    base
        The page's path: the downloads and actions stand below it.
    heard
        Whether there is something to listen to while it is recorded.
    bound
        Whether the link opens for their account only.
    """

    base: str
    may: tuple[Permission, ...]
    expires_unix_s: int
    now_unix_ns: int
    heard: bool = False
    bound: bool = False


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """The whole page.

    Attributes
    ----------
    state
        `live`, `rendering`, `empty` (ended, and nothing rendered in time) or `ready`.
    going
        When it will be deleted by itself, and why; empty if nobody means to.
    refresh_s
        Without JavaScript the page loads itself again after so many seconds; 0 = never.
    stage
        Changes when there is something else to play.
    version
        Changes when anything on the page does but the clock.
    lanes
        Whoever can be heard alone, or, without tracks, whoever was there.
    """

    session: str
    version: str
    stage: str
    base: str
    may: tuple[Permission, ...]
    bound: bool
    heard: bool
    title: str
    guild: str
    channel: str
    started: str
    started_iso: str
    duration: str
    duration_iso: str
    state: str
    going: str
    refresh_s: int
    expires: str
    expires_iso: str
    mix: tuple[FileView, ...]
    lanes: tuple[TrackView, ...]
    bundles: tuple[FileView, ...]
    report: FileView | None
    others: tuple[FileView, ...]
    making: tuple[MixView, ...]
    people: tuple[PersonView, ...]
    notes: tuple[NoteView, ...]
    gaps: tuple[tuple[str, str, str], ...]
    counts: tuple[tuple[str, str, str], ...]
    checksums: str


def describe_session(
    entry: SessionEntry,
    artifacts: Sequence[StoredArtifact],
    *,
    looking: Looking,
    story: Story = Story(),  # noqa: B008  # frozen
    mixes: Sequence[Mix] = (),
) -> SessionView:
    """The page of a session as somebody sees it."""
    choice = choose(artifacts)
    people = {**story.names, **entry.people}
    state = say_state(entry, artifacts, looking.now_unix_ns)
    seconds = length_s(entry, looking.now_unix_ns)
    expires_ns = looking.expires_unix_s * NS_PER_SECOND
    offered = [*choice.mix, *(file for files in choice.tracks.values() for file in files), *choice.bundles]
    return SessionView(
        session=entry.session,
        version=say_version(entry, artifacts, story, mixes, state=state, heard=looking.heard),
        stage=say_stage(state, choice, heard=looking.heard),
        heard=looking.heard and state == "live",
        base=looking.base,
        may=looking.may,
        bound=looking.bound,
        title=say_title(entry),
        guild=entry.guild_name,
        channel=entry.channel_name,
        started=words.say_moment(entry.started_unix_ns),
        started_iso=words.say_moment_iso(entry.started_unix_ns),
        duration=words.say_seconds(seconds),
        duration_iso=words.say_duration_iso(seconds),
        state=state,
        going=say_going(entry),
        refresh_s={"live": 0 if artifacts else LIVE_REFRESH_S, "rendering": RENDER_REFRESH_S}.get(state, 0),
        expires=words.say_moment(expires_ns),
        expires_iso=words.say_moment_iso(expires_ns),
        mix=tuple(view_file(stored, people, looking.base) for stored in choice.mix),
        lanes=list_lanes(choice, people, looking.base),
        bundles=tuple(view_file(stored, people, looking.base) for stored in choice.bundles),
        report=None if choice.report is None else view_file(choice.report, people, looking.base),
        others=tuple(view_file(stored, people, looking.base) for stored in choice.others),
        making=tuple(_making(mix, people) for mix in mixes if mix.state not in {"stored", "cancelled"}),
        people=_people(people, story),
        notes=tuple(NoteView(words.say_seconds(n.at_s), n.at_s, n.text, n.author) for n in story.notes),
        gaps=tuple((words.say_seconds(g.from_s), words.say_seconds(g.to_s), g.cause) for g in story.gaps),
        counts=_counts(entry),
        checksums="\n".join(f"{s.sha256}  {s.artifact.filename}" for s in [*offered, *choice.others]),
    )


def say_title(entry: SessionEntry) -> str:
    """What the session is called."""
    return entry.name or (f"Recording of {entry.channel_name}" if entry.channel_name else "Recording")


def say_going(entry: SessionEntry) -> str:
    """When it will be deleted by itself, and why."""
    keeping = entry.keeping
    if keeping.going_unix_ns is None:
        return ""
    why = "because of its age" if keeping.going_why == "age" else "to make room"
    return f"It will be deleted {why} after {words.say_moment(keeping.going_unix_ns)}, unless somebody keeps it."


def say_state(entry: SessionEntry, artifacts: Sequence[StoredArtifact], now_unix_ns: int) -> str:
    """`live`, `rendering`, `empty`, `ready` or `archived`."""
    if entry.ended_unix_ns is None:
        return "live"
    if entry.keeping.archived is not None:
        return "archived"
    if artifacts:
        return "ready"
    return "rendering" if now_unix_ns - entry.ended_unix_ns < RENDERING_S * NS_PER_SECOND else "empty"


def say_version(
    entry: SessionEntry,
    artifacts: Sequence[StoredArtifact],
    story: Story,
    mixes: Sequence[Mix],
    *,
    state: str,
    heard: bool,
) -> str:
    """A digest of what a page shows: while it stays, there is nothing new to see."""
    shown = (
        state,
        [stored.artifact.name for stored in artifacts],
        sorted({**story.names, **entry.people}.items()),
        (len(story.notes), len(story.gaps), story.ended),
        [(mix.job, mix.state) for mix in mixes],
        heard and state == "live",
    )
    return hashlib.sha256(msgspec.json.encode(shown)).hexdigest()[:16]


def say_stage(state: str, choice: Choice, *, heard: bool) -> str:
    """What there is to play: when it changes, the page is another."""
    return f"{state} {len(choice.mix)} {len(choice.tracks)} {int(heard and state == 'live')}"


def length_s(entry: SessionEntry, now_unix_ns: int) -> float:
    """Seconds that it lasted, or lasts so far."""
    end_ns = entry.ended_unix_ns or now_unix_ns
    nanoseconds = end_ns - entry.started_unix_ns if entry.duration_ns is None else entry.duration_ns
    return max(nanoseconds / NS_PER_SECOND, 0)


def list_lanes(choice: Choice, people: Mapping[str, str], base: str) -> tuple[TrackView, ...]:
    """A lane for each voice, by name; without tracks for whoever was there."""
    lanes = [
        TrackView(
            user=user,
            speaker=(name := name_speaker(files[0], people)),
            initial=initial(name),
            hue=hue(user),
            duration=words.say_seconds(ticks_to_seconds(files[0].artifact.duration_ticks)),
            files=tuple(view_file(stored, people, base) for stored in files),
        )
        for user, files in choice.tracks.items()
    ]
    if not lanes:
        lanes = [TrackView(user, name, initial(name), hue(user), "", ()) for user, name in people.items()]
    return tuple(sorted(lanes, key=lambda lane: (lane.speaker.casefold(), lane.user)))


def _making(mix: Mix, people: Mapping[str, str]) -> MixView:
    kind = "Tracks" if mix.recipe.output == "tracks" else "Mix"
    special = words.say_recipe(mix.recipe, people)
    what = f"{kind} as {mix.recipe.format.upper()}" + (f", {special}" if special else "")
    return MixView(mix.job, what, mix.state, round(mix.fraction * 100), mix.reason)


def _people(people: Mapping[str, str], story: Story) -> tuple[PersonView, ...]:
    received = story.received()
    by_name = sorted(people.items(), key=lambda item: (item[1].casefold(), item[0]))
    shown = [PersonView(user, name, initial(name), hue(user), received.get(user)) for user, name in by_name]
    if story.ended:  # whoever was there and said nothing
        shown = [
            person if person.received else msgspec.structs.replace(person, received=Received()) for person in shown
        ]
    if "" in received:
        shown.append(PersonView("", "Unknown voices", "?", 0, received[""]))
    return tuple(shown)


def _counts(entry: SessionEntry) -> tuple[tuple[str, str, str], ...]:
    """(number, what, why it matters); none while it is not known."""
    if entry.ended_unix_ns is None:
        return ()
    return (
        (f"{entry.recorded:,}", "packets recorded", "20 milliseconds of one voice each"),
        (f"{entry.undecryptable:,}", "undecryptable", "arrived, but could not be opened"),
        (f"{entry.lost:,}", "lost", "never arrived"),
    )


def initial(name: str) -> str:
    """The letter on somebody's face."""
    return next((character.upper() for character in name if character.isalnum()), "?")


def hue(user_id: str) -> int:
    """The colour of somebody: the same on every page."""
    return int(user_id) % HUES if user_id.isdecimal() and user_id.isascii() else 0

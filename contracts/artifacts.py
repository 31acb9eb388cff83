"""Artifacts and the jobs that make them.

An artifact is one rendered file in the session's object bucket; what it is made of travels with it, as the object's
metadata. A job renders one recipe into one or more artifacts; its progress and result are facts on
`renders.<session>.<job>`.
"""

from __future__ import annotations

import hashlib
from typing import Final, TypeAlias

import msgspec

from contracts import wire
from contracts.ids import Snowflake
from contracts.recipes import Recipe, encode_recipe

MIX: Final = "mix"
TRACKS: Final = "tracks"  # all of them in one file
MEDIA_TYPES: Final = {
    "flac": "audio/flac",
    "opus": "audio/ogg; codecs=opus",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "m4a": "audio/mp4",
    "mka": "audio/x-matroska",
    "zip": "application/zip",
    "dat": "application/octet-stream",
    "json": "application/json",
}


class Artifact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rendered file.

    Attributes
    ----------
    name
        Object name in the session's bucket: `<render name>-<user id, "mix" or "tracks">.<extension>`.
    filename
        The name a person's download gets.
    user_id
        Whose track it is; None for a mix, and for one file that holds all tracks.
    log_end
        Stream sequence of the last message it was made from.
    engine
        Version of everything that decided its bytes.
    sha256
        Lower-case hex digest of the file.
    duration_ticks
        Length in ticks of 1/48000 s.
    files
        How many files the recipe made: the render is whole when that many share its name.
    loudness_lufs, peak_dbtp
        What the sound that went into the encoder measures: integrated loudness and true peak (EBU R128); None where it
        was not measured, or is silence.
    losses
        Where a track lacks packets that were sent: (start, stop, frames), half-open ticks of the session clock. Of
        tracks in files of their own alone.
    """

    name: str
    session: str
    filename: str
    recipe: Recipe
    log_end: int
    engine: str
    sha256: str
    bytes: int
    duration_ticks: int
    rendered_unix_ns: int
    user_id: Snowflake | None = None
    speaker: str = ""
    files: int = 1
    loudness_lufs: float | None = None
    peak_dbtp: float | None = None
    losses: tuple[tuple[int, int, int], ...] = ()

    @property
    def media_type(self) -> str:
        """The Content-Type."""
        return MEDIA_TYPES[self.recipe.extension]


class RenderJob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """On `jobs.render`: make this recipe of that session."""

    id: str
    session: str
    recipe: Recipe
    requested_by: str = ""


def job_id(session: str, recipe: Recipe) -> str:
    """The id of a job that anybody may ask for: the same session and recipe, the same job."""
    return hashlib.sha256(session.encode() + encode_recipe(recipe)).hexdigest()[:16]


class RenderFact(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """What every fact of a render says."""

    job: str
    session: str
    unix_ns: int


class RenderProgressed(RenderFact, frozen=True, kw_only=True, tag="render_progressed.1"):
    """How far it is.

    Attributes
    ----------
    stage
        `fetch` (from the archive), `replay`, `render` or `store`.
    fraction
        0 to 1 of the whole job.
    eta_s
        Seconds to go, by the speed so far; None while unknown.
    """

    stage: str
    fraction: float
    eta_s: float | None = None


class RenderStored(RenderFact, frozen=True, kw_only=True, tag="render_stored.1"):
    """The files are in the store. `cached`: they were there already."""

    artifacts: tuple[Artifact, ...]
    cached: bool = False
    elapsed_s: float = 0.0


class RenderFailed(RenderFact, frozen=True, kw_only=True, tag="render_failed.1"):
    """It could not be made; `retrying` says whether another try follows."""

    reason: str
    retrying: bool = False


class RenderCancelled(RenderFact, frozen=True, kw_only=True, tag="render_cancelled.1"):
    """Somebody does not want it any more; whoever makes it stops, and whoever is given it later lets it be."""

    by: str = ""


AnyRenderFact: TypeAlias = RenderProgressed | RenderStored | RenderFailed | RenderCancelled

_facts: msgspec.json.Decoder[AnyRenderFact] = msgspec.json.Decoder(AnyRenderFact)
_jobs = msgspec.json.Decoder(RenderJob)


def encode_render_fact(fact: AnyRenderFact) -> bytes:
    """The wire form: JSON."""
    return msgspec.json.encode(fact)


def decode_render_fact(data: bytes) -> AnyRenderFact:
    """A fact of a render; MalformedError if it is none."""
    return wire.decode(_facts, data, "a fact of a render")


def encode_job(job: RenderJob) -> bytes:
    """The wire form: JSON."""
    return msgspec.json.encode(job)


def decode_job(data: bytes) -> RenderJob:
    """A render job; MalformedError if it is none."""
    return wire.decode(_jobs, data, "a render job")

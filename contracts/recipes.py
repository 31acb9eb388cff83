"""Recipes: what a mix is. Canonical JSON; its hash, with the log range and the engine, names the artifact.

Fields that a later version adds have defaults and are left out while they hold them, so the name of an old recipe
never changes.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from contracts import wire
from contracts.errors import MalformedError
from contracts.ids import Snowflake

Output: TypeAlias = Literal["mix", "tracks", "report"]
Format: TypeAlias = Literal["flac", "opus", "mp3", "wav", "m4a", "dat", "json"]
Container: TypeAlias = Literal["files", "zip", "matroska", "audacity", "reaper"]
Loudness: TypeAlias = Literal["followed", "exact", "off"]
Alignment: TypeAlias = Literal["follow", "hindsight", "arrival"]
Gain: TypeAlias = Annotated[float, Meta(ge=-60, le=30)]
Gate: TypeAlias = Annotated[float, Meta(ge=-90, le=-10)]
Tick: TypeAlias = Annotated[int, Meta(ge=0, le=1 << 53)]  # what JSON keeps exactly; six thousand years
MOST_KBPS: Final = {  # by FFmpeg's encoders, one channel
    ("mix", "mp3"): 320,
    ("tracks", "mp3"): 320,
    ("mix", "opus"): 256,
    ("mix", "m4a"): 256,
    ("tracks", "m4a"): 256,
}
MP3_KBPS: Final = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # of MPEG-1 layer III
DEEP: Final = ("flac", "wav")  # formats with a choice of bit depth
HELD: Final[dict[str, tuple[str, ...]]] = {  # what a container may hold
    "zip": ("flac", "opus", "mp3", "wav", "m4a"),
    "matroska": ("flac", "opus"),
    "audacity": ("flac", "wav"),
    "reaper": ("flac", "wav"),
}
EXTENSIONS: Final = {"zip": "zip", "matroska": "mka", "audacity": "zip", "reaper": "zip"}
NAME_CHARACTERS: Final = 16  # 64 bits of the hash: no collision inside a session


class Recipe(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What to make of a session.

    Attributes
    ----------
    output
        `mix`: one file with everybody; `tracks`: one file per speaker, all of equal length; `report`: what was judged
        of everybody's packets, as JSON, of the whole session.
    container
        Of tracks: `files`, or one file that holds them all: a `zip` with notes and report, a multi-track `matroska`,
        an `audacity` or a `reaper` project (zips, too).
    format
        File format; Opus tracks are copied, not encoded again, unless their sound is changed. `dat` and `json` are
        the waveform's peaks, in audiowaveform's version 2.
    people
        Whose voices; None = everybody's.
    mute
        Whose voices not.
    gain_db
        Gain per person in decibels.
    start_tick, stop_tick
        Half-open range on the session clock, ticks of 1/48000 s; None = to the end.
    bitrate_kbps
        For MP3, AAC and a mixed Opus; None = the format's default.
    vbr_quality
        MP3 of variable bit rate: LAME's 0 (best) to 9; None = a constant bit rate.
    bits
        Bit depth of FLAC and WAV.
    loudness
        `followed`: -16 LUFS reached on the way; `exact`: by a first pass over the audio; `off`: untouched. None = the
        output's default: a mix is followed, tracks are left as they are.
    levelling
        Whether voices are brought to the same level; None = the output's default: in a mix, not in tracks.
    gate_db
        What is quieter than this (dBFS, 10 ms) is muted between words; None = no noise gate.
    silence
        `keep`, or `trim`: where nobody of the recipe speaks for long, time is taken out, of all files alike.
    chapters
        Whether notes become chapters.
    alignment
        How packets find their place on the session clock. `follow`: by RTP clocks and arrivals with 15 s of foresight,
        so that a running session is placed as it will stay; `hindsight`: by the whole log, better for people who hardly
        speak; `arrival`: each talkspurt where it came in, whatever RTP says of pauses. None = the output's default: a
        mix follows, tracks have hindsight.
    same_room
        Whether people whose microphones hear each other are laid onto each other by it, so that nobody is an echo;
        `alignment` is then `hindsight`.
    """

    output: Output = "mix"
    container: Container = "files"
    format: Format = "mp3"
    people: tuple[Snowflake, ...] | None = None
    mute: tuple[Snowflake, ...] = ()
    gain_db: dict[Snowflake, Gain] = {}
    start_tick: Tick = 0
    stop_tick: Tick | None = None
    bitrate_kbps: Annotated[int, Meta(ge=16, le=512)] | None = None
    vbr_quality: Annotated[int, Meta(ge=0, le=9)] | None = None
    bits: Literal[16, 24] = 16
    loudness: Loudness | None = None
    levelling: bool | None = None
    gate_db: Gate | None = None
    silence: Literal["keep", "trim"] = "keep"
    chapters: bool = True
    alignment: Alignment | None = None
    same_room: bool = False

    def __post_init__(self) -> None:
        problems = (
            *(self._report_problem, self._range_problem, self._quality_problem),
            *(self._container_problem, self._room_problem),
        )
        if problem := next((found for check in problems if (found := check())), ""):
            raise MalformedError(f"not a recipe: {problem}")

    def _report_problem(self) -> str:
        if self.output != "report":
            return ""
        part = self.start_tick or self.stop_tick is not None or self.silence != "keep"
        if part or self.people is not None or self.mute or any(self.gain_db.values()):
            return "a report is of the whole session, and of everybody"
        return "" if self.format == "json" else f"format: a report is json, not {self.format}"

    def _range_problem(self) -> str:
        if self.stop_tick is not None and self.stop_tick <= self.start_tick:
            return f"stop_tick {self.stop_tick} is not after start_tick {self.start_tick}"
        return ""

    def _quality_problem(self) -> str:
        limit = MOST_KBPS.get((self.output, self.format), 0)
        if self.bitrate_kbps is not None and self.bitrate_kbps > limit:
            allowed = f"at most {limit} kbit/s" if limit else "no bitrate: nothing is lost in it"
            return f"bitrate_kbps: {self.output} as {self.format} takes {allowed}"
        if self.format == "mp3" and self.bitrate_kbps not in (None, *MP3_KBPS):
            return f"bitrate_kbps: MP3 has {', '.join(map(str, MP3_KBPS))}, not {self.bitrate_kbps}"
        if self.vbr_quality is not None and self.format != "mp3":
            return f"vbr_quality: it is MP3's, not of {self.format}"
        if self.vbr_quality is not None and self.bitrate_kbps is not None:
            return "vbr_quality and bitrate_kbps exclude each other"
        if self.bits != 16 and self.format not in DEEP:  # noqa: PLR2004  # the default
            return f"bits: a choice of {' and '.join(DEEP)}, not of {self.format}"
        return ""

    def _container_problem(self) -> str:
        if self.container == "files":
            return ""
        if self.output != "tracks":
            return f"container: {self.container} holds tracks; a mix is one file"
        if self.format not in (held := HELD[self.container]):
            return f"container: {self.container} holds {', '.join(held)}, not {self.format}"
        return ""

    def _room_problem(self) -> str:
        if self.same_room and self.aligns_by != "hindsight":
            return f"same_room: it takes the whole log, alignment hindsight, not {self.alignment}"
        return "same_room: a report moves nobody" if self.same_room and self.output == "report" else ""

    @property
    def extension(self) -> str:
        """What the names of its files end in."""
        return EXTENSIONS.get(self.container, self.format)

    @property
    def aims_at(self) -> Loudness:
        """How its loudness is made, defaults applied."""
        return self.loudness or ("followed" if self.output == "mix" else "off")

    @property
    def levels(self) -> bool:
        """Whether voices are levelled, defaults applied."""
        return self.output == "mix" if self.levelling is None else self.levelling

    @property
    def aligns_by(self) -> Alignment:
        """How its packets are placed, defaults applied."""
        return self.alignment or ("follow" if self.output == "mix" and not self.same_room else "hindsight")

    def canonical(self) -> Recipe:
        """The same recipe in its one spelling: sorted, no defaults, nothing about people who are not heard."""
        usual = Recipe(output=self.output, format=self.format, same_room=self.same_room)
        heard = None if self.people is None else tuple(sorted(set(self.people) - set(self.mute)))
        return msgspec.structs.replace(
            self,
            people=heard,
            mute=tuple(sorted(set(self.mute))) if heard is None else (),
            gain_db={user: float(gain) for user, gain in sorted(self.gain_db.items()) if gain and self.hears(user)},
            loudness=None if self.aims_at == usual.aims_at else self.loudness,
            alignment=None if self.aligns_by == usual.aligns_by else self.alignment,
            levelling=None if self.levels == usual.levels else self.levelling,
            gate_db=None if self.gate_db is None else float(self.gate_db),
        )

    def hears(self, user_id: Snowflake) -> bool:
        """Whether this person is in it."""
        return user_id not in self.mute and (self.people is None or user_id in self.people)


FOLLOWED_MIX: Final = Recipe(output="mix", format="mp3")  # grows with the session
FOLLOWED_PEAKS: Final = Recipe(output="tracks", format="dat", alignment="follow")  # and so do these
FOLLOWED_REPORT: Final = Recipe(output="report", format="json")
FOLLOWED: Final = (FOLLOWED_MIX, FOLLOWED_PEAKS, FOLLOWED_REPORT)
DEFAULT_RECIPES: Final = (
    FOLLOWED_MIX,
    Recipe(output="tracks", format="flac"),
    Recipe(output="tracks", format="opus"),
    FOLLOWED_PEAKS,
    FOLLOWED_REPORT,
)


def encode_recipe(recipe: Recipe) -> bytes:
    """Canonical JSON: sorted keys, defaults left out."""
    return msgspec.json.encode(recipe.canonical(), order="sorted")


_recipes = msgspec.json.Decoder(Recipe)


def decode_recipe(data: bytes) -> Recipe:
    """A recipe from JSON.

    Raises
    ------
    MalformedError
        Naming the field that is wrong or unknown.
    """
    return wire.decode(_recipes, data, "a recipe")


def render_name(recipe: Recipe, *, log_end: int, engine: str) -> str:
    """The name that this recipe's files share: hash(recipe, log range, engine).

    Parameters
    ----------
    log_end
        Stream sequence of the last message that was read; the range starts at 1.
    engine
        Version of everything that decides the bytes.
    """
    text = encode_recipe(recipe) + b"\n%d\n" % log_end + engine.encode()
    return hashlib.sha256(text).hexdigest()[:NAME_CHARACTERS]

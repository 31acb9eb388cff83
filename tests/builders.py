"""Sessions made by a seeded generator: the log as capture would write it, and the truth about who spoke when.

Each person has a tone of their own (or real speech), an SSRC, a clock with random starts and a skew, and a network of
their own. Times of the truth are when the sound was captured; it arrives FRAME + delay later.
"""

from __future__ import annotations

import ctypes
import random
import wave
from collections.abc import AsyncIterator, Iterable
from functools import cache
from pathlib import Path

import msgspec
import numpy as np

from contracts.clock import FRAME_TICKS, NS_PER_SECOND, TICKS_PER_SECOND
from contracts.events import (
    NoteAdded,
    SessionEnded,
    SessionFact,
    SessionStarted,
    SpeakerIdentified,
    SpeakerJoined,
    TakeClosed,
    TakeOpened,
    TrackCount,
    encode_fact,
)
from contracts.ids import new_id
from contracts.jetstream.replay import LogMessage
from contracts.packets import BATCH_MS, BATCH_PACKETS, SILENCE_FRAME, Outcome, Packet, PacketBatch, encode_batch
from contracts.subjects import facts, packets
from mixer.opus import Samples, library

VOICES = Path(__file__).parent.parent / "ops" / "loopback" / "voices"
FRAME_S = FRAME_TICKS / TICKS_PER_SECOND
PHRASE_S = 10.0
BASE_DELAY_S = 0.030
STARTED_UNIX_NS = 1_795_000_000 * NS_PER_SECOND
RECORDER_SSRC = 1
TRAILING_SILENCE = 5
TAKE = 1


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """The truth about one speaker: intervals of sound in seconds on the session clock, half-open."""

    user_id: str
    name: str
    ssrc: int
    tone_hz: float
    spoke: tuple[tuple[float, float], ...]


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A session's log with its truth. `placed`: per SSRC, the true capture time of every frame stored, seconds."""

    session: str
    seconds: float
    people: tuple[Person, ...]
    messages: list[LogMessage]
    placed: dict[int, list[float]]


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """What happens on the way.

    Attributes
    ----------
    loss
        Fraction of voice packets that never come.
    jitter_ms
        Mean of the exponential delay on top of the base.
    skew_ppm
        By how much the senders' clocks are off; each person gets one within +-.
    duplicates
        Fraction of batches that are in the log twice.
    stopped_clock
        Whether the RTP clock stands still in silence, as library bots' do.
    """

    loss: float = 0.0
    jitter_ms: float = 0.0
    skew_ppm: float = 0.0
    duplicates: float = 0.0
    stopped_clock: bool = False


def build_session(
    seconds: float,
    speakers: int,
    activity: float = 0.4,
    seed: int = 0,
    *,
    plan: list[list[tuple[float, float]]] | None = None,
    network: Network = Network(),  # noqa: B008  # frozen
    speech: bool = False,
    identify: bool = True,
    end: bool = True,
    notes: Iterable[tuple[float, str]] = (),
) -> Built:
    """A session of `seconds` with `speakers` people who speak for `activity` of the time, or as `plan` says.

    `notes` are (seconds, text).
    """
    chance = random.Random(seed)
    session = new_id(STARTED_UNIX_NS // 1_000_000, seed)
    spoken = plan or [_plan(seconds, activity, chance) for _ in range(speakers)]
    people = tuple(
        Person(
            user_id=str(100_000 + index),
            name=f"Speaker {index}",
            ssrc=chance.getrandbits(31) + 2,
            tone_hz=400.0 * 1.25**index,
            spoke=tuple(spoken[index]),
        )
        for index in range(len(spoken))
    )
    sent = {person.ssrc: _Sender(person, network, random.Random(f"{seed}.{person.ssrc}"), speech) for person in people}
    log = _Log(session)
    log.open(people, identify=identify)
    for sender in sent.values():
        log.add(sender.person.ssrc, sender.packets, sender.network.duplicates, chance)
    for at_s, text in notes:
        log.note(at_s, text)
    if end:
        log.close(seconds, people)
    return Built(
        session=session,
        seconds=seconds,
        people=people,
        messages=log.messages(),
        placed={ssrc: sender.captured_s for ssrc, sender in sent.items()},
    )


def encode_opus(
    samples: Samples, *, bitrate: int = 64_000, frame_ticks: int = FRAME_TICKS, fec: bool = False
) -> list[bytes]:
    """Mono float32 samples at 48 kHz as Opus packets of `frame_ticks`, from a fresh encoder; with `fec`, for speech."""
    opus = library()
    opus.opus_encoder_create.restype = ctypes.c_void_p
    opus.opus_encode_float.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int32,
    ]
    application = 2048 if fec else 2049  # OPUS_APPLICATION_VOIP, OPUS_APPLICATION_AUDIO
    encoder = ctypes.c_void_p(opus.opus_encoder_create(TICKS_PER_SECOND, 1, application, None))
    opus.opus_encoder_ctl(encoder, 4002, bitrate)  # OPUS_SET_BITRATE
    if fec:
        opus.opus_encoder_ctl(encoder, 4012, 1)  # OPUS_SET_INBAND_FEC
        opus.opus_encoder_ctl(encoder, 4014, 20)  # OPUS_SET_PACKET_LOSS_PERC
    room = ctypes.create_string_buffer(4000)
    mono = np.ascontiguousarray(samples, dtype=np.float32).reshape(-1)
    packets_: list[bytes] = []
    for start in range(0, len(mono) - frame_ticks + 1, frame_ticks):
        size = opus.opus_encode_float(encoder, mono.ctypes.data + 4 * start, frame_ticks, room, len(room))
        packets_.append(room.raw[:size])
    opus.opus_encoder_destroy(encoder)
    return packets_


def tone(frequency_hz: float, seconds: float, amplitude: float = 0.2) -> Samples:
    """A sine, float32 (samples, 1) at 48 kHz."""
    time = np.arange(round(seconds * TICKS_PER_SECOND)) / TICKS_PER_SECOND
    return (amplitude * np.sin(2 * np.pi * frequency_hz * time)).astype(np.float32).reshape(-1, 1)


def speech_samples(seconds: float) -> Samples:
    """Real speech from the loopback's voices, float32 (samples, 1) at 48 kHz, repeated as needed."""
    parts = []
    for path in sorted(VOICES.glob("*.wav")):
        with wave.open(str(path)) as file:
            narrow = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2") / 32768
            ratio = TICKS_PER_SECOND / file.getframerate()
        parts.append(np.interp(np.arange(round(len(narrow) * ratio)) / ratio, np.arange(len(narrow)), narrow))
    voice = np.concatenate(parts).astype(np.float32)
    return np.resize(voice, round(seconds * TICKS_PER_SECOND)).reshape(-1, 1)


async def replay_of(messages: Iterable[LogMessage]) -> AsyncIterator[LogMessage]:
    """Messages as the bus would replay them."""
    for message in messages:
        yield message


@cache
def _phrase(frequency_hz: float, *, speech: bool) -> tuple[bytes, ...]:
    return tuple(encode_opus(speech_samples(PHRASE_S) if speech else tone(frequency_hz, PHRASE_S)))


def _plan(seconds: float, activity: float, chance: random.Random) -> list[tuple[float, float]]:
    """Utterances of 1 to 6 s, with pauses that give the activity."""
    spoken = []
    at = chance.uniform(0.2, 1.0)
    while True:
        length = round(chance.uniform(1.0, 6.0) / FRAME_S) * FRAME_S
        if at + length > seconds - 0.5:
            return spoken
        spoken.append((at, at + length))
        at += length + max(0.4, chance.expovariate(1 / (length * (1 - activity) / activity)))


class _Sender:
    """One person's client and its way to the recorder."""

    def __init__(self, person: Person, network: Network, chance: random.Random, speech: bool) -> None:  # noqa: FBT001  # private
        self.person, self.network = person, network
        self.captured_s: list[float] = []
        self.packets: list[tuple[int, Packet]] = []  # (arrival_ns, packet), by arrival
        rate = 1 + chance.uniform(-1, 1) * network.skew_ppm * 1e-6
        sequence, timestamp = chance.getrandbits(16), chance.getrandbits(32)
        phrase = _phrase(person.tone_hz, speech=speech)
        clock = timestamp
        rows: list[tuple[int, Packet, float]] = []
        for start, stop in person.spoke:
            if not network.stopped_clock:
                clock = timestamp + round(start * rate * TICKS_PER_SECOND)
            frames = round((stop - start) / FRAME_S)
            for frame in range(frames + TRAILING_SILENCE):
                captured = start + frame * FRAME_S / rate
                voice = frame < frames
                payload = phrase[frame % len(phrase)] if voice else SILENCE_FRAME
                late = chance.expovariate(1000 / network.jitter_ms) if network.jitter_ms else 0.0
                arrival = round((captured + FRAME_S + BASE_DELAY_S + late) * 1e6) * 1000
                packet = Packet(
                    (sequence) & 0xFFFF, clock & 0xFFFF_FFFF, 0, payload, Outcome.VOICE if voice else Outcome.SILENCE
                )
                sequence += 1
                clock += FRAME_TICKS
                if chance.random() >= network.loss or not voice:
                    rows.append((arrival, packet, captured))
        rows.sort(key=lambda row: row[0])
        self.packets = [(arrival, packet) for arrival, packet, _ in rows]
        self.captured_s = [captured for _, _, captured in rows]


class _Log:
    """Facts and batches with the time they are published."""

    def __init__(self, session: str) -> None:
        self._session = session
        self._rows: list[tuple[int, int, str, str, bytes]] = []
        self._counts: dict[int, dict[str, int]] = {}
        self._batches: dict[int, int] = {}

    def open(self, people: tuple[Person, ...], *, identify: bool) -> None:
        common = self._common(0)
        self._fact(
            SessionStarted(
                **common("start"),
                guild_id="1",
                guild_name="Guild",
                channel_id="2",
                channel_name="table",
                name="Curse of Strahd / 7",
            )
        )
        self._fact(
            TakeOpened(
                **common("take"),
                take=TAKE,
                cause="start",
                channel_id="2",
                ssrc=RECORDER_SSRC,
                mode="aead_xchacha20_poly1305_rtpsize",
                dave_version=1,
            )
        )
        for person in people:
            self._fact(
                SpeakerJoined(**common(f"join.{person.ssrc}"), take=TAKE, user_id=person.user_id, name=person.name)
            )
            if identify:
                self._fact(
                    SpeakerIdentified(
                        **common(f"who.{person.ssrc}"),
                        take=TAKE,
                        ssrc=person.ssrc,
                        user_id=person.user_id,
                        name=person.name,
                        by="gateway",
                    )
                )

    def add(self, ssrc: int, rows: list[tuple[int, Packet]], duplicates: float, chance: random.Random) -> None:
        counts = self._counts.setdefault(ssrc, {})
        held: list[tuple[int, Packet]] = []
        for arrival, packet in [*rows, (1 << 62, None)]:
            if held and (packet is None or len(held) == BATCH_PACKETS or arrival - held[0][0] > BATCH_MS * 1_000_000):
                copies = 2 if chance.random() < duplicates else 1
                self._batch(ssrc, held, copies)
                held = []
            if packet is not None:
                held.append((arrival, packet))
                counts[packet.outcome.name] = counts.get(packet.outcome.name, 0) + 1

    def note(self, at_s: float, text: str) -> None:
        common = self._common(round(at_s * NS_PER_SECOND))
        self._fact(NoteAdded(**common(f"note.{at_s}"), text=text))

    def close(self, seconds: float, people: tuple[Person, ...]) -> None:
        at_ns = round(seconds * NS_PER_SECOND)
        common = self._common(at_ns)
        self._fact(TakeClosed(**common("closed"), take=TAKE, cause="stop"))
        tracks = tuple(
            TrackCount(
                take=TAKE,
                ssrc=person.ssrc,
                batches=self._batches.get(person.ssrc, 0),
                outcomes=self._counts.get(person.ssrc, {}),
                user_id=person.user_id,
            )
            for person in people
        )
        self._fact(SessionEnded(**common("end"), cause="stop", tracks=tracks))

    def messages(self) -> list[LogMessage]:
        rows = sorted(self._rows, key=lambda row: (row[0], row[1]))
        return [LogMessage(index + 1, *row[2:]) for index, row in enumerate(rows)]

    def _batch(self, ssrc: int, held: list[tuple[int, Packet]], copies: int) -> None:
        number = self._batches.get(ssrc, 0)
        self._batches[ssrc] = number + 1
        base = held[0][0]
        batch = PacketBatch(
            take=TAKE,
            ssrc=ssrc,
            number=number,
            base_ns=base,
            packets=tuple(
                msgspec.structs.replace(packet, arrival_us=(arrival - base) // 1000) for arrival, packet in held
            ),
        )
        for _ in range(copies):
            self._add(held[-1][0], packets(self._session, TAKE, ssrc), batch.message_id, encode_batch(batch))

    def _fact(self, fact: SessionFact) -> None:
        self._add(fact.at_ns, facts(self._session), fact.id, encode_fact(fact))

    def _add(self, at_ns: int, subject: str, message_id: str, data: bytes) -> None:
        self._rows.append((at_ns, len(self._rows), subject, message_id, data))

    def _common(self, at_ns: int):
        def fields(identifier: str) -> dict[str, str | int]:
            return {"id": identifier, "session": self._session, "at_ns": at_ns, "unix_ns": STARTED_UNIX_NS + at_ns}

        return fields

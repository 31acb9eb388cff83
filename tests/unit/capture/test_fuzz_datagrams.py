"""Mutated datagrams: nothing raises, everything is accounted for, and what is true afterwards is recorded.

A seed gives the same datagrams again; one that ever failed belongs into SEEDS.
"""

from __future__ import annotations

import random
import tracemalloc

import pytest

from capture.consent import Consent
from capture.take import Take
from contracts.guilds import GuildSettings
from contracts.packets import SILENCE_FRAME, Outcome, PacketBatch
from ops.loopback.transport import AES_GCM, XCHACHA
from tests.sealed_call import SealedCall, opus

ADA, BELA = 501, 502
SSRC, FRESH_SSRC = 4242, 4243
FRAME_NS = 20_000_000
SEEDS = (1, 2, 3)
QUICK, SOAK = 20_000, 1_000_000
GROWTH_BYTES = 20_000_000  # what a soak may leave behind; its records are counted and thrown away


class Fuzz:
    """A call whose datagrams are damaged on the way, and a take that records it."""

    def __init__(self, seed: int, mode: str) -> None:
        self.chance = random.Random(seed)
        self.call = SealedCall(ADA, BELA, mode=mode)
        self.recorded: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self.reports = 0
        self.now_ns = 10**12
        self.number = 0
        self.take = Take(
            consent=Consent(GuildSettings(guild_id="1")),
            number=1,
            zero_ns=0,
            connection=self.call.connection,
            publish=self._count,
            identified=lambda _ssrc, _user: None,
            reported=self._report,
        )

    def _count(self, batch: PacketBatch) -> None:
        for packet in batch.packets:
            self.recorded[packet.outcome] += 1

    def _report(self, _ssrc: int, _raw: bytes, _arrival_ns: int) -> None:
        self.reports += 1

    def hear(self, data: bytes) -> None:
        """A datagram comes."""
        self.now_ns += FRAME_NS // 4
        self.take.tick(self.now_ns)
        self.take.datagram(data, self.now_ns)

    def true_datagram(self) -> bytes:
        """What Discord could have sent: speech, silence, padding, reports, pongs, video; also sealed nonsense."""
        self.number += 1
        kind = self.chance.randrange(8)
        if kind == 0:
            return self.call.report(SSRC, kind=self.chance.choice([200, 201, 205]))[1]
        if kind == 1:
            return b"\x13\x37\xf0\x0d" + self.chance.randbytes(4)
        if kind == 2:
            clear = b"\xb0\x78" + self.chance.randbytes(2) + bytes(4) + SSRC.to_bytes(4) + b"\xbe\xde"
            return self.call.sealed(clear + self.chance.randrange(4).to_bytes(2), self.chance.randbytes(20))
        frame = SILENCE_FRAME if kind == 3 else self.call.say(ADA, opus(self.number))
        payload_type = self.chance.choice([120, 120, 120, 101])
        return self.call.datagram(
            frame if kind != 4 else b"",
            sequence=self.chance.choice([self.number, self.chance.randrange(1 << 16)]),
            ssrc=self.chance.choice([SSRC, SSRC + 9]),
            padding=self.chance.choice([0, 0, 7, 255]),
            payload_type=payload_type,
        )

    def damaged(self, data: bytes) -> bytes:
        """The same with up to three bits of damage: bytes changed, cut off, added, moved."""
        damaged = bytearray(data)
        for _ in range(self.chance.randrange(4)):
            kind = self.chance.randrange(5)
            if kind < 2 and damaged:
                damaged[self.chance.randrange(len(damaged))] = self.chance.randrange(256)
            elif kind == 2:
                del damaged[self.chance.randrange(len(damaged) + 1) :]
            elif kind == 3:
                damaged += self.chance.randbytes(self.chance.randrange(9))
            else:
                del damaged[: self.chance.randrange(5)]
        return bytes(damaged)

    def accounted(self) -> int:
        """Datagrams that became something."""
        counts = self.take.counts()
        duplicates = sum(count.duplicates for count in counts)
        return sum(self.recorded.values()) + duplicates + self.reports + self.take.tap.ignored.total()


def judge(seed: int, mode: str, datagrams: int) -> None:
    fuzz = Fuzz(seed, mode)
    for _ in range(datagrams):
        fuzz.hear(fuzz.damaged(fuzz.true_datagram()))
    frames = [opus(10**6 + n) for n in range(100)]
    before = fuzz.recorded[Outcome.VOICE]
    for n, frame in enumerate(frames):
        fuzz.hear(fuzz.call.datagram(fuzz.call.say(BELA, frame), sequence=n, ssrc=FRESH_SSRC))
    fuzz.take.finish()
    (fresh,) = [count for count in fuzz.take.counts() if count.ssrc == FRESH_SSRC]
    assert fresh.outcomes == {"VOICE": len(frames)}
    assert fresh.user_id == str(BELA)
    assert fuzz.recorded[Outcome.VOICE] >= before + len(frames)
    assert fuzz.accounted() == datagrams + len(frames)
    assert len(fuzz.take.tap.streams) <= 3


@pytest.mark.parametrize("mode", [XCHACHA, AES_GCM])
@pytest.mark.parametrize("seed", SEEDS)
def test_damaged_datagrams_do_no_harm(seed: int, mode: str) -> None:
    """Each becomes a record, a duplicate, a report or a counted other thing; the next speaker is heard."""
    judge(seed, mode, QUICK)


@pytest.mark.soak
def test_a_million_damaged_datagrams_do_no_harm() -> None:
    """The same for long, and memory stays flat."""
    tracemalloc.start()
    judge(99, XCHACHA, SOAK)
    left, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert left < GROWTH_BYTES

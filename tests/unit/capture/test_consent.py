"""What may not be written is not written: the gate of one SSRC, and the facts about it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture.batches import Batcher
from capture.clock import SessionClock
from capture.consent import HELD_PACKETS, KEPT_NS, Consent, ConsentLog, Gate
from capture.voice.dave import Heard, Sealed
from contracts.events import ConsentRuled, SpeakerAdmitted, SpeakerWithheld
from contracts.guilds import CONSENT_MODES, GuildSettings
from contracts.packets import Outcome, PacketBatch

ADA, BELA = 501, 502
OPEN = GuildSettings(guild_id="1")


class Door:
    """A gate, its batches, and whose SSRC it is."""

    def __init__(self, settings: GuildSettings) -> None:
        self.out: list[PacketBatch] = []
        self.batcher = Batcher(take=1, ssrc=7, zero_ns=0, publish=self.out.append)
        self.consent = Consent(settings)
        self.owner: int | None = None
        self.gate = Gate(self.consent, lambda: self.owner, self.batcher)

    def hear(self, number: int) -> None:
        sealed = Sealed(number % 65_536, number, number * 20_000_000, b"", -1)
        self.gate.record(Heard(sealed, number.to_bytes(4), Outcome.VOICE))

    def change(self, settings: GuildSettings, number: int) -> None:
        self.consent.update(settings, now_ns=number * 20_000_000)
        self.gate.settle()

    def written(self) -> list[int]:
        self.batcher.flush()
        return [int.from_bytes(packet.payload) for batch in self.out for packet in batch.packets]


STEPS = st.lists(
    st.one_of(
        st.just("packet"),
        st.just("tick"),
        st.just("named"),
        st.tuples(st.sampled_from([ADA, BELA]), st.sampled_from(["in", "out"])),
        st.sampled_from(CONSENT_MODES),
    ),
    max_size=60,
)


@given(STEPS, st.sampled_from(CONSENT_MODES))
def test_a_packet_is_written_only_if_its_speaker_allows_it_then(steps: list[Any], mode: str):
    """Whatever comes in whatever order: no packet of a refused person is written, every allowed one's is, in order."""
    door = Door(GuildSettings(guild_id="1", consent=mode))
    settings = GuildSettings(guild_id="1", consent=mode)
    expected: list[int] = []
    for number, step in enumerate(steps):
        if step == "packet":
            door.hear(number)
            expected += [number] if settings.records(str(ADA)) else []
        elif step == "tick":
            door.gate.settle()
        elif step == "named":
            door.owner = ADA
        elif isinstance(step, tuple):
            settings = settings.with_choice(str(step[0]), step[1])
            door.change(settings, number)
        else:
            settings = GuildSettings(
                guild_id="1", consent=step, opted_out=settings.opted_out, opted_in=settings.opted_in
            )
            door.change(settings, number)
        refused = not settings.records(str(ADA)) and door.owner == ADA
        if refused and step != "named":  # what was not sent when the refusal was noticed is gone
            sent = {int.from_bytes(packet.payload) for batch in door.out for packet in batch.packets}
            expected = [each for each in expected if each in sent]
    door.gate.finish()
    written = door.written()
    if door.owner == ADA and settings.records(str(ADA)):
        assert written == expected
    elif door.owner == ADA:
        assert written == [each for each in expected if each in written]
    elif mode != "opt-in" and all(isinstance(step, str) and step != "opt-in" for step in steps):
        assert written == expected  # nobody ever refused
    assert len(written) + door.gate.withheld == steps.count("packet")


@pytest.mark.parametrize("mode", ["opt-in", "notice"])
def test_who_refused_when_it_came_is_refused_however_much_changed_since(mode: str):
    """Forty people choose while her packet waits for a name; and what is older than what is remembered is refused."""
    settings = GuildSettings(guild_id="1", consent=mode).with_choice(str(BELA), "out")
    door = Door(settings)
    door.hear(1)
    settings = settings.with_choice(str(BELA), "in")
    door.change(settings, 2)
    for number in range(3, 43):
        settings = settings.with_choice(str(1000 + number), "in")
        door.change(settings, number)
    assert not door.consent.allowed(BELA, 1 * 20_000_000)
    assert not door.consent.allowed_all(1 * 20_000_000)
    assert door.consent.allowed(BELA, 2 * 20_000_000)
    later = 3 * KEPT_NS // 20_000_000
    for number in (later, later + 1):
        settings = settings.with_choice(str(number), "in")
        door.change(settings, number)
    assert not door.consent.allowed(BELA, 2 * 20_000_000)
    assert door.consent.allowed(BELA, later * 20_000_000)
    door.owner = BELA
    door.gate.settle()
    assert door.written() == []


def test_what_nobody_is_named_for_waits_and_goes():
    """Half a minute is held; a name brings it all back, and without one none of it is written."""
    strict = GuildSettings(guild_id="1", consent="opt-in", opted_in=(str(ADA),))
    for owner, kept in ((ADA, HELD_PACKETS), (BELA, 0), (None, 0)):
        door = Door(strict)
        for number in range(HELD_PACKETS + 10):
            door.hear(number)
        assert door.written() == []
        door.owner = owner
        door.gate.finish()
        assert door.written() == list(range(HELD_PACKETS + 10))[10 : 10 + kept]
        assert door.gate.withheld == HELD_PACKETS + 10 - kept


def test_a_refusal_takes_what_is_not_sent_yet():
    """The batch that was filling is dropped with its counts; numbers go on without a gap."""
    door = Door(OPEN)
    door.owner = ADA
    for number in range(30):
        door.hear(number)
    door.change(OPEN.with_choice(str(ADA), "out"), 30)
    for number in range(30, 40):
        door.hear(number)
    door.change(OPEN.with_choice(str(ADA), "in"), 40)
    for number in range(40, 45):
        door.hear(number)
    assert door.written() == [*range(25), *range(40, 45)]
    assert [batch.number for batch in door.out] == [0, 1]
    assert door.batcher.outcomes.total() == 30
    assert door.gate.withheld == 15


def test_what_came_before_somebody_allowed_it_is_not_written_after():
    """Packets that waited for their key or their place were said under the refusal."""
    door = Door(OPEN.with_choice(str(ADA), "out"))
    door.owner = ADA
    door.change(OPEN, 10)
    for number in range(5, 15):
        door.hear(number)
    assert door.written() == list(range(10, 15))
    assert door.gate.withheld == 5


class Diary:
    """What a ConsentLog writes."""

    def __init__(self) -> None:
        self.clock = SessionClock(10, 0)
        self.facts: list[tuple[type, dict[str, Any]]] = []

    def write(self, kind: type, **fields: Any) -> None:
        self.facts.append((kind, fields))


def test_every_change_is_a_fact_once():
    """The rule at first; a refusal and its end for each person, though they are told of many times, or left."""
    diary, consent = Diary(), Consent(OPEN)
    log = ConsentLog(consent, diary, mode="opt-out", withheld={str(BELA): "opted_out"})
    log.update([ADA])
    consent.update(OPEN.with_choice(str(ADA), "out"))
    log.update([ADA])
    log.update([ADA])
    consent.update(GuildSettings(guild_id="1", consent="opt-in", opted_in=(str(ADA),)), now_ns=35)
    log.update([])
    log.update([BELA])
    assert diary.facts == [
        (ConsentRuled, {"mode": "notice"}),
        (SpeakerAdmitted, {"at_ns": None, "user_id": str(BELA)}),
        (SpeakerWithheld, {"user_id": str(ADA), "why": "opted_out"}),
        (ConsentRuled, {"mode": "opt-in"}),
        (SpeakerAdmitted, {"at_ns": 25, "user_id": str(ADA)}),
        (SpeakerWithheld, {"user_id": str(BELA), "why": "not_opted_in"}),
    ]

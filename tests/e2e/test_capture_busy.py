"""Fifty interactions a second while a hundred rooms are recorded: people are answered, and packets do not notice."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from capture.app import run
from capture.call import Call
from capture.clock import boottime_ns
from contracts.commands import StartRecording
from contracts.errors import UnavailableError
from contracts.jetstream.asking import ask_status, start_recording
from contracts.jetstream.connection import Bus, connect
from contracts.settings import load_settings
from ops.embedded import EmbeddedServer
from ops.load import _crowd
from ops.loopback.crowd import CrowdSpec

ROOMS = 100
TALK_S = 15.0
USES_PER_S = 50.0
AT_ONCE = 10  # joins
ACKNOWLEDGED_S = 1.0
COST_RATIO = 1.25  # of the path's own processor time per packet; noise of a shared machine
WAIT_MORE_MS = 40.0  # how much later the slowest hundredth may be read: two sweeps; stamps are the kernel's


class Watched:
    """What the packet path of every recording took, packet by packet."""

    def __init__(self) -> None:
        self.cost_ns: list[int] = []
        self.wait_ns: list[int] = []
        self.begun_s = time.process_time()

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = Call.on_datagram

        def timed(call: Call, data: bytes, arrival_ns: int) -> None:
            begun = time.thread_time_ns()
            self.wait_ns.append(boottime_ns() - arrival_ns)
            plain(call, data, arrival_ns)
            self.cost_ns.append(time.thread_time_ns() - begun)

        monkeypatch.setattr(Call, "on_datagram", timed)

    def cpu_s(self) -> float:
        """Processor time of the process since this was asked last."""
        before, self.begun_s = self.begun_s, time.process_time()
        return self.begun_s - before

    def take(self) -> dict[str, float]:
        """Figures since this was asked last."""
        cost, wait = sorted(self.cost_ns), sorted(self.wait_ns)
        self.cost_ns, self.wait_ns = [], []
        return {
            "packets": len(cost),
            "cpu_s": round(self.cpu_s(), 2),
            "cost_us_p50": cost[len(cost) // 2] / 1e3,
            "wait_ms_p50": wait[len(wait) // 2] / 1e6,
            "wait_ms_p99": wait[len(wait) * 99 // 100] / 1e6,
        }


@pytest.mark.soak
@pytest.mark.alone
@pytest.mark.timeout(600)
async def test_people_are_answered_and_packets_do_not_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each first answer comes within a second, none is missing; a packet's path costs what it did, none is lost."""
    path = Watched()
    path.watch(monkeypatch)
    spec = CrowdSpec(rooms=ROOMS, speakers=1.0)
    async with EmbeddedServer(tmp_path / "nats") as nats, _crowd(spec) as crowd:
        environ = {**crowd.environ, "RETOLD_NATS_URL": nats.url, "RETOLD_DATA": str(tmp_path / "data")}
        stop = asyncio.Event()
        capture = asyncio.create_task(run(load_settings(environ), stop=stop))
        bus = await connect(nats.url, name="test")
        await until_ready(bus)
        await join(bus, crowd.rooms)
        await crowd.ask({"settle": True})
        await asyncio.sleep(5.0)  # the notices are said, the panels stand
        path.take()
        quiet_sent = await crowd.ask({"talk": TALK_S})
        quiet = path.take()
        busy_sent = await crowd.ask({"talk": TALK_S, "use": USES_PER_S})
        busy = path.take()
        sent = sum(quiet_sent["sent"].values()) + sum(busy_sent["sent"].values())
        recorded = await until_recorded(bus, sent)
        stop.set()
        await bus.close()
        capture.cancel()
        await asyncio.gather(capture, return_exceptions=True)
    answers = busy_sent["used"]
    known = sorted(each for each in answers if each is not None)
    print(f"\nquiet {quiet}\nbusy {busy}\nsent {sent}, recorded {recorded}; {len(known)} of {len(answers)} answered,")
    print(f"p50 {known[len(known) // 2] * 1e3:.0f} ms, p99 {known[len(known) * 99 // 100] * 1e3:.0f} ms")
    print(f"slowest {known[-1] * 1e3:.0f} ms; crowd late {busy_sent['late_s'] * 1e3:.0f} ms")
    assert len(known) == len(answers) == round(TALK_S * USES_PER_S)
    assert known[-1] < ACKNOWLEDGED_S
    assert recorded == sent
    assert busy["cost_us_p50"] < quiet["cost_us_p50"] * COST_RATIO
    assert busy["wait_ms_p99"] < quiet["wait_ms_p99"] + WAIT_MORE_MS


async def until_ready(bus: Bus) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                if (await ask_status(bus)).ready:
                    return
            except UnavailableError:
                pass
            await asyncio.sleep(0.1)


async def join(bus: Bus, rooms: list[Any]) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(guild: str, channel: str) -> None:
        async with gate:
            await start_recording(bus, StartRecording(guild_id=guild, channel_id=channel))

    await asyncio.gather(*(one(*room) for room in rooms))


async def until_recorded(bus: Bus, wanted: int) -> int:
    recorded = 0
    async with asyncio.timeout(30):
        while recorded < wanted:
            status = await ask_status(bus)
            recorded = sum(each.packets["recorded"] for each in status.sessions)
            await asyncio.sleep(0.2)
    return recorded

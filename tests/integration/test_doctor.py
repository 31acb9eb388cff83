"""`retold doctor` on broken set-ups: each fault is found by the check that it belongs to, and named with its remedy.

The set-up is whole at first: a loopback Discord, a nats-server, a gateway, and a capture and a mixer that answer. Each
test breaks one thing.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

import mixer.kernel
from contracts.commands import Status, encode_reply
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import remove_entry
from contracts.jetstream.jobs import JobQueue
from contracts.jetstream.leases import Lease, take_lease
from contracts.jetstream.streams import shared_configs
from contracts.keeping import KEEPER
from contracts.keys import make_keys
from contracts.settings import Settings
from contracts.streams import RENDERS
from contracts.subjects import STATUS
from contracts.tasks import end_tasks
from ops.doctor import machine
from ops.doctor.archive import check_archive
from ops.doctor.discord import check_discord
from ops.doctor.examination import examine
from ops.doctor.finding import Finding, Patient
from ops.doctor.machine import check_machine
from ops.doctor.nats import check_nats
from ops.doctor.web import check_links
from ops.embedded import free_port
from ops.loopback.permissions import BOT, Permission
from ops.loopback.plan import CallPlan, Person
from ops.loopback.server import LoopbackDiscord
from tests.gateway_server import running_gateway
from tests.integration.test_metrics_exporter import record
from tests.processes import RETOLD, environ
from tests.s3 import running_s3
from tests.unit.ops.test_lag_view import live

in_the_set_up = pytest.mark.asyncio(loop_scope="module")

GUILD, CHANNEL = 100_000_000_000_000_000, 110_000_000_000_000_000
PLAN = CallPlan(people=(Person(user_id=300_000_000_000_000_000, name="Ada"),), utterances=(), seconds=0.0)


@dataclass
class SetUp:
    """A whole installation, as the doctor sees it."""

    discord: LoopbackDiscord
    bus: Bus
    settings: Settings

    def patient(self, *, channel_id: int = 0, late_s: float = 0.0, **changes: Any) -> Patient:
        return Patient(
            settings=msgspec.structs.replace(self.settings, **changes),
            channel_id=channel_id,
            now_s=lambda: time.time() - late_s,
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SetUp]:
    """Nothing is wrong with it."""
    folder = tmp_path_factory.mktemp("doctor")
    async with (
        running_gateway(folder) as gateway,
        LoopbackDiscord(plan=PLAN, guild_id=GUILD, channel_id=CHANNEL, directory=folder) as discord,
        JobQueue(gateway.bus) as queue,
    ):

        async def status(_asked: bytes) -> bytes:
            return encode_reply(Status(ready=True))

        await gateway.bus.serve(STATUS, status, queue="capture")
        mixer = asyncio.create_task(queue.take(timeout_s=600))
        lease = await take_lease(gateway.bus, KEEPER, "a keeper")
        renewing = asyncio.create_task(renew(lease))
        settings = msgspec.structs.replace(
            gateway.settings,
            public_url=gateway.url,
            nats_monitor_url=gateway.server.monitor_url,
            discord_token=discord.environ["RETOLD_DISCORD_TOKEN"],
            discord_api_url=discord.environ["RETOLD_DISCORD_API_URL"],
            discord_gateway_url=discord.environ["RETOLD_DISCORD_GATEWAY_URL"],
            discord_ca_file=discord.environ["RETOLD_DISCORD_CA_FILE"],
        )
        yield SetUp(discord, gateway.bus, settings)
        await end_tasks(mixer, renewing)


async def renew(lease: Lease) -> None:
    while True:
        await asyncio.sleep(1)
        await lease.renew()


def only_wrong(findings: list[Finding]) -> Finding:
    """The one that is wrong."""
    bad = [finding for finding in findings if finding.verdict == "wrong"]
    assert len(bad) == 1, bad
    return bad[0]


def of(findings: list[Finding], check: str) -> Finding:
    (found,) = [finding for finding in findings if finding.check == check]
    return found


@in_the_set_up
async def test_a_whole_set_up_is_well(whole: SetUp):
    """With a channel to join, everything is looked at; that links open on this machine only is a note."""
    findings = await examine(whole.patient(channel_id=CHANNEL))
    assert [finding for finding in findings if finding.verdict == "wrong"] == []
    verdicts = {finding.check: finding.verdict for finding in findings}
    fine = {
        "data folder",
        "ffmpeg",
        "the mixer's inner loops",
        "discord.py",
        "davey",
        "nats-server",
        "clock of NATS",
        "streams",
        "capture",
    }
    fine |= {"mixer", "keeper", "Discord", "token", "intents", "UDP", "keys", "days of storage left"}
    assert fine <= {check for check, verdict in verdicts.items() if verdict == "fine"}
    assert verdicts["links"] == "note"
    assert "on this machine only" in of(findings, "links").said


@in_the_set_up
class TestDiscord:
    """Token, intents, permissions, UDP, clock."""

    async def test_a_wrong_token(self, whole: SetUp):
        """Said without showing it, with where a new one is made."""
        found = only_wrong(await check_discord(whole.patient(discord_token="not.the.token")))  # noqa: S106  # it opens nothing
        assert found.check == "token"
        assert "RETOLD_DISCORD_TOKEN" in found.remedy
        assert "not.the.token" not in str(found)

    async def test_no_token(self, whole: SetUp):
        """As wrong as a wrong one, unless capture runs with its own elsewhere."""
        elsewhere = f"nats://127.0.0.1:{free_port()}"
        alone = whole.patient(discord_token="", nats_url=elsewhere)
        assert "RETOLD_DISCORD_TOKEN" in only_wrong(await check_discord(alone)).said
        assert of(await check_discord(whole.patient(discord_token="")), "token").verdict == "skipped"

    async def test_a_guild_that_is_being_recorded_is_not_joined(self, whole: SetUp, monkeypatch: pytest.MonkeyPatch):
        """A second connection would end the recording's own."""

        async def recording(_settings: Settings) -> Status:
            return Status(ready=True, sessions=(live(guild_id=str(GUILD), packets={"recorded": 0}),))

        monkeypatch.setattr("ops.doctor.discord._capture", recording)
        found = of(await check_discord(whole.patient(channel_id=CHANNEL)), "UDP")
        assert found.verdict == "skipped"
        assert "is being recorded" in found.said

    async def test_a_discord_that_does_not_answer(self, whole: SetUp):
        """By its address, and the setting that leads there."""
        found = only_wrong(await check_discord(whole.patient(discord_api_url=f"http://127.0.0.1:{free_port()}/api")))
        assert found.check == "Discord"
        assert "RETOLD_DISCORD_API_URL" in found.remedy

    async def test_an_authority_that_is_no_file(self, whole: SetUp, tmp_path: Path):
        """By the setting's name."""
        patient = whole.patient(discord_ca_file=str(tmp_path / "none.pem"))
        found = only_wrong(await check_discord(patient))
        assert "RETOLD_DISCORD_CA_FILE" in found.said + found.remedy

    async def test_a_channel_that_the_bot_may_not_enter(self, whole: SetUp):
        """By the channel's name and the permission's; what is only wanted is a note."""
        whole.discord.room.roles.denied[CHANNEL] = int(Permission.CONNECT)
        whole.discord.room.roles.bot = int(BOT & ~Permission.ATTACH_FILES)
        try:
            findings = await check_discord(whole.patient())
        finally:
            whole.discord.room.roles.denied.clear()
            whole.discord.room.roles.bot = int(BOT)
        found = only_wrong(findings)
        assert found.check.startswith("permissions in")
        assert "The table" in found.said
        assert "Connect" in found.remedy
        notes = [finding for finding in findings if finding.verdict == "note"]
        assert ["Attach Files" in one.remedy for one in notes] == [True]

    async def test_udp_that_does_not_get_through(self, whole: SetUp, monkeypatch: pytest.MonkeyPatch):
        """Everything else of the call is there, and no datagram: the ports are named."""
        monkeypatch.setattr("ops.doctor.discord.JOIN_TIMEOUT_S", 1.0)
        whole.discord.media.holes = Everywhere()
        try:
            found = only_wrong(await check_discord(whole.patient(channel_id=CHANNEL)))
        finally:
            whole.discord.media.holes = set()
        assert found.check == "UDP"
        assert "50000 to 65535" in found.remedy

    async def test_udp_is_not_tried_unasked(self, whole: SetUp):
        """Nobody is surprised by a bot that comes and goes; a channel that is none is told which there are."""
        skipped = of(await check_discord(whole.patient()), "UDP")
        assert (skipped.verdict, "--channel" in skipped.remedy) == ("skipped", True)
        assert str(CHANNEL) in only_wrong(await check_discord(whole.patient(channel_id=1))).remedy

    async def test_a_clock_that_is_off(self, whole: SetUp):
        """Both clocks that there are to compare with say so, and what sets it."""
        patient = whole.patient(late_s=90)
        for findings in (await check_discord(patient), await check_nats(patient)):
            found = only_wrong(findings)
            assert "clock" in found.check
            assert "-90" in found.said
            assert "timedatectl set-ntp true" in found.remedy


@in_the_set_up
class TestNats:
    """There, as defined, and served."""

    async def test_no_nats(self, whole: SetUp, monkeypatch: pytest.MonkeyPatch):
        """One finding, with the address and no password."""
        monkeypatch.setattr("contracts.jetstream.connection.CONNECT_TIMEOUT_S", 0.5)
        url = f"nats://me:secret@127.0.0.1:{free_port()}"
        found = only_wrong(await check_nats(whole.patient(nats_url=url)))
        assert found.check == "NATS"
        assert "RETOLD_NATS_URL" in found.remedy
        assert "secret" not in str(found)

    async def test_a_stream_that_was_changed(self, whole: SetUp):
        """By its field; any service puts it right."""
        wanted = next(config for config in shared_configs() if config["name"] == RENDERS.name)
        await whole.bus.api(f"STREAM.UPDATE.{RENDERS.name}", {**wanted, "max_age": 0, "max_msgs_per_subject": 1})
        try:
            found = only_wrong(await check_nats(whole.patient()))
        finally:
            await whole.bus.api(f"STREAM.UPDATE.{RENDERS.name}", wanted)
        assert found.check == f"stream {RENDERS.name}"
        assert "max_age is 0" in found.said
        assert "start any service" in found.remedy

    async def test_a_stream_that_is_another(self, whole: SetUp):
        """Its storage cannot be changed: it has to go."""
        wanted = next(config for config in shared_configs() if config["name"] == RENDERS.name)
        await whole.bus.api(f"STREAM.DELETE.{RENDERS.name}")
        missing = only_wrong(await check_nats_quietly(whole))
        assert "it is not there" in missing.said
        await whole.bus.api(f"STREAM.CREATE.{RENDERS.name}", {**wanted, "storage": "memory"})
        try:
            found = only_wrong(await check_nats(whole.patient()))
        finally:
            await whole.bus.api(f"STREAM.DELETE.{RENDERS.name}")
            await whole.bus.api(f"STREAM.CREATE.{RENDERS.name}", wanted)
        assert "storage is memory, not file" in found.said
        assert f"nats stream rm {RENDERS.name}" in found.remedy

    async def test_a_monitoring_address_that_is_none(self, whole: SetUp):
        """By the setting's name."""
        patient = whole.patient(nats_monitor_url=f"http://127.0.0.1:{free_port()}")
        assert "RETOLD_NATS_MONITOR_URL" in only_wrong(await check_nats(patient)).remedy

    async def test_a_session_that_nobody_records(self, whole: SetUp):
        """By its room, and who goes on with it."""
        session = await record(whole.bus, ended=False)
        try:
            found = only_wrong(await check_nats(whole.patient()))
        finally:
            await remove_entry(whole.bus, session)
        assert found.check == f"session {session}"
        assert 'Room "one"' in found.said
        assert "retold capture" in found.remedy

    async def test_nobody_keeps(self, whole: SetUp, monkeypatch: pytest.MonkeyPatch):
        """What is deleted is not erased: that is wrong, and said with what starts a keeper."""
        monkeypatch.setattr("ops.look.KEEPER", "nobody")
        found = only_wrong(await check_nats(whole.patient()))
        assert found.check == "keeper"
        assert "retold keeper" in found.remedy


async def check_nats_quietly(whole: SetUp) -> list[Finding]:
    """Without what else follows from a stream that is not there."""
    findings = await check_nats(whole.patient())
    return [finding for finding in findings if finding.check.startswith("stream ")]


@in_the_set_up
class TestMachine:
    """Folder, disk, ffmpeg, libraries."""

    async def test_no_ffmpeg(self, whole: SetUp):
        """By the setting, and what installs one."""
        found = only_wrong(await check_machine(whole.patient(ffmpeg="/nonexistent")))
        assert found.check == "ffmpeg"
        assert "RETOLD_FFMPEG" in found.remedy

    async def test_no_compiler(self, whole: SetUp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        """And nothing compiled: what was loaded before is forgotten for a while."""
        monkeypatch.setattr(mixer.kernel, "_path", lambda: tmp_path / "kernel.so")
        monkeypatch.setattr(mixer.kernel, "_compilers", lambda: iter(()))
        monkeypatch.setattr(machine, "kernel", mixer.kernel.kernel.__wrapped__)
        found = only_wrong(await check_machine(whole.patient()))
        assert (found.check, "python -m mixer.kernel" in found.remedy) == ("the mixer's inner loops", True)

    async def test_a_data_folder_that_takes_nothing(self, whole: SetUp, tmp_path: Path):
        """By its path."""
        (tmp_path / "file").touch()
        findings = await check_machine(whole.patient(data=tmp_path / "file" / "data"))
        assert "RETOLD_DATA" in only_wrong(findings).remedy

    async def test_a_data_folder_that_is_not_there_yet(self, whole: SetUp, tmp_path: Path):
        """A note; whoever looks makes nothing."""
        found = of(await check_machine(whole.patient(data=tmp_path / "to" / "be")), "data folder")
        assert (found.verdict, "retold up" in found.remedy) == ("note", True)
        assert list(tmp_path.iterdir()) == []

    async def test_a_disk_that_is_full(self, whole: SetUp, monkeypatch: pytest.MonkeyPatch):
        """Or will be soon: a note."""
        free = shutil.disk_usage(whole.settings.data).free
        monkeypatch.setattr(machine, "FULL_BYTES", free * 2)
        assert only_wrong(await check_machine(whole.patient())).check == "disk"
        monkeypatch.setattr(machine, "FULL_BYTES", 0)
        monkeypatch.setattr(machine, "TIGHT_BYTES", free * 2)
        assert of(await check_machine(whole.patient()), "disk").verdict == "note"

    async def test_a_davey_that_capture_was_not_made_for(self, whole: SetUp, monkeypatch: pytest.MonkeyPatch):
        """With the one that it was made for."""
        monkeypatch.setattr("importlib.metadata.requires", lambda _name: ["davey==0.0.1", "discord.py==2.7.1"])
        found = only_wrong(await check_machine(whole.patient()))
        assert (found.check, found.remedy) == ("davey", "pip install davey==0.0.1")


@in_the_set_up
class TestLinks:
    """Where they lead."""

    async def test_nobody_is_there(self, whole: SetUp):
        """By the address and its setting."""
        patient = whole.patient(public_url=f"http://127.0.0.1:{free_port()}")
        assert "RETOLD_PUBLIC_URL" in only_wrong(await check_links(patient)).remedy

    async def test_another_web_server_is_there(self, whole: SetUp):
        """It answers, and is no gateway of ours: here NATS' own monitoring."""
        found = only_wrong(await check_links(whole.patient(public_url=whole.settings.nats_monitor_url)))
        assert "is no gateway of Retold's" in found.said

    async def test_another_installation_is_there(self, whole: SetUp, tmp_path: Path):
        """Its gateway opens none of our links."""
        make_keys(tmp_path / "keys")
        found = only_wrong(await check_links(whole.patient(data=tmp_path)))
        assert "opens no link of ours" in found.said
        assert "RETOLD_PUBLIC_URL" in found.remedy

    async def test_there_are_no_keys(self, whole: SetUp, tmp_path: Path):
        """And what makes one."""
        assert "retold keys rotate" in only_wrong(await check_links(whole.patient(data=tmp_path))).remedy


async def test_s3_that_works_is_away_or_has_no_such_bucket(tmp_path: Path):
    """Written, read and deleted; nothing of it stays; what is wrong names its setting."""
    with running_s3() as s3:
        settings = s3.settings(tmp_path)
        assert of(await check_archive(Patient(settings=settings)), "S3").verdict == "fine"
        assert s3.contents() == {}
        other = msgspec.structs.replace(settings, s3_bucket="of-somebody-else")
        assert "RETOLD_S3_BUCKET" in only_wrong(await check_archive(Patient(settings=other))).remedy
        s3.stop()
        assert "RETOLD_S3_ENDPOINT" in only_wrong(await check_archive(Patient(settings=settings))).remedy
    nothing_set = Patient(settings=Settings(data=tmp_path))
    assert of(await check_archive(nothing_set), "S3").verdict == "skipped"


def test_as_a_command_it_tells_programs_and_people(tmp_path: Path):
    """Wrong settings and an installation that is not there: exit code 1, one JSON object, or a list with remedies."""
    asked = environ(tmp_path, RETOLD_NATS_URL=f"nats://127.0.0.1:{free_port()}", RETOLD_DATA=str(tmp_path / "data"))
    wrong = {**asked, "RETOLD_GATWAY_PORT": "80"}
    done = subprocess.run([*RETOLD, "doctor", "--json"], env=wrong, capture_output=True, check=False, timeout=60)
    told = json.loads(done.stdout)
    assert (done.returncode, told["well"]) == (1, False)
    assert [(one["check"], one["said"]) for one in told["findings"]] == [
        ("settings", "RETOLD_GATWAY_PORT: no such setting")
    ]
    away = {**asked, "RETOLD_DISCORD_API_URL": f"http://127.0.0.1:{free_port()}"}
    shown = subprocess.run([*RETOLD, "doctor"], env=away, capture_output=True, text=True, check=False, timeout=60)
    assert shown.returncode == 1
    assert "RETOLD_NATS_URL" in shown.stdout
    assert "\N{RIGHTWARDS ARROW} unset RETOLD_DISCORD_API_URL" in shown.stdout
    assert "Traceback" not in shown.stderr


class Everywhere(set[tuple[str, int]]):
    """Every address."""

    def __contains__(self, _address: object) -> bool:
        return True

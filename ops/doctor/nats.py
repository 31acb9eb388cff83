"""NATS: whether it is there, new enough and configured as Retold defines it; who works on it; how long it lasts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any, Final

import msgspec

from contracts.errors import UnavailableError
from contracts.jetstream.connection import STREAM_NOT_FOUND, Bus, JetStreamError, connect
from contracts.jetstream.server import Server
from contracts.jetstream.streams import shared_configs
from ops.cli.output import human_bytes
from ops.doctor.finding import Finding, Patient, fine, note, skipped, wrong
from ops.look import Look, Lookout
from ops.monitor import Monitor

OLDEST: Final = (2, 11)  # marks of consumers that are deleted, and what else Retold asks for
REPLY_TOKENS: Final = 9  # of an acknowledgement's subject, format 1: nats-py reads no other
FEW_DAYS, SOME_DAYS = 7.0, 30.0
LATE_S: Final = 2.0
SOME_NAMES: Final = 3
THAW: Final = (
    "free space there, then systemctl restart retold-nats, or docker compose restart nats; retold up does it by itself"
)
START: Final = "retold up, or docker compose up --detach nats; then look at RETOLD_NATS_URL"
KEPT: Final = frozenset({"num_replicas", "description"})  # that may differ


async def check_nats(patient: Patient) -> list[Finding]:
    """All of it; one finding if it is away."""
    settings = patient.settings
    try:
        bus = await connect(Server.of(settings, "operator"), name="doctor")
    except UnavailableError as error:
        return [wrong("NATS", str(error), START)]
    findings = []
    async with _closing(bus):
        findings += [_check_version(bus), await _check_clock(bus, patient)]
        findings += [finding async for finding in _check_streams(bus)]
        findings += await _check_state(bus, patient)
    return findings


@contextlib.asynccontextmanager
async def _closing(bus: Bus) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await bus.close()


def _check_version(bus: Bus) -> Finding:
    version = bus.client.connected_server_version
    if (version.major, version.minor) < OLDEST:
        least = ".".join(map(str, OLDEST))
        return wrong("nats-server", f"{version}; Retold needs {least}", f"install nats-server {least} or newer")
    return fine("nats-server", f"{version.major}.{version.minor}.{version.patch}")


async def _check_clock(bus: Bus, patient: Patient) -> Finding:
    """Against the server's: what it stores carries its time, links carry ours."""
    before_s = patient.now_s()
    told = (await bus.api("STREAM.LIST", {"offset": 0}))["streams"]
    now = await bus.api(f"STREAM.INFO.{told[0]['config']['name']}") if told else {}
    if "ts" not in now:
        return skipped("clock of NATS", "there is no stream yet that would tell it")
    ahead_s = (before_s + patient.now_s()) / 2 - msgspec.convert(now["ts"], datetime).timestamp()
    if abs(ahead_s) > LATE_S:
        said = f"this machine's is {ahead_s:+.1f} s from nats-server's"
        return wrong("clock of NATS", said, "timedatectl set-ntp true, on both machines")
    return fine("clock of NATS", f"{ahead_s * 1000:+.0f} ms")


async def _check_streams(bus: Bus) -> AsyncIterator[Finding]:
    """Each shared stream against its definition."""
    sound = []
    for config in shared_configs():
        name = config["name"]
        try:
            found = (await bus.api(f"STREAM.INFO.{name}"))["config"]
        except JetStreamError as error:
            if error.err_code != STREAM_NOT_FOUND:
                raise
            yield wrong(f"stream {name}", "it is not there", "start any service: it makes what is missing")
            continue
        if different := list(_differences(config, found)):
            yield wrong(f"stream {name}", "; ".join(different), _mend(name, different))
        else:
            sound.append(name)
    yield fine("streams", f"{len(sound)} as defined")


def _differences(wanted: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    for field, value in wanted.items():
        by_default = field == "duplicate_window" and not value
        if field not in KEPT and not by_default and found.get(field, _absent(value)) != value:
            yield f"{field} is {found.get(field)}, not {value}"


def _absent(value: Any) -> Any:
    """What an answer means that does not name the field."""
    return type(value)()


def _mend(name: str, different: list[str]) -> str:
    """The server lets most be changed, which every service does as it starts; of some things it does not let go."""
    if any(line.startswith(("storage", "retention")) for line in different):
        return f"nats stream rm {name} (it holds no recordings), then start any service: it is made anew"
    return "start any service anew: it puts the streams right"


async def _check_state(bus: Bus, patient: Patient) -> list[Finding]:
    """What runs on it, and how long the disk lasts."""
    url = patient.settings.nats_monitor_url
    async with contextlib.AsyncExitStack() as stack:
        monitor = await stack.enter_async_context(Monitor(url)) if url else None
        try:
            look = await Lookout(bus, monitor).look()
        except JetStreamError as error:
            return [skipped("services and storage", f"what they need is not there: {error}")]
        except UnavailableError as error:
            remedy = "set RETOLD_NATS_MONITOR_URL to the `http:` address of nats.conf, or leave it empty"
            return [wrong("NATS' monitoring", str(error), remedy)]
    return [*_frozen(look), *_services(look), _days_left(look), *_given_up(look)]


def _frozen(look: Look) -> Iterator[Finding]:
    """Streams that do not thaw by themselves."""
    if look.server is not None and look.server.frozen:
        names = ", ".join(look.server.frozen[:SOME_NAMES])
        more = len(look.server.frozen) - SOME_NAMES
        said = f"its disk was full, and it writes no more: {names}" + (f", and {more} others" if more > 0 else "")
        yield wrong("nats-server's store", said, THAW)


def _services(look: Look) -> Iterator[Finding]:
    if look.status is None:
        yield wrong("capture", "it does not answer", "retold capture, or docker compose up --detach capture")
    elif not look.status.ready:
        yield wrong("capture", "it runs, and is not logged in to Discord", "see its log; the token is checked below")
    else:
        yield fine("capture", f"records {len(look.status.sessions)} rooms")
    workers = look.jobs.consumers if look.jobs else ()
    if any(one.waiting or one.ack_pending for one in workers):
        yield fine("mixer", f"{look.mixers_waiting} free, {look.jobs.messages if look.jobs else 0} jobs")
    else:
        yield wrong("mixer", "nobody asks for jobs", "retold mixer, or docker compose up --detach mixer")
    if look.kept:
        yield fine("keeper", "it works")
    else:
        said = "nobody keeps: nothing goes by age or space, and what was deleted is not erased"
        yield wrong("keeper", said, "retold keeper, or docker compose up --detach keeper")
    for entry in look.abandoned:
        yield wrong(
            f"session {entry.session}",
            f"{entry.channel_name} of {entry.guild_name} has not ended, and nobody records it",
            "retold capture: it goes on with it, or ends it",
        )


def _days_left(look: Look) -> Finding:
    storage = look.storage
    if storage.room_bytes is None:
        remedy = "set RETOLD_NATS_MONITOR_URL, such as http://127.0.0.1:8222, on the machine of nats-server"
        return skipped("days of storage left", "nobody here knows the disk of nats-server", remedy)
    room = human_bytes(storage.room_bytes)
    if storage.days_left is None:
        return fine("days of storage left", f"nothing was recorded in the last week; room for {room}")
    said = f"{storage.days_left:.1f} at {human_bytes(storage.per_day_bytes)} a day; room for {room}"
    remedy = "shorten RETOLD_RETENTION, archive old sessions, or give JetStream a larger disk"
    if storage.days_left < FEW_DAYS:
        return wrong("days of storage left", said, remedy)
    return (
        fine("days of storage left", said)
        if storage.days_left > SOME_DAYS
        else note("days of storage left", said, remedy)
    )


def _given_up(look: Look) -> Iterator[Finding]:
    for fact in look.failed:
        said = f"job {fact.job} of session {fact.session} was given up: {fact.reason}"
        yield note("render", said, f"mend that, then: retold mix {fact.session}")
    for advisory in look.advisories:
        if look.unix_s - advisory.unix_s < 86_400:  # noqa: PLR2004  # a day
            yield note("NATS says", f"{advisory.meaning}: {advisory.about}", "retold lag --watch; nats-server's log")

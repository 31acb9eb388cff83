"""`verify`: the log is whole, the files are what was stored, and rendering them again gives the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.objects import find_artifact, list_artifacts, put_artifact, remove_artifact
from contracts.jetstream.streams import ensure_shared
from contracts.recipes import Recipe
from contracts.settings import Settings
from contracts.subjects import PacketSubject, parse
from mixer.engine import engine_string
from mixer.formats.ffmpeg import find_ffmpeg
from mixer.making import Engine
from ops.embedded import EmbeddedServer
from ops.verify import Proof, prove
from tests.builders import build_session
from tests.integration.test_mixer_worker import download, mixing, order, publish

pytestmark = pytest.mark.long

RECIPES = (
    Recipe(),
    Recipe(output="tracks", format="opus"),
    Recipe(format="flac", start_tick=48_000, stop_tick=240_000),
)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(tmp_path / "nats") as running:
        yield running


@pytest.fixture
async def bus(server: EmbeddedServer) -> AsyncIterator[Bus]:
    connected = await connect(server.url, name="test")
    await ensure_shared(connected)
    yield connected
    await connected.close()


async def proof_of(bus: Bus, session: str) -> Proof:
    ffmpeg = find_ffmpeg(Settings().ffmpeg)
    return await prove(bus, session, Engine(engine_string(ffmpeg), ffmpeg), progress=lambda _stage, _part: None)


async def test_what_was_made_is_made_again_to_the_same_bytes(server: EmbeddedServer, bus: Bus, tmp_path: Path):
    """A mix, tracks, a range; then a file that is not what its recipe makes, and one of another engine."""
    built = build_session(10.0, 2, activity=0.5, seed=3)
    await publish(bus, built)
    async with mixing(server):
        for recipe in RECIPES:
            await order(bus, built.session, recipe)
    proof = await proof_of(bus, built.session)
    assert (proof.good, proof.ended, proof.missing) == (True, True, ())
    assert [file.verdict for file in proof.files] == ["same"] * 4
    stored = [one.artifact for one in await list_artifacts(bus, built.session)]
    mix = next(artifact for artifact in stored if artifact.recipe.format == "mp3")
    other = next(artifact for artifact in stored if artifact.recipe.format == "flac")
    content = (await download(bus, mix, tmp_path)).read_bytes() + b"\0"
    changed = msgspec.structs.replace(mix, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    for artifact, data in ((changed, content), (msgspec.structs.replace(other, engine="0"), b"what it was")):
        (tmp_path / "file").write_bytes(data)
        await remove_artifact(bus, built.session, artifact.name)
        fitting = msgspec.structs.replace(artifact, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        await put_artifact(bus, fitting, tmp_path / "file")
    assert await find_artifact(bus, built.session, mix.name)
    proof = await proof_of(bus, built.session)
    assert not proof.good
    verdicts = {file.name: file.verdict for file in proof.files}
    assert (verdicts[mix.name], verdicts[other.name]) == ("differs", "other engine")
    assert list(verdicts.values()).count("same") == 2
    assert json.loads(msgspec.json.encode(proof))["session"] == built.session


async def test_a_log_that_lacks_a_batch_says_so(bus: Bus):
    """The end of a session says how much there must be: a message that is gone is found, and counted."""
    built = build_session(4.0, 2, activity=0.5, seed=4)
    packets = [message for message in built.messages if isinstance(parse(message.subject), PacketSubject)]
    built.messages.remove(packets[1])
    await publish(bus, built)
    proof = await proof_of(bus, built.session)
    assert not proof.good
    assert len(proof.missing) == 1
    assert "1 of " in proof.missing[0]

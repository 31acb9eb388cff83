"""What was recorded with the first release sounds as it did; what was backed up or archived comes back the same."""

from __future__ import annotations

import asyncio
import hashlib
import platform
import struct
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import soundfile

from contracts.artifacts import Artifact, RenderStored
from contracts.bundle import BundleError
from contracts.jetstream.directory import list_entries
from contracts.jetstream.keeping import standing
from contracts.jetstream.objects import remove_artifact
from contracts.jetstream.transfer import import_session
from contracts.keys import load_signing_key
from contracts.links import download_path, new_claims, sign_link
from contracts.recipes import Recipe
from mixer import opus
from ops.archive import archive_session, open_archive_or_fail
from ops.backup import back_up
from ops.restore import restore
from ops.vault.place import Folder
from tests.gateway_server import running_gateway
from tests.installation import Installation, installed
from tests.integration.test_keeper import DEADLINE_S, keeping
from tests.integration.test_mixer_worker import download, mixing, order
from tests.s3 import running_s3

pytestmark = pytest.mark.long

BUNDLES = Path(__file__).parents[1] / "data" / "bundles"
FIRST = BUNDLES / "first.retold"
TRACKS = Recipe(output="tracks", format="opus")
# Of the packets of each Opus track, headers left out: what was recorded, copied, with silence in its places.
OPUS_SHA256 = {"100000": "493ee5d03c84883afd99842fffcd917c", "100001": "19ccf812576290b62f19a1e15c7a8365"}
# Of the 16-bit samples of each FLAC track, as this libopus decodes them.
FLAC_SHA256 = {"100000": "e8ed2a899bddaecb064fdff7cbfce5e5", "100001": "b3374fc73631c36dceb5446e2275ebed"}
LIBOPUS = "unknown+9c7698bb x86_64"


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(tmp_path / "here") as each:
        yield each


async def bring_in(here: Installation, path: Path = FIRST) -> str:
    with path.open("rb") as file:
        session, entry = await import_session(here.bus, file)
    assert entry is not None
    return session


async def render(here: Installation, session: str, recipe: Recipe) -> list[Artifact]:
    stored = (await order(here.bus, session, recipe))[-1]
    assert isinstance(stored, RenderStored)
    return list(stored.artifacts)


async def test_a_bundle_of_the_first_release_renders_to_what_it_was(here: Installation, tmp_path: Path):
    """Every packet in its place, and every sample."""
    session = await bring_in(here)
    async with mixing(here.server):
        tracks = await render(here, session, TRACKS)
        flac = await render(here, session, Recipe(output="tracks", format="flac"))
    packets = {
        each.user_id: digest(*opus_packets((await download(here.bus, each, tmp_path)).read_bytes())) for each in tracks
    }
    assert packets == OPUS_SHA256
    if f"{opus.version()} {platform.machine()}" != LIBOPUS:
        pytest.skip(f"another libopus than {LIBOPUS}: samples may be rounded differently")
    samples = {}
    for each in flac:
        sound, _ = soundfile.read(str(await download(here.bus, each, tmp_path)), dtype="int16")
        samples[each.user_id] = digest(sound.tobytes())
    assert samples == FLAC_SHA256


@pytest.mark.parametrize("damage", ["cut", "bit"])
async def test_a_damaged_bundle_leaves_nothing_behind(here: Installation, tmp_path: Path, damage: str):
    """It says so, and the server is as it was."""
    content = bytearray(FIRST.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1
    path = tmp_path / "damaged.retold"
    path.write_bytes(content)
    with pytest.raises(BundleError):
        await bring_in(here, path)
    assert await list_entries(here.bus) == []
    session = await bring_in(here)
    assert await standing(here.bus, session) == "here"


async def test_backed_up_wiped_and_restored_the_same_recipe_gives_the_same_bytes(tmp_path: Path):
    """The drill: another machine, with nothing on it but the backup; renders are made again by themselves."""
    recipe = Recipe(output="mix", format="mp3")
    place = Folder(tmp_path / "backup")
    async with installed(tmp_path / "here") as here:
        session = await bring_in(here)
        async with mixing(here.server):
            (before,) = await render(here, session, recipe)
        await back_up(here.bus, here.settings, place)
    async with installed(tmp_path / "there") as there:
        assert (await restore(there.bus, there.settings, place)).restored == 1
        async with mixing(there.server):
            (after,) = await render(there, session, recipe)
        assert (after.name, after.sha256) == (before.name, before.sha256)


async def test_an_archived_session_is_mixed_and_downloaded_as_if_it_were_here(tmp_path: Path):
    """Nobody who has a link, or wants a mix, has to know where it is."""
    with running_s3() as s3:
        async with running_gateway(tmp_path / "gateway") as gateway:
            settings = s3.settings(tmp_path / "keeper", gateway.settings.nats_url)
            here = Installation(gateway.server, gateway.bus, settings)
            session = await bring_in(here)
            async with mixing(here.server), httpx.AsyncClient(timeout=30) as client:
                (mix,) = await render(here, session, Recipe(output="mix", format="mp3"))
                key = load_signing_key(gateway.settings.data / "keys")
                claims = new_claims(
                    sub="1", session=session, action="download", obj=mix.name, now_s=int(time.time()), lifetime_s=600
                )
                url = gateway.url + download_path(sign_link(claims, key), mix.filename)
                sound = (await client.get(url)).content
                archive = open_archive_or_fail(settings)
                await archive_session(here.bus, archive, session)
                told = await client.get(gateway.page(session))  # nobody keeps: it says so, and does not hang
                assert (told.status_code, told.headers["retry-after"]) == (503, "5")
                async with keeping(here):
                    async with asyncio.timeout(DEADLINE_S):
                        while (answer := await client.get(url)).status_code == 503:  # as Retry-After bids, but sooner
                            await asyncio.sleep(0.1)
                    assert answer.content == sound
                    await remove_artifact(here.bus, session, mix.name)
                    await archive_session(here.bus, archive, session)
                    (anew,) = await render(here, session, Recipe(output="mix", format="mp3"))
                    assert (anew.name, anew.sha256) == (mix.name, mix.sha256)


def digest(*parts: bytes) -> str:
    together = hashlib.sha256()
    for part in parts:
        together.update(struct.pack(">I", len(part)) + part)
    return together.hexdigest()[:32]


def opus_packets(content: bytes) -> Iterator[bytes]:
    """The packets of an Ogg Opus file, without its two headers (RFC 3533 §6, RFC 7845 §3)."""
    position, packet, number = 0, b"", 0
    while position < len(content):
        assert content[position : position + 4] == b"OggS"
        lacing = content[position + 27 : position + 27 + content[position + 26]]
        position += 27 + len(lacing)
        for size in lacing:
            packet += content[position : position + size]
            position += size
            if size < 255:
                if number >= 2:
                    yield packet
                packet, number = b"", number + 1

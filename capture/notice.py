"""What the recorder says: a spoken notice when a recording starts, and a tone now and then where a server wants one.

Both are short recordings that ship with the product.

It goes out as real Opus through the voice connection, end-to-end encrypted where the call is. Frames leave by their
time on the event loop's clock; one that is late leaves at once, and none is skipped.
"""

from __future__ import annotations

import asyncio
import io
from functools import cache
from importlib.resources import files
from typing import Any, Final

import discord
from discord.oggparse import OggStream

from capture.words.catalogue import words_in
from contracts.packets import SILENCE_FRAME

FRAME_S: Final = 0.02
SILENCE_FRAMES: Final = 5  # end a talkspurt
READY_S: Final = 10.0  # the keys of a call have come by then
POLL_S: Final = 0.05
HEADERS: Final = (b"OpusHead", b"OpusTags")


@cache
def notice(language: str) -> tuple[bytes, ...]:
    """The frames of the notice in a language: Opus, 20 ms each, and the silence that ends them."""
    return _frames(words_in(language).language)


@cache
def tone() -> tuple[bytes, ...]:
    """The frames of the tone, likewise."""
    return _frames("tone")


def _frames(name: str) -> tuple[bytes, ...]:
    content = files("capture.notices").joinpath(f"{name}.opus").read_bytes()
    packets = list(OggStream(io.BytesIO(content)).iter_packets())
    return (*(each for each in packets if not each.startswith(HEADERS)), *[SILENCE_FRAME] * SILENCE_FRAMES)


async def say(client: Any, frames: tuple[bytes, ...]) -> bool:
    """Say it as soon as the connection can encrypt; whether it was said to its end.

    Parameters
    ----------
    client
        The voice client; its gateway is told that it speaks, and that it does not any more.
    """
    if not await _ready(client):
        return False
    loop = asyncio.get_running_loop()
    await client.ws.speak(discord.SpeakingState.voice)
    begun = loop.time()
    for number, frame in enumerate(frames):
        if not client.is_connected():
            return False
        client.send_audio_packet(frame, encode=False)
        await asyncio.sleep(max(0.0, begun + (number + 1) * FRAME_S - loop.time()))
    await client.ws.speak(discord.SpeakingState.none)
    return True


async def _ready(client: Any) -> bool:
    """Wait until what is said can be heard: connected, and in the encrypted group where there is one."""
    state = client._connection  # noqa: SLF001  # discord.py shows the state to its own voice clients only
    try:
        async with asyncio.timeout(READY_S):
            while not (client.is_connected() and (state.dave_protocol_version == 0 or state.can_encrypt)):  # noqa: ASYNC110  # no event
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        return False
    return True

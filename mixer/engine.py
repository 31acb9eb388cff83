"""The engine: everything beside log and recipe that decides an artifact's bytes."""

from __future__ import annotations

import platform
from typing import Final

from mixer import opus
from mixer.formats.ffmpeg import Ffmpeg

MIXER_VERSION: Final = 4  # raise it with any change that changes a file's bytes


def engine_string(ffmpeg: Ffmpeg) -> str:
    """`retold-mixer/2 libopus/1.5.2+1a2b3c4d ffmpeg/7.1 x86_64`: goes into the artifact's name.

    The machine is part of it: decoders and encoders use other instructions elsewhere, and may round differently.
    """
    return f"retold-mixer/{MIXER_VERSION} libopus/{opus.version()} ffmpeg/{ffmpeg.version} {platform.machine()}"

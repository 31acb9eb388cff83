"""The machine: data folder and disk, ffmpeg, what is compiled, and the libraries that hearing a call hangs on."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mixer.errors import FfmpegMissingError, KernelMissingError
from mixer.formats.ffmpeg import find_ffmpeg
from mixer.kernel import kernel
from ops.cli.output import human_bytes
from ops.doctor.finding import Finding, Patient, fine, note, wrong

FULL_BYTES: Final = 1_000_000_000
TIGHT_BYTES: Final = 5_000_000_000  # a day of a busy server, with room to spare
INSTALL: Final = "pip install --require-hashes -r requirements/ops.txt"
COMPILE: Final = "pip install --require-hashes -r requirements/compiler.txt, then python -m mixer.kernel"
PINNED: Final = re.compile(r"([A-Za-z0-9.-]+)==([^\s;]+)")


async def check_machine(patient: Patient) -> list[Finding]:
    """All of it."""
    ffmpeg = await asyncio.to_thread(_check_ffmpeg, patient)
    loops = await asyncio.to_thread(_check_loops)
    return [_check_folder(patient), _check_disk(patient), ffmpeg, loops, *_check_libraries()]


def _check_folder(patient: Patient) -> Finding:
    data = patient.settings.data
    try:
        with tempfile.TemporaryFile(dir=_existing(data)) as file:
            file.write(b"retold")
            file.flush()
    except OSError as error:
        remedy = f"let this user write there (chown), or set RETOLD_DATA to another folder than {data}"
        return wrong("data folder", f"{data} takes nothing: {error.strerror or error}", remedy)
    if not data.exists():
        return note("data folder", f"{data.resolve()} is not there yet", "retold up makes it; or set RETOLD_DATA")
    return fine("data folder", str(data.resolve()))


def _existing(path: Path) -> Path:
    """The path, or the nearest above it that is there."""
    return next(each for each in (path.resolve(), *path.resolve().parents) if each.exists())


def _check_disk(patient: Patient) -> Finding:
    try:
        free = shutil.disk_usage(_existing(patient.settings.data)).free
    except OSError as error:
        return wrong("disk", str(error), "set RETOLD_DATA to a folder that is there")
    said = f"{human_bytes(free)} free for {patient.settings.data}"
    remedy = "free space, shorten RETOLD_RETENTION, or set RETOLD_DATA to a larger disk"
    if free < FULL_BYTES:
        return wrong("disk", said, remedy)
    return fine("disk", said) if free >= TIGHT_BYTES else note("disk", said, remedy)


def _check_ffmpeg(patient: Patient) -> Finding:
    try:
        found = find_ffmpeg(patient.settings.ffmpeg)
    except FfmpegMissingError as error:
        remedy = f"apt-get install ffmpeg, or {INSTALL}; then leave RETOLD_FFMPEG empty, or set it to that one"
        return wrong("ffmpeg", str(error), remedy)
    return fine("ffmpeg", f"{found.version} ({found.path})")


def _check_loops() -> Finding:
    try:
        kernel()
    except KernelMissingError as error:
        return wrong("the mixer's inner loops", str(error), COMPILE)
    return fine("the mixer's inner loops", "compiled")


def _check_libraries() -> Iterator[Finding]:
    """What capture hangs on: the versions that it was made for, and whether they load here."""
    try:
        requirements = importlib.metadata.requires("retold") or []
    except importlib.metadata.PackageNotFoundError:  # run from a folder: nobody says which versions are wanted
        requirements = []
    wanted = dict(PINNED.findall(" ".join(requirements)))
    for package, module in (("discord.py", "discord"), ("davey", "davey"), ("discord-ext-voice-recv", "")):
        yield _check_library(package, module, wanted.get(package, ""))


def _check_library(package: str, module: str, wanted: str) -> Finding:
    try:
        found = importlib.metadata.version(package)
        if module:
            importlib.import_module(module)
    except (ImportError, importlib.metadata.PackageNotFoundError) as error:
        return wrong(package, f"it cannot be loaded: {error}", INSTALL)
    if wanted and found != wanted:
        return wrong(package, f"{found}; capture was made for {wanted}", f"pip install {package}=={wanted}")
    return fine(package, found)

"""The loops in which the mixer spends its time: kernel.c, compiled where Retold is installed, called through ctypes.

Each is one call for a second of sound, in which other threads run. `python -m mixer.kernel` compiles it (`make install`
does): by $CC, cc, gcc or clang, or by the wheel `ziglang`. The library lies beside the source, under a name that holds
the source's hash, so that an old one is never used; where it is missing, the first use compiles it.
All sound is mono, float32, contiguous, 48 kHz.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from mixer.errors import KernelMissingError

SOURCE: Final = Path(__file__).with_name("kernel.c")
FLAGS: Final = ("-std=c11", "-O3", "-ffp-contract=off", "-fno-trapping-math", "-shared", "-fPIC")
COMPILERS: Final = ("cc", "gcc", "clang")


@cache
def kernel() -> ctypes.CDLL:
    """The loaded library.

    Raises
    ------
    KernelMissingError
        If there is none, and it cannot be compiled here.
    """
    path = _path()
    try:
        return _load(path)
    except OSError:  # none, or what a power cut left of one
        compile_kernel()
    return _load(path)


def compile_kernel() -> Path:
    """Make the library; where it is.

    Raises
    ------
    KernelMissingError
        If there is no compiler, it fails, or the folder cannot be written to.
    """
    path = _path()
    said = "no C compiler here"
    for compiler in _compilers():
        try:
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                made = Path(folder) / path.name
                command = [*compiler, *FLAGS, "-o", str(made), str(SOURCE)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode == 0:
                    _load(made)
                    _replace(made, path)
                    return path
                said = f"{shlex.join(compiler)}: {done.stderr.strip()}"
        except OSError as error:
            said = f"{error.filename or shlex.join(compiler)}: {error.strerror or error}"
    raise KernelMissingError(
        f"mixer/kernel.c is not compiled ({said}): run `python -m mixer.kernel` as somebody who may write there, with "
        "a C compiler or the wheel ziglang installed"
    )


def _load(path: Path) -> ctypes.CDLL:
    """OSError if it is no library of this machine's, or lacks something."""
    try:
        return _declare(ctypes.CDLL(str(path)))
    except AttributeError as error:
        raise OSError(f"not our library: {error}") from error


def _replace(made: Path, path: Path) -> None:
    """All of it is on the disk before it has its name."""
    with made.open("rb") as file:
        os.fsync(file.fileno())
    made.replace(path)


def _path() -> Path:
    return SOURCE.with_name(f"kernel-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}.so")


def _compilers() -> Iterator[list[str]]:
    if chosen := os.environ.get("CC"):
        try:
            yield shlex.split(chosen)
        except ValueError:  # a quotation that does not end
            yield [chosen]
    yield from ([found] for name in COMPILERS if (found := shutil.which(name)))
    if importlib.util.find_spec("ziglang"):
        yield [sys.executable, "-m", "ziglang", "cc"]


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, long, real, double = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_double
    library.decode_row.argtypes = [pointer, pointer, ctypes.c_char_p, pointer, pointer, long, pointer, long]
    library.decode_row.argtypes += [pointer, pointer]
    library.decode_row.restype = long
    library.hop_powers.argtypes = [pointer, long, double, pointer, pointer, pointer]
    library.add.argtypes = [pointer, pointer, long, real, real]
    library.gated_mean.argtypes = [pointer, long, double, ctypes.c_int32]
    library.gated_mean.restype = double
    library.step_peaks.argtypes = [pointer, pointer, real, pointer]
    library.step_peaks.restype = real
    library.turn_down.argtypes = [pointer, pointer]
    library.to_int16.argtypes = library.to_int24.argtypes = [pointer, pointer, long]
    for name in ("hop_powers", "add", "turn_down", "to_int16", "to_int24"):
        getattr(library, name).restype = None
    return library


if __name__ == "__main__":
    compile_kernel()

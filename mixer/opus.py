"""libopus through ctypes: packets to mono PCM at 48 kHz, and what a packet's table of contents says.

Plain ctypes costs half of what the wrapper packages do. The library comes with the wheel `opuslib-next-bundled`, or
from the system. The decoder itself mixes stereo packets down to mono.

A decoder's output lags the encoder's input by the encoder's lookahead: DECODER_DELAY_TICKS. Ogg Opus calls it
pre-skip (RFC 7845 §4.2); whoever places PCM subtracts it, so that every format of one recording agrees.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.clock import FRAME_TICKS, TICKS_PER_SECOND
from mixer.errors import OpusMissingError
from mixer.kernel import kernel

Samples: TypeAlias = NDArray[np.float32]
Integers: TypeAlias = NDArray[np.int64]
Sizes: TypeAlias = NDArray[np.int32]

DECODER_DELAY_TICKS: Final = 312  # 6.5 ms: libopus' lookahead at 48 kHz (2.5 ms CELT + 4 ms delay compensation)
MAX_PACKET_TICKS: Final = 5760  # 120 ms (RFC 6716 §3.2.5, R5)
MAX_FRAME_BYTES: Final = 1275  # RFC 6716 §3.4, R2
CONCEALMENT_STEP_TICKS: Final = 120  # libopus conceals multiples of 2.5 ms
_RESET_STATE: Final = 4028  # OPUS_RESET_STATE in opus_defines.h
_SILK_TICKS: Final = (480, 960, 1920, 2880)  # RFC 6716 Table 2
_CELT_TICKS: Final = (120, 240, 480, 960)
_FIRST_HYBRID, _FIRST_CELT = 12, 16


def _frame_ticks(config: int) -> int:
    if config < _FIRST_HYBRID:
        return _SILK_TICKS[config & 3]
    if config < _FIRST_CELT:
        return _SILK_TICKS[config & 1]
    return _CELT_TICKS[config & 3]


FRAME_TICKS_BY_TOC: Final = tuple(_frame_ticks(toc >> 3) for toc in range(256))
_FRAMES_BY_CODE: Final = (1, 2, 2)
_ARBITRARY_FRAMES: Final = 3  # code 3: the count is in the second byte (RFC 6716 §3.2.5)


def packet_ticks(payload: bytes) -> int:
    """Duration that a packet's table of contents announces, ticks of 1/48000 s; 0 if it is malformed."""
    if not payload:
        return 0
    code = payload[0] & 3
    frames = _FRAMES_BY_CODE[code] if code < _ARBITRARY_FRAMES else (payload[1] & 63 if len(payload) > 1 else 0)
    ticks = frames * FRAME_TICKS_BY_TOC[payload[0]]
    return ticks if ticks <= MAX_PACKET_TICKS else 0


def durations(blob: bytes, start: Integers, size: Integers) -> Integers:
    """Duration of each packet of a buffer, ticks of 1/48000 s; 0 where libopus would not take it.

    Parameters
    ----------
    blob
        Packets.
    start, size
        Where each lies in it, bytes.
    """
    if len(start) == 0:
        return np.empty(0, dtype=np.int64)
    data = np.frombuffer(blob + b"\0\0", dtype=np.uint8)
    toc, second = data[start], data[start + 1]
    code = toc & 3
    frames = np.where(code == _ARBITRARY_FRAMES, second & 63, np.array([1, 2, 2, 0])[code])
    ticks: Integers = frames * np.array(FRAME_TICKS_BY_TOC)[toc]
    plain = (code == 0) & (size <= 1 + MAX_FRAME_BYTES)
    halved = (code == 1) & (size % 2 == 1) & (size <= 1 + 2 * MAX_FRAME_BYTES)
    whole = plain | halved
    for index in np.flatnonzero(code > 1).tolist():  # no client of Discord's was seen to send these
        whole[index] = is_well_formed(blob[start[index] : start[index] + size[index]])
    ticks[~whole | (size == 0) | (ticks > MAX_PACKET_TICKS)] = 0
    return ticks


def concealed(toc: int, ticks: int) -> list[tuple[int, bytes]]:
    """Packets without a frame, each with its duration: a decoder conceals so much, in the mode that `toc` names.

    `ticks` is rounded down to what the mode has: 10 ms, with CELT 2.5 ms.
    """
    config, stereo = toc >> 3, toc & 4
    celt = config >= _FIRST_CELT
    family = config & ~(1 if _FIRST_HYBRID <= config < _FIRST_CELT else 3)
    lengths = ((3, 960), (2, 480), (1, 240), (0, 120)) if celt else ((1, 960), (0, 480))
    found: list[tuple[int, bytes]] = []
    for index, length in lengths:
        found += [(length, bytes([(family + index) << 3 | stereo]))] * (ticks // length)
        ticks %= length
    return found


@cache
def library() -> ctypes.CDLL:
    """The loaded libopus.

    Raises
    ------
    OpusMissingError
        If there is none.
    """
    for name in _candidates():
        try:
            return _declare(ctypes.CDLL(name))
        except OSError:
            continue
    raise OpusMissingError


@cache
def version() -> str:
    """Which libopus this is: its version and, if it is a file of a wheel, eight digits of the file's SHA-256."""
    text: bytes = library().opus_get_version_string()
    name = text.decode("ascii", "replace").removeprefix("libopus").strip()
    path = Path(library()._name)  # noqa: SLF001  # the name it was loaded by: the only way ctypes tells it
    if not path.is_file():
        return name
    return f"{name}+{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"


def is_well_formed(payload: bytes) -> bool:
    """Whether libopus would take the packet: its frames fit into its bytes (RFC 6716 §3.4)."""
    sizes = (ctypes.c_int16 * 48)()
    return bool(payload) and library().opus_packet_parse(payload, len(payload), None, None, sizes, None) > 0


class DecoderState(msgspec.Struct, frozen=True, array_like=True):
    """A decoder's memory. It holds pointers to tables of the library: at `pointers`, in words of 8 bytes, offsets."""

    state: bytes
    pointers: list[int]


@cache
def _mapped() -> tuple[int, int]:
    """Addresses of the loaded library, half-open."""
    name = Path(library()._name).name  # noqa: SLF001  # as above
    ranges = [
        [int(address, 16) for address in line.split(maxsplit=1)[0].split("-")]
        for line in Path("/proc/self/maps").read_text("utf-8").splitlines()
        if Path(line.split(maxsplit=5)[-1]).name.startswith(name)
    ]
    return min(first for first, _ in ranges), max(stop for _, stop in ranges)


class Decoder:
    """One libopus decoder, mono at 48 kHz, writing into buffers that the caller owns."""

    def __init__(self) -> None:
        self._library = library()
        error = ctypes.c_int()
        self._state = self._library.opus_decoder_create(TICKS_PER_SECOND, 1, ctypes.byref(error))
        if not self._state:
            raise OpusMissingError(f"libopus made no decoder: error {error.value}")
        self._saved = ctypes.create_string_buffer(self._library.opus_decoder_get_size(1))
        self._decode = self._library.opus_decode_float
        self._function = ctypes.cast(self._decode, ctypes.c_void_p)
        self._written, self._broken = ctypes.c_int64(), ctypes.c_int64()
        self._told = ctypes.byref(self._written), ctypes.byref(self._broken)

    def __del__(self) -> None:
        """Give the memory back."""
        if state := getattr(self, "_state", None):
            self._library.opus_decoder_destroy(state)

    def reset(self) -> None:
        """Forget what was heard."""
        self._library.opus_decoder_ctl(self._state, _RESET_STATE)

    def save(self) -> None:
        """Remember this moment, for `restore`."""
        ctypes.memmove(self._saved, self._state, len(self._saved))

    def restore(self) -> None:
        """Go back to the moment of `save`."""
        ctypes.memmove(self._state, self._saved, len(self._saved))

    def dump(self) -> DecoderState:
        """The state, for `load` in another process with the same library."""
        state = np.frombuffer(ctypes.string_at(self._state, len(self._saved)), dtype=np.uint8).copy()
        words = state[: len(state) // 8 * 8].view(np.uint64)
        first, stop = _mapped()
        pointers = np.flatnonzero((words >= first) & (words < stop))
        words[pointers] -= np.uint64(first)
        return DecoderState(state.tobytes(), pointers.tolist())

    def load(self, dumped: DecoderState) -> None:
        """Go on from a state that was dumped."""
        state = np.frombuffer(dumped.state, dtype=np.uint8).copy()
        words = state[: len(state) // 8 * 8].view(np.uint64)
        words[dumped.pointers] += np.uint64(_mapped()[0])
        ctypes.memmove(self._state, state.ctypes.data, len(self._saved))

    def decode(self, payload: bytes, address: int) -> int:
        """Decode one packet to `address`, room for MAX_PACKET_TICKS float32; samples written, negative if broken."""
        samples: int = self._decode(self._state, payload, len(payload), address, MAX_PACKET_TICKS, 0)
        return samples

    def decode_row(self, packets: bytes, sizes: Sizes, ticks: Sizes, address: int, room: int) -> tuple[int, int, int]:
        """Decode packets one behind the other to `address`, broken ones concealed, in one call.

        Parameters
        ----------
        sizes, ticks
            Bytes and duration of each; int32, contiguous.
        room
            How many samples there is room for.

        Returns
        -------
        How many packets that were: all that are sure to have room; how many samples were written; how many packets
        libopus refused.
        """
        done = kernel().decode_row(
            *(self._function, self._state, packets, sizes.ctypes.data, ticks.ctypes.data, len(sizes)),
            *(address, room, *self._told),
        )
        return done, self._written.value, self._broken.value

    def conceal(self, ticks: int, address: int) -> None:
        """Write `ticks` samples (a multiple of CONCEALMENT_STEP_TICKS, at most MAX_PACKET_TICKS) of what was likely."""
        if self._decode(self._state, None, 0, address, ticks, 0) != ticks:
            ctypes.memset(address, 0, 4 * ticks)

    def recover(self, following: bytes, ticks: int, address: int) -> None:
        """Write `ticks` samples of what was lost, as `conceal`, its end from the copy that the next packet may carry.

        In-band FEC (RFC 6716 §2.1.7): SILK packets can hold the frame before them again. Where there is none, libopus
        conceals.
        """
        if self._decode(self._state, following, len(following), address, ticks, 1) != ticks:
            self.conceal(ticks, address)


def decode_packets(payloads: list[bytes]) -> Samples:
    """Packets of one talkspurt as PCM, float32 (samples, 1), decoder delay included; broken ones concealed."""
    decoder = Decoder()
    buffer = np.empty(MAX_PACKET_TICKS, dtype=np.float32)
    parts: list[Samples] = []
    for payload in payloads:
        if (samples := decoder.decode(payload, buffer.ctypes.data)) < 0:
            samples = FRAME_TICKS
            decoder.conceal(samples, buffer.ctypes.data)
        parts.append(buffer[:samples].copy())
    return np.concatenate(parts or [np.empty(0, dtype=np.float32)]).reshape(-1, 1)


def _candidates() -> list[str]:
    names: list[str] = []
    spec = importlib.util.find_spec("opuslib_next")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        names += [str(path) for path in sorted((Path(folder) / "_native").glob("*opus*")) if path.is_file()]
    if system := ctypes.util.find_library("opus"):
        names.append(system)
    return names


def _declare(opus: ctypes.CDLL) -> ctypes.CDLL:
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    opus.opus_get_version_string.restype = ctypes.c_char_p
    opus.opus_decoder_get_size.argtypes = [integer]
    opus.opus_decoder_create.restype = pointer
    opus.opus_decoder_create.argtypes = [ctypes.c_int32, integer, pointer]
    opus.opus_decoder_destroy.restype = None
    opus.opus_decoder_destroy.argtypes = [pointer]
    opus.opus_decoder_ctl.argtypes = [pointer, integer]
    opus.opus_decode_float.argtypes = [pointer, ctypes.c_char_p, ctypes.c_int32, pointer, integer, integer]
    opus.opus_packet_parse.argtypes = [ctypes.c_char_p, ctypes.c_int32, pointer, pointer, pointer, pointer]
    return opus

"""A source's packets decoded to PCM, block by block: each packet once, and only where there is one.

A fold with bounded lookahead: `block` takes the packets up to a little past its end, and what they give beyond it is
carried over. Packets in a row are decoded in one call. The samples do not depend on where blocks are cut.
Lost frames are concealed up to CONCEAL_TICKS, the last of them from the next packet's in-band FEC where it has any,
fading if nothing follows. Steps of a few samples, where the sender's drift is taken out, are crossfaded.

Over a pause the decoder keeps its state, as the sender's encoder does, and is not given Discord's silence frames, which
no encoder made. Measured on gated speech through one encoder, error of the first 20 ms of a talkspurt: state kept
-13.6 dB, decoder reset -5.8 dB, silence frames decoded -0.7 dB (and 60 ms until the level is right). If the encoder was
restarted too: kept -12.5, reset -20.6, silence frames -9.2 dB.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from mixer.feed import Feed, Row
from mixer.opus import (
    CONCEALMENT_STEP_TICKS,
    DECODER_DELAY_TICKS,
    MAX_PACKET_TICKS,
    Decoder,
    DecoderState,
    Samples,
)

CONCEAL_TICKS: Final = 4800  # 100 ms: past that, libopus' guess is a hum
TAIL_TICKS: Final = 480  # 10 ms: what the codec still holds of a last frame (6.5 ms), faded
ONSET_TICKS: Final = 120  # 2.5 ms: a run's sound fades in at the end of the decoder's delay
SLIP_TICKS: Final = 120  # 2.5 ms: a smaller step is drift, not a pause
FADE_TICKS: Final = 480  # 10 ms crossfade over such a step
_KEPT: Final = FADE_TICKS + SLIP_TICKS  # samples that a crossfade may still change
SETTLED_TICKS: Final = DECODER_DELAY_TICKS + _KEPT  # a run must reach so far past a block to leave it settled
LOOKAHEAD_TICKS: Final = SETTLED_TICKS + CONCEAL_TICKS + SLIP_TICKS
_CAPACITY: Final = 96_000


class SourceState(msgspec.Struct, frozen=True, array_like=True):
    """A source's decoder between two blocks; sound as float32."""

    decoder: DecoderState
    run: bytes
    start: int
    sounding: bool
    stale: bool
    lost: int
    pieces: list[tuple[int, bytes]]
    broken: int


class SourceDecoder:
    """PCM of one source. `broken` counts packets that libopus refused: they are concealed."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._decoder = Decoder()
        self._run = np.empty(_CAPACITY, dtype=np.float32)  # what was decoded and is not handed over yet
        self._address = self._run.ctypes.data
        self._length = 0
        self._start = 0  # session tick of the run's first sample, decoder delay included
        self._sounding = False
        self._stale = True  # the decoder's state is not the one its sender's encoder is in
        self._lost = 0
        self._pieces: list[tuple[int, Samples]] = []
        self.broken = 0

    def block(self, start_tick: int, stop_tick: int) -> Samples | None:
        """Sound of [start_tick, stop_tick), float32 (samples, 1); None if there is none. Blocks must ascend."""
        for row in self._feed.until(stop_tick + LOOKAHEAD_TICKS):
            self._hear(row)
        if self._sounding and self._end < stop_tick + SETTLED_TICKS:
            self._finish(CONCEAL_TICKS)
        self._hand_over(_KEPT if self._sounding else 0)
        return self._collect(start_tick, stop_tick)

    def save(self) -> SourceState:
        """The state, for `load`; the feed is not in it."""
        return SourceState(
            decoder=self._decoder.dump(),
            run=self._run[: self._length].tobytes(),
            start=self._start,
            sounding=self._sounding,
            stale=self._stale,
            lost=self._lost,
            pieces=[(position, samples.tobytes()) for position, samples in self._pieces],
            broken=self.broken,
        )

    def load(self, state: SourceState) -> None:
        """Go on from there."""
        self._decoder.load(state.decoder)
        run = np.frombuffer(state.run, dtype=np.float32)
        self._length = len(run)
        self._run[: len(run)] = run
        self._start, self._sounding, self._stale, self._lost = state.start, state.sounding, state.stale, state.lost
        self._pieces = [(position, np.frombuffer(data, dtype=np.float32)) for position, data in state.pieces]
        self.broken = state.broken

    @property
    def _end(self) -> int:
        return self._start + self._length

    def _hear(self, row: Row) -> None:
        if row.silent:
            if self._sounding:
                self._finish(TAIL_TICKS)
            return
        rest: Row | None = row
        while rest is not None:
            if self._sounding and rest.tick == self._end:  # nearly always
                self._decode(rest)
                rest = None
            else:
                first, rest = rest.split(1) if len(rest) > 1 else (rest, None)
                self._turn_to(first)
        self._lost = row.lost

    def _turn_to(self, packet: Row) -> None:
        """Decode one packet that does not follow what was decoded last."""
        gap = packet.tick - self._end
        far = gap > CONCEAL_TICKS or gap < -SLIP_TICKS or (gap > SLIP_TICKS and not self._lost)
        if self._sounding and far:
            self._finish(gap)
        if self._sounding:
            self._bridge(gap, packet.packets)
            self._decode(packet)
        else:
            self._begin(packet)
        self._lost = packet.lost

    def _decode(self, row: Row) -> None:
        """Decode packets behind the run."""
        rest, left = row, len(row)
        while left:
            self._make_room()
            done, samples, broken = self._decoder.decode_row(
                rest.packets, rest.sizes, rest.ticks, self._address + 4 * self._length, _CAPACITY - self._length
            )
            self._length += samples
            self.broken += broken
            left -= done
            if left:
                _, rest = rest.split(done)

    def _begin(self, packet: Row) -> None:
        if self._stale:
            self._decoder.reset()
        self._start, self._length, self._sounding, self._stale = packet.tick, 0, True, False
        self._decode(packet)
        old = DECODER_DELAY_TICKS - ONSET_TICKS  # what comes out here went in before the pause
        self._run[:old] = 0
        self._run[old:DECODER_DELAY_TICKS] *= np.linspace(0, 1, ONSET_TICKS, dtype=np.float32)

    def _bridge(self, gap: int, following: bytes) -> None:
        """Fill lost time, and take out what is left by a crossfade."""
        if self._lost and gap >= CONCEALMENT_STEP_TICKS:
            filled = gap - gap % CONCEALMENT_STEP_TICKS
            self._make_room()
            self._decoder.recover(following, filled, self._address + 4 * self._length)
            self._length += filled
            gap -= filled
        if gap and self._length >= _KEPT:
            self._slip(gap)
        elif gap > 0:
            self._run[self._length : self._length + gap] = 0
            self._length += gap

    def _conceal(self, ticks: int) -> None:
        self._make_room()
        self._decoder.conceal(ticks, self._address + 4 * self._length)
        self._length += ticks

    def _finish(self, gap: int) -> None:
        """End a run that nothing follows within `gap` ticks: let it fade."""
        self._stale = self._lost > 0
        limit = min(gap, CONCEAL_TICKS if self._lost else TAIL_TICKS)
        if fade := max(limit - limit % CONCEALMENT_STEP_TICKS, 0):
            self._decoder.save()
            self._conceal(fade)
            self._decoder.restore()
            part = self._run[self._length - fade : self._length]
            part *= np.linspace(1, 0, fade, dtype=np.float32)
        self._hand_over(0)
        self._sounding = False

    def _slip(self, gap: int) -> None:
        """Lengthen (positive) or shorten what was decoded last, by a crossfade of FADE_TICKS."""
        end, width = self._length, FADE_TICKS + min(gap, 0)
        old = self._run[end - FADE_TICKS : end - FADE_TICKS + width].copy()
        new = self._run[end - width - max(gap, 0) : end].copy()
        new[:width] += (old - new[:width]) * np.linspace(1, 0, width, dtype=np.float32)
        self._length = end + gap
        self._run[self._length - len(new) : self._length] = new

    def _make_room(self) -> None:
        if self._length + MAX_PACKET_TICKS > _CAPACITY:
            self._hand_over(_KEPT)

    def _hand_over(self, kept: int) -> None:
        """Move all but the last `kept` samples of the run to the pieces."""
        done = self._length - kept
        if done <= 0:
            return
        self._pieces.append((self._start - DECODER_DELAY_TICKS, self._run[:done].copy()))
        self._run[:kept] = self._run[done : self._length].copy()
        self._start += done
        self._length = kept

    def _collect(self, start_tick: int, stop_tick: int) -> Samples | None:
        block: Samples | None = None
        for position, samples in self._pieces:
            first, last = max(position, start_tick), min(position + len(samples), stop_tick)
            if first < last:
                block = np.zeros((stop_tick - start_tick, 1), dtype=np.float32) if block is None else block
                block[first - start_tick : last - start_tick, 0] += samples[first - position : last - position]
        self._pieces = [piece for piece in self._pieces if piece[0] + len(piece[1]) > stop_tick]
        return block

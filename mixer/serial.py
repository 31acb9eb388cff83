"""Serial numbers unwrapped: RTP's 16-bit sequence numbers and 32-bit timestamps as integers that only grow.

Each step is read as the shortest way round the circle (RFC 1982), so reordering and wraps need no special case. A step
of the sequence that no network makes (RFC 3550 Appendix A.1) starts a new *life* of the source: the sender restarted.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]

SEQUENCE_BITS: Final = 16
TIMESTAMP_BITS: Final = 32
MAX_DROPOUT: Final = 3000  # RFC 3550 Appendix A.1
MAX_MISORDER: Final = 100  # RFC 3550 Appendix A.1


def steps(wrapped: Integers, bits: int) -> Integers:
    """Signed differences of neighbours, each in [-2**(bits-1), 2**(bits-1))."""
    half = 1 << (bits - 1)
    values = np.asarray(wrapped, dtype=np.int64)
    return ((values[1:] - values[:-1] + half) & ((1 << bits) - 1)) - half


def unwrap(wrapped: Integers, bits: int) -> Integers:
    """Unwrapped values, the first as it is.

    Parameters
    ----------
    wrapped
        Values modulo 2**bits, in the order they were recorded; neighbours less than half a circle apart.
    """
    values = np.asarray(wrapped, dtype=np.int64)
    if len(values) == 0:
        return values
    unwrapped: Integers = values[0] + np.concatenate(([0], np.cumsum(steps(values, bits))))
    return unwrapped


def unwrap_after(before: int | None, wrapped: Integers, bits: int) -> Integers:
    """Unwrapped values that go on from one that was unwrapped before; from the first itself if there is none."""
    if before is None:
        return unwrap(wrapped, bits)
    return unwrap(np.concatenate(([before], wrapped)), bits)[1:]


def wrap(values: Integers, bits: int) -> Integers:
    """The values modulo 2**bits: the inverse of `unwrap`."""
    return np.asarray(values, dtype=np.int64) & ((1 << bits) - 1)


def lives(sequence: Integers) -> list[slice]:
    """Where a source's sequence numbers run on: one slice of the recorded order per life of the sender."""
    if len(sequence) == 0:
        return []
    jump = steps(sequence, SEQUENCE_BITS)
    cuts = np.flatnonzero((jump > MAX_DROPOUT) | (jump < -MAX_MISORDER)) + 1
    edges = [0, *cuts.tolist(), len(sequence)]
    return [slice(first, stop) for first, stop in pairwise(edges)]

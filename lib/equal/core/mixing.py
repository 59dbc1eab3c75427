"""Scrambling of 64-bit integers, compiled; unsigned and wrapping, so equal on every machine.

It stands alone: numba's cache knows a compiled function by its own file and would keep what it inlined from another
one as that was. Kept band keys depend on these constants as well, and so they stay.
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: base of the polynomial hash of a run of words
WORD_BASE = np.uint64(0xD1342543DE82EF95)

_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31 = np.uint64(27), np.uint64(30), np.uint64(31)


@njit(inline="always")
def mix(value: np.uint64) -> np.uint64:
    """Scramble 64 bits one to one (the finaliser of SplitMix64)."""
    value = (value ^ (value >> _S30)) * _M1
    value = (value ^ (value >> _S27)) * _M2
    return value ^ (value >> _S31)


@njit(cache=True)
def scrambled(values: np.ndarray) -> np.ndarray:
    """(n,) uint64 mixed twice, so that counters become a random stream."""
    out = np.empty(len(values), np.uint64)
    for i in range(len(values)):
        out[i] = mix(mix(values[i]))
    return out

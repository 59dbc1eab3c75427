"""The loops over every shingle, compiled: texts to shingle hashes, shingle hashes to band keys, sets to Jaccard.

Integers are unsigned and wrap, so results are equal on every machine.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from equal.core.word_kernels import WORD_BASE, mix, word_hashes

_S32 = np.uint64(32)
_HIGHEST = np.uint64(0xFFFFFFFFFFFFFFFF)


@njit(cache=True, nogil=True)
def shingle_hashes(
    data: np.ndarray, starts: np.ndarray, stops: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the word shingles of many texts, in the order of the texts, repeated ones included.

    A text of fewer words than a shingle has one shingle, all of it; a text without words has none.

    Args:
        data, starts, stops: plain texts, or words joined by spaces.
        width: words a shingle.

    Returns:
        (total,) uint64 hashes, and (n + 1,) int64 bounds: text i has those from bounds[i] to bounds[i + 1].
    """
    room = 0
    for i in range(len(starts)):
        room += (stops[i] - starts[i] + 1) // 2
    hashes, bounds = np.empty(room, np.uint64), np.zeros(len(starts) + 1, np.int64)
    for i in range(len(starts)):
        at = bounds[i]
        count = word_hashes(data, starts[i], stops[i], hashes[at:])
        words = min(width, count)
        for first in range(at, at + count - words + 1 if count else at):
            value = hashes[first]
            for offset in range(1, words):
                value = value * WORD_BASE + hashes[first + offset]
            hashes[first] = mix(value)
        bounds[i + 1] = at + (count - words + 1 if count else 0)
    return hashes[: bounds[-1]], bounds


@njit(cache=True, nogil=True)
def minima(hashes: np.ndarray, bounds: np.ndarray, multipliers: np.ndarray, additions: np.ndarray) -> np.ndarray:
    """MinHash signatures, (n, size) uint32: of each text and hash function (a x + b) >> 32 the smallest value.

    Args:
        hashes, bounds: as `shingle_hashes` returns them.
        multipliers, additions: (size,) uint64.
    """
    size = len(multipliers)
    signatures, smallest = np.empty((len(bounds) - 1, size), np.uint32), np.empty(size, np.uint64)
    for i in range(len(bounds) - 1):
        smallest[:] = _HIGHEST
        for at in range(bounds[i], bounds[i + 1]):
            shingle = hashes[at]
            for h in range(size):
                smallest[h] = min(smallest[h], multipliers[h] * shingle + additions[h])
        for h in range(size):
            signatures[i, h] = smallest[h] >> _S32
    return signatures


@njit(cache=True, nogil=True)
def fold_bands(signatures: np.ndarray, bands: int) -> np.ndarray:
    """(n, bands) int64: one key a band of each signature, different between bands."""
    rows = signatures.shape[1] // bands
    keys = np.empty((len(signatures), bands), np.uint64)
    for i in range(len(signatures)):
        for band in range(bands):
            key = np.uint64(band + 1)
            for row in range(band * rows, (band + 1) * rows):
                key = mix(key + np.uint64(signatures[i, row]))
            keys[i, band] = key
    return keys.view(np.int64)


@njit(cache=True, nogil=True)
def shared(left: np.ndarray, right: np.ndarray) -> int:
    """How many values two sorted arrays of distinct values have in common."""
    found, i, j = 0, 0, 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            found, i, j = found + 1, i + 1, j + 1
        elif left[i] < right[j]:
            i += 1
        else:
            j += 1
    return found


@njit(cache=True, nogil=True)
def similarities(flat: np.ndarray, bounds: np.ndarray, text: int, others: np.ndarray) -> np.ndarray:
    """Exact Jaccard of one set with each of `others`, (n_others,) float64; two empty sets have none.

    Args:
        flat, bounds: the sets, each sorted and distinct: set i is flat[bounds[i]:bounds[i + 1]].
        text: index of the one; others: indices of the others.
    """
    values = np.zeros(len(others))
    own = flat[bounds[text] : bounds[text + 1]]
    for i in range(len(others)):
        other = flat[bounds[others[i]] : bounds[others[i] + 1]]
        common = shared(own, other)
        values[i] = common / max(len(own) + len(other) - common, 1)
    return values

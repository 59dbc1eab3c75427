"""The loops over every shingle, compiled: word hashes to shingle hashes, shingle hashes to band keys, sets to Jaccard.

Integers are unsigned and wrap, so results are equal on every machine.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from equal.core.mixing import WORD_BASE, mix

_S32 = np.uint64(32)
_HIGHEST = np.uint64(0xFFFFFFFFFFFFFFFF)


@njit(cache=True, nogil=True)
def shingle_hashes(words: np.ndarray, bounds: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the word shingles of many texts, in the order of the texts, repeated ones included.

    A text of fewer words than a shingle has one shingle, all of it; a text without words has none.

    Args:
        words, bounds: as `word_kernels.hash_words` returns them.
        width: words a shingle.

    Returns:
        (total,) uint64 hashes, and (n + 1,) int64 bounds: text i has those from bounds[i] to bounds[i + 1].
    """
    hashes, ends, at = np.empty(len(words), np.uint64), np.zeros(len(bounds), np.int64), 0
    for i in range(len(bounds) - 1):
        size = min(width, bounds[i + 1] - bounds[i])
        for first in range(bounds[i], bounds[i + 1] - size + 1 if size else bounds[i]):
            value = words[first]
            for offset in range(1, size):
                value = value * WORD_BASE + words[first + offset]
            hashes[at] = mix(value)
            at += 1
        ends[i + 1] = at
    return hashes[:at], ends


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

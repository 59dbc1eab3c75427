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
def minima(
    hashes: np.ndarray, starts: np.ndarray, stops: np.ndarray, multipliers: np.ndarray, additions: np.ndarray
) -> np.ndarray:
    """MinHash signatures, (n, size) uint32: of each text and hash function (a x + b) >> 32 the smallest value.

    Args:
        hashes, starts, stops: the shingles of text i are hashes[starts[i]:stops[i]]; repeated ones do not count.
        multipliers, additions: (size,) uint64.
    """
    size = len(multipliers)
    signatures, smallest = np.empty((len(starts), size), np.uint32), np.empty(size, np.uint64)
    for i in range(len(starts)):
        smallest[:] = _HIGHEST
        for at in range(starts[i], stops[i]):
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
def make_distinct(hashes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Sort the hashes of each text in place, the distinct ones first; returns (n,) int64, where those end."""
    stops = np.empty(len(bounds) - 1, np.int64)
    for i in range(len(stops)):
        hashes[bounds[i] : bounds[i + 1]].sort()
        stop = bounds[i]
        for at in range(bounds[i], bounds[i + 1]):
            if stop == bounds[i] or hashes[at] != hashes[stop - 1]:
                hashes[stop] = hashes[at]
                stop += 1
        stops[i] = stop
    return stops


@njit(cache=True, nogil=True)
def similarity(left: np.ndarray, right: np.ndarray, least: float) -> float:
    """Exact Jaccard of two sorted arrays of distinct values, 0 where it is below `least`; two empty sets have none."""
    total = len(left) + len(right)
    if not total or min(len(left), len(right)) / max(len(left), len(right)) < least:
        return 0.0
    # |A & B| >= least / (1 + least) (|A| + |B|) says how many values may stand in one of them alone
    spare, common, i, j = total - 2 * np.ceil(least / (1 + least) * total - 1e-6), 0, 0, 0
    while i < len(left) and j < len(right) and i + j - 2 * common <= spare:
        if left[i] == right[j]:
            common, i, j = common + 1, i + 1, j + 1
        elif left[i] < right[j]:
            i += 1
        else:
            j += 1
    value = common / (total - common)
    return value if value >= least else 0.0


@njit(cache=True, nogil=True)
def join_similar(
    hashes: np.ndarray, starts: np.ndarray, stops: np.ndarray, keys: np.ndarray, groups: np.ndarray, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """Components of sets, within each group, by edges between two that share a band key and are similar.

    Args:
        hashes, starts, stops: set i is hashes[starts[i]:stops[i]], sorted and distinct.
        keys: (n, bands) int64, equal for equal sets.
        groups: (n,) equal ones side by side.
        least: Jaccard from which two sets are similar.

    Returns:
        (n,) int64 first set of its component, and (n,) float64 Jaccard to that.
    """
    parents, values, start = np.arange(len(starts)), np.ones(len(starts)), 0
    while start < len(starts):
        stop = start + 1
        while stop < len(starts) and groups[stop] == groups[start]:
            stop += 1
        if stop - start > 1:
            members = _join_equal(hashes, starts, stops, start, stop, parents)
            apart = len(members)
            for band in range(keys.shape[1]):
                if apart > 1:
                    apart -= _join_band(hashes, starts, stops, keys[:, band], members, parents, least)
        start = stop
    for i in range(len(starts)):
        parents[i] = _first(parents, i)
        if parents[i] != i:
            values[i] = similarity(_set(hashes, starts, stops, parents[i]), _set(hashes, starts, stops, i), 0.0)
    return parents, values


@njit(inline="always")
def _set(hashes: np.ndarray, starts: np.ndarray, stops: np.ndarray, i: int) -> np.ndarray:
    return hashes[starts[i] : stops[i]]


@njit(inline="always")
def _first(parents: np.ndarray, i: int) -> int:
    """The first of a component as it is so far; the way there is halved for the next call."""
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


@njit(cache=True, nogil=True)
def _join_equal(
    hashes: np.ndarray, starts: np.ndarray, stops: np.ndarray, start: int, stop: int, parents: np.ndarray
) -> np.ndarray:
    """Join equal sets of a group, so that copies are not compared pair by pair; returns one of each kind."""
    sums = np.zeros(stop - start, np.uint64)
    for i in range(start, stop):
        for value in _set(hashes, starts, stops, i):
            sums[i - start] += value
    order, head = np.argsort(sums, kind="mergesort"), 0
    for place in range(1, len(order)):
        if sums[order[place]] != sums[order[head]]:
            head = place
            continue
        one, other = start + order[head], start + order[place]
        if np.array_equal(_set(hashes, starts, stops, one), _set(hashes, starts, stops, other)):
            parents[other] = one
    return start + np.flatnonzero(parents[start:stop] == np.arange(start, stop))


@njit(cache=True, nogil=True)
def _join_band(
    hashes: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    keys: np.ndarray,
    members: np.ndarray,
    parents: np.ndarray,
    least: float,
) -> int:
    """Join similar ones of the members that have the same key; returns how many components that leaves less."""
    members, joined, place = members[np.argsort(keys[members])], 0, 0
    while place < len(members):
        one, apart, at = members[place], False, place + 1
        while at < len(members) and keys[members[at]] == keys[one]:
            first, other = _first(parents, one), _first(parents, members[at])
            if first != other:
                sets = _set(hashes, starts, stops, one), _set(hashes, starts, stops, members[at])
                if similarity(sets[0], sets[1], least) > 0:
                    parents[max(first, other)] = min(first, other)
                    joined += 1
                else:
                    apart = True
            at += 1
        place = place + 1 if apart else at  # all of this key are one component by now
    return joined

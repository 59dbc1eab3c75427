"""The loops over every run of words, compiled: which runs of a text are known ones.

A run's key is made of its words' hashes, as `word_kernels.hash_words` returns them, and of their number. Integers are
unsigned and wrap, so results are equal on every machine.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from equal.core.mixing import WORD_BASE, mix


class Sieve(NamedTuple):
    """A bit for every value of key >> shift, set where a known key has it, packed into uint8."""

    bits: np.ndarray
    shift: np.uint64


class RunTable(NamedTuple):
    """The known runs, as `find_runs` looks them up.

    Nearly every run of a text is unknown, and one look into a small sieve says so: that of `longest` for the runs of
    `num_words` words, that of `heads` for all shorter ones that begin with the same `head_words` words.

    Attributes:
        keys: (n,) uint64, sorted.
        offsets: keys whose high bits (key >> shift) are h stand from offsets[h] to offsets[h + 1]: one or two.
        shift: as said.
        longest: of the keys of runs of `num_words` words.
        heads: of the keys of the first `head_words` words of every shorter run.
        num_words: of the longest runs.
        head_words: of the shortest runs, or fewer.
        lengths: (num_words,) bool: lengths that shorter runs have.
    """

    keys: np.ndarray
    offsets: np.ndarray
    shift: np.uint64
    longest: Sieve
    heads: Sieve
    num_words: int
    head_words: int
    lengths: np.ndarray


@njit(cache=True, nogil=True)
def run_keys(
    words: np.ndarray, starts: np.ndarray, stops: np.ndarray, num_words: int, fewest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys of all runs of `num_words` words; a shorter text of at least `fewest` words is one run.

    Args:
        words: uint64 hashes; text i has words[starts[i]:stops[i]].
        starts, stops: (n,) int64.
        num_words: length of a run.
        fewest: words of the shortest run, 1 or more.

    Returns:
        (k,) uint64 key, (k,) int32 text, (k,) int32 index of the first word, of each run in order.
    """
    room = np.sum(stops - starts)
    keys, texts, firsts = np.empty(room, np.uint64), np.empty(room, np.int32), np.empty(room, np.int32)
    total = 0
    for i in range(len(starts)):
        size = min(stops[i] - starts[i], num_words)
        if size < fewest:
            continue
        for first in range(starts[i], stops[i] - size + 1):
            value = np.uint64(0)
            for word in words[first : first + size]:
                value = value * WORD_BASE + word
            keys[total], texts[total], firsts[total] = mix(value + np.uint64(size)), i, first - starts[i]
            total += 1
    return keys[:total].copy(), texts[:total].copy(), firsts[:total].copy()


@njit(inline="always")
def _passes(key: np.uint64, sieve: Sieve) -> bool:
    bit = np.int64(key >> sieve.shift)
    return (sieve.bits[bit >> 3] >> (bit & 7)) & 1 == 1


@njit(inline="always")
def _slot(key: np.uint64, table: RunTable) -> int:
    """Where a key stands among the keys, -1 when it does not."""
    bucket = np.int64(key >> table.shift)
    for at in range(table.offsets[bucket], table.offsets[bucket + 1]):
        if table.keys[at] == key:
            return at
    return -1


@njit(inline="always")
def _power(exponent: int) -> np.uint64:
    value = np.uint64(1)
    for _ in range(exponent):
        value *= WORD_BASE
    return value


@njit(cache=True, nogil=True)
def _scan(words: np.ndarray, table: RunTable, found: np.ndarray) -> int:
    """Write the known runs of a text into `found`, until it is full; returns how many."""
    run, head, total = np.uint64(0), np.uint64(0), 0
    out_of_run, out_of_head = _power(table.num_words), _power(table.head_words)
    for last in range(len(words)):
        run, head = run * WORD_BASE + words[last], head * WORD_BASE + words[last]
        first = last + 1 - table.num_words
        if first > 0:
            run -= words[first - 1] * out_of_run
        if first >= 0:
            key = mix(run + np.uint64(table.num_words))
            slot = _slot(key, table) if _passes(key, table.longest) else -1
            if slot >= 0:
                found[total] = first, table.num_words, slot
                total += 1
                if total == len(found):
                    return total
        first = last + 1 - table.head_words
        if first > 0:
            head -= words[first - 1] * out_of_head
        if first < 0 or not _passes(mix(head + np.uint64(table.head_words)), table.heads):
            continue
        value = head
        for size in range(table.head_words, min(table.num_words, len(words) - first + 1)):
            if size > table.head_words:
                value = value * WORD_BASE + words[first + size - 1]
            slot = _slot(mix(value + np.uint64(size)), table) if table.lengths[size] else -1
            if slot >= 0:
                found[total] = first, size, slot
                total += 1
                if total == len(found):
                    return total
    return total


@njit(cache=True, nogil=True)
def holds_run(words: np.ndarray, bounds: np.ndarray, table: RunTable) -> np.ndarray:
    """(n,) whether some run of a text's words is known.

    Args:
        words, bounds: as `word_kernels.hash_words` returns them.
        table: the known runs.
    """
    held, one = np.zeros(len(bounds) - 1, np.bool_), np.empty((1, 3), np.int64)
    for i in range(len(held)):
        held[i] = _scan(words[bounds[i] : bounds[i + 1]], table, one) > 0
    return held


@njit(cache=True, nogil=True)
def find_runs(words: np.ndarray, table: RunTable) -> np.ndarray:
    """(k, 3) int64: index of the first word, words and place among the keys, of every known run of a text."""
    found = np.empty((64, 3), np.int64)
    total = _scan(words, table, found)
    while total == len(found):
        found = np.empty((8 * total, 3), np.int64)
        total = _scan(words, table, found)
    return found[:total].copy()

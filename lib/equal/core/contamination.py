"""The n-gram rule: a text is contaminated when it shares a run of `ngram_words` words with a benchmark item, or holds
a shorter item whole. Numbers are words, because items of arithmetic often differ in their numbers alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from equal.core import word_kernels as kernels
from equal.core.items import Item
from equal.core.ngrams import words
from equal.core.texts import Texts

_BASE = np.uint64(0x9E3779B97F4A7C15)
#: bits of the sieve for every n-gram: one run in so many that is none of them passes it
_SIEVE_BITS = 16


@dataclass(frozen=True)
class Hit:
    """Where a text meets a benchmark item.

    Attributes:
        benchmark: the benchmark's name.
        item_id: the item, the first of the benchmarks in the order given when several hold the n-gram.
        ngram: the shared words, joined by spaces.
        position: index of the first shared word in `words(text)`.
    """

    benchmark: str
    item_id: str
    ngram: str
    position: int

    @property
    def key(self) -> int:
        """The n-gram as a signed 64-bit number, the form in which n-grams are spared."""
        return ngram_key(self.ngram)


def ngram_key(ngram: str) -> int:
    """A signed 64-bit key of an n-gram, equal on every machine."""
    return int.from_bytes(hashlib.blake2b(ngram.encode(), digest_size=8).digest(), "big", signed=True)


@dataclass(frozen=True)
class _Lengths:
    """All n-grams of one length: sorted window hashes, and for each the n-grams (one but for collisions)."""

    num_words: int
    hashes: np.ndarray
    ngrams: dict[int, list[tuple[tuple[int, ...], Hit]]]


@dataclass(frozen=True)
class _Runs:
    """The same n-grams as the compiled search knows them; `kernels.holds_run` describes them."""

    keys: np.ndarray
    sieve: np.ndarray
    shift: np.uint64
    sizes: np.ndarray

    @classmethod
    def of(cls, ngrams: Sequence[str]) -> _Runs:
        texts = Texts.of_utf8([ngram.encode() for ngram in ngrams])
        keys = np.unique(kernels.run_keys(texts.data, texts.starts, texts.stops))
        bits = max(3, int(_SIEVE_BITS * len(keys)).bit_length())
        shift = np.uint64(64 - bits)
        places = (keys >> shift).astype(np.int64)
        sieve = np.zeros(1 << (bits - 3), np.uint8)
        np.bitwise_or.at(sieve, places >> 3, np.left_shift(1, places & 7).astype(np.uint8))
        counts = [ngram.count(" ") + 1 for ngram in ngrams]
        sizes = np.zeros(max(counts, default=0) + 1, np.bool_)
        sizes[counts] = True
        return cls(keys, sieve, shift, sizes)


@dataclass(frozen=True)
class BenchmarkIndex:
    """Finds benchmark items in texts; picklable, built once on the driver.

    A text's words become numbers of the benchmarks' vocabulary, the n-grams of each length become window
    hashes in one numpy pass, and a hash that is known is confirmed word by word: no false positives.

    Attributes:
        num_ngrams: n-grams that can match.
        unmatchable: `benchmark/item_id` of the items too short to match at all.
    """

    num_ngrams: int
    unmatchable: tuple[str, ...]
    _vocabulary: dict[str, int]
    _lengths: tuple[_Lengths, ...]
    _runs: _Runs

    @classmethod
    def build(
        cls,
        benchmarks: Mapping[str, Sequence[Item]],
        *,
        ngram_words: int,
        short_words: int,
        spared: frozenset[int] = frozenset(),
    ) -> BenchmarkIndex:
        """Index the questions, and the questions with their answers, of all items.

        A question is indexed on its own as well, because a short question followed by a long answer would
        otherwise only be found together with its answer.

        Args:
            benchmarks: name to items.
            ngram_words: length of a run of words that counts as contamination.
            short_words: a question of this many up to `ngram_words - 1` words matches as a whole.
            spared: keys (`Hit.key`) of n-grams that are boilerplate and never match.
        """
        vocabulary: dict[str, int] = {}
        found: dict[str, Hit] = {}
        unmatchable = []
        for benchmark, items in benchmarks.items():
            for item in items:
                ngrams = [g for text in (item.question, item.text) for g in _ngrams(text, ngram_words, short_words)]
                if not ngrams:
                    unmatchable.append(f"{benchmark}/{item.item_id}")
                for ngram in ngrams:
                    if ngram not in found and ngram_key(ngram) not in spared:
                        found[ngram] = Hit(benchmark, item.item_id, ngram, 0)
        for ngram in found:
            for word in ngram.split(" "):
                vocabulary.setdefault(word, len(vocabulary) + 1)
        lengths = _by_length(found.values(), vocabulary)
        return cls(len(found), tuple(unmatchable), vocabulary, lengths, _Runs.of(list(found)))

    def candidates(self, texts: Texts) -> np.ndarray:
        """(n,) bool: false where `matches` finds nothing; hardly ever true without a match (64-bit hashes)."""
        runs = self._runs
        return kernels.holds_run(texts.data, texts.starts, texts.stops, runs.keys, runs.sieve, runs.shift, runs.sizes)

    def match(self, text: str) -> Hit | None:
        """The first hit in a text by position, the shortest n-gram of those that start there; None if clean."""
        return min(self.matches(text), key=lambda hit: (hit.position, len(hit.ngram)), default=None)

    def matches(self, text: str) -> list[Hit]:
        """One hit for every distinct n-gram that the text shares, at its first position there."""
        get = self._vocabulary.get
        ids = np.fromiter(map(get, words(text), repeat(0)), dtype=np.uint64)
        hits: list[Hit] = []
        for length in self._lengths:
            hits += _matches_of_length(ids, length)
        return hits


def _ngrams(text: str, ngram_words: int, short_words: int) -> list[str]:
    tokens = words(text)
    if len(tokens) >= ngram_words:
        return [" ".join(tokens[i : i + ngram_words]) for i in range(len(tokens) - ngram_words + 1)]
    return [" ".join(tokens)] if len(tokens) >= short_words else []


def _by_length(hits: Iterable[Hit], vocabulary: dict[str, int]) -> tuple[_Lengths, ...]:
    groups: dict[int, dict[int, list[tuple[tuple[int, ...], Hit]]]] = {}
    for hit in hits:
        ids = tuple(vocabulary[word] for word in hit.ngram.split(" "))
        window = int(_window_hashes(np.array(ids, dtype=np.uint64), len(ids))[0])
        groups.setdefault(len(ids), {}).setdefault(window, []).append((ids, hit))
    return tuple(_Lengths(n, np.array(sorted(group), dtype=np.uint64), group) for n, group in sorted(groups.items()))


def _window_hashes(ids: np.ndarray, num_words: int) -> np.ndarray:
    """Polynomial hash (mod 2^64) of every run of `num_words` ids: (n,) -> (n - num_words + 1,) uint64."""
    count = len(ids) - num_words + 1
    hashes = ids[:count].copy()
    for offset in range(1, num_words):
        hashes *= _BASE
        hashes += ids[offset : offset + count]
    return hashes


def _matches_of_length(ids: np.ndarray, length: _Lengths) -> list[Hit]:
    n = length.num_words
    if len(ids) < n:
        return []
    unknown = np.concatenate([[0], np.cumsum(ids == 0)])
    starts = np.flatnonzero(unknown[n:] == unknown[:-n])
    if not len(starts):
        return []
    hashes = _window_hashes(ids, n)[starts]
    slots = np.minimum(np.searchsorted(length.hashes, hashes), len(length.hashes) - 1)
    seen: set[str] = set()
    hits = []
    for i in np.flatnonzero(length.hashes[slots] == hashes):
        start = int(starts[i])
        run = tuple(ids[start : start + n].tolist())
        for known, hit in length.ngrams[int(hashes[i])]:
            if known == run and hit.ngram not in seen:
                seen.add(hit.ngram)
                hits.append(Hit(hit.benchmark, hit.item_id, hit.ngram, start))
    return hits

"""The n-gram rule: a text is contaminated when it shares a run of `ngram_words` words with a benchmark item, or holds
a shorter item whole. Numbers are words, because items of arithmetic often differ in their numbers alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from equal.core import word_kernels as kernels
from equal.core.items import Item
from equal.core.ngrams import words
from equal.core.texts import Texts

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
class _Runs:
    """All n-grams, each by a 64-bit key of its words; `kernels.holds_run` describes the sieve.

    Attributes:
        keys: (n,) uint64, sorted.
        sources: (n,) int32, the first text of the benchmarks that holds the n-gram.
        firsts: (n,) int32, index of the n-gram's first word in that text.
    """

    keys: np.ndarray
    sources: np.ndarray
    firsts: np.ndarray
    sieve: np.ndarray
    shift: np.uint64
    sizes: np.ndarray

    @classmethod
    def of(cls, sources: Sequence[str], ngram_words: int, short_words: int) -> _Runs:
        texts = Texts.of_utf8([source.encode() for source in sources])
        every, of_text, first = kernels.run_keys(texts.data, texts.starts, texts.stops, ngram_words, short_words)
        keys, where = np.unique(every, return_index=True)
        bits = max(3, int(_SIEVE_BITS * len(keys)).bit_length())
        shift = np.uint64(64 - bits)
        places = (keys >> shift).astype(np.int64)
        sieve = np.zeros(1 << (bits - 3), np.uint8)
        np.bitwise_or.at(sieve, places >> 3, np.left_shift(1, places & 7).astype(np.uint8))
        sizes = np.zeros(ngram_words + 1, np.bool_)
        sizes[[min(ngram_words, sources[i].count(" ") + 1) for i in set(of_text.tolist())]] = True
        return cls(keys, of_text[where], first[where], sieve, shift, sizes)


@dataclass(frozen=True)
class BenchmarkIndex:
    """Finds benchmark items in texts; picklable, built once on the driver.

    Of an n-gram it keeps a 64-bit key and where the benchmarks have it, so that 17,000 items stay small enough to
    travel to every task. A run of words with a known key is confirmed word by word: no false positives. Of two
    n-grams with one key the second would not be found; n of them hold such a pair with a chance of n^2 / 2^65.

    Attributes:
        unmatchable: `benchmark/item_id` of the items too short to match at all.
    """

    unmatchable: tuple[str, ...]
    _sources: tuple[str, ...]
    _owners: tuple[tuple[str, str], ...]
    _spared: frozenset[int]
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
        sources: list[str] = []
        owners: list[tuple[str, str]] = []
        unmatchable = []
        for benchmark, items in benchmarks.items():
            for item in items:
                texts = [found for text in (item.question, item.text) if len(found := words(text)) >= short_words]
                if not texts:
                    unmatchable.append(f"{benchmark}/{item.item_id}")
                sources += [" ".join(found) for found in texts]
                owners += [(benchmark, item.item_id)] * len(texts)
        runs = _Runs.of(sources, ngram_words, short_words)
        return cls(tuple(unmatchable), tuple(sources), tuple(owners), spared, runs)

    def candidates(self, texts: Texts) -> np.ndarray:
        """(n,) bool: false where `matches` finds nothing; true without a match where all n-grams are spared."""
        runs = self._runs
        return kernels.holds_run(texts.data, texts.starts, texts.stops, runs.keys, runs.sieve, runs.shift, runs.sizes)

    def match(self, text: str) -> Hit | None:
        """The first hit in a text by position, the shortest n-gram of those that start there; None if clean."""
        return min(self.matches(text), key=lambda hit: (hit.position, len(hit.ngram)), default=None)

    def matches(self, text: str) -> list[Hit]:
        """One hit for every distinct n-gram that the text shares, at its first position there."""
        tokens, runs = words(text), self._runs
        if not tokens or not len(runs.keys):
            return []
        data = np.frombuffer(" ".join(tokens).encode("utf-8", "replace"), np.uint8)
        firsts, sizes, slots = kernels.find_runs(data, runs.keys, runs.sieve, runs.shift, runs.sizes)
        hits = []
        for i in sorted(np.unique(slots, return_index=True)[1].tolist()):
            slot, start, size = slots[i], int(firsts[i]), int(sizes[i])
            ngram = " ".join(tokens[start : start + size])
            source, first = int(runs.sources[slot]), int(runs.firsts[slot])
            if " ".join(self._sources[source].split(" ")[first : first + size]) != ngram:
                continue
            hit = Hit(*self._owners[source], ngram, start)
            if hit.key not in self._spared:
                hits.append(hit)
        return hits

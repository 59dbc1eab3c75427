"""The n-gram rule: a text is contaminated when it shares a run of `ngram_words` words with a benchmark item, or holds
a shorter item whole. Numbers are words, because items of arithmetic often differ in their numbers alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from equal.core import run_kernels as kernels
from equal.core.items import Item
from equal.core.ngrams import words
from equal.core.texts import Texts
from equal.core.word_kernels import hash_words

#: bits of the sieve for every n-gram: one run in so many that is none of them passes it
_SIEVE_BITS = 16


@dataclass(frozen=True)
class Hit:
    """Where a text meets a benchmark item.

    Attributes:
        benchmark: the benchmark's name.
        item_id: the item, the first of the benchmarks in the order given when several hold the n-gram.
        ngram: the shared words, joined by spaces.
        position: index of the first shared word in `words(text)`, or in its words `inside_tags`.
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
    """All n-grams, each by a 64-bit key of its words.

    Attributes:
        table: the n keys.
        sources: (n,) int32, the first text of the benchmarks that holds the n-gram.
        firsts: (n,) int32, index of the n-gram's first word in that text.
    """

    table: kernels.RunTable
    sources: np.ndarray
    firsts: np.ndarray

    @classmethod
    def of(cls, texts: Texts, ngram_words: int, short_words: int) -> tuple[_Runs, np.ndarray]:
        """Of all texts; with it (n_texts,) bool: has enough words to be found."""
        words, bounds = hash_words(texts.data, texts.starts, texts.stops)
        starts, stops = bounds[:-1], bounds[1:]
        every, of_text, first = kernels.run_keys(words, starts, stops, ngram_words, short_words)
        keys, where = np.unique(every, return_index=True)
        sources = of_text[where]
        lengths = stops - starts
        shorter = (lengths >= short_words) & (lengths < ngram_words)
        heads, _, _ = kernels.run_keys(words, starts[shorter], starts[shorter] + short_words, short_words, short_words)
        held = np.zeros(ngram_words, np.bool_)
        held[lengths[shorter]] = True
        bits = max(1, len(keys).bit_length() - 1)
        high = (keys >> np.uint64(64 - bits)).astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(high, minlength=1 << bits))]).astype(np.int32)
        table = kernels.RunTable(
            keys, offsets, np.uint64(64 - bits), _sieve(keys[~shorter[sources]]), _sieve(heads), ngram_words,
            short_words, held,
        )  # fmt: skip
        return cls(table, sources, first[where]), lengths >= short_words


def _sieve(keys: np.ndarray) -> kernels.Sieve:
    bits = max(3, (_SIEVE_BITS * len(keys)).bit_length())
    places = (keys >> np.uint64(64 - bits)).astype(np.int64)
    held = np.zeros(1 << bits, np.bool_)
    held[places] = True
    return kernels.Sieve(np.packbits(held, bitorder="little"), np.uint64(64 - bits))


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
        owned = [
            (text, (benchmark, item.item_id))
            for benchmark, items in benchmarks.items()
            for item in items
            for text in (item.question, item.text)
        ]
        sources, owners = tuple(text for text, _ in owned), tuple(owner for _, owner in owned)
        runs, matchable = _Runs.of(Texts.of(sources), ngram_words, short_words)
        found = {owner for owner, enough in zip(owners, matchable.tolist()) if enough}
        unmatchable = tuple("/".join(owner) for owner in dict.fromkeys(owners) if owner not in found)
        return cls(unmatchable, sources, owners, spared, runs)

    def candidates(self, texts: Texts) -> np.ndarray:
        """(n,) bool: false where `matches` finds nothing; true without a match where all n-grams are spared.

        Args:
            texts: n texts as they are.
        """
        found = self._hold_run(texts.readable())
        rows, marked_up = texts.inside_tags()
        found[rows] |= self._hold_run(marked_up)
        return found

    def _hold_run(self, texts: Texts) -> np.ndarray:
        return kernels.holds_run(*hash_words(texts.data, texts.starts, texts.stops), self._runs.table)

    def match(self, text: str) -> Hit | None:
        """The first hit in a text by position, the shortest n-gram of those that start there; None if clean."""
        return min(self.matches(text), key=lambda hit: (hit.position, len(hit.ngram)), default=None)

    def matches(self, text: str) -> list[Hit]:
        """One hit for every distinct n-gram that the text shares, at its first position there, in their order.

        A text with tags is read twice: as its reader sees it, and with what stands inside the tags, as a model sees
        it; of an n-gram that both readings hold the first one's position counts.
        """
        hits = self._matches(words(text))
        if "<" in text or "&" in text:
            known = {hit.ngram for hit in hits}
            hits += [hit for hit in self._matches(words(text, inside_tags=True)) if hit.ngram not in known]
        return hits

    def _matches(self, tokens: list[str]) -> list[Hit]:
        packed = Texts.of_utf8([" ".join(tokens).encode("utf-8", "replace")])
        known = kernels.find_runs(hash_words(packed.data, packed.starts, packed.stops)[0], self._runs.table)
        sources: dict[int, list[str]] = {}
        hits = []
        for start, size, slot in sorted(known[np.unique(known[:, 2], return_index=True)[1]].tolist()):
            source, first = int(self._runs.sources[slot]), int(self._runs.firsts[slot])
            if source not in sources:
                sources[source] = words(self._sources[source])
            if sources[source][first : first + size] != tokens[start : start + size]:
                continue
            hit = Hit(*self._owners[source], " ".join(tokens[start : start + size]), start)
            if hit.key not in self._spared:
                hits.append(hit)
        return hits

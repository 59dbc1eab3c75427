"""Shingles, MinHash signatures, LSH bands, and the verified near-duplicate groups they lead to.

All arithmetic is on unsigned 64-bit integers that wrap, so that it is exact and equal on every machine.
A signature only proposes pairs; a pair becomes an edge when the Jaccard similarity of the two shingle sets,
computed exactly, reaches the threshold.

Sources: Broder 1997 (resemblance, min-wise sampling); Dietzfelbinger et al. 1997 (multiply-shift hashing).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from equal.core import minhash_kernels as kernels
from equal.core.mixing import scrambled
from equal.core.texts import Texts
from equal.core.word_kernels import hash_words

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class ShingleSets:
    """The word shingles of many texts, each a set of 64-bit hashes.

    A text of fewer words than a shingle has one shingle, all of it; a text without words has none.

    Attributes:
        hashes: uint64.
        starts, stops: (n,) int64; the set of text i is hashes[starts[i]:stops[i]], sorted and distinct.
    """

    hashes: np.ndarray
    starts: np.ndarray
    stops: np.ndarray

    @classmethod
    def of(cls, texts: Texts, shingle_words: int) -> ShingleSets:
        """Of texts."""
        hashes, bounds = kernels.shingle_hashes(*hash_words(texts.data, texts.starts, texts.stops), shingle_words)
        return cls(hashes, bounds[:-1], kernels.make_distinct(hashes, bounds))

    def __getitem__(self, i: int) -> np.ndarray:
        """The set of text i."""
        return self.hashes[self.starts[i] : self.stops[i]]

    def or_else(self, content_keys: np.ndarray) -> ShingleSets:
        """The same where a text without words has its content key, (n,) int64, for its only shingle."""
        empty = np.flatnonzero(self.starts == self.stops)
        starts, stops = self.starts.copy(), self.stops.copy()
        starts[empty] = len(self.hashes) + np.arange(len(empty))
        stops[empty] = starts[empty] + 1
        return ShingleSets(np.append(self.hashes, content_keys[empty].view(np.uint64)), starts, stops)


def shingles(text: str, shingle_words: int) -> np.ndarray:
    """The set of one text, (n_shingles,) uint64."""
    return ShingleSets.of(Texts.of([text]), shingle_words)[0]


def jaccard(left: np.ndarray, right: np.ndarray) -> float:
    """|A & B| / |A | B| of two shingle sets; 0 when one is empty."""
    return float(kernels.similarity(left, right, 0.0))


@dataclass(frozen=True)
class Permutations:
    """The hash functions h_i(x) = (a_i x + b_i) >> 32 behind a signature, a_i odd, of `bands * rows` rows.

    Attributes:
        bands: bands of a signature; two sets meet when one band is equal.
        rows: signature rows in a band.
        multipliers, offsets: (bands * rows,) uint64.
    """

    bands: int
    rows: int
    multipliers: np.ndarray
    offsets: np.ndarray

    @classmethod
    def seeded(cls, *, bands: int, rows: int, seed: int) -> Permutations:
        """Derive the functions from `seed` by a counter, so that they never change with a library's version."""
        counters = np.array([(seed * _GOLDEN + i) & _MASK for i in range(2 * bands * rows)], dtype=np.uint64)
        stream = scrambled(counters * np.uint64(_GOLDEN))
        return cls(bands, rows, stream[: bands * rows] | np.uint64(1), stream[bands * rows :])

    def signature(self, shingle_set: np.ndarray) -> np.ndarray:
        """MinHash signature of a non-empty shingle set: (n_shingles,) uint64 -> (bands * rows,) uint32.

        Two sets agree in a row with a probability close to their Jaccard similarity.
        """
        start, stop = np.array([0]), np.array([len(shingle_set)])
        return kernels.minima(shingle_set, start, stop, self.multipliers, self.offsets)[0]

    def band_keys(self, texts: Texts, shingle_words: int) -> tuple[np.ndarray, np.ndarray]:
        """One key a band of each text that has words.

        Returns:
            (n, bands) int64 keys, different between bands, and (n,) bool: has words; keys mean nothing without.
        """
        hashes, bounds = kernels.shingle_hashes(*hash_words(texts.data, texts.starts, texts.stops), shingle_words)
        return self._keys(hashes, bounds[:-1], bounds[1:]), np.diff(bounds) > 0

    def keys_of(self, sets: ShingleSets) -> np.ndarray:
        """The same of sets, none empty: (n, bands)."""
        return self._keys(sets.hashes, sets.starts, sets.stops)

    def _keys(self, hashes: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        return kernels.fold_bands(kernels.minima(hashes, starts, stops, self.multipliers, self.offsets), self.bands)


@dataclass(frozen=True)
class Duplicates:
    """Texts that give way to others: (n,) indices of both, and the Jaccard of the two."""

    dropped: np.ndarray
    kept: np.ndarray
    jaccard: np.ndarray


def candidate_groups(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected components of edges between 64-bit keys, labelled by their smallest key.

    Args:
        left: (n_edges,) int64.
        right: (n_edges,) int64.

    Returns:
        The distinct keys, (n_keys,) int64, sorted, and the label of each.
    """
    keys, positions = np.unique(np.concatenate([left, right]), return_inverse=True)
    if not len(keys):
        return keys, keys
    return keys, keys[_first_of_component(positions[: len(left)], positions[len(left) :], len(keys))]


def verify_duplicates(sets: ShingleSets, band_keys: np.ndarray, groups: np.ndarray, threshold: float) -> Duplicates:
    """Verify the candidate pairs of groups of texts and name what is dropped.

    An edge joins two texts of a group that share a band key and whose Jaccard similarity is at least `threshold`. Of
    each connected component the first text is kept. A pair that verified edges already connect is not computed: it
    cannot change the component.

    Args:
        sets: of n texts.
        band_keys: (n, bands) int64, from the sets alone.
        groups: (n,) labels, equal ones side by side.
        threshold: Jaccard similarity from which two texts are one.

    Returns:
        One entry a dropped text, in order. By chaining, its Jaccard to the kept text can lie below the threshold.
    """
    kept, values = kernels.join_similar(sets.hashes, sets.starts, sets.stops, band_keys, groups, threshold)
    dropped = np.flatnonzero(kept != np.arange(len(kept)))
    return Duplicates(dropped, kept[dropped], values[dropped])


def _first_of_component(left: np.ndarray, right: np.ndarray, size: int) -> np.ndarray:
    graph = csr_matrix((np.ones(len(left), dtype=np.int8), (left, right)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    first = np.full(labels.max() + 1, size)
    np.minimum.at(first, labels, np.arange(size))
    return first[labels]

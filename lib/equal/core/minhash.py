"""Shingles, MinHash signatures, LSH bands, and the verified near-duplicate groups they lead to.

All arithmetic is on unsigned 64-bit integers that wrap, so that it is exact and equal on every machine.
A signature only proposes pairs; a pair becomes an edge when the Jaccard similarity of the two shingle sets,
computed exactly, reaches the threshold.

Sources: Broder 1997 (resemblance, min-wise sampling); Dietzfelbinger et al. 1997 (multiply-shift hashing).
"""

from __future__ import annotations

from collections.abc import Sequence
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


def shingle_sets(texts: Texts, shingle_words: int) -> list[np.ndarray]:
    """The set of word shingles of each text as sorted distinct 64-bit hashes, (n_shingles,) uint64.

    A text of fewer words than a shingle has one shingle, all of it; a text without words has none.
    """
    hashes, bounds = kernels.shingle_hashes(*hash_words(texts.data, texts.starts, texts.stops), shingle_words)
    return [np.unique(part) for part in np.split(hashes, bounds[1:-1])] if len(texts.starts) else []


def shingles(text: str, shingle_words: int) -> np.ndarray:
    """`shingle_sets` of one text."""
    return shingle_sets(Texts.of([text]), shingle_words)[0]


def jaccard(left: np.ndarray, right: np.ndarray) -> float:
    """|A & B| / |A | B| of two shingle sets; 0 when one is empty."""
    common = kernels.shared(left, right)
    union = len(left) + len(right) - common
    return common / union if common else 0.0


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
        return kernels.minima(shingle_set, np.array([0, len(shingle_set)]), self.multipliers, self.offsets)[0]

    def band_keys(self, texts: Texts, shingle_words: int) -> tuple[np.ndarray, np.ndarray]:
        """One key a band of each text that has words.

        Returns:
            (n, bands) int64 keys, different between bands, and (n,) bool: has words; keys mean nothing without.
        """
        hashes, bounds = kernels.shingle_hashes(*hash_words(texts.data, texts.starts, texts.stops), shingle_words)
        signatures = kernels.minima(hashes, bounds, self.multipliers, self.offsets)
        return kernels.fold_bands(signatures, self.bands), np.diff(bounds) > 0


@dataclass(frozen=True)
class Duplicate:
    """A text that gives way to another of its group: indices into the group, and the Jaccard of the two."""

    dropped: int
    kept: int
    jaccard: float


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


def verify_duplicates(
    shingle_sets: Sequence[np.ndarray],
    band_keys: Sequence[np.ndarray],
    order: np.ndarray,
    threshold: float,
) -> list[Duplicate]:
    """Verify the candidate pairs of one group of texts and name what is dropped.

    An edge joins two texts that share a band key and whose Jaccard similarity is at least `threshold`. Of each
    connected component the text with the lowest `order` is kept. A pair that verified edges already connect is
    not computed: it cannot change the component.

    Args:
        shingle_sets: n sorted arrays of uint64.
        band_keys: n arrays of int64.
        order: (n,) distinct ranks; the lowest of a component is kept.
        threshold: Jaccard similarity from which two texts are one.

    Returns:
        One entry a dropped text, by index. By chaining, its Jaccard to the kept text can lie below the threshold.
    """
    flat, bounds = np.concatenate(shingle_sets), np.cumsum([0, *map(len, shingle_sets)])
    labels = np.arange(len(shingle_sets))
    for members in _buckets(band_keys):
        for index, text in enumerate(members):
            others = members[index + 1 :]
            others = others[labels[others] != labels[text]]
            if not len(others):
                continue
            similar = others[kernels.similarities(flat, bounds, text, others) >= threshold]
            labels[np.isin(labels, labels[similar])] = labels[text]
    dropped = []
    for label in np.unique(labels):
        component = np.flatnonzero(labels == label)
        kept = component[np.argmin(order[component])]
        others = component[component != kept]
        if len(others):
            values = kernels.similarities(flat, bounds, kept, others)
            dropped += [Duplicate(int(o), int(kept), float(v)) for o, v in zip(others, values)]
    return sorted(dropped, key=lambda duplicate: duplicate.dropped)


def _buckets(band_keys: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The texts that share a band key, for every key that two or more have; each bucket once."""
    owners = np.repeat(np.arange(len(band_keys)), [len(keys) for keys in band_keys])
    keys = np.concatenate(band_keys)
    ranked = np.lexsort((owners, keys))
    bounds = np.flatnonzero(np.diff(keys[ranked])) + 1
    buckets = {bucket.tobytes(): bucket for bucket in np.split(owners[ranked], bounds) if len(bucket) > 1}
    return list(buckets.values())


def _first_of_component(left: np.ndarray, right: np.ndarray, size: int) -> np.ndarray:
    graph = csr_matrix((np.ones(len(left), dtype=np.int8), (left, right)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    first = np.full(labels.max() + 1, size)
    np.minimum.at(first, labels, np.arange(size))
    return first[labels]

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

from equal.core.ngrams import words

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_BYTE_BASE = 0x5851F42D4C957F2D
_WORD_BASE = np.uint64(0xD1342543DE82EF95)
#: shingles permuted at once; bounds the memory of a very long document
_CHUNK = 4096


def shingles(text: str, shingle_words: int) -> np.ndarray:
    """The set of word shingles of a text as sorted distinct 64-bit hashes, (n_shingles,) uint64.

    A text of fewer words than a shingle has one shingle, all of it; a text without words has none.
    """
    hashes = _word_hashes(words(text))
    if not len(hashes):
        return hashes
    width = min(shingle_words, len(hashes))
    count = len(hashes) - width + 1
    combined = hashes[:count].copy()
    for offset in range(1, width):
        combined *= _WORD_BASE
        combined += hashes[offset : offset + count]
    return np.unique(_mix(combined))


def jaccard(left: np.ndarray, right: np.ndarray) -> float:
    """|A & B| / |A | B| of two shingle sets; 0 when one is empty."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    union = len(left) + len(right) - shared
    return shared / union if shared else 0.0


@dataclass(frozen=True)
class Permutations:
    """The hash functions h_i(x) = (a_i x + b_i) >> 32 behind a signature, a_i odd, of `bands * rows` rows.

    Attributes:
        bands: bands of a signature; two sets meet when one band is equal.
        rows: signature rows in a band.
        multipliers, offsets: (bands * rows, 1) uint64.
    """

    bands: int
    rows: int
    multipliers: np.ndarray
    offsets: np.ndarray

    @classmethod
    def seeded(cls, *, bands: int, rows: int, seed: int) -> Permutations:
        """Derive the functions from `seed` by a counter, so that they never change with a library's version."""
        counters = np.array([(seed * _GOLDEN + i) & _MASK for i in range(2 * bands * rows)], dtype=np.uint64)
        stream = _mix(_mix(counters * np.uint64(_GOLDEN)))[:, None]
        return cls(bands, rows, stream[: bands * rows] | np.uint64(1), stream[bands * rows :])

    def signature(self, shingle_set: np.ndarray) -> np.ndarray:
        """MinHash signature of a non-empty shingle set: (n_shingles,) uint64 -> (bands * rows,) uint32.

        Two sets agree in a row with a probability close to their Jaccard similarity.
        """
        smallest = np.full(self.bands * self.rows, np.iinfo(np.uint64).max, dtype=np.uint64)
        for start in range(0, len(shingle_set), _CHUNK):
            chunk = shingle_set[None, start : start + _CHUNK]
            np.minimum(smallest, (self.multipliers * chunk + self.offsets).min(axis=1), out=smallest)
        return (smallest >> np.uint64(32)).astype(np.uint32)

    def band_keys(self, shingle_set: np.ndarray) -> np.ndarray:
        """One key a band, different between bands: (n_shingles,) uint64 -> (bands,) int64; none for an empty set."""
        if not len(shingle_set):
            return np.empty(0, dtype=np.int64)
        rows = self.signature(shingle_set).reshape(self.bands, self.rows).astype(np.uint64)
        keys = np.arange(1, self.bands + 1, dtype=np.uint64)
        for row in range(self.rows):
            keys = _mix(keys + rows[:, row])
        return keys.view(np.int64)


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
    sizes = np.array([len(s) for s in shingle_sets], dtype=np.int64)
    vocabulary, columns = np.unique(np.concatenate(shingle_sets), return_inverse=True)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    matrix = csr_matrix(
        (np.ones(len(columns), dtype=np.int32), columns, starts), shape=(len(shingle_sets), len(vocabulary))
    )
    labels = np.arange(len(shingle_sets))
    for members in _buckets(band_keys):
        for index, text in enumerate(members):
            others = members[index + 1 :]
            others = others[labels[others] != labels[text]]
            if not len(others):
                continue
            similar = others[_similarities(matrix, sizes, text, others) >= threshold]
            labels[np.isin(labels, labels[similar])] = labels[text]
    dropped = []
    for label in np.unique(labels):
        component = np.flatnonzero(labels == label)
        kept = component[np.argmin(order[component])]
        others = component[component != kept]
        if len(others):
            values = _similarities(matrix, sizes, kept, others)
            dropped += [Duplicate(int(o), int(kept), float(v)) for o, v in zip(others, values)]
    return sorted(dropped, key=lambda duplicate: duplicate.dropped)


def _similarities(matrix: csr_matrix, sizes: np.ndarray, text: int, others: np.ndarray) -> np.ndarray:
    """Exact Jaccard of one text with each of `others`, (n_others,) float64."""
    mark = np.zeros(matrix.shape[1], dtype=np.int32)
    mark[matrix.indices[matrix.indptr[text] : matrix.indptr[text + 1]]] = 1
    shared = matrix[others] @ mark
    return np.asarray(shared / np.maximum(sizes[others] + sizes[text] - shared, 1))


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


def _word_hashes(tokens: list[str]) -> np.ndarray:
    """Hash every word at once, (n_words,) uint64, by prefix sums of byte * base^position over the joined bytes."""
    if not tokens:
        return np.empty(0, dtype=np.uint64)
    joined = np.frombuffer(" ".join(tokens).encode("utf-8"), dtype=np.uint8)
    ends = np.append(np.flatnonzero(joined == 32), len(joined))
    starts = np.concatenate([[0], ends[:-1] + 1])
    powers = _powers(_BYTE_BASE, len(joined))
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(joined * powers, dtype=np.uint64)])
    # dividing by base^start makes the hash independent of where the word stands
    inverse = _powers(pow(_BYTE_BASE, -1, 1 << 64), len(joined))
    return _mix((sums[ends] - sums[starts]) * inverse[starts] + (ends - starts).astype(np.uint64))


def _powers(base: int, count: int) -> np.ndarray:
    powers = np.full(count, base, dtype=np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def _mix(values: np.ndarray) -> np.ndarray:
    """Scramble 64-bit values one to one (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))

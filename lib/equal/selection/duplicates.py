"""The same question twice: which pairs say again what a better-ranked one says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: rows compared at once, and with how many kept ones: 32 MB of cosines, however many pairs there are
_BLOCK, _CHUNK = 1024, 8192


def stand_ins(keys: Sequence[str], vectors: np.ndarray, *, max_similarity: float, most: int) -> np.ndarray:
    """For each pair, the better-ranked one that stands for it; itself, where it is kept.

    In order of rank a pair is kept unless one that is kept already has its key or a cosine above `max_similarity`;
    of several the best-ranked stands for it. So the result is a function of the ranking alone.

    Args:
        keys: (n,) what questions that are the same have in common, best rank first; an empty one is like no other.
        vectors: (n, d) float32 unit rows.
        max_similarity: cosine above which two pairs count as one; 1 compares keys alone.
        most: pairs that are kept at most; 0 keeps all.

    Returns:
        (m,) indices; m < n where `most` were kept before the last pair was looked at.

    >>> stand_ins(["a", "b", "a", "c"], np.eye(4, dtype=np.float32), max_similarity=0.98, most=0).tolist()
    [0, 1, 0, 3]
    """
    most = most or len(keys)
    owners: list[int] = []
    kept = np.empty(min(most, len(keys)), np.int64)
    kept_vectors = np.empty((len(kept), vectors.shape[1]), vectors.dtype)
    by_key: dict[str, int] = {}
    count = 0
    for start in range(0, len(keys), _BLOCK):
        block = vectors[start : start + _BLOCK]
        before = _first_above(block, kept_vectors[:count], max_similarity)
        within = block @ block.T > max_similarity if max_similarity < 1 else np.zeros((len(block),) * 2, bool)
        is_kept = np.zeros(len(block), bool)
        for place in range(len(block)):
            row = start + place
            inside = within[place] & is_kept
            alike = [
                by_key.get(keys[row], row),
                kept[before[place]] if before[place] >= 0 else row,
                start + int(inside.argmax()) if inside.any() else row,
            ]
            owners.append(int(min(alike)))
            if owners[-1] != row:
                continue
            is_kept[place] = True
            kept[count], kept_vectors[count] = row, block[place]
            count += 1
            if keys[row]:
                by_key[keys[row]] = row
            if count == most:
                return np.array(owners)
    return np.array(owners, dtype=np.int64)


def _first_above(block: np.ndarray, kept: np.ndarray, max_similarity: float) -> np.ndarray:
    """(b,) for each row of the block the first kept row whose cosine is above the limit, -1 for none."""
    first = np.full(len(block), -1)
    for start in range(0, len(kept) if max_similarity < 1 else 0, _CHUNK):
        above = block @ kept[start : start + _CHUNK].T > max_similarity
        new = (first < 0) & above.any(axis=1)
        first[new] = start + above[new].argmax(axis=1)
    return first

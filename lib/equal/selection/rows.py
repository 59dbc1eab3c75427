"""Rows of qa_pairs in, rows of selected_pairs out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from equal.core.bandit import fold
from equal.core.checks import same_wording
from equal.selection.baselines import rank_at_random
from equal.selection.duplicates import stand_ins
from equal.selection.equal import Candidate, rank_by_reward

_KEPT = ("run_id", "pair_id", "arm_id", "doc_id", "question", "answer")


def select_pairs(
    pairs: Sequence[Mapping[str, Any]],
    history: Iterable[Mapping[str, Any]],
    embeddings: Mapping[str, np.ndarray],
    *,
    strategy: str,
    max_pairs: int,
    max_similarity: float,
    seed: int,
) -> list[dict[str, Any]]:
    """Rank the accepted pairs of one run, leave out those that a better one stands for, and keep the first.

    Args:
        pairs: rows of qa_pairs of the run, in any order.
        history: rows of arm_history of the run, in any order.
        embeddings: (d,) float32 unit vector of each pair by pair_id.
        strategy: `random` ranks by hash, every other by the arm's latest reward.
        max_pairs: kept at most; 0 keeps all.
        max_similarity: cosine above which two pairs count as one; 1 leaves out the same question alone.
        seed: of the random order.

    Returns:
        Rows of selected_pairs in order of rank, from 1, each with those that it stands for.
    """
    rows = {row["pair_id"]: row for row in pairs}
    candidates = [Candidate(row["pair_id"], row["arm_id"], row["similarity"]) for row in rows.values()]
    ranked: Sequence[tuple[Candidate, float | None]]
    if strategy == "random":
        ranked = rank_at_random(candidates, seed)
    else:
        rewards = {arm_id: arm.reward for arm_id, arm in fold(history).items()}
        ranked = rank_by_reward(candidates, rewards)
    kept = _kept([candidate.pair_id for candidate, _ in ranked], rows, embeddings, max_similarity, max_pairs)
    scores = {candidate.pair_id: score for candidate, score in ranked}
    return [
        {name: rows[pair_id][name] for name in _KEPT}
        | {"method": strategy, "rank": rank, "score": scores[pair_id], "round": 1, "duplicates": duplicates}
        for rank, (pair_id, duplicates) in enumerate(kept.items(), start=1)
    ]


def _kept(
    ranked: Sequence[str],
    rows: Mapping[str, Mapping[str, Any]],
    embeddings: Mapping[str, np.ndarray],
    max_similarity: float,
    max_pairs: int,
) -> dict[str, list[dict[str, Any]]]:
    """The pairs that are kept, in order of rank, and of each those that it stands for."""
    if not ranked:
        return {}
    keys = [same_wording(rows[pair_id]["question"]) for pair_id in ranked]
    vectors = np.stack([embeddings[pair_id] for pair_id in ranked])
    found: dict[str, list[dict[str, Any]]] = {}
    for place, owner in enumerate(stand_ins(keys, vectors, max_similarity=max_similarity, most=max_pairs)):
        duplicates = found.setdefault(ranked[owner], [])
        if place != owner:
            reason = "same_question" if keys[place] == keys[owner] else "near"
            similarity = float(vectors[place] @ vectors[owner])
            duplicates.append({"pair_id": ranked[place], "reason": reason, "similarity": similarity})
    return found

"""Rows of qa_pairs in, rows of selected_pairs out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from equal.core.bandit import fold
from equal.selection.baselines import rank_at_random
from equal.selection.equal import Candidate, rank_by_reward

_KEPT = ("run_id", "pair_id", "arm_id", "doc_id", "question", "answer")


def select_pairs(
    pairs: Sequence[Mapping[str, Any]],
    history: Iterable[Mapping[str, Any]],
    *,
    strategy: str,
    max_pairs: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Rank the accepted pairs of one run and keep the first.

    Args:
        pairs: rows of qa_pairs of the run, in any order.
        history: rows of arm_history of the run, in any order.
        strategy: `equal` ranks by the arm's latest reward, `random` by hash.
        max_pairs: kept at most; 0 keeps all.
        seed: of the random order.

    Returns:
        Rows of selected_pairs in order of rank, from 1.
    """
    rows = {row["pair_id"]: row for row in pairs}
    candidates = [Candidate(row["pair_id"], row["arm_id"], row["similarity"]) for row in rows.values()]
    ranked: Sequence[tuple[Candidate, float | None]]
    if strategy == "random":
        ranked = rank_at_random(candidates, max_pairs, seed)
    else:
        rewards = {arm_id: arm.reward for arm_id, arm in fold(history).items()}
        ranked = rank_by_reward(candidates, rewards, max_pairs)
    return [
        {name: rows[candidate.pair_id][name] for name in _KEPT}
        | {"method": strategy, "rank": rank, "score": score, "round": 1}
        for rank, (candidate, score) in enumerate(ranked, start=1)
    ]

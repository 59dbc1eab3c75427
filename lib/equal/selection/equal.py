"""EQUAL's selection: the pairs of the best arms (Algorithm 1, last line)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from equal.core.bandit import WORST_REWARD


@dataclass(frozen=True)
class Candidate:
    """A pair that may be selected.

    Attributes:
        pair_id: its id.
        arm_id: the arm it was read from; None for an arm nobody knows.
        similarity: of question and answer, None where the model wrote the answer itself.
    """

    pair_id: str
    arm_id: int | None
    similarity: float | None


def rank_by_reward(
    candidates: Sequence[Candidate], rewards: Mapping[int, float | None]
) -> list[tuple[Candidate, float]]:
    """Candidates in falling order of their arm's reward, then of similarity, then by pair_id.

    Args:
        candidates: in any order.
        rewards: arm_id -> latest 1 - W; an absent or null one counts as the worst.

    Returns:
        (candidate, score), the score being the arm's reward.
    """

    def score(candidate: Candidate) -> float:
        known = None if candidate.arm_id is None else rewards.get(candidate.arm_id)
        return WORST_REWARD if known is None else known

    def order(candidate: Candidate) -> tuple[float, float, str]:
        similarity = -math.inf if candidate.similarity is None else candidate.similarity
        return -score(candidate), -similarity, candidate.pair_id

    ranked = sorted(candidates, key=order)
    return [(candidate, score(candidate)) for candidate in ranked]

"""Which arms to pull next: the document sampling (DS) score of EQUAL, Eq. 1, and what a budget allows.

An arm's state is its latest row in the history; nothing else is remembered between iterations.

    >>> arms = [ArmState(0, 100, 10, 1, 7, 0.6, 0.02), ArmState(1, 100, 10, 1, 9, 0.4, 0.02)]
    >>> scores = ds_scores(arms, schedule="paper", alpha=0.0)
    >>> [(pull, round(score, 3)) for pull, score in choose_pulls(
    ...     arms, scores, arms_per_iteration=1, docs_per_pull=10, documents_left=None)]
    [(Pull(arm_id=0, start=10, stop=20), 0.992)]
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from equal.core.transport import MAX_COST, reward
from equal.errors import BudgetError, TableError

#: of an arm whose documents gave no pair: as if its pairs lay opposite to the reference
WORST_REWARD = reward(MAX_COST)


@dataclass(frozen=True)
class ArmState:
    """What is known of an arm.

    Attributes:
        arm_id: the cluster's id.
        size: documents in it.
        taken: documents read so far, the first ones of its hash order.
        pulls: T_j, times it was pulled.
        pairs: accepted pairs so far, |U_j|.
        reward: 1 - W(U_j, D_r); None before the first pair.
        standard_error: of the reward; None when it has none.
        similarities: (size,) of its documents to the reference, in the order in which they are read; None where no
            strategy asks for them.
    """

    arm_id: int
    size: int
    taken: int
    pulls: int
    pairs: int
    reward: float | None
    standard_error: float | None
    similarities: np.ndarray | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Pull:
    """Documents [start, stop) of the hash order of an arm, or of the whole corpus when arm_id is None."""

    arm_id: int | None
    start: int
    stop: int


def exploration_weight(total_pulls: int, schedule: str, alpha: float) -> float:
    """The factor alpha of Eq. 1.

    Args:
        total_pulls: sum of T_k over all arms.
        schedule: `paper`: 1 / (total_pulls + 1), which fades; `constant`: `alpha`.
        alpha: the factor of the constant schedule.

    Raises:
        ValueError: an unknown schedule.
    """
    if schedule == "paper":
        return 1.0 / (total_pulls + 1)
    if schedule == "constant":
        return alpha
    raise ValueError(f"schedule: is {schedule!r}, allowed: paper, constant")


def exploration_bonus(arms: Sequence[ArmState], *, schedule: str, alpha: float) -> dict[int, float]:
    """The second term of Eq. 1 by arm; one that was never pulled gets that of a single pull."""
    total = max(sum(arm.pulls for arm in arms), 1)
    weight = exploration_weight(total, schedule, alpha)
    return {arm.arm_id: weight * math.sqrt(2.0 * math.log(total) / max(arm.pulls, 1)) for arm in arms}


def ds_scores(arms: Sequence[ArmState], *, schedule: str, alpha: float) -> dict[int, float]:
    """DS_j = reward_j + alpha * sqrt(2 ln(sum_k T_k) / T_j) of every arm (Eq. 1).

    An arm that was never pulled has no Eq. 1: it scores +inf and so comes before all others. One that was
    pulled and gave no pair has the reward of the worst cost, so that it returns only by its exploration term.
    """
    bonus = exploration_bonus(arms, schedule=schedule, alpha=alpha)
    scores = {}
    for arm in arms:
        known = WORST_REWARD if arm.reward is None else arm.reward
        scores[arm.arm_id] = known + bonus[arm.arm_id] if arm.pulls else math.inf
    return scores


def choose_pulls(
    arms: Sequence[ArmState],
    scores: Mapping[int, float],
    *,
    arms_per_iteration: int,
    docs_per_pull: int,
    documents_left: int | None,
) -> list[tuple[Pull, float]]:
    """The pulls of one iteration, best score first (Algorithm 1, line 4, for several arms at once).

    Args:
        arms: all arms; exhausted ones are passed over.
        scores: of every arm by arm_id.
        arms_per_iteration: at most this many are pulled.
        docs_per_pull: documents a pull; fewer where an arm ends.
        documents_left: of the budget, never exceeded; None is no limit.

    Returns:
        (pull, score) in falling order of score, ties by arm id; empty when no document is left to read.
    """
    open_arms = sorted(
        (arm for arm in arms if arm.taken < arm.size), key=lambda arm: (-scores[arm.arm_id], arm.arm_id)
    )
    left = math.inf if documents_left is None else documents_left
    chosen: list[tuple[Pull, float]] = []
    for arm in open_arms[:arms_per_iteration]:
        count = int(min(docs_per_pull, arm.size - arm.taken, left))
        if count <= 0:
            break
        chosen.append((Pull(arm.arm_id, arm.taken, arm.taken + count), scores[arm.arm_id]))
        left -= count
    return chosen


def arms_at_once(num_arms: int) -> int:
    """Arms that one iteration pulls unless a number is given: one in twenty, as the paper's code (50 of 1000).

    More of them read less of the best ones: docs/log.md has the measurement.
    """
    return max(1, num_arms // 20)


def largest_k(docs_per_pull: int, document_budget: int, max_share: float) -> int | None:
    """The most arms of which each can be pulled once within `max_share` of the budget.

    Args:
        docs_per_pull: documents a pull.
        document_budget: documents that may be read; 0 is no limit.
        max_share: of the budget that the first sweep may cost, in [0, 1].

    Returns:
        The bound, 0 when not even one arm fits, None when documents are not limited.
    """
    if document_budget == 0:
        return None
    # 0.3 * 100 is 30.000000000000004 or 29.999999999999996: rounding must not cost an arm
    return math.floor(document_budget * max_share / docs_per_pull + 1e-9)


def require_affordable(k: int, docs_per_pull: int, document_budget: int, max_share: float) -> None:
    """Refuse more arms than the first sweep can pay for; arguments as in `largest_k`.

    Raises:
        BudgetError: names the largest k that fits.
    """
    bound = largest_k(docs_per_pull, document_budget, max_share)
    if bound is None or k <= bound:
        return
    cost = f"pulling {k} arms once reads {k * docs_per_pull} documents"
    of = "" if max_share == 1 else f"{max_share:g} (cluster.max_sweep_share) of "
    limit = f"above {of}the budget of {document_budget} documents"
    fits = f"the largest k that fits is {bound}; set cluster.k={bound}" if bound else "not even one arm fits"
    raise BudgetError(
        f"cluster.k: is {k}, but {cost}, {limit}; {fits}, or lower bandit.docs_per_pull (now {docs_per_pull}), "
        "or raise budget.documents or budget.fraction"
    )


def fold(rows: Iterable[Mapping[str, Any]]) -> dict[int, ArmState]:
    """The state of every arm that a run's history knows: its row of the latest iteration, in any order of rows.

    Args:
        rows: of arm_history, of one run.

    Returns:
        arm_id -> state; `size` is the documents read, as the history does not hold the arm's true size.

    Raises:
        TableError: two different rows of one arm and iteration, or rows of two runs.
    """
    latest: dict[int, Mapping[str, Any]] = {}
    seen: dict[tuple[int, int], Mapping[str, Any]] = {}
    runs: set[Any] = set()
    for row in rows:
        key = (row["arm_id"], row["iteration"])
        if seen.setdefault(key, row) != row:
            raise TableError(
                f"arm_history: arm {key[0]} has two different rows of iteration {key[1]}; one writer a run_id is "
                "allowed, delete the run's rows or choose another run_name"
            )
        runs.add(row["run_id"])
        if key[0] not in latest or latest[key[0]]["iteration"] < key[1]:
            latest[key[0]] = row
    if len(runs) > 1:
        raise TableError(
            f"arm_history: rows of {len(runs)} runs ({', '.join(sorted(map(str, runs)))}); filter by run_id"
        )
    return {arm_id: _state(latest[arm_id]) for arm_id in sorted(latest)}


def _state(row: Mapping[str, Any]) -> ArmState:
    return ArmState(
        arm_id=row["arm_id"],
        size=row["documents"],
        taken=row["documents"],
        pulls=row["pulls"],
        pairs=row["pairs"],
        reward=row["reward"],
        standard_error=row["standard_error"],
    )

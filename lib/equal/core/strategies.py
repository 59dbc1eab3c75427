"""What every arm scores under `bandit.strategy` and `bandit.exploration`; the best are pulled next.

    strategy      expects of an arm                                           before its first pull
    equal         its measured reward (Eq. 2)                                 +inf: every arm is swept once
    warm_start    reward and similarity of its next documents (`beliefs`)     the prior: what cannot win is never swept

`random` and `similarity` choose documents, not arms: they read the whole corpus in one order. Inside an arm documents
come by hash under `equal`, the most similar to the reference first under `warm_start`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from equal.core.bandit import WORST_REWARD, ArmState, ds_scores, exploration_bonus
from equal.core.beliefs import Belief, believe

#: they read the corpus in one order: by hash, and by falling similarity to the reference
IN_ONE_ORDER = ("random", "similarity")
#: they need the similarity of documents to the reference
BY_SIMILARITY = ("similarity", "warm_start")


def arm_scores(
    arms: Sequence[ArmState], *, strategy: str, exploration: str, alpha: float, docs_per_pull: int, seed: int
) -> dict[int, float]:
    """The score of every arm.

    Args:
        arms: all of them.
        strategy: `equal` or `warm_start`.
        exploration: what is added to the expected reward. `paper` and `constant`: see `exploration_weight`;
            `variance`: `alpha` standard errors; `thompson`: none, the score is drawn from the belief instead.
        alpha: see there.
        docs_per_pull: documents of the next pull.
        seed: of the draws, which also depend on what was read so far, and so are the same when a run is resumed.

    Raises:
        ValueError: an unknown strategy or exploration.
    """
    if strategy not in ("equal", "warm_start"):
        raise ValueError(f"strategy: is {strategy!r}, allowed: equal, warm_start")
    if exploration not in ("variance", "thompson"):
        if strategy == "equal":
            return ds_scores(arms, schedule=exploration, alpha=alpha)
        bonus = exploration_bonus(arms, schedule=exploration, alpha=alpha)
        return {arm_id: belief.mean + bonus[arm_id] for arm_id, belief in believe(arms, docs_per_pull).items()}
    beliefs = believe(arms, docs_per_pull) if strategy == "warm_start" else _as_measured(arms)
    errors = np.full(len(arms), alpha)
    if exploration == "thompson":
        errors = np.random.default_rng((seed, sum(arm.taken for arm in arms))).standard_normal(len(arms))
    found = (beliefs[arm.arm_id] for arm in arms)
    return {arm.arm_id: belief.mean + n * belief.error for arm, belief, n in zip(arms, found, errors.tolist())}


def _as_measured(arms: Sequence[ArmState]) -> dict[int, Belief]:
    """The reward as it was measured; an arm of one document, whose error nothing shows, has the largest of all."""
    largest = max((arm.standard_error for arm in arms if arm.standard_error is not None), default=0.0)
    beliefs = {}
    for arm in arms:
        known = WORST_REWARD if arm.reward is None else arm.reward
        error = largest if arm.standard_error is None else arm.standard_error
        beliefs[arm.arm_id] = Belief(known if arm.pulls else math.inf, error)
    return beliefs

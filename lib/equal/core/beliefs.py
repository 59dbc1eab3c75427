"""What every arm's reward probably is, never pulled or not: a prior from its documents, learned from the arms read.

The model is that of Fay and Herriot (1979) for small areas: an arm's true reward is a line in the similarity of its
documents to the reference, plus a part of its own; what was measured is that plus the error of few pairs.

    reward_j = a + b similarity_j + u_j,  u_j ~ (0, tau^2)        measured_j = reward_j + e_j,  e_j ~ (0, s_j^2)

Line and tau come from the arms that were read, by weighted least squares and the estimator of Paule and Mandel (1982),
anew at every choice: nothing has to be remembered. Where similarity says nothing, b is near 0 and tau large; the
prior is then the mean of all arms, and what was measured overrules it as soon as it is surer than tau.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equal.core.bandit import WORST_REWARD, ArmState

#: fewer arms read show no line; the similarity then stands for the reward, up to a shift
_MIN_ARMS = 4
#: pairs from which an arm's own standard error counts for more than that of the others
_POOLED_PAIRS = 10
#: similarities, or squared rewards, that are nearer than this are one
_SAME = 1e-9
#: halvings of the interval that holds tau^2
_HALVINGS = 40


@dataclass(frozen=True)
class Belief:
    """Mean and standard deviation of an arm's reward, given all that was read."""

    mean: float
    error: float


@dataclass(frozen=True)
class _Fit:
    """Coefficients (2,) and their covariance (2, 2) under a given tau^2, and the weighted squares of residuals."""

    line: np.ndarray
    covariance: np.ndarray
    squares: float


def believe(arms: Sequence[ArmState], docs_per_pull: int) -> dict[int, Belief]:
    """The belief about what the next pull of every arm would bring (empirical best linear unbiased predictor).

    An arm whose documents gave no pair is believed to be the worst possible, as `ds_scores` has it.

    Args:
        arms: all arms, each with `similarities`; those with a reward teach the others.
        docs_per_pull: documents of the next pull.
    """
    similarity = np.array([_mean_similarity(arm, 0, arm.taken) if arm.taken else 0.0 for arm in arms])
    following = np.array([_mean_similarity(arm, arm.taken, arm.taken + docs_per_pull) for arm in arms])
    fruitful = np.array([arm.reward is not None for arm in arms])
    measured = np.array([WORST_REWARD if arm.reward is None else arm.reward for arm in arms])
    noise = sampling_variance(arms)
    fitted, _, tau2 = prior_of(similarity[fruitful], measured[fruitful], noise[fruitful], similarity)
    prior, spread, _ = prior_of(similarity[fruitful], measured[fruitful], noise[fruitful], following)
    weight = np.where(fruitful, tau2 / np.maximum(tau2 + noise, 1e-300), 0.0)
    mean = prior + weight * (measured - fitted)
    variance = (1 - weight) * tau2 + (1 - weight) ** 2 * spread
    barren = np.array([arm.pulls > 0 for arm in arms]) & ~fruitful
    return {
        arm.arm_id: Belief(WORST_REWARD if lost else float(m), float(np.sqrt(v)))
        for arm, lost, m, v in zip(arms, barren, mean, variance)
    }


def sampling_variance(arms: Sequence[ArmState]) -> np.ndarray:
    """(k,) s_j^2; an arm's own standard error, which few documents show badly, is drawn towards that of all arms."""
    pairs = np.array([max(arm.pairs, 1) for arm in arms], float)
    own = np.array([np.nan if arm.standard_error is None else arm.standard_error**2 for arm in arms]) * pairs
    known = np.isfinite(own)
    if not known.any():
        return np.zeros(len(arms))
    pooled = own[known].mean()
    trust = np.where(known, pairs / (pairs + _POOLED_PAIRS), 0.0)
    return (trust * np.where(known, own, 0.0) + (1 - trust) * pooled) / pairs


def prior_of(
    similarity: np.ndarray, measured: np.ndarray, noise: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """What similarity alone makes one expect.

    Args:
        similarity: (r,) of the documents read, by arm.
        measured: (r,) rewards.
        noise: (r,) their sampling variances.
        wanted: (k,) similarities whose rewards are asked for.

    Returns:
        (k,) means, (k,) variances of them as the line is not known for sure, and tau^2.
    """
    if len(similarity) < _MIN_ARMS or np.ptp(similarity) < _SAME:
        gaps = measured - similarity if len(similarity) else np.zeros(1)
        # how far rewards lie from what similarity promises is not known yet: as far as the promises differ, at least
        tau2 = max(float(gaps.var()) - (float(noise.mean()) if len(noise) else 0.0), float(wanted.var()))
        return wanted + gaps.mean(), np.zeros(len(wanted)), tau2
    middle, width = similarity.mean(), np.ptp(similarity)
    rows, asked = (np.column_stack([np.ones(len(x)), (x - middle) / width]) for x in (similarity, wanted))
    low, high = 0.0, float(((measured - measured.mean()) ** 2).sum()) / (len(rows) - 2) + _SAME
    for _ in range(_HALVINGS):  # weighted squares fall with tau^2, to what their degrees of freedom make expected
        tried = (low + high) / 2
        low, high = (tried, high) if _fit(rows, measured, noise + tried).squares > len(rows) - 2 else (low, tried)
    fit = _fit(rows, measured, noise + high)
    return asked @ fit.line, np.einsum("ij,jk,ik->i", asked, fit.covariance, asked), low


def _fit(design: np.ndarray, measured: np.ndarray, variances: np.ndarray) -> _Fit:
    """Weighted least squares."""
    weighted = design / variances[:, None]
    covariance = np.linalg.inv(design.T @ weighted)
    line = covariance @ (weighted.T @ measured)
    return _Fit(line, covariance, float(((measured - design @ line) ** 2 / variances).sum()))


def _mean_similarity(arm: ArmState, start: int, stop: int) -> float:
    """Of documents [start, stop), as far as the arm has them; of an arm that is used up, which nobody asks, 0."""
    if arm.similarities is None:
        raise ValueError(f"similarities: arm {arm.arm_id} has none; this strategy needs those of every arm")
    part = arm.similarities[start:stop]
    return float(part.mean()) if len(part) else 0.0

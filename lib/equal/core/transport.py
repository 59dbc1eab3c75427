"""Optimal transport between an arm's pairs and the reference set (EQUAL, section 3.3, Eq. 4).

In hundreds of dimensions the exact cost between two finite samples is mostly their sampling noise: it is far
above 0 for two samples of one distribution, and falls with their size. `split` subtracts what two halves of
the same set cost each other, which is the same noise:

    S = mean over seeded splits of  (W(x1, y1) + W(x2, y2)) / 2 - (W(x1, x2) + W(y1, y2)) / 2

It is 0 on average for equal distributions at every size, which makes it a distance that can be read; as it has
only half of the points in each term it is also noisier. `plain` is the paper's W over all points: it never comes
near 0, but orders arms more surely, even of unequal size (benchmarks/estimators.py measures both).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.optimize import linear_sum_assignment

from equal.core.costs import transport_flops

#: the range of 1 - cosine ends here
MAX_COST = 2.0
#: pivots of the network simplex before it gives up
_MAX_PIVOTS = 1_000_000


@dataclass(frozen=True)
class Estimate:
    """A transport cost.

    Attributes:
        value: in units of 1 - cosine; `split` may fall slightly below 0.
        converged: whether every solver run reached its optimum.
        num_x: points of the first set that entered; num_y: of the second; flops: arithmetic, estimated.
        standard_error: of the value over documents, where the solver gives it away: `plain`, two documents or more.
    """

    value: float
    converged: bool
    num_x: int
    num_y: int
    flops: float
    standard_error: float | None = None


def cost_matrix(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """c(x_i, y_j) = 1 - cosine (section 3.3).

    Args:
        x: (n, d).
        y: (m, d).

    Returns:
        (n, m) float64 in [0, 2].

    Raises:
        ValueError: a set is empty, dimensions differ, or a row is zero or not finite.
    """
    return np.clip(1.0 - _unit_rows("x", x) @ _unit_rows("y", y, x.shape[-1]).T, 0.0, MAX_COST)


def reward(estimate_value: float) -> float:
    """1 - W: transport is a cost, the bandit wants more to be better; the sign turns here and nowhere else."""
    return 1.0 - estimate_value


def transport_cost(
    x: np.ndarray,
    y: np.ndarray,
    *,
    estimator: str,
    max_pairs: int,
    splits: int,
    seed: int,
    doc_index: np.ndarray | None = None,
) -> Estimate:
    """The transport cost between two samples.

    Args:
        x: (n, d) embeddings of an arm's pairs, in an order that depends on their content only.
        y: (m, d) embeddings of the reference, likewise.
        estimator: `split` (debiased) or `plain` (the paper's).
        max_pairs: of each set that enter, by seeded subsample.
        splits: halvings averaged by `split`.
        seed: of subsamples and halvings.
        doc_index: (n,) document of each row of x; `split` keeps a document's pairs in one half, as they are
            too alike to show the arm's noise. None takes every row for a document of its own.

    Returns:
        The estimate. Where a set is too small to be halved (one document, one item), `split` takes the other
        set's noise for its own; when both are, it is their plain cost.

    Raises:
        ValueError: a set is empty, rows are zero or not finite, or the estimator is unknown.
    """
    if estimator not in ("split", "plain"):
        raise ValueError(f"estimator: is {estimator!r}, allowed: split, plain")
    rng = np.random.default_rng(seed)
    groups = np.arange(len(x)) if doc_index is None else np.unique(doc_index, return_inverse=True)[1]
    kept_x, kept_y = _subsample(len(x), max_pairs, rng), _subsample(len(y), max_pairs, rng)
    points = _Points(x[kept_x], y[kept_y])
    n, m, dim = len(kept_x), len(kept_y), x.shape[-1]
    if estimator == "split":
        # costs between and within both sets; the matchings of a halving take no more than one solution of all
        flops = transport_flops(n + m, n + m, dim, 0) + splits * transport_flops(n, m, 0, n + m)
        return Estimate(_split(points, groups[kept_x], splits, rng), True, n, m, flops)
    value, converged, potentials = _exact(points.xy)
    error = _linearised_error(potentials, groups[kept_x])
    return Estimate(value, converged, n, m, transport_flops(n, m, dim, n + m), error)


def cost_and_error(
    x: np.ndarray,
    doc_index: np.ndarray,
    y: np.ndarray,
    *,
    estimator: str,
    max_pairs: int,
    splits: int,
    num_resamples: int,
    seed: int,
) -> tuple[Estimate, float | None]:
    """The transport cost of an arm and its standard error over the arm's documents.

    Args:
        x: (n, d) as in `transport_cost`, as are doc_index, y, estimator, max_pairs, splits and seed.
        num_resamples: behind the error of `split`; `plain` needs none.

    Returns:
        The estimate, and the error in units of the cost, None for an arm of one document.
    """
    estimate = transport_cost(
        x, y, estimator=estimator, max_pairs=max_pairs, splits=splits, seed=seed, doc_index=doc_index
    )
    if estimator == "plain":
        return estimate, estimate.standard_error
    values = bootstrap(
        x, doc_index, y, estimator=estimator, max_pairs=max_pairs, splits=splits,
        num_resamples=num_resamples, seed=seed,
    )  # fmt: skip
    error = standard_error(values, len(np.unique(doc_index)))
    return replace(estimate, flops=(1 + num_resamples) * estimate.flops), error


def bootstrap(
    x: np.ndarray,
    doc_index: np.ndarray,
    y: np.ndarray,
    *,
    estimator: str,
    max_pairs: int,
    splits: int,
    num_resamples: int,
    seed: int,
) -> np.ndarray:
    """Transport costs of resampled arms; documents are drawn with replacement, each with all its pairs.

    Args:
        x: (n, d) as in `transport_cost`, as are doc_index, y, estimator, max_pairs and splits.
        num_resamples: how many.
        seed: of the draws.

    Returns:
        (num_resamples,) values.
    """
    rng = np.random.default_rng(seed)
    documents, groups = np.unique(doc_index, return_inverse=True)
    rows_of = [np.flatnonzero(groups == g) for g in range(len(documents))]
    values = np.empty(num_resamples)
    for i in range(num_resamples):
        drawn = np.concatenate([rows_of[g] for g in np.sort(rng.integers(len(documents), size=len(documents)))])
        values[i] = transport_cost(
            x[drawn],
            y,
            estimator=estimator,
            max_pairs=max_pairs,
            splits=splits,
            seed=int(rng.integers(2**63)),
            doc_index=groups[drawn],
        ).value
    return values


def standard_error(values: np.ndarray, num_documents: int) -> float | None:
    """Standard deviation of bootstrap values; None when fewer than two documents or values stand behind it."""
    if num_documents < 2 or len(values) < 2:
        return None
    return float(np.std(values, ddof=1))


@dataclass(frozen=True)
class _Points:
    """Two sets and the cost matrices between and within them, each computed once and then cut into blocks."""

    x: np.ndarray
    y: np.ndarray

    @cached_property
    def xy(self) -> np.ndarray:
        return cost_matrix(self.x, self.y)

    @cached_property
    def xx(self) -> np.ndarray:
        return cost_matrix(self.x, self.x)

    @cached_property
    def yy(self) -> np.ndarray:
        return cost_matrix(self.y, self.y)


def _unit_rows(name: str, rows: np.ndarray, dimensions: int | None = None) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    if rows.ndim != 2 or not rows.size or (dimensions is not None and rows.shape[1] != dimensions):
        raise ValueError(f"{name}: has shape {rows.shape}, expected (n, {dimensions or 'd'}) with n at least 1")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.all(np.isfinite(norms)) or np.any(norms == 0):
        raise ValueError(f"{name}: has rows that are zero or not finite; leave them out")
    return rows / norms


def _subsample(size: int, limit: int, rng: np.random.Generator) -> np.ndarray:
    return np.arange(size) if size <= limit else np.sort(rng.choice(size, limit, replace=False))


def _exact(costs: np.ndarray) -> tuple[float, bool, np.ndarray]:
    """Eq. 4 with uniform weights, by POT's network simplex: value, whether it converged, (n,) dual potentials."""
    import ot  # loads torch where it is installed: seconds that only this estimator is worth

    value, log = ot.emd2([], [], costs, numItermax=_MAX_PIVOTS, log=True)
    return float(value), log["warning"] is None, log["u"]


def _linearised_error(potentials: np.ndarray, groups: np.ndarray) -> float | None:
    """Standard error of the cost over documents: a point's dual potential is the cost's derivative by its weight.

    So the cost varies, to first order, as the mean of the potentials (del Barrio and Loubes 2019, Theorem 4.1),
    here summed by document. From ten documents on as near the true spread as a bootstrap of 20
    (benchmarks/standard_errors.py); below it is too small.
    """
    sums = np.bincount(groups, potentials - potentials.mean())
    num_documents = len(np.unique(groups))
    if num_documents < 2:
        return None
    return float(np.sqrt((sums**2).sum() * num_documents / (num_documents - 1)) / len(potentials))


def _matching(costs: np.ndarray) -> float:
    """Eq. 4 between two sets of equal size: some optimal plan is then a permutation (Birkhoff)."""
    rows, columns = linear_sum_assignment(costs)
    return float(costs[rows, columns].mean())


def _split(points: _Points, groups: np.ndarray, splits: int, rng: np.random.Generator) -> float:
    """The debiased cost, averaged over `splits` halvings of both sets."""
    items = np.arange(len(points.yy))
    return float(np.mean([_one_split(points, _halves(groups, rng), _halves(items, rng)) for _ in range(splits)]))


Halves = tuple[np.ndarray, np.ndarray]


def _halves(groups: np.ndarray, rng: np.random.Generator) -> Halves:
    """Rows in two shuffled halves of about equal size, no group in both; the second is empty for a single group."""
    sizes = np.bincount(groups)
    drawn = rng.permutation(np.flatnonzero(sizes))
    taken, half_of, place = [0, 0], np.zeros(len(sizes), int), np.zeros(len(sizes), int)
    place[drawn] = np.arange(len(drawn))
    for group, size in zip(drawn.tolist(), sizes[drawn].tolist()):
        half_of[group] = half = int(taken[1] < taken[0])
        taken[half] += size
    rows = np.argsort(place[groups], kind="stable")
    first, second = (rows[half_of[groups[rows]] == half] for half in (0, 1))
    return rng.permutation(first), rng.permutation(second)


def _one_split(points: _Points, x: Halves, y: Halves) -> float:
    """Batches of equal size over one pair of halvings, so that the larger set is used up, not thrown away."""
    has_x, has_y = len(x[1]) > 0, len(y[1]) > 0
    if not has_x:
        x = (x[0], x[0])
    if not has_y:
        y = (y[0], y[0])
    size = min(len(half) for half in (*x, *y))
    batches = max(-(-len(half) // size) for half in (*x, *y))
    # consecutive entries of the cyclic repetition are distinct, as no half is smaller than a batch
    x1, x2, y1, y2 = (np.resize(half, (batches, size)) for half in (*x, *y))
    total = 0.0
    for i in range(batches):
        cross = _matching(points.xy[np.ix_(x1[i], y1[i])]) + _matching(points.xy[np.ix_(x2[i], y2[i])])
        noise = []
        if has_x:
            noise.append(_matching(points.xx[np.ix_(x1[i], x2[i])]))
        if has_y:
            noise.append(_matching(points.yy[np.ix_(y1[i], y2[i])]))
        total += cross / 2 - (sum(noise) / len(noise) if noise else 0.0)
    return total / batches

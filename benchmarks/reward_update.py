"""What does scoring cost an iteration? A thousand arms, 70,000 pairs, beside POT called for every arm.

Ours scores the arms that an iteration touched, as `equal.run` does: the transport cost of all pairs of the arm to the
reference, and its standard error over resampled documents. The naive update asks POT for the cost of every arm again,
without any error. Both on the same vectors in the same process, median of several iterations and their spread; one
table, figures in benchmarks/results/reward.json.

    python benchmarks/reward_update.py
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import ot
from results import write

from equal.config import Transport, load
from equal.core.transport import cost_and_error

NUM_ARMS, PAIRS, DIM, ARMS_PER_ITERATION, PAIRS_PER_DOCUMENT, NUM_REFERENCE = 1000, 70_000, 384, 50, 2, 100


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def ours(x: np.ndarray, reference: np.ndarray, settings: Transport) -> tuple[float, float | None]:
    """Cost and standard error of one arm."""
    estimate, error = cost_and_error(
        x, np.arange(len(x)) // PAIRS_PER_DOCUMENT, reference, estimator=settings.estimator,
        max_pairs=settings.max_pairs, splits=settings.splits, num_resamples=settings.bootstrap, seed=1,
    )  # fmt: skip
    return estimate.value, error


def naive(x: np.ndarray, reference: np.ndarray) -> float:
    """POT's own way from vectors to a cost."""
    costs = ot.dist(x, reference, metric="cosine")
    return float(ot.emd2(ot.unif(len(x)), ot.unif(len(reference)), costs))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="iterations measured")
    repeats = parser.parse_args().repeats
    settings, rng = load().transport, np.random.default_rng(0)
    common = unit(rng.normal(size=(1, DIM)))
    reference = unit(common + rng.normal(size=(NUM_REFERENCE, DIM)) / DIM**0.5).astype(np.float32)
    sizes = rng.multinomial(PAIRS, rng.dirichlet(np.full(NUM_ARMS, 3.0)))
    arms = [
        unit(common + rng.normal(size=(1, DIM)) / DIM**0.5 + rng.normal(size=(max(n, 2), DIM)) / DIM**0.5)
        .astype(np.float32)
        for n in sizes
    ]  # fmt: skip
    seconds: dict[str, list[float]] = {"ours": [], "naive": []}
    largest = 0.0
    for _ in range(repeats):
        touched = rng.choice(NUM_ARMS, ARMS_PER_ITERATION, replace=False)
        started = time.perf_counter()
        values = {j: ours(arms[j], reference, settings)[0] for j in touched}
        seconds["ours"].append(time.perf_counter() - started)
        started = time.perf_counter()
        exact = [naive(x, reference) for x in arms]
        seconds["naive"].append(time.perf_counter() - started)
        # beyond max_pairs ours is the cost of a subsample
        largest = max(largest, *(abs(values[j] - exact[j]) for j in touched if len(arms[j]) <= 500))
    print(f"{'':8}{'arms':>8}{'median s':>10}{'spread s':>18}")
    for name, arms_scored in (("ours", ARMS_PER_ITERATION), ("naive", NUM_ARMS)):
        measured = seconds[name]
        spread = f"{min(measured):.2f} to {max(measured):.2f}"
        print(f"{name:8}{arms_scored:>8}{statistics.median(measured):>10.2f}{spread:>18}")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    write("reward", {"seconds": medians["ours"], "naive_seconds": medians["naive"], "max_difference": largest})


if __name__ == "__main__":
    main()

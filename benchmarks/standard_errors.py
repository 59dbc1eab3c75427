"""Is an arm's standard error the spread that fresh documents would show? One table, on planted arms.

    true        standard deviation of the plain cost over arms drawn anew
    potentials  the error that `transport.estimator: plain` reports, from one solution; mean over those arms
    covers      share of them whose cost, plus and minus 1.645 of that error, holds the mean cost: 0.90 is right
    bootstrap   the same error from 20 resamplings of documents, and beside it what it covers

Arms are clouds around one topic in 384 dimensions, two near-copied pairs a document, 40 reference items.

    python benchmarks/standard_errors.py
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from tqdm import tqdm

from equal.core.transport import bootstrap, cost_and_error, standard_error

DIM, PAIRS_PER_DOCUMENT, NUM_REFERENCE, RESAMPLES, NINETY = 384, 2, 40, 20, 1.645
HOW: dict[str, Any] = {"estimator": "plain", "max_pairs": 500, "splits": 8, "num_resamples": RESAMPLES}


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def around(centre: np.ndarray, spread: float, size: int, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors at about this distance from a centre."""
    return unit(centre + spread * unit(rng.normal(size=(size, DIM))) * rng.uniform(0.7, 1.3, (size, 1)))


def row(spread: float, num_documents: int, repeats: int, rng: np.random.Generator) -> list[float]:
    """One line of the table."""
    topics = unit(unit(rng.normal(size=(1, DIM))) + 1.2 * unit(rng.normal(size=(8, DIM))))
    reference = np.vstack([around(topics[i % 4], 1.0, 1, rng) for i in range(NUM_REFERENCE)])
    documents = np.repeat(np.arange(num_documents), PAIRS_PER_DOCUMENT)
    values, errors = np.empty(repeats), np.empty((2, repeats))
    for i in range(repeats):
        drawn = np.vstack([around(topics[4 + rng.integers(4)], spread, 1, rng) for _ in range(num_documents)])
        x = unit(drawn[documents] + 0.3 * unit(rng.normal(size=(len(documents), DIM))))
        estimate, errors[0, i] = cost_and_error(x, documents, reference, seed=i, **HOW)
        values[i] = estimate.value
        errors[1, i] = standard_error(bootstrap(x, documents, reference, seed=i, **HOW), num_documents)
    covered = (np.abs(values - values.mean()) <= NINETY * errors).mean(axis=1)
    return [values.std(ddof=1), errors[0].mean(), covered[0], errors[1].mean(), covered[1]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200, help="arms drawn a line")
    repeats, rng = parser.parse_args().repeats, np.random.default_rng(0)
    cases = [(spread, documents) for spread in (0.5, 1.0) for documents in (3, 5, 10, 20, 60)]
    rows = {case: row(*case, repeats, rng) for case in tqdm(cases, leave=False)}
    names = ("true", "potentials", "covers", "bootstrap", "covers")
    print(f"{'spread':>6}{'documents':>11}" + "".join(f"{name:>12}" for name in names))
    for (spread, documents), cells in rows.items():
        print(f"{spread:>6}{documents:>11}" + "".join(f"{cell:>12.4f}" for cell in cells))


if __name__ == "__main__":
    main()

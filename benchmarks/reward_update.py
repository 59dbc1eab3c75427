"""What does scoring cost an iteration? A thousand arms, 70,000 pairs, beside POT called for every arm.

Ours is what the bandit does between two iterations (`equal.loop.settle`): the new pairs, two for each of 50 arms' ten
documents, join the others; of each of these arms the transport cost of all pairs to the reference, and its standard
error over resampled documents. The naive update asks POT for the cost of every arm again,
without any error. Both on the same vectors in the same process, median of several iterations and their spread; one
table, figures in benchmarks/results/reward.json.

    python benchmarks/reward_update.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from types import SimpleNamespace

import numpy as np
import ot
from results import write

from equal.config import load
from equal.core.allowance import UNLIMITED
from equal.core.bandit import ArmState
from equal.extraction import Extraction
from equal.loop import settle
from equal.state import Extracted, Flight, Limits, Pairs, Policy, Scored, Spent, State

NUM_ARMS, PAIRS, DIM, ARMS_PER_ITERATION, PAIRS_PER_DOCUMENT, NUM_REFERENCE = 1000, 70_000, 384, 50, 2, 100
DOCS_PER_PULL = 10
POLICY = Policy("equal", ARMS_PER_ITERATION, DOCS_PER_PULL, "paper", alpha=0.0, warm_up_documents=0)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Corpus:
    """Makes pairs of arms, each arm around a centre of its own, all around one of the reference, too."""

    def __init__(self) -> None:
        """Draw the centres."""
        self.rng, self.made = np.random.default_rng(0), 0
        self.common = unit(self.rng.normal(size=(1, DIM)))
        self.centres = self.common + self.rng.normal(size=(NUM_ARMS, DIM)) / DIM**0.5
        self.reference = unit(self.common + self._noise(NUM_REFERENCE)).astype(np.float32)

    def pairs(self, arms: np.ndarray) -> Pairs:
        """A pair of each of these arms, two in a row one document's; ids are hashes, so that they lie anywhere."""
        ids = np.array([f"{number:016x}" for number in self.rng.integers(0, 2**63, len(arms))], object)
        documents = np.array([f"d{(self.made + place) // PAIRS_PER_DOCUMENT}" for place in range(len(arms))], object)
        self.made += len(arms)
        vectors = unit(self.centres[arms] + self._noise(len(arms))).astype(np.float32)
        return Pairs(ids, arms, documents, vectors).where(np.argsort(ids, kind="stable"))

    def _noise(self, count: int) -> np.ndarray:
        noise: np.ndarray = self.rng.normal(size=(count, DIM)) / DIM**0.5
        return noise


def naive(x: np.ndarray, reference: np.ndarray) -> float:
    """POT's own way from vectors to a cost."""
    costs = ot.dist(x, reference, metric="cosine")
    return float(ot.emd2(ot.unif(len(x)), ot.unif(len(reference)), costs))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="iterations measured")
    repeats, corpus = parser.parse_args().repeats, Corpus()
    reading = Extraction(SimpleNamespace(config=load()), "r", "")  # type: ignore[arg-type]
    reading.__dict__["guide"] = corpus.reference
    costs: dict[int, float] = {}

    def score(pairs: Pairs) -> Scored:
        scored = reading.score(pairs)
        costs[int(pairs.arm_ids[0])] = scored.estimate.value
        return scored

    likely = corpus.rng.dirichlet(np.full(NUM_ARMS, 3.0))
    pairs = corpus.pairs(np.sort(corpus.rng.choice(NUM_ARMS, PAIRS, p=likely)))
    state = State({j: ArmState(j, 10**6, 10, 1, 1, 0.5, None) for j in range(NUM_ARMS)}, pairs, Spent(), 1)
    seconds: dict[str, list[float]] = {"ours": [], "naive": []}
    largest = 0.0
    for number in range(repeats):
        touched = corpus.rng.choice(NUM_ARMS, ARMS_PER_ITERATION, replace=False)
        brought = corpus.pairs(np.repeat(touched, DOCS_PER_PULL * PAIRS_PER_DOCUMENT))
        extracted = Extracted(dict.fromkeys(touched.tolist(), DOCS_PER_PULL), brought)
        flight = Flight(number, (), {}, UNLIMITED, warm_up=False)
        costs.clear()
        started = time.perf_counter()
        after, _ = settle(state, flight, extracted, POLICY, Limits(0, 0, 0.0), score)
        seconds["ours"].append(time.perf_counter() - started)
        arms = [after.pairs.of_arm(j).embeddings for j in range(NUM_ARMS)]
        started = time.perf_counter()
        exact = [naive(x, corpus.reference) for x in arms]
        seconds["naive"].append(time.perf_counter() - started)
        # beyond max_pairs ours is the cost of a subsample
        largest = max(largest, *(abs(costs[j] - exact[j]) for j in costs if len(arms[j]) <= 500))
    print(f"{'':8}{'arms':>8}{'median s':>10}{'spread s':>18}")
    for name, arms_scored in (("ours", ARMS_PER_ITERATION), ("naive", NUM_ARMS)):
        measured = seconds[name]
        spread = f"{min(measured):.2f} to {max(measured):.2f}"
        print(f"{name:8}{arms_scored:>8}{statistics.median(measured):>10.2f}{spread:>18}")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    write("reward", {"seconds": medians["ours"], "naive_seconds": medians["naive"], "max_difference": largest})


if __name__ == "__main__":
    main()

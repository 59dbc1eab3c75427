"""How many arms should an iteration pull, and does a warm-up document count as an observation? One table.

A bandit over real questions with the library's own choice and reward: 64 arms of 300 documents, each a mixture of
target questions and a topic of its own; 195 random documents are the warm-up, 1,000 are read in all, 5 a pull.
The figures are shares of target pairs among all pairs read, mean over the repeats; in brackets the standard error.

    python benchmarks/arms_at_once.py --target refs/gsm8k_train.jsonl.gz --background refs/mmlu_test.jsonl.gz ...
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from estimators import ESTIMATORS, NUM_REFERENCE, YIELD, Cost, Pool, mixture, real

from equal.core.bandit import ArmState, choose_pulls, ds_scores
from equal.core.transport import reward

NUM_ARMS, DOCS_PER_ARM, WARM_UP, BUDGET, DOCS_PER_PULL = 64, 300, 195, 1000, 5
AT_ONCE = (1, 2, 3, 4, 6, 10)


def share_of_target(pool: Pool, cost: Cost, seed: int, *, at_once: int, after_whole_pull: bool) -> float:
    """Run one bandit.

    Args:
        pool: target and topics.
        cost: of an arm's pairs and the reference.
        seed: of arms and reference.
        at_once: arms an iteration.
        after_whole_pull: warm-up documents count as an observation only when they are as many as a pull's.
    """
    rng = np.random.default_rng(seed)
    target = rng.permutation(pool.target)
    reference, rest = target[:NUM_REFERENCE], target[NUM_REFERENCE:]
    flags = [rng.random(DOCS_PER_ARM) < share for share in rng.beta(0.5, 2.0, NUM_ARMS)]
    gives = [rng.random(DOCS_PER_ARM) < YIELD for _ in range(NUM_ARMS)]
    vectors = [mixture(pool, rest, j % len(pool.topics), flags[j], rng) for j in range(NUM_ARMS)]
    arms = {j: ArmState(j, DOCS_PER_ARM, 0, 0, 0, None, None) for j in range(NUM_ARMS)}

    def read(arm: int, stop: int, pulls: int) -> None:
        pairs = vectors[arm][:stop][gives[arm][:stop]]
        value = reward(cost(pairs, reference)) if len(pairs) else None
        arms[arm] = replace(arms[arm], taken=stop, pulls=arms[arm].pulls + pulls, pairs=len(pairs), reward=value)

    for arm, count in enumerate(np.bincount(rng.integers(NUM_ARMS, size=WARM_UP), minlength=NUM_ARMS)):
        observed = count >= DOCS_PER_PULL if after_whole_pull else gives[arm][:count].any()
        read(arm, int(count), int(observed))
    while chosen := choose_pulls(
        list(arms.values()), ds_scores(list(arms.values()), schedule="paper", alpha=0.0), arms_per_iteration=at_once,
        docs_per_pull=DOCS_PER_PULL, documents_left=BUDGET - sum(arm.taken for arm in arms.values()),
    ):  # fmt: skip
        for pull, _ in chosen:
            read(int(pull.arm_id or 0), pull.stop, 1)
    found = sum(int((flags[j] & gives[j])[: arm.taken].sum()) for j, arm in arms.items())
    return found / sum(arm.pairs for arm in arms.values())


def main() -> None:
    """Print a row for each estimate and rule, a column for each number of arms at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="JSON lines of question and answer")
    parser.add_argument("--background", nargs="+", required=True, help="files of other questions")
    parser.add_argument("--estimates", nargs="+", choices=sorted(ESTIMATORS), default=["plain"])
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    pool = real(arguments.target, arguments.background)
    print(f"{'estimate':10}{'warm-up counts':20}" + "".join(f"{n:>14}" for n in AT_ONCE))
    for name in arguments.estimates:
        for whole in (False, True):
            cells = []
            for at_once in AT_ONCE:
                values = [
                    share_of_target(pool, ESTIMATORS[name], seed, at_once=at_once, after_whole_pull=whole)
                    for seed in range(arguments.repeats)
                ]
                cells.append(f"{np.mean(values):.3f} ({np.std(values) / len(values) ** 0.5:.3f})".rjust(14))
            rule = "after a whole pull" if whole else "as a pull"
            print(f"{name:10}{rule:20}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()

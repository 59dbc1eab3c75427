"""Arms of a million documents: the job's own k-means over an elbow's grid, beside scikit-learn's. One table.

The vectors are planted around random directions, with as much noise as leaves neighbours near each other. Ours is a
process with Spark: it reads Parquet, fits every k of the grid on a sample, takes the elbow's and assigns all documents
in Arrow batches. The peer, mini-batch k-means with all vectors in memory, fits and assigns the k that ours took. Cost:
mean cosine distance of a document to its centroid; pure: documents whose direction is the commonest of their cluster.

    python benchmarks/clustering.py --count 1000000 --grid 32 64 128 256
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from dedup_peers import BUILD
from processes import measure
from results import write

DIM, DIRECTIONS, NOISE, SHARDS, SEED = 384, 300, 1.0, 8, 17


def make(count: int, out: Path) -> None:
    """Write unit vectors, doc_id and embedding, and the direction of each."""
    rng = np.random.default_rng(SEED)
    directions = rng.standard_normal((DIRECTIONS, DIM)) / DIM**0.5
    # sizes fall by rank, as those of topics do: tiny clusters and large ones
    weights = 1 / np.arange(1, DIRECTIONS + 1)
    planted = rng.choice(DIRECTIONS, size=count, p=weights / weights.sum())
    out.mkdir(parents=True)
    np.save(out / "planted.npy", planted)
    for shard in range(SHARDS):
        rows = np.arange(shard, count, SHARDS)
        noise = rng.standard_normal((len(rows), DIM), dtype=np.float32) * np.float32(NOISE / DIM**0.5)
        vectors = directions[planted[rows]].astype(np.float32) + noise
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        embedding = pa.ListArray.from_arrays(np.arange(len(rows) + 1, dtype=np.int32) * DIM, vectors.ravel())
        table = pa.table({"doc_id": [f"{row:08d}" for row in rows], "embedding": embedding})
        pq.write_table(table, out / f"part-{shard}.parquet", row_group_size=20_000)


def run_ours(source: Path, out: Path, grid: list[int]) -> None:
    """The timed process."""
    from equal.config import load
    from equal.io.session import open_session
    from equal.transforms.cluster import assign_clusters, choose_clustering, sample_to_fit

    config = load()
    spark = open_session(config.spark.partitions)
    embeddings = spark.read.parquet(*map(str, sorted(source.glob("*.parquet"))))
    settings = config.cluster
    sample = sample_to_fit(
        embeddings, num_docs=embeddings.count(), fit_documents=settings.fit_documents, seed=config.seed
    )
    fit, fits = choose_clustering(sample.cache(), grid, seed=config.seed, max_iterations=settings.max_iterations)
    assign_clusters(embeddings, fit.centroids).write.parquet(str(out / "assignments"))
    (out / "fit.json").write_text(
        json.dumps({"k": len(fit.centroids), "costs": {k: tried.cost for k, tried in fits.items()}})
    )


def run_peer(source: Path, out: Path, k: int) -> None:
    """The peer's timed process; unit vectors, whose squared distance is twice the cosine's."""
    from sklearn.cluster import MiniBatchKMeans

    table = pq.read_table(sorted(source.glob("*.parquet")))
    vectors = table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, DIM)
    model = MiniBatchKMeans(n_clusters=k, random_state=SEED, batch_size=4096, n_init=3).fit(vectors)
    centroids = model.cluster_centers_ / np.linalg.norm(model.cluster_centers_, axis=1, keepdims=True)
    labels = model.predict(vectors)
    distances = 1 - np.einsum("ij,ij->i", vectors, centroids[labels])
    found = pa.table({"doc_id": table["doc_id"], "cluster_id": labels.astype(np.int32), "distance": distances})
    (out / "assignments").mkdir()
    pq.write_table(found, out / "assignments" / "part.parquet")


def judge(out: Path, planted: np.ndarray) -> dict[str, float]:
    """Cost, purity, and what became of small clusters."""
    table = pq.read_table(out / "assignments", columns=["doc_id", "cluster_id", "distance"])
    order = np.array(table["doc_id"].to_pylist()).astype(int)
    labels, truth = table["cluster_id"].to_numpy(), planted[order]
    sizes = np.bincount(labels)
    met = np.zeros((len(sizes), DIRECTIONS), int)
    np.add.at(met, (labels, truth), 1)
    return {
        "cost": round(float(table["distance"].to_numpy().mean()), 4),
        "pure": round(float(met.max(axis=1).sum() / len(labels)), 4),
        "clusters": int((sizes > 0).sum()),
        "smallest": int(sizes[sizes > 0].min()),
    }


def main() -> None:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", nargs=3, metavar=("NAME", "IN", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--grid", type=int, nargs="+", default=[32, 64, 128, 256])
    arguments = parser.parse_args()
    if arguments.side:
        name, source, out = arguments.side
        run = run_ours if name == "ours" else run_peer
        run(Path(source), Path(out), arguments.grid if name == "ours" else arguments.grid[0])
        return
    BUILD.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="clustering-", dir=BUILD) as folder:
        rows = compare(arguments.count, arguments.grid, Path(folder))
    write("clustering", {"documents": arguments.count, "ours": rows.pop("ours"), "peers": rows})


def compare(count: int, grid: list[int], work: Path) -> dict[str, dict[str, object]]:
    """Run both sides inside `work` and judge what they found."""
    source = work / "vectors"
    make(count, source)
    rows: dict[str, dict[str, object]] = {}
    for name in ("ours", "scikit-learn"):
        out = work / name
        out.mkdir()
        line = [sys.executable, __file__, "--side", name, str(source), str(out), "--grid", *map(str, grid)]
        done = measure(line, work / f"{name}.log", {**os.environ, "SPARK_DRIVER_MEMORY": "6g"})
        found = judge(out, np.load(source / "planted.npy"))
        rows[name] = {"seconds": round(done.seconds, 1), "peak_gib": round(done.peak_gib, 2), "grid": grid, **found}
        print(name, rows[name], flush=True)
        if name == "ours":
            fit = json.loads((out / "fit.json").read_text())
            rows[name] |= {"k": fit["k"], "costs": fit["costs"]}
            grid = [fit["k"]]
    return rows


if __name__ == "__main__":
    main()

"""Deduplication from files to files: ours beside rensa, text-dedup, datatrove and datasketch, with planted pairs.

Every side is a whole process, from its start to its last file. Ours reads Parquet, finds exact and near duplicates
and verifies each by its exact Jaccard, and writes what stays as Parquet, by the same transform as the job. A peer
reads JSON lines and writes what stays as JSON lines; none of them verifies.

Recall: planted pairs that end up in one component; of a peer, which does not say for what a passage goes, those of
which one goes. Precision: every removal with its evidence, by plain sets; of a peer, those of a sample of its
removals that have a partner at the threshold among all passages (dedup_truth.py).

    python benchmarks/dedup.py --data ../shared/data/docs --count 100000
    python benchmarks/dedup.py --data ../shared/data/docs --count 1000000 --repeats 1
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dedup_truth as truth
import pyarrow.parquet as pq
from dedup_peers import BUILD, PEERS, command
from passages import ensure, read_plants
from processes import Measured, Parts, measure
from results import commit, read, write

THRESHOLD, REPEATS, BARS = 0.7, 3, (0.8, 0.9)
DRIVER_MEMORY = "6g"

Row = dict[str, Any]


def run_ours(source: Path, out: Path) -> None:
    """The timed process: session, transform, files; it says what each part took."""
    parts = Parts()
    from pyspark.sql import functions as F

    from equal.config import load
    from equal.core.minhash import Permutations
    from equal.io.session import open_session
    from equal.transforms.dedup import band_keys, find_duplicates, find_groups

    config = load()
    settings, partitions = config.deduplicate, config.spark.partitions
    spark = open_session(partitions)
    documents = spark.read.parquet(*map(str, sorted(source.glob("*.parquet")))).select(
        F.col("id").alias("doc_id"), F.xxhash64("text").alias("content_hash"), F.length("text").alias("num_chars"),
        F.lit("").alias("source_file"), "text",
    )  # fmt: skip
    parts.done("start")
    permutations = Permutations.seeded(bands=settings.bands, rows=settings.rows, seed=config.seed)
    how: dict[str, Any] = {"shingle_words": settings.shingle_words, "permutations": permutations}
    # the index is written and read again, as the job does for the loads to come
    band_keys(documents, **how).write.parquet(str(out / "band_keys"))
    parts.done("band keys")
    index = spark.read.parquet(str(out / "band_keys")).withColumn("fresh", F.lit(True))
    nothing = spark.createDataFrame([], "doc_id string, kept string")
    groups = find_groups(index, nothing, nothing, partitions)
    parts.done("groups")
    removals = find_duplicates(documents, groups, threshold=THRESHOLD, num_partitions=partitions, **how)
    removals.select("doc_id", "reason", "evidence").write.parquet(str(out / "removals"))
    parts.done("verification")
    gone = spark.read.parquet(str(out / "removals")).select("doc_id")
    documents.join(gone, "doc_id", "left_anti").select("doc_id", "text").write.parquet(str(out / "kept"))
    parts.done("writing")
    (out / "seconds.json").write_text(json.dumps(parts.seconds))


def kept_ids(name: str, out: Path) -> set[str]:
    """What a side left in."""
    if name == "ours":
        return set(pq.read_table(out / "kept", columns=["doc_id"])["doc_id"].to_pylist())
    return {
        json.loads(line)["id"] for file in out.glob("*.jsonl") for line in file.open(encoding="utf-8") if line.strip()
    }


def judge(name: str, source: Path, out: Path) -> Row:
    """What a side's output is worth."""
    texts, plants = truth.passages_of(source), read_plants(source)
    removed = texts.keys() - kept_ids(name, out)
    seconds = {}
    if name == "ours":
        evidence = truth.evidence_of(out)
        if evidence.keys() != removed:
            raise RuntimeError(f"ours: {len(removed)} passages are gone, {len(evidence)} have evidence")
        component = {passage: kept for passage, (kept, _) in evidence.items()}
        low, high = (truth.recall(plants, component, least) for least in BARS)
        precision = 1 - len(truth.unproved(texts, evidence, THRESHOLD)) / max(len(removed), 1)
        seconds = {"seconds": json.loads((out / "seconds.json").read_text())}
    else:
        low, high = (truth.recall_at_most(plants, removed, least) for least in BARS)
        precision = truth.share_with_partner(source, texts, removed, THRESHOLD)
    figures = {"recall_080": low, "recall_090": high, "precision": precision}
    return {"removed": len(removed), **{measure: round(value, 5) for measure, value in figures.items()}, **seconds}


def compare(source: Path, count: int, peers: list[str], repeats: int, keep: Callable[[dict[str, Row]], None]) -> None:
    """Run every side in turn, `repeats` times, so that what the machine does meets all alike.

    Args:
        source: from `passages.ensure`; count: its passages.
        peers: to run beside ours.
        repeats: runs of each.
        keep: takes all rows so far after every run. A side that fails has a row that says so, and runs no more.
    """
    rows: dict[str, Row] = {}
    runs: dict[str, list[Measured]] = {name: [] for name in ("ours", *peers)}
    environment = {**os.environ, "SPARK_DRIVER_MEMORY": DRIVER_MEMORY}
    for _ in range(repeats):
        for name in [name for name in runs if "failed" not in rows.get(name, {})]:
            out, log = BUILD / "dedup" / name, BUILD / "dedup" / f"{name}.log"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            ours = [sys.executable, __file__, "--ours", str(source), str(out)]
            try:
                line = ours if name == "ours" else command(name, source, out)
                runs[name].append(measure(line, log, environment))
                rows[name] = rows.get(name) or judge(name, source, out)
            except (RuntimeError, subprocess.CalledProcessError) as error:
                rows[name] = {"failed": str(error)[-500:]}
            else:
                speeds = [count / run.seconds for run in runs[name]]
                rows[name] |= {
                    "docs_per_s": round(statistics.median(speeds)),
                    "spread": [round(min(speeds)), round(max(speeds))],
                    "peak_gib": round(max(run.peak_gib for run in runs[name]), 2),
                }
                print(f"{name}: {runs[name][-1].seconds:.1f} s", flush=True)
            shutil.rmtree(out)
            keep(rows)


def keep_rows(source: Path, count: int, rows: dict[str, Row]) -> None:
    """Write the table; rows of peers that ran before on the same commit and passages stay in it."""
    name = "dedup" if count == 1_000_000 else f"dedup_{count}"
    before = read(name)
    same = before.get("commit") == commit() and before.get("passages") == source.name
    peers = {**(before["peers"] if same else {}), **{peer: row for peer, row in rows.items() if peer != "ours"}}
    best = max((row["docs_per_s"] for row in peers.values() if "docs_per_s" in row), default=None)
    ours = rows["ours"]
    ratio = round(ours["docs_per_s"] / best, 2) if best and "docs_per_s" in ours else None
    write(
        name,
        {"documents": count, "passages": source.name, "ours": ours, "peers": peers, "ratio_to_best": ratio},
    )


def main() -> None:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", nargs=2, type=Path, metavar=("IN", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help="folder of .jsonl.gz files with a field text")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--repeats", type=int, default=REPEATS)
    arguments = parser.parse_args()
    if arguments.ours:
        run_ours(*arguments.ours)
        return
    source = ensure(arguments.data, arguments.count, BUILD)
    compare(source, arguments.count, arguments.peers, arguments.repeats, partial(keep_rows, source, arguments.count))


if __name__ == "__main__":
    main()

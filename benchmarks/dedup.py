"""Deduplication from files to files: ours beside rensa, text-dedup, datatrove and datasketch, with planted pairs.

Every side is a whole process, from its start to its last file. Ours reads Parquet, finds exact and near duplicates
and verifies each by its exact Jaccard, and writes what stays as Parquet, by the same transform as the job. A peer
reads JSON lines and writes what stays as JSON lines; none of them verifies. Recall: planted pairs of which one goes.
Precision: removed passages that have a partner at the threshold among all others, by plain sets.

    python benchmarks/dedup.py --data ../shared/data/docs --count 100000
    python benchmarks/dedup.py --data ../shared/data/docs --count 1000000 --repeats 1
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
from dedup_peers import BUILD, PEERS, command
from passages import Plant, ensure, read_plants, shingle_set
from processes import Measured, measure
from results import write

THRESHOLD, REPEATS = 0.7, 3
BAR_LOW, BAR_HIGH = 0.8, 0.9


def run_ours(source: Path, out: Path) -> None:
    """The timed process: session, transform, files."""
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
    permutations = Permutations.seeded(bands=settings.bands, rows=settings.rows, seed=config.seed)
    how = {"shingle_words": settings.shingle_words, "permutations": permutations}
    # the index is written and read again, as the job does for the loads to come
    band_keys(documents, **how).write.parquet(str(out / "band_keys"))
    index = spark.read.parquet(str(out / "band_keys")).withColumn("fresh", F.lit(True))
    nothing = spark.createDataFrame([], "doc_id string, kept string")
    groups = find_groups(index, nothing, nothing, partitions)
    removals = find_duplicates(documents, groups, threshold=THRESHOLD, num_partitions=partitions, **how)
    removals.select("doc_id", "reason", "evidence").write.parquet(str(out / "removals"))
    gone = spark.read.parquet(str(out / "removals")).select("doc_id")
    documents.join(gone, "doc_id", "left_anti").select("doc_id", "text").write.parquet(str(out / "kept"))


def kept_ids(name: str, out: Path) -> set[str]:
    """What a side left in."""
    if name == "ours":
        return set(pq.read_table(out / "kept", columns=["doc_id"])["doc_id"].to_pylist())
    return {
        json.loads(line)["id"] for file in out.glob("*.jsonl") for line in file.open(encoding="utf-8") if line.strip()
    }


def recall(plants: list[Plant], removed: set[str], least: float) -> float:
    """Share of the planted pairs at this Jaccard or above of which one passage went."""
    wanted = [plant for plant in plants if plant.jaccard >= least]
    return sum(plant.source in removed or plant.copy in removed for plant in wanted) / len(wanted)


def precision(source: Path, removed: set[str]) -> float:
    """Share of the removed passages that have a partner at the threshold, whatever the side said it was."""
    texts = {row["id"]: row["text"] for row in pq.read_table(sorted(source.glob("*.parquet"))).to_pylist()}
    times = Counter(texts.values())  # texts without a word have no shingles, and may still be copies
    holders: dict[int, list[str]] = {}
    wanted = {hash(s) for name in removed for s in shingle_set(texts[name])}
    for name, text in texts.items():
        for shingle in {hash(s) for s in shingle_set(text)} & wanted:
            holders.setdefault(shingle, []).append(name)
    right = sum(times[texts[name]] > 1 or _has_partner(name, texts, holders) for name in removed)
    return right / max(len(removed), 1)


def _has_partner(name: str, texts: dict[str, str], holders: dict[int, list[str]]) -> bool:
    own = shingle_set(texts[name])
    # rarest first: a partner at J >= t shares one of any |own| (1 - t) + 1 shingles
    rarest = sorted((holders[hash(s)] for s in own), key=len)[: int(len(own) * (1 - THRESHOLD)) + 1]
    seen = {name}
    for group in rarest:
        for other in group:
            if other not in seen:
                seen.add(other)
                theirs = shingle_set(texts[other])
                if len(own & theirs) / len(own | theirs) >= THRESHOLD:
                    return True
    return False


def judge(name: str, runs: list[Measured], source: Path, out: Path, *, check_precision: bool) -> dict[str, object]:
    """The figures of one side."""
    ids = set(pq.read_table(sorted(source.glob("*.parquet")), columns=["id"])["id"].to_pylist())
    removed, plants = ids - kept_ids(name, out), read_plants(source)
    speeds = [len(ids) / run.seconds for run in runs]
    return {
        "docs_per_s": round(statistics.median(speeds)),
        "spread": [round(min(speeds)), round(max(speeds))],
        "recall_080": round(recall(plants, removed, BAR_LOW), 5),
        "recall_090": round(recall(plants, removed, BAR_HIGH), 5),
        "removed": len(removed),
        "precision": round(precision(source, removed), 5) if check_precision else None,
        "peak_gib": round(max(run.peak_gib for run in runs), 2),
    }


def compare(source: Path, peers: list[str], repeats: int, *, check_precision: bool) -> dict[str, dict[str, object]]:
    """Run every side in turn, `repeats` times, so that what the machine does meets all alike."""
    work = BUILD / "dedup"
    runs: dict[str, list[Measured]] = {}
    for _ in range(repeats):
        for name in ("ours", *peers):
            out = work / name
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            line = [sys.executable, __file__, "--ours", str(source), str(out)]
            runs.setdefault(name, []).append(
                measure(line if name == "ours" else command(name, source, out), work / f"{name}.log")
            )
            print(f"{name}: {runs[name][-1].seconds:.1f} s", flush=True)
    return {
        name: judge(name, found, source, work / name, check_precision=check_precision) for name, found in runs.items()
    }


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
    rows = compare(source, arguments.peers, arguments.repeats, check_precision=arguments.count <= 100_000)
    print(f"{arguments.count:,} passages\n{'':12}{'docs/s':>10}{'recall .8':>11}{'.9':>9}{'precision':>11}{'GiB':>7}")
    for name, row in rows.items():
        shown = "" if row["precision"] is None else f"{row['precision']:.5f}"
        print(
            f"{name:12}{row['docs_per_s']:>10,}{row['recall_080']:>11}{row['recall_090']:>9}{shown:>11}{row['peak_gib']:>7}"
        )
    ours = rows.pop("ours")
    best = max((row["docs_per_s"] for row in rows.values()), default=None)
    figures = {
        "documents": arguments.count, "ours": ours, "peers": rows,
        "ratio_to_best": best and round(ours["docs_per_s"] / best, 2),
    }  # fmt: skip
    write("dedup" if arguments.count == 1_000_000 else f"dedup_{arguments.count}", figures)


if __name__ == "__main__":
    main()

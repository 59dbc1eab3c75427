"""Decontamination from files to files: ours beside datatrove's n-gram filter and a plain Python set, one corpus.

Passages of real documents with items of GSM8K, SVAMP, AQuA, HumanEval, MBPP and MMLU planted in them
(benchmarks/contaminated.py says in which ways). Ours reads Parquet and writes what it finds as Parquet, by the same
transform as the job, in a process that starts Spark; the plain scan reads JSON lines in two processes, one a core;
datatrove is given an index that its own function hashed, by two workers.

    python benchmarks/decontaminate.py --data ../shared/data --count 100000
    python benchmarks/decontaminate.py --data ../shared/data --count 1000000 --repeats 1
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from contaminated import NGRAM, SHORT, make
from dedup_peers import BUILD, python_of
from processes import Measured, Parts, measure
from results import write

from equal.io.references import read_items

SETS = ("gsm8k_test", "svamp", "aqua_test", "humaneval", "mbpp_test", "mmlu_test")
REPEATS = 3
SIDES = ("ours", "plain scan", "datatrove")
DRIVER_MEMORY = "6g"
WORK = BUILD / "decontaminate"

#: the usual way to write it: a set of word 10-grams, a regular expression for words
SCAN = """
import json, re, sys
from multiprocessing import Pool
from pathlib import Path
source, items, out = map(Path, sys.argv[1:])
WORD = re.compile(r"\\w+")
def grams(text):
    found = WORD.findall(text.lower())
    return {" ".join(found[i : i + 10]) for i in range(len(found) - 9)}
known = set()
for line in items.open(encoding="utf-8"):
    item = json.loads(line)
    known |= grams(item["question"]) | grams(item["question"] + " " + item["answer"])
def scan(file):
    with (out / f"{file.stem}.removed").open("w") as removed:
        for line in file.open(encoding="utf-8"):
            record = json.loads(line)
            if not known.isdisjoint(grams(record["text"])):
                removed.write(record["id"] + "\\n")
if __name__ == "__main__":
    with Pool(2) as pool:
        pool.map(scan, sorted(source.glob("*.jsonl")))
"""
DATATROVE = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter, NGramsDecontIndexer
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.hashing import create_hash_func
from datatrove.utils.word_tokenizers import load_word_tokenizer
if __name__ == "__main__":
    source, items, out = sys.argv[1:]
    config = NGramsDecontConfig(n_grams=10, find_query_ngrams=True)
    index = Path(out) / "index"
    index.mkdir(parents=True, exist_ok=True)
    # its own function hashes; the step around it cannot be made without a package that fetches benchmarks from a hub
    indexer = SimpleNamespace(
        config=config, language="en", tokenizer=load_word_tokenizer("en"),
        hash_func=create_hash_func(config.hash_config),
    )
    hashes = set()
    for line in open(items, encoding="utf-8"):
        item = json.loads(line)
        hashes.update(NGramsDecontIndexer.compute_hashes(indexer, item["answer"], item["question"]))
    np.array(sorted(hashes), dtype="<u8").tofile(index / "all.index.hashes")
    stages = [
        JsonlReader(source, glob_pattern="*.jsonl", compression=None),
        NGramsDecontFilter(str(index), config, JsonlWriter(out + "/removed", compression=None)),
    ]
    LocalPipelineExecutor(stages, tasks=2, workers=2, logging_dir=out + "/log").run()
"""


def run_ours(source: Path, out: Path) -> None:
    """The timed process; it says what each part took."""
    parts = Parts()
    from pyspark.sql import functions as F

    from equal.config import load
    from equal.core.contamination import BenchmarkIndex
    from equal.io.session import open_session
    from equal.transforms.decontaminate import find_contaminated, find_hits, spared_ngrams

    config = load()
    items = {"all": read_items(str(source / "items.json"), "benchmark")}
    index = BenchmarkIndex.build(items, ngram_words=NGRAM, short_words=SHORT)
    parts.done("index")
    spark = open_session(config.spark.partitions)
    parts.done("start of Spark")
    documents = spark.read.parquet(*map(str, sorted(source.glob("*.parquet")))).select(
        F.col("id").alias("doc_id"), F.lit("").alias("source_file"), "text"
    )
    hits = find_hits(documents, index).persist()
    hits.count()
    parts.done("search")
    share = config.decontaminate.max_document_share
    spared = spared_ngrams(hits, documents.count(), max_document_share=share).persist()
    find_contaminated(hits, spared).write.parquet(str(out / "removals"))
    parts.done("filter and writing")
    (out / "seconds.json").write_text(json.dumps(parts.seconds))


def removed_ids(name: str, out: Path) -> set[str]:
    """What a side takes out."""
    if name == "ours":
        return set(pq.read_table(out / "removals", columns=["doc_id"])["doc_id"].to_pylist())
    if name == "plain scan":
        return {line.strip() for file in out.glob("*.removed") for line in file.open()}
    return {json.loads(line)["id"] for file in (out / "removed").rglob("*.jsonl") for line in file.open()}


def command(name: str, source: Path, out: Path) -> list[str]:
    """What runs a side."""
    if name == "ours":
        return [sys.executable, __file__, "--ours", str(source), str(out)]
    script = out / "peer.py"
    script.write_text(SCAN if name == "plain scan" else DATATROVE)
    python = sys.executable if name == "plain scan" else str(python_of("datatrove"))
    return [python, str(script), str(source), str(source / "items.json"), str(out)]


def judge(name: str, runs_of: list[Measured], planted: dict[str, list[str]], count: int) -> dict[str, Any]:
    """The figures of one side."""
    removed = removed_ids(name, folder(name))
    speeds = [count / run.seconds for run in runs_of]
    said = folder(name) / "seconds.json"
    return {
        **({"seconds": json.loads(said.read_text())} if said.exists() else {}),
        "docs_per_s": round(statistics.median(speeds)),
        "spread": [round(min(speeds)), round(max(speeds))],
        "peak_gib": round(max(run.peak_gib for run in runs_of), 2),
        "recall": {
            kind: round(len(removed & set(ids)) / len(ids), 4)
            for kind, ids in planted.items()
            if ids and kind != "numbers changed"
        },
        "false_removals": len(removed & set(planted["numbers changed"])),
        "removed": len(removed),
    }


def folder(name: str) -> Path:
    """Where a side writes."""
    return WORK / name.replace(" ", "_")


def compare(source: Path, names: list[str], repeats: int, planted: dict[str, list[str]], count: int) -> None:
    """Run the sides in turn, so that what the machine does meets all alike, and keep the table after each.

    A side that fails is a row with what it said, and the others go on.
    """
    found: dict[str, list[Measured]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for _ in range(repeats):
        for name in names:
            out = folder(name)
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            environment = {**os.environ, "SPARK_DRIVER_MEMORY": DRIVER_MEMORY}
            try:
                run = measure(command(name, source, out), WORK / f"{out.name}.log", environment)
                found.setdefault(name, []).append(run)
                rows[name] = judge(name, found[name], planted, count)
            except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                rows[name] = {"error": str(error)[-500:]}
            print(name, rows[name], flush=True)
            keep(rows, planted, count)


def keep(rows: dict[str, dict[str, Any]], planted: dict[str, list[str]], count: int) -> None:
    """Write the table as far as it has come."""
    ours = rows.get("ours", {})
    peers = {name: row for name, row in rows.items() if name != "ours"}
    speeds = {name: row["docs_per_s"] for name, row in peers.items() if "docs_per_s" in row}

    def ratio(peer: float | None) -> float | None:
        return round(ours["docs_per_s"] / peer, 2) if peer and "docs_per_s" in ours else None

    figures = {
        "documents": count, "planted": {kind: len(ids) for kind, ids in planted.items()}, "ours": ours, "peers": peers,
        "ratio_to_best": ratio(max(speeds.values(), default=None)),
        "ratio_to_datatrove": ratio(speeds.get("datatrove")),
        "recall": ours.get("recall"), "false_removals": ours.get("false_removals"),
    }  # fmt: skip
    write("decontaminate" if count == 1_000_000 else f"decontaminate_{count}", figures)


def main() -> None:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", nargs=2, type=Path, metavar=("IN", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help="folder with docs/ and refs/")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--names", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--repeats", type=int, default=REPEATS)
    arguments = parser.parse_args()
    if arguments.ours:
        run_ours(*arguments.ours)
        return
    files = [str(arguments.data / "refs" / f"{name}.jsonl.gz") for name in SETS]
    items = [item for file in files for item in read_items(file, "benchmark")]
    print(f"{arguments.count:,} passages, {len(items):,} items", flush=True)
    source = WORK / "corpus"
    shutil.rmtree(WORK, ignore_errors=True)
    try:
        planted = make(arguments.data, arguments.count, source, items)
        compare(source, arguments.names, arguments.repeats, planted, arguments.count)
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


if __name__ == "__main__":
    main()

"""Decontamination from files to files: ours beside datatrove's n-gram filter and a plain Python set, one corpus.

Passages of real documents with items of GSM8K, SVAMP, AQuA, HumanEval, MBPP and MMLU planted in them, in every way
below; what a plant must give is decided by a naive search through all runs of words. Ours reads Parquet and writes
what it finds as Parquet, by the same transform as the job, in a process that starts Spark; the plain scan reads JSON
lines in two processes, one a core; datatrove is given an index that its own function hashed, by two workers.

    python benchmarks/decontaminate.py --data ../shared/data --count 100000
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from dedup_peers import BUILD, python_of
from passages import SHARDS, cut
from processes import Measured, measure
from results import write

from equal.core.items import Item
from equal.core.ngrams import words
from equal.io.references import read_items

SETS = ("gsm8k_test", "svamp", "aqua_test", "humaneval", "mbpp_test", "mmlu_test")
NGRAM, SHORT, REPEATS, PER_KIND = 10, 3, 3, 300
_NUMBER = re.compile(r"\d+")

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


def rewrapped(question: str) -> str:
    """Line breaks and runs of blanks where single blanks were."""
    return "".join("\n   " if c == " " and i % 3 == 0 else c for i, c in enumerate(question))


def marked_up(question: str) -> str:
    """Every fourth word in tags."""
    tokens = question.split(" ")
    return " ".join(f"<em class='x'>{t}</em>" if i % 4 == 0 else t for i, t in enumerate(tokens))


#: how an item may stand in a document
KINDS: dict[str, Callable[[str], str]] = {
    "verbatim": lambda q: q,
    "re-wrapped": rewrapped,
    "case": str.upper,
    "punctuation": lambda q: re.sub(r"[.,;:!?]", " - ", q),
    "markup": marked_up,
    "one word in ten": lambda q: " ".join("zebra" if i % 10 == 9 else t for i, t in enumerate(q.split(" "))),
    "numbers changed": lambda q: _NUMBER.sub(lambda m: str(int(m[0]) + 7), q),
    "short": lambda q: q,
}


def runs(text: str) -> set[str]:
    """Every run of words that counts, by the rule as it is written down."""
    found = words(text)
    if len(found) < NGRAM:
        return {" ".join(found)} if len(found) >= SHORT else set()
    return {" ".join(found[i : i + NGRAM]) for i in range(len(found) - NGRAM + 1)}


def suits(kind: str, item: Item, known: set[str]) -> bool:
    """Whether an item can show what this kind is about."""
    count = len(words(item.question))
    if kind == "short":
        return SHORT <= count < NGRAM
    if kind == "numbers changed":  # where a run without a number is left, a match is right
        return count >= NGRAM and not runs(KINDS[kind](item.question)) & known
    return count >= 2 * NGRAM


def make(data: Path, count: int, out: Path, items: list[Item]) -> dict[str, list[str]]:
    """Write the corpus in both formats; returns the planted passages' ids by kind."""
    rng = random.Random(17)
    known = {run for item in items for text in (item.question, item.text) for run in runs(text)}
    texts = list(cut(data / "docs", count))
    planted: dict[str, list[str]] = {}
    places = iter(rng.sample(range(count), PER_KIND * len(KINDS)))
    for kind, change in KINDS.items():
        chosen = [item for item in rng.sample(items, len(items)) if suits(kind, item, known)][:PER_KIND]
        for item, place in zip(chosen, places):
            half = texts[place].split(" ")
            middle = len(half) // 2
            texts[place] = " ".join([*half[:middle], change(item.question), *half[middle:]])
            planted.setdefault(kind, []).append(f"p{place:07d}")
    out.mkdir(parents=True, exist_ok=True)
    for shard in range(SHARDS):
        ids = [f"p{i:07d}" for i in range(shard, count, SHARDS)]
        pq.write_table(pa.table({"id": ids, "text": texts[shard::SHARDS]}), out / f"part-{shard}.parquet")
        with (out / f"part-{shard}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"id": i, "text": t}) + "\n" for i, t in zip(ids, texts[shard::SHARDS]))
    with (out / "items.json").open("w", encoding="utf-8") as file:  # not .jsonl: that would be a part
        file.writelines(
            json.dumps({"id": f"{n}", "question": i.question, "answer": i.answer}) + "\n" for n, i in enumerate(items)
        )
    return planted


def run_ours(source: Path, out: Path) -> None:
    """The timed process."""
    from pyspark.sql import functions as F

    from equal.config import load
    from equal.core.contamination import BenchmarkIndex
    from equal.io.session import open_session
    from equal.transforms.decontaminate import find_contaminated, find_hits, spared_ngrams

    config = load()
    items = {"all": read_items(str(source / "items.json"), "benchmark")}
    index = BenchmarkIndex.build(items, ngram_words=NGRAM, short_words=SHORT)
    spark = open_session(config.spark.partitions)
    documents = spark.read.parquet(*map(str, sorted(source.glob("*.parquet")))).select(
        F.col("id").alias("doc_id"), F.lit("").alias("source_file"), "text"
    )
    hits = find_hits(documents, index).persist()
    share = config.decontaminate.max_document_share
    spared = spared_ngrams(hits, documents.count(), max_document_share=share).persist()
    find_contaminated(hits, spared).write.parquet(str(out / "removals"))


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


def compare(source: Path, names: list[str], planted: dict[str, list[str]], count: int) -> dict[str, dict[str, object]]:
    """Run the sides in turn and judge what they took out."""
    work = BUILD / "decontaminate"
    found: dict[str, list[Measured]] = {}
    for _ in range(REPEATS):
        for name in names:
            out = work / name.replace(" ", "_")
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            found.setdefault(name, []).append(measure(command(name, source, out), work / f"{out.name}.log"))
            print(f"{name}: {found[name][-1].seconds:.1f} s", flush=True)
    rows: dict[str, dict[str, object]] = {}
    for name, measured in found.items():
        removed = removed_ids(name, work / name.replace(" ", "_"))
        speeds = [count / run.seconds for run in measured]
        shares = {kind: round(len(removed & set(ids)) / len(ids), 4) for kind, ids in planted.items()}
        rows[name] = {
            "docs_per_s": round(statistics.median(speeds)),
            "spread": [round(min(speeds)), round(max(speeds))],
            "peak_gib": round(max(run.peak_gib for run in measured), 2),
            "recall": {kind: share for kind, share in shares.items() if kind != "numbers changed"},
            "false_removals": len(removed & set(planted["numbers changed"])),
            "removed": len(removed),
        }
    return rows


def main() -> None:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", nargs=2, type=Path, metavar=("IN", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help="folder with docs/ and refs/")
    parser.add_argument("--count", type=int, default=100_000)
    arguments = parser.parse_args()
    if arguments.ours:
        run_ours(*arguments.ours)
        return
    files = [str(arguments.data / "refs" / f"{name}.jsonl.gz") for name in SETS]
    items = [item for file in files for item in read_items(file, "benchmark")]
    source = BUILD / f"contaminated-{arguments.count}"
    planted = make(arguments.data, arguments.count, source, items)
    rows = compare(source, ["ours", "plain scan", "datatrove"], planted, arguments.count)
    print(f"{arguments.count:,} passages, {len(items):,} items; removed of the planted, by kind")
    for name, row in rows.items():
        speed = f"{name:12}{row['docs_per_s']:>9,}/s {row['peak_gib']:>6} GiB"
        print(f"{speed}  {row['recall']}, numbers {row['false_removals']}")
    ours = rows.pop("ours")
    best = max(row["docs_per_s"] for row in rows.values())
    figures = {
        "documents": arguments.count, "ours": ours, "peers": rows,
        "ratio_to_best": round(ours["docs_per_s"] / best, 2),
        "recall": ours["recall"], "false_removals": ours["false_removals"],
    }  # fmt: skip
    write("decontaminate", figures)


if __name__ == "__main__":
    main()

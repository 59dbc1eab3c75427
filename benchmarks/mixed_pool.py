"""The default choice beside random on 20,000 real documents of three kinds, with arithmetic problems as the target.

Draws the pool evenly from math, code and general documents, takes 40 GSM8K training items as guide and its test set
as benchmark and held-out reference, and sends all of it through the project's own jobs with a real server.
Resumable: a second call goes on where the first one ended.

    python benchmarks/mixed_pool.py --data DIR [--docs 20000] [--budget 1000] [--out build/mixed]
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import heapq
import json
import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "demo"))

from equal.config import RunConfig, load
from equal.core.contamination import BenchmarkIndex
from equal.core.items import Item
from equal.io.report import write_report
from equal.io.session import open_session
from equal.io.stage import exit_on_error, run_stage
from equal.io.summary import clustered, summarise
from equal.io.tables import Tables
from equal.jobs.pipeline import ARMS, CORPUS, RUN
from equal.schemas import ASSIGNMENTS
from model import convert
from server import MODEL_NAME, serve

KINDS = ("math", "code", "general")
RUNS = ("equal", "random")


def main() -> None:
    """Prepare, run both strategies, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with docs/KIND/*.jsonl.gz and refs/")
    parser.add_argument("--docs", type=int, default=20_000)
    parser.add_argument("--budget", type=int, default=1_000)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mixed")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    with exit_on_error("mixed_pool"):
        if not (out / "reference").exists():
            write_pool(arguments.data, out / "source", arguments.docs)
            write_reference(arguments.data, out / "reference")
        model_dir = convert()
        configs = {name: _config(name, out, model_dir, arguments.budget) for name in RUNS}
        with serve(model_dir, out / "vllm.log") as server:
            os.environ["EQUAL_ENDPOINT_KEY"] = server.key
            configs = {n: replace(c, endpoint=replace(c.endpoint, url=server.url)) for n, c in configs.items()}
            for stage, body in CORPUS.items():
                run_stage(configs["equal"], stage, body)
            server.wait_ready()
            for stage, body in ARMS.items():
                run_stage(configs["equal"], stage, body)
            for config in configs.values():
                run_stage(config, "extract", RUN["extract"])
        for config in configs.values():
            for stage in ("select", "finetune", "evaluate"):
                run_stage(config, stage, RUN[stage])
        _print_table(configs["equal"], out)


def write_pool(data: Path, output_dir: Path, num_docs: int) -> None:
    """The documents of lowest hash of each kind, in equal numbers, one file a kind."""
    output_dir.mkdir(parents=True, exist_ok=True)
    for number, kind in enumerate(KINDS):
        wanted = num_docs // len(KINDS) + (number < num_docs % len(KINDS))
        lowest = heapq.nsmallest(wanted, _records(data / "docs" / kind), key=lambda record: rank(record["id"]))
        with gzip.open(output_dir / f"{kind}.jsonl.gz", "wt", encoding="utf-8") as file:
            for record in lowest:
                file.write(json.dumps({"id": record["id"], "text": record["text"]}, ensure_ascii=False) + "\n")


def write_reference(data: Path, output_dir: Path) -> None:
    """40 GSM8K training items that share nothing with its test set, and the test set."""
    output_dir.mkdir(parents=True, exist_ok=True)
    test = sorted(_lines(data / "refs" / "gsm8k_test.jsonl.gz"), key=lambda item: rank(item["id"]))
    # one training item in sixty shares ten words in a row with the test set; such a guide would be refused
    index = BenchmarkIndex.build({"test": [_item(row) for row in test]}, ngram_words=10, short_words=3)
    clean = (row for row in _lines(data / "refs" / "gsm8k_train.jsonl.gz") if index.match(_item(row).text) is None)
    train = heapq.nsmallest(40, clean, key=lambda item: rank(item["id"]))
    for name, items in (("guide", train), ("held_out", test)):
        lines = [json.dumps({k: item[k] for k in ("id", "question", "answer")}) + "\n" for item in items]
        (output_dir / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def _item(row: dict[str, str]) -> Item:
    return Item(row["id"], row["question"], row["answer"])


def _records(folder: Path) -> Iterator[dict[str, str]]:
    for path in sorted(folder.glob("*.jsonl.gz")):
        yield from _lines(path)


def _lines(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def rank(identifier: str) -> bytes:
    """Sorts records by hash, whatever files they come in."""
    return hashlib.blake2b(identifier.encode(), digest_size=8).digest()


def _config(name: str, out: Path, model_dir: Path, budget: int) -> RunConfig:
    held_out = out / "reference" / "held_out.jsonl"
    return load(
        ROOT / "conf" / "demo.yml",
        [
            f"run_name={name}",
            *(["bandit.strategy=random"] if name == "random" else []),
            f"storage.root={out}",
            f"documents.path={out / 'source'}",
            f"reference.guide={out / 'reference' / 'guide.jsonl'}",
            f"reference.held_out={held_out}",
            f"decontaminate.benchmarks={{gsm8k_test: {held_out}}}",
            f"endpoint.model={MODEL_NAME}",
            f"finetune.base_model={model_dir}",
            "extraction.domain=math",
            f"budget.documents={budget}",
            "cluster.k=64",
            "bandit.docs_per_pull=5",
            "spark.partitions=32",
            "select.max_pairs=400",
            "evaluate.max_items=200",
        ],
    )


def _print_table(config: RunConfig, out: Path) -> None:
    """Time by stage, where the budget went, distances and losses; also into OUT/summary.json and report.html."""
    spark = open_session(config.spark.partitions)
    tables = Tables(spark, config.storage.root, config.storage.schema)
    summary = summarise(tables, *RUNS)
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    write_report(tables, out / "report.html", *RUNS)
    print(json.dumps(summary, indent=2))
    _print_shares(tables)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"largest process: {children / 2**20:.1f} GiB")


def _print_shares(tables: Tables) -> None:
    """Math documents, documents in math arms (half of an arm or more is math), and the arms that were read most."""
    clustered(tables, ASSIGNMENTS, "equal").createOrReplaceTempView("arms")
    tables.spark.sql(
        """
        CREATE OR REPLACE TEMP VIEW placed AS
        SELECT doc_id, cluster_id AS arm, source_file LIKE '%math%' AS is_math,
               avg(int(source_file LIKE '%math%')) OVER (PARTITION BY cluster_id) AS of_arm
        FROM documents JOIN arms USING (doc_id)
        """
    )
    tables.spark.sql(
        """
        CREATE OR REPLACE TEMP VIEW reads AS
        SELECT 'pool' AS run, placed.* FROM placed
        UNION ALL
        SELECT run_id, placed.* FROM extractions JOIN placed USING (doc_id)
        WHERE final AND run_id IN ('equal', 'random')
        """
    )
    print(
        f"{'run':8} {'documents':>9} {'math':>7} {'in math arms':>13} {'arms':>5}  most read: documents (math in it)"
    )
    for row in tables.spark.sql(
        """
        WITH by_arm AS (SELECT run, arm, count(*) AS docs, sum(int(is_math)) AS math, first(of_arm) AS of_arm
                        FROM reads GROUP BY run, arm)
        SELECT run, sum(docs) AS docs, sum(math) AS math, sum(if(of_arm >= 0.5, docs, 0)) AS in_math_arms,
               count(*) AS arms, slice(sort_array(collect_list(struct(docs, of_arm)), false), 1, 6) AS most
        FROM by_arm GROUP BY run ORDER BY run
        """
    ).collect():
        most = ", ".join(f"{arm.docs} ({arm.of_arm:.0%})" for arm in row.most)
        shares = f"{row.math / row.docs:7.1%} {row.in_math_arms / row.docs:13.1%}"
        print(f"{row.run:8} {row.docs:9} {shares} {row.arms:5}  {most}")


if __name__ == "__main__":
    main()

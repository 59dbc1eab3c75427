"""What one percent of new passages costs, beside a full run over all of them. One table.

The four corpus jobs run one after the other in one process, the full run as well as the refresh, as jobs/pipeline.py
runs them, on real Delta tables. A stage's seconds are all of it: tables, marks, work and commits. The start of Spark
and the imports, which a process pays once, stand beside them. Both ways must leave the same removals.

    python benchmarks/refresh.py --data ../shared/data --count 1000000
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from dedup_peers import BUILD
from deltalake import DeltaTable
from growth import DRIVER_MEMORY, settings
from passages import ensure
from processes import Measured, measure
from results import write

NEW_SHARE = 0.01
#: run in a process of its own; the only line of JSON that it prints is the seconds of every stage
CORPUS_STAGES = """
import json, sys, time
from equal.config import parse_arguments
from equal.io.session import open_session
from equal.io.stage import exit_on_error, run_stage
from equal.jobs.pipeline import CORPUS
with exit_on_error("refresh"):
    config = parse_arguments(sys.argv[1:], None)
    open_session(config.spark.partitions)
    seconds = {}
    for stage, body in CORPUS.items():
        started = time.monotonic()
        run_stage(config, stage, body)
        seconds[stage] = time.monotonic() - started
print(json.dumps(seconds))
"""


def run_corpus(inputs: Path, store: Path, refs: Path) -> tuple[dict[str, float], Measured]:
    """Bring what is new in `inputs` into `store`; seconds of every stage, and the whole process."""
    environment = {**os.environ, "SPARK_DRIVER_MEMORY": DRIVER_MEMORY}
    log = store.parent / f"{store.name}.log"
    done = measure([sys.executable, "-c", CORPUS_STAGES, *settings(inputs, store, refs)], log, environment)
    lines = done.output.splitlines()  # Spark may say something as it ends
    print("\n".join(line for line in lines if " rows in, " in line), flush=True)
    return json.loads(next(line for line in lines if line.startswith("{"))), done


def place(source: Path, inputs: Path, count: int) -> Path:
    """Put all passages but the last ones in place; returns the file with those."""
    inputs.mkdir(parents=True)
    *files, last = sorted(source.glob("*.jsonl"))
    for file in files:
        os.link(file, inputs / file.name)
    lines = last.read_text(encoding="utf-8").splitlines(keepends=True)
    new = round(count * NEW_SHARE)
    (inputs / last.name).write_text("".join(lines[:-new]), encoding="utf-8")
    later = inputs.parent / "later.jsonl"
    later.write_text("".join(lines[-new:]), encoding="utf-8")
    return later


def removed(store: Path) -> set[tuple[str, str, str]]:
    """Document, reason and evidence of all that fell after ingest."""
    columns = ["doc_id", "stage", "reason", "evidence"]
    rows = DeltaTable(str(store / "tables" / "removals")).to_pyarrow_table(columns=columns).to_pylist()
    return {(row["doc_id"], row["reason"], row["evidence"]) for row in rows if row["stage"] != "ingest"}


def compare(data: Path, count: int, root: Path) -> dict[str, object]:
    """Measure both ways under `root`, print the table and return the figures."""
    refs, inputs = data / "refs", root / "in"
    later = place(ensure(data / "docs", count, BUILD), inputs, count)
    run_corpus(inputs, root / "store", refs)
    later.rename(inputs / later.name)
    refresh, refresh_process = run_corpus(inputs, root / "store", refs)
    full, full_process = run_corpus(inputs, root / "full", refs)
    same = removed(root / "store") == removed(root / "full")
    sums = sum(full.values()), sum(refresh.values())
    walls = full_process.seconds, refresh_process.seconds
    lines = {stage: (full[stage], refresh[stage]) for stage in full} | {"all": sums, "with Spark's start": walls}
    print(f"{'seconds':20}{'full':>10}{'1 % new':>10}{'share':>10}")
    for name, (all_of_it, new) in lines.items():
        print(f"{name:20}{all_of_it:>10.1f}{new:>10.1f}{new / all_of_it:>10.3f}")
    return {
        "documents": count, "share_of_full": round(sums[1] / sums[0], 4), "same_removals": same,
        "share_with_start_of_spark": round(walls[1] / walls[0], 4),
        "seconds_full": {stage: round(value, 2) for stage, value in full.items()},
        "seconds_refresh": {stage: round(value, 2) for stage, value in refresh.items()},
        "peak_gib": round(max(full_process.peak_gib, refresh_process.peak_gib), 2),
    }  # fmt: skip


def main() -> None:
    """Measure, print and keep the table; the folders go whatever happens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with docs/ and refs/")
    parser.add_argument("--count", type=int, default=1_000_000)
    arguments = parser.parse_args()
    root = BUILD / f"refresh-{arguments.count}"
    shutil.rmtree(root, ignore_errors=True)
    try:
        write("refresh", compare(arguments.data, arguments.count, root))
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()

"""The corpus jobs on a standalone cluster of two workers beside the same jobs in one local process. One table.

Both are submitted in the same way and have two cores for tasks: two executors of one core, or `local[2]`; the cluster
has three more processes of Java (driver, master, workers) on the same machine. A job's seconds are those of its mark.

    python benchmarks/cluster_mode.py --data ../shared/data --count 100000
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from dedup_peers import BUILD
from deltalake import DeltaTable
from growth import JOBS, ROOT, Launch, place, run_jobs
from results import write

sys.path.insert(0, str(ROOT / "demo"))

from standalone import standalone_cluster, submit_command

REPEATS = 3
OPTIONS = ("--properties-file", str(ROOT / "conf" / "spark.conf"), "--driver-memory", "4g")


#: what must not depend on where it was made, with the columns that order its rows
TABLES = {
    "documents": ("doc_id",),
    "removals": ("doc_id", "stage"),
    "benchmark_hits": ("doc_id", "key"),
}


def table(store: Path, name: str) -> pa.Table:
    """A table in the order of its keys, without the moment at which a row was written."""
    rows = DeltaTable(str(store / "tables" / name)).to_pyarrow_table()
    rows = rows.select([column for column in sorted(rows.column_names) if column != "ingested_at"])
    return rows.sort_by([(key, "ascending") for key in TABLES[name]]).combine_chunks()


def main() -> None:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with docs/ and refs/")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    arguments = parser.parse_args()
    os.environ |= {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    BUILD.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="cluster_mode-", dir=BUILD) as folder:
        compare(arguments.data, arguments.count, arguments.repeats, Path(folder))


def launched_by(master: str, options: tuple[str, ...]) -> Launch:
    """How a job is started there."""
    return lambda job: submit_command(job, master, *options)


def compare(data: Path, count: int, repeats: int, root: Path) -> None:
    """Run both in turn inside `root`."""
    inputs = place(data, count, root)
    seconds: dict[str, list[dict[str, float]]] = {"local[2]": [], "two workers": []}
    walls: dict[str, list[float]] = {name: [] for name in seconds}
    # brackets in a path are a pattern to Spark
    stores = {name: root / re.sub(r"\W+", "-", name).strip("-") for name in seconds}
    equal = True
    with standalone_cluster(root, workers=2, cores=1, memory="3g") as url:
        cluster = (*OPTIONS, "--executor-memory", "3g")
        for _ in range(repeats):
            for name, master, options in (("local[2]", "local[2]", OPTIONS), ("two workers", url, cluster)):
                shutil.rmtree(stores[name], ignore_errors=True)
                launch = launched_by(master, options)
                found, processes = run_jobs(inputs, stores[name], data / "refs", launch)
                seconds[name].append(found)
                walls[name].append(sum(done.seconds for done in processes.values()))
            for name in TABLES:
                here, there = (table(store, name) for store in stores.values())
                equal = equal and here.equals(there)
    report(count, seconds, walls, equal)


def report(count: int, seconds: dict[str, list[dict[str, float]]], walls: dict[str, list[float]], equal: bool) -> None:
    """Print and keep the table."""
    totals = {name: [sum(run[job] for job in JOBS) for run in runs] for name, runs in seconds.items()}
    print(f"{count:,} passages, seconds, median (least to most)")
    for name, runs in totals.items():
        whole = statistics.median(walls[name])
        print(f"{name:14}{statistics.median(runs):>8.1f} ({min(runs):.1f} to {max(runs):.1f}), processes {whole:.1f}")
    ratio = statistics.median(totals["two workers"]) / statistics.median(totals["local[2]"])
    print(f"time ratio {ratio:.2f}, same {', '.join(TABLES)}: {equal}")
    write(
        "cluster_mode",
        {
            "documents": count, "time_ratio": round(ratio, 3), "tables_equal": equal,
            "seconds": {name: [round(value, 1) for value in runs] for name, runs in totals.items()},
            "process_seconds": {name: [round(value, 1) for value in runs] for name, runs in walls.items()},
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()

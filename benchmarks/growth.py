"""How the corpus stages grow: the product's own jobs over 10,000, 100,000 and 1,000,000 passages. One table.

Each job is a process of its own on real Delta tables; its seconds are those of its row in `stages`, without the start
of Spark, which takes the same at every size. The slope is that of log seconds on log documents: 1 is linear.

    python benchmarks/growth.py --data ../shared/data --counts 10000 100000 1000000
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from decontaminate import SETS
from dedup_peers import BUILD
from deltalake import DeltaTable
from passages import ensure
from processes import Measured, measure
from results import write

ROOT = Path(__file__).resolve().parent.parent
JOBS = ("ingest", "quality", "deduplicate", "decontaminate")
DRIVER_MEMORY = "6g"


#: job -> the command to which its arguments are added
Launch = Callable[[Path], list[str]]


def settings(inputs: Path, store: Path, refs: Path) -> list[str]:
    """The arguments of a corpus job over what lies in `inputs`."""
    sets = ", ".join(f"{name}: {refs / name}.jsonl.gz" for name in SETS)
    given = (
        f"documents.path={inputs}", f"storage.root={store}", f"decontaminate.benchmarks={{{sets}}}",
        "deduplicate.threshold=0.7",
    )  # fmt: skip
    return [part for setting in given for part in ("--set", setting)]


def run_jobs(
    inputs: Path, store: Path, refs: Path, launch: Launch = lambda job: [sys.executable, str(job)]
) -> tuple[dict[str, float], dict[str, Measured]]:
    """Run every job over what lies in `inputs`; seconds by the jobs' own marks, and their whole processes."""
    arguments, processes = settings(inputs, store, refs), {}
    for job in JOBS:
        command = [*launch(ROOT / "jobs" / f"{job}.py"), *arguments]
        log = store.parent / f"{job}.log"
        processes[job] = measure(command, log, {**os.environ, "SPARK_DRIVER_MEMORY": DRIVER_MEMORY})
        print(processes[job].output.strip().splitlines()[-1], flush=True)
    marks = DeltaTable(str(store / "tables" / "stages")).to_pyarrow_table().to_pylist()
    newest = {row["stage"]: row["seconds"] for row in sorted(marks, key=lambda row: row["finished_at"])}
    return newest, processes


def place(data: Path, count: int, root: Path) -> Path:
    """Put a folder of so many passages into `root`; returns that folder."""
    inputs = root / "in"
    inputs.mkdir()
    for file in ensure(data / "docs", count, BUILD).glob("*.jsonl"):  # the corpus also lies there as Parquet
        os.link(file, inputs / file.name)
    return inputs


def run(data: Path, count: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds and peak memory in GiB of every job on a corpus of this size."""
    BUILD.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix=f"growth-{count}-", dir=BUILD) as folder:
        root = Path(folder)
        seconds, processes = run_jobs(place(data, count, root), root / "store", data / "refs")
    return seconds, {job: done.peak_gib for job, done in processes.items()}


def main() -> None:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with docs/ and refs/")
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    arguments = parser.parse_args()
    found = {count: run(arguments.data, count) for count in arguments.counts}
    logs = np.log(arguments.counts)
    slopes = {job: float(np.polyfit(logs, np.log([found[n][0][job] for n in found]), 1)[0]) for job in JOBS}
    last = {  # a start that takes long hides in the whole slope, so the last step is told too
        job: float(np.diff(np.log([found[n][0][job] for n in arguments.counts[-2:]]))[0] / np.diff(logs[-2:])[0])
        for job in JOBS
    }
    print(f"{'seconds':16}" + "".join(f"{n:>12,}" for n in found) + f"{'slope':>8}{'last':>8}{'peak GiB':>10}")
    peaks = {job: max(by_job[job] for _, by_job in found.values()) for job in JOBS}
    for job in JOBS:
        row = "".join(f"{seconds[job]:>12.1f}" for seconds, _ in found.values())
        print(f"{job:16}{row}{slopes[job]:>8.2f}{last[job]:>8.2f}{peaks[job]:>10.1f}")
    figures = {
        "documents": arguments.counts, "slopes": slopes, "slopes_of_the_last_step": last,
        "seconds": {job: [found[n][0][job] for n in found] for job in JOBS},
        "peak_gib": round(max(peaks.values()), 2),
        "peak_gib_by_job": {job: round(peak, 2) for job, peak in peaks.items()},
    }  # fmt: skip
    write("growth", figures)


if __name__ == "__main__":
    main()

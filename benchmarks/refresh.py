"""What one percent of new passages costs, beside a full run over all of them. One table.

The same jobs as in benchmarks/growth.py, each a process of its own. A stage's seconds are those of its mark, without
the start of Spark; the whole processes stand beside them. Both ways must leave the same removals.

    python benchmarks/refresh.py --data ../shared/data --count 1000000
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from dedup_peers import BUILD
from deltalake import DeltaTable
from growth import JOBS, run_jobs
from passages import ensure
from processes import Measured
from results import write

NEW_SHARE = 0.01


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


def wall(processes: dict[str, Measured]) -> float:
    """Seconds of the whole processes."""
    return sum(done.seconds for done in processes.values())


def main() -> None:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with docs/ and refs/")
    parser.add_argument("--count", type=int, default=1_000_000)
    arguments = parser.parse_args()
    refs, root = arguments.data / "refs", BUILD / f"refresh-{arguments.count}"
    shutil.rmtree(root, ignore_errors=True)
    later = place(ensure(arguments.data / "docs", arguments.count, BUILD), root / "in", arguments.count)
    run_jobs(root / "in", root / "store", refs)
    later.rename(root / "in" / later.name)
    refresh, refresh_processes = run_jobs(root / "in", root / "store", refs)
    full, full_processes = run_jobs(root / "in", root / "full" / "store", refs)
    same = removed(root / "store") == removed(root / "full" / "store")
    print(f"{'seconds':16}{'full':>10}{'1 % new':>10}{'share':>10}")
    for job in JOBS:
        print(f"{job:16}{full[job]:>10.1f}{refresh[job]:>10.1f}{refresh[job] / full[job]:>10.3f}")
    share = sum(refresh[job] for job in JOBS) / sum(full[job] for job in JOBS)
    walls = wall(full_processes), wall(refresh_processes)
    print(f"{'all':16}{sum(full.values()):>10.1f}{sum(refresh.values()):>10.1f}{share:>10.3f}")
    print(f"{'whole processes':16}{walls[0]:>10.1f}{walls[1]:>10.1f}{walls[1] / walls[0]:>10.3f}")
    write(
        "refresh",
        {
            "documents": arguments.count, "share_of_full": round(share, 4), "same_removals": same,
            "share_of_whole_processes": round(walls[1] / walls[0], 4), "seconds_full": full,
            "seconds_refresh": refresh,
        },
    )  # fmt: skip
    shutil.rmtree(root)


if __name__ == "__main__":
    main()

"""Select the pairs to train on into table selected_pairs, and export them as chat-format JSON lines.

The stage is `select`; a file of that name would hide the standard library's module from every job beside it,
since Python and spark-submit put a script's folder first on the path.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import functions as F

from equal.io.export import write_conversations
from equal.io.stage import Job, Outcome
from equal.io.stage import main as run_main
from equal.schemas import ARM_HISTORY, QA_PAIRS, SELECTED_PAIRS
from equal.selection.rows import select_pairs


def select(job: Job) -> Outcome:
    """Read the run's pairs and rewards, rank them, write and export those that are kept."""
    config, of_run = job.config, F.col("run_id") == job.config.run_name
    pairs = [row.asDict() for row in job.tables.read(QA_PAIRS).where(of_run).drop("embedding").collect()]
    history = [row.asDict() for row in job.tables.read(ARM_HISTORY).where(of_run).collect()]
    selected = select_pairs(
        pairs, history, strategy=config.bandit.strategy, max_pairs=config.select.max_pairs, seed=config.seed
    )
    job.tables.replace(SELECTED_PAIRS, job.tables.rows(SELECTED_PAIRS, selected), f"run_id = '{config.run_name}'")
    path = job.path(config.run_name, config.select.export)
    return Outcome(len(pairs), write_conversations(path, selected), {"export": path})


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job from the command line."""
    run_main("select", select, argv, __doc__)


if __name__ == "__main__":
    main()

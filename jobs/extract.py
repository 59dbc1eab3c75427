"""The bandit: choose arms, let the model read documents, reward the arms, until a budget is reached."""

from __future__ import annotations

from collections.abc import Sequence

from equal.io.lock import run_lock
from equal.io.stage import Job, Outcome
from equal.io.stage import main as run_main
from equal.run import run_to_budget


def extract(job: Job) -> Outcome:
    """Run the bandit of `run_name`, one process at a time."""
    with run_lock(job.config.storage.root, job.config.run_name):
        return run_to_budget(job)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job from the command line."""
    run_main("extract", extract, argv, __doc__)


if __name__ == "__main__":
    main()

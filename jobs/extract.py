"""The bandit: choose arms, let the model read documents, reward the arms, until a budget is reached."""

from __future__ import annotations

from collections.abc import Sequence

from equal.io.stage import main as run_main
from equal.run import run_to_budget


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job from the command line."""
    run_main("extract", run_to_budget, argv, __doc__)


if __name__ == "__main__":
    main()

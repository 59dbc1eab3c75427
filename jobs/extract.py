"""The bandit: choose arms, let the model read documents, reward the arms, until a budget is reached."""

from __future__ import annotations

from collections.abc import Sequence

from equal.config import argument_parser, load
from equal.estimate import estimate_run, told
from equal.io.stage import exit_on_error, run_stage
from equal.retry import retry_failed
from equal.run import run_to_budget


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job from the command line."""
    with exit_on_error("extract"):
        parser = argument_parser(__doc__)
        other = parser.add_mutually_exclusive_group()
        other.add_argument(
            "--retry-failed", action="store_true",
            help="first ask again about documents that the endpoint failed, be the run finished or not",
        )  # fmt: skip
        other.add_argument(
            "--estimate", action="store_true",
            help="only tell what warm-up and extraction will take, from a few documents that the warm-up reads first",
        )  # fmt: skip
        arguments = parser.parse_args(argv)
        config = load(arguments.config, arguments.set)
        if arguments.estimate:
            print(told(estimate_run(config)))
        elif arguments.retry_failed:
            run_stage(config, "extract", retry_failed, even_finished=True)
        else:
            run_stage(config, "extract", run_to_budget)


if __name__ == "__main__":
    main()

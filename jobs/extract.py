"""The bandit: choose arms, let the model read documents, reward the arms, until a budget is reached."""

from __future__ import annotations

from collections.abc import Sequence

from equal.config import argument_parser, load
from equal.io.stage import exit_on_error, run_stage
from equal.retry import retry_failed
from equal.run import run_to_budget


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job from the command line."""
    with exit_on_error("extract"):
        parser = argument_parser(__doc__)
        parser.add_argument(
            "--retry-failed", action="store_true",
            help="first ask again about documents that the endpoint failed, be the run finished or not",
        )  # fmt: skip
        arguments = parser.parse_args(argv)
        config = load(arguments.config, arguments.set)
        if arguments.retry_failed:
            run_stage(config, "extract", retry_failed, even_finished=True)
        else:
            run_stage(config, "extract", run_to_budget)


if __name__ == "__main__":
    main()

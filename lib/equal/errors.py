"""The errors a user can meet. Each message names the field, the value, what is allowed and the remedy."""

from __future__ import annotations


class EqualError(Exception):
    """Base of every error that is raised on purpose; a job prints it without a traceback."""


class ConfigError(EqualError):
    """Raised when one or more settings are unknown, missing, of the wrong type or out of range."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        plural = "problem" if len(problems) == 1 else "problems"
        super().__init__(f"{len(problems)} {plural} in the configuration:\n" + "\n".join(f"  - {p}" for p in problems))


class InputError(EqualError):
    """Raised when a source, reference or benchmark file is missing, empty or malformed."""


class TableError(EqualError):
    """Raised when a table is absent, was written by another configuration, or could not be written."""


class RunLockedError(EqualError):
    """Raised when another live process works on the same run_name."""


class EndpointError(EqualError):
    """Raised when the endpoint cannot serve at all: down, wrong key, unknown model, context too short."""


class BudgetError(EqualError):
    """Raised when the budget cannot pay for the first sweep over the arms."""


class PlatformError(EqualError):
    """Raised when Java, a Python package or disk space is missing."""

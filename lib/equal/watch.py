"""What is told of an extraction while it runs: a line on the terminal, progress.json for monitors, and MLflow."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from types import TracebackType

from tqdm import tqdm

from equal.config import RunConfig
from equal.core.chat import UNSERVED
from equal.history import Step
from equal.io.progress import write_progress
from equal.io.tracking import ExtractionRun
from equal.state import Iteration, Limits, Spent, State

log = logging.getLogger("equal")

#: arms named in the progress line
_ARMS_SHOWN = 5
#: without tqdm's own estimate, which knows of documents only
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} docs [{elapsed}{postfix}]"


class Watch:
    """Told of every commit of one extraction; `with` it, so that an end by an error is told, too.

    Attributes:
        bar: of documents, on the terminal.
    """

    def __init__(
        self,
        config: RunConfig,
        path: str,
        state: State,
        limits: Limits,
        past: Sequence[Step],
        history_hash: str,
    ) -> None:
        """Begin.

        Args:
            config: of the run.
            path: of progress.json.
            state: where this process begins.
            limits: the budgets.
            past: the iterations committed before.
            history_hash: of the run.
        """
        self._config, self._path, self._limits = config, path, limits
        self._started, self._spent, self._arrived = time.monotonic(), Spent(), 0
        #: when, and with what spent, this process began to pay: what comes from the store says nothing of the pace
        self._paying = self._started, state.spent
        self._outcomes, self._pairs = Counter[str](), 0
        self._iteration: int | None = None
        self._arms: list[int] = []
        self._reading: dict[int, tuple[int, Callable[[], int]]] = {}
        self._rewards: dict[int, float | None] = {}
        self._mlflow = ExtractionRun(config, history_hash, {step.number: self._add(step) for step in past})
        # nothing is left to read when all are read, whatever the budget
        pool = sum(arm.size for arm in state.arms.values())
        self._ends = Limits(min(limits.documents or pool, pool), limits.tokens, limits.money)
        label = f"extract ({config.run_name})"
        self.bar = tqdm(
            total=self._ends.documents, initial=state.spent.documents, desc=label, bar_format=_BAR, dynamic_ncols=True
        )

    def __enter__(self) -> Watch:
        self._write("running")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()
        if kind is not None:
            self._write("failed", kind.__name__)
        self._mlflow.close(failed=kind is not None)

    def committed(self, iteration: Iteration) -> None:
        """An iteration has its commit mark."""
        extracted, rewards = iteration.extracted, {arm_id: arm.reward for arm_id, arm in iteration.arms.items()}
        num_pairs = len(extracted.pairs.pair_ids)
        if not extracted.calls:
            self._paying = time.monotonic(), iteration.spent
        step = Step(iteration.number, iteration.spent, extracted.outcomes, num_pairs, rewards)
        self._mlflow.log(iteration.number, self._add(step))
        self._write("running")
        self._reading.pop(iteration.number, None)
        self.bar.set_postfix_str(self._line(), refresh=False)
        self.bar.n = self.arrived()
        self.bar.refresh()

    def reading(self, iteration: int, documents: int, count_replies: Callable[[], int]) -> None:
        """An iteration begins to read; until it is committed, a reply of it stands for a document."""
        self._reading[iteration] = (documents, count_replies)

    def arrived(self) -> int:
        """Documents read, about."""
        arrived = self._spent.documents
        for documents, count_replies in list(self._reading.values()):
            with suppress(OSError):  # of a shared disk: what only tells of a run must not end it
                arrived += min(documents, count_replies())
        self._arrived = max(self._arrived, arrived)  # replies are on their way from spool to table before the commit
        return self._arrived

    def finished(self, stop_reason: str) -> None:
        """No iteration follows."""
        self._write("finished", stop_reason)

    @property
    def failed_share(self) -> float:
        """Of the documents read, those that the endpoint did not serve."""
        return sum(self._outcomes[status] for status in UNSERVED) / max(self._outcomes.total(), 1)

    def _left(self) -> float | None:
        began, spent = self._paying
        return seconds_left(time.monotonic() - began, spent, self._spent, self._ends)

    def _add(self, step: Step) -> dict[str, float]:
        """Count an iteration; returns its point of each of MLflow's curves."""
        self._spent, self._iteration, self._arms = step.spent, step.number, sorted(step.rewards)
        self._outcomes.update(step.outcomes)
        self._pairs += step.pairs
        self._rewards |= step.rewards
        known = [reward for reward in self._rewards.values() if reward is not None]
        rewards = {"best_reward": max(known), "mean_reward": sum(known) / len(known)} if known else {}
        return {**vars(self._spent), "pairs": self._pairs, "failed_share": self.failed_share, **rewards}

    def _line(self) -> str:
        arms = ",".join(map(str, self._arms[:_ARMS_SHOWN])) + ("..." if len(self._arms) > _ARMS_SHOWN else "")
        tokens, money = self._limits.tokens, self._limits.money
        left = self._left()
        parts = [
            f"iteration {self._iteration}",
            f"arms {arms}",
            f"{self._spent.tokens:,}{f'/{tokens:,}' if tokens else ''} tokens",
            *([f"money {self._spent.money:.2f}/{money:.2f}"] if money else []),
            f"{self._pairs:,} pairs",
            f"{self.failed_share:.1%} failed",
            *([] if left is None else [f"{tqdm.format_interval(round(left))} left"]),
        ]
        return ", ".join(parts)

    def _write(self, state: str, stop_reason: str | None = None) -> None:
        left = 0.0 if state == "finished" else self._left()
        facts = {
            "run_name": self._config.run_name,
            "state": state,
            "stop_reason": stop_reason,
            "iteration": self._iteration,
            "arms": self._arms,
            # null is no limit
            "limits": {name: getattr(self._limits, name) or None for name in vars(self._spent)},
            "spent": dict(vars(self._spent)),
            "pairs": self._pairs,
            "outcomes": dict(sorted(self._outcomes.items())),
            "failed_share": round(self.failed_share, 4),
            "seconds_since_start": round(time.monotonic() - self._started, 1),
            "seconds_left": None if left is None else round(left, 1),
            "fingerprint": self._config.fingerprint(),
            "updated_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        try:
            write_progress(self._path, facts)
        except OSError as error:  # the iteration is committed: what only tells of it must not end the run
            log.warning("progress.json: not written (%s)", error.strerror or type(error).__name__)


def seconds_left(elapsed: float, begun: Spent, spent: Spent, ends: Limits) -> float | None:
    """Seconds until the first limit is reached at the pace of this process; None until it has spent something.

    Args:
        elapsed: seconds since the process began.
        begun: what was spent before it.
        spent: what is spent now.
        ends: the limits; 0 is none.

    >>> seconds_left(60, Spent(), Spent(documents=20, tokens=1000), Limits(80, 1500, 0.0))
    30.0
    """
    waits = []
    for name, now in vars(spent).items():
        limit = getattr(ends, name)
        moved = now - getattr(begun, name)
        if limit and moved > 0:
            waits.append(max(limit - now, 0) * elapsed / moved)
    return min(waits, default=None)

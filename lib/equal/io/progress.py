"""Progress on the driver's terminal: Spark work by tasks done, the bandit by documents of its budget."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession
from tqdm import tqdm

from equal.loop import Iteration, Limits, State

#: seconds before the first line, so that short work stays silent
_QUIET_S = 8.0
_EVERY_S = 5.0
#: arms named in a progress line
_ARMS_SHOWN = 5


@contextmanager
def task_progress(spark: SparkSession, label: str) -> Iterator[None]:
    """Show `label`, tasks done, tasks in all and the time left while the body runs longer than a few seconds."""
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(spark, label, stop), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join(timeout=_EVERY_S)


def _watch(spark: SparkSession, label: str, stop: threading.Event) -> None:
    tracker = spark.sparkContext.statusTracker()
    bar: tqdm[object] | None = None
    stage_id = -1
    wait = _QUIET_S
    while not stop.wait(wait):
        wait = _EVERY_S
        stages = [info for i in tracker.getActiveStageIds() if (info := tracker.getStageInfo(i))]
        if not stages:
            continue
        widest = max(stages, key=lambda info: info.numTasks)
        if widest.stageId != stage_id:
            stage_id = widest.stageId
            if bar is not None:
                bar.close()
            bar = tqdm(total=widest.numTasks, desc=label, unit="task", leave=False, dynamic_ncols=True)
        if bar is not None:
            bar.n = widest.numCompletedTasks
            bar.refresh()
    if bar is not None:
        bar.close()


class BudgetProgress:
    """The bandit's progress line: documents of the budget, arms, pairs, failures, time left."""

    def __init__(self, label: str, limits: Limits, state: State) -> None:
        total = limits.documents or sum(arm.size for arm in state.arms.values())
        self._bar = tqdm(total=total, initial=state.spent.documents, desc=label, unit="doc", dynamic_ncols=True)
        self._pairs = len(state.pairs.pair_ids)

    def __enter__(self) -> BudgetProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, iteration: Iteration) -> None:
        """Move on by one iteration."""
        extracted = iteration.extracted
        self._pairs += len(extracted.pairs.pair_ids)
        arms = sorted(iteration.arms)
        shown = ",".join(map(str, arms[:_ARMS_SHOWN])) + ("..." if len(arms) > _ARMS_SHOWN else "")
        self._bar.set_postfix_str(
            f"iteration {iteration.number}, arms {shown}, {self._pairs} pairs, "
            f"{iteration.spent.tokens:,} tokens, {extracted.outcomes.get('failed', 0)} failed",
            refresh=False,
        )
        self._bar.update(sum(extracted.documents.values()))

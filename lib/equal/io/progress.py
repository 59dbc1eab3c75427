"""Progress of Spark work on the driver's terminal, by tasks done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession
from tqdm import tqdm

#: seconds before the first line, so that short work stays silent
_QUIET_S = 8.0
_EVERY_S = 5.0


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
    bar: tqdm | None = None
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

"""Progress: of Spark work by tasks done, of an extraction by replies that came, and a file for other programs."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def reading_progress(bar: tqdm, count: Callable[[], int]) -> Iterator[None]:
    """Show in `bar` what `count` returns, every few seconds while the body runs."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(_EVERY_S):
            bar.n = count()
            bar.refresh()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def write_progress(path: str, facts: Mapping[str, object]) -> None:
    """Replace a JSON file in one step, so that whoever reads it sees the old or the new one, whole.

    Raises:
        OSError: the disk is full or cannot be written; the old file stands.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}")
    try:
        unfinished.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


def _watch(spark: SparkSession, label: str, stop: threading.Event) -> None:
    tracker = spark.sparkContext.statusTracker()
    bar: tqdm | None = None
    stage_id = -1
    wait = _QUIET_S
    while not stop.wait(wait):
        wait = _EVERY_S
        stages = [info for i in tracker.getActiveStageIds() if (info := tracker.getStageInfo(i))]
        if not stages:
            if bar is not None:  # what follows may have a bar of its own
                bar.close()
            bar, stage_id = None, -1
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

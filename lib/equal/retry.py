"""Dead letters: documents that the endpoint failed are asked about again, as one more iteration of their run.

They were counted when they were read first, so they cost no document of the budget, only tokens and money.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
from pyspark.sql import Row
from pyspark.sql import functions as F
from tqdm import tqdm

from equal.errors import BudgetError
from equal.history import record_iteration, settle_retries
from equal.io.progress import reading_progress
from equal.io.stage import Job, Outcome
from equal.io.summary import committed
from equal.loop import settle, warming_up
from equal.run import Opened, flops_of, open_run, run_to_budget
from equal.schemas import DOC_ID, EXTRACTIONS, STAGES
from equal.state import Flight

log = logging.getLogger("equal")

#: what was made of the pairs that were there before
_AFTER = ("select", "finetune", "evaluate")


def retry_failed(job: Job) -> Outcome:
    """Ask again about the run's documents that the endpoint failed, wholly or in part, then go on as `run_to_budget`.

    Where fewer requests about a document failed than before and no fewer pairs came, the new outcome takes the place
    of the old one, whose row stays with `final` false, and the new pairs that of the old ones; else the old ones stay.
    One that fails again does not stop the others, however large the share. Of tokens and money, replies that are read
    back count once more.

    Raises:
        BudgetError: too little of the budget of tokens or money is left.
        EndpointError: the endpoint cannot serve; what was paid for is kept.
    """
    opened = open_run(job)
    failed = committed(job.tables, EXTRACTIONS, opened.run.run_id).where(F.col("final"))
    failed = failed.where(F.col("unserved") > 0).select(DOC_ID, "arm_id", "unserved", "num_pairs")
    rows = failed.orderBy(DOC_ID).collect()
    if rows:
        _ask_again(job, opened, rows)
    opened.assignments.unpersist()
    if not rows:
        log.info("extract: no document of run %s failed, nothing to ask again", opened.run.run_id)
        if job.marks.finished(job.stage):
            return Outcome(opened.state.spent.documents, len(opened.state.pairs.pair_ids), unchanged=True)
    return run_to_budget(job)


def _ask_again(job: Job, opened: Opened, failed: list[Row]) -> None:
    state, limits, started = opened.state, opened.limits, datetime.now(timezone.utc)
    left = limits.left(state.spent)
    if short := left.short_of(state.need):
        raise BudgetError(
            f"budget.{short}: is {getattr(limits, short):g}, of which too little is left to ask again about "
            f"{len(failed)} documents that failed; raise it"
        )
    asked = failed[: int(min(len(failed), limits.covered(state.spent, state.need)))]
    documents = job.spark.createDataFrame([row[:2] for row in asked], f"{DOC_ID} string, arm_id int")
    bar = tqdm(total=len(asked), desc="asked again", unit="doc", leave=False, dynamic_ncols=True)
    number, share = state.next_iteration, left.share(len(asked))
    with bar, reading_progress(bar, opened.reading.spool(number).count):
        extracted = opened.reading.read(number, documents, share, max_failed_share=1.0)
        mended = _mended(job, opened.run.run_id, number, asked)
        opened.reading.keep(number)
    again, brought = (np.isin(pairs.doc_ids, mended) for pairs in (state.pairs, extracted.pairs))
    old, new = set(state.pairs.pair_ids[again]), set(extracted.pairs.pair_ids[brought])
    # before the commit: a kill between the two costs stages that are run once more, and this one then settles
    names = ", ".join(f"'{stage}'" for stage in (job.stage, *(_AFTER if old != new else ())))
    job.tables.delete(STAGES, f"run_id = '{opened.run.run_id}' AND stage IN ({names})")

    state = replace(state, pairs=state.pairs.where(~again))
    none_new = replace(
        extracted,
        documents=dict.fromkeys(extracted.documents, 0),
        pairs=extracted.pairs.where(brought),
        replaced=len(old),
    )
    flight = Flight(number, (), {}, share, warming_up(state, opened.policy))
    _, iteration = settle(state, flight, none_new, opened.policy, limits, opened.reading.score)
    flops = flops_of(job.config, iteration)
    record_iteration(job.tables, opened.run, iteration, started, flops, billed_from=started)
    settle_retries(job.tables, opened.run.run_id, [number])
    outcomes = ", ".join(f"{status} {count}" for status, count in Counter(extracted.outcomes).most_common())
    log.info(
        "extract: asked again about %d of %d documents that had failed: %s; %d new pairs",
        len(asked), len(failed), outcomes, len(new - old),
    )  # fmt: skip


def _mended(job: Job, run_id: str, iteration: int, before: list[Row]) -> list[str]:
    """The documents of which more was read than before; the new rows of the others do not count as `final`."""
    own = (F.col("run_id") == run_id) & (F.col("iteration") == iteration) & F.col("final")
    now = {row.doc_id: row for row in job.tables.read(EXTRACTIONS).where(own).drop("pairs").collect()}
    mended = [
        row.doc_id
        for row in before
        if now[row.doc_id].unserved < row.unserved and now[row.doc_id].num_pairs >= row.num_pairs
    ]
    if others := sorted(now.keys() - set(mended)):
        frame = job.spark.createDataFrame([(doc_id,) for doc_id in others], f"{DOC_ID} string")
        where = f"target.run_id = '{run_id}' AND target.iteration = {iteration} AND target.doc_id = source.doc_id"
        job.tables.update(EXTRACTIONS, frame, where, {"final": "false"})
    return mended

"""Dead letters: documents that the endpoint failed are asked about again, as one more iteration of their run.

They were counted when they were read first, so they cost no document of the budget, only tokens and money.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
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

    Their new outcome takes the place of the old one, whose row stays with `final` false, and their new pairs that of
    the old ones. One that fails again does not stop the others, however large the share.

    Raises:
        BudgetError: too little of the budget of tokens or money is left.
        EndpointError: the endpoint cannot serve; what was paid for is kept.
    """
    opened = open_run(job)
    failed = committed(job.tables, EXTRACTIONS, opened.run.run_id).where(F.col("final"))
    failed = failed.where(F.col("unserved") > 0).select(DOC_ID, "arm_id").orderBy(DOC_ID)
    rows = failed.collect()
    if not rows:
        log.info("extract: no document of run %s failed, nothing to ask again", opened.run.run_id)
        if job.marks.finished(job.stage):
            return Outcome(opened.state.spent.documents, len(opened.state.pairs.pair_ids), unchanged=True)
    else:
        _ask_again(job, opened, [tuple(row) for row in rows])
    return run_to_budget(job)


def _ask_again(job: Job, opened: Opened, failed: list[tuple[str, int]]) -> None:
    state, limits, started = opened.state, opened.limits, datetime.now(timezone.utc)
    left = limits.left(state.spent)
    if short := left.short_of(state.need):
        raise BudgetError(
            f"budget.{short}: is {getattr(limits, short):g}, of which too little is left to ask again about "
            f"{len(failed)} documents that failed; raise it"
        )
    asked = failed[: int(min(len(failed), limits.covered(state.spent, state.need)))]
    documents = job.spark.createDataFrame(asked, f"{DOC_ID} string, arm_id int")
    bar = tqdm(total=len(asked), desc="asked again", unit="doc", leave=False, dynamic_ncols=True)
    number, share = state.next_iteration, left.share(len(asked))
    with bar, reading_progress(bar, opened.reading.spool(number).count):
        extracted = opened.reading.read(number, documents, share, max_failed_share=1.0)
        opened.reading.keep(number)
    again = np.isin(state.pairs.doc_ids, [doc_id for doc_id, _ in asked])
    old, new = set(state.pairs.pair_ids[again]), set(extracted.pairs.pair_ids)
    if old != new:  # before the commit: a kill between the two costs a stage that is run once more
        names = ", ".join(f"'{stage}'" for stage in _AFTER)
        job.tables.delete(STAGES, f"run_id = '{opened.run.run_id}' AND stage IN ({names})")

    state = replace(state, pairs=state.pairs.where(~again))
    none_new = replace(extracted, documents=dict.fromkeys(extracted.documents, 0), replaced=len(old))
    flight = Flight(number, (), {}, share, warming_up(state, opened.policy))
    _, iteration = settle(state, flight, none_new, opened.policy, limits, opened.reading.score)
    flops = flops_of(job.config, iteration)
    record_iteration(job.tables, opened.run, iteration, started, flops, billed_from=started)
    settle_retries(job.tables, opened.run.run_id)
    outcomes = ", ".join(f"{status} {count}" for status, count in Counter(extracted.outcomes).most_common())
    log.info(
        "extract: asked again about %d of %d documents that had failed: %s; %d new pairs",
        len(asked), len(failed), outcomes, len(new - old),
    )  # fmt: skip

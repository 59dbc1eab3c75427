"""What a run will take, told before it is started: from the corpus, and from a few documents that the model has read.

Those are what the warm-up reads first, so their replies are kept and not paid for again; once the warm-up has read
them, an estimate asks nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from equal.config import RunConfig
from equal.core.chat import UNSERVED
from equal.core.costs import inference_flops, money
from equal.core.estimate import CONFIDENCE, Foreseen, Range, busy_seconds, foresee
from equal.errors import EndpointError
from equal.extraction import Extraction
from equal.history import discard_uncommitted
from equal.io.bill import settle_bills
from equal.io.lock import run_lock
from equal.io.marks import Marks
from equal.io.session import open_session
from equal.io.stage import Job
from equal.io.tables import Tables
from equal.schemas import COSTS, DOC_ID, DOCUMENTS, ESTIMATES, EXTRACTIONS, REMOVALS, REPLIES
from equal.state import Extracted, Spent
from equal.transforms.documents import kept_documents
from equal.transforms.sampling import first_documents, hash_order

log = logging.getLogger("equal")

#: documents that are read where the warm-up has read none
_PROBED = 8
#: with fewer there is no interval
_FEWEST = 2


def estimate_run(config: RunConfig) -> dict[str, Foreseen]:
    """Foresee warm-up and extraction by stage, and keep it in table estimates.

    Raises:
        TableError: the corpus is not ready: decontaminate has not finished with this configuration.
        EndpointError: the endpoint cannot serve, or answered about too few of the documents.
    """
    spark = open_session(config.spark.partitions, with_models=True)
    tables = Tables(spark, config.storage.root, config.storage.schema)
    marks = Marks.read(tables, config)
    marks.require_upstream("warm_up")
    job = Job(config, spark, tables, "warm_up", marks.expected_hash("warm_up"), marks)
    documents = kept_documents(tables.read(DOCUMENTS), tables.read(REMOVALS)).select(DOC_ID, "text").cache()
    num_docs = documents.count()
    in_warm_up = round(config.warm_up.fraction * num_docs) if config.warm_up.enabled else 0
    in_sample = in_warm_up if marks.finished("warm_up") and in_warm_up >= _FEWEST else _PROBED
    wanted = config.document_budget(num_docs) or num_docs
    sample = _sample(job, documents, max(min(in_sample, _PROBED, wanted), _FEWEST))
    documents.unpersist()
    budgets = {"tokens": config.budget.tokens, "money": config.budget.money}
    stages = {} if marks.finished("warm_up") else {"warm_up": foresee(sample, min(in_warm_up, wanted), budgets)}
    stages["extract"] = foresee(sample, wanted, budgets, stored=in_warm_up)  # the warm-up's documents are among them
    _keep(job, stages, len(sample["calls"]))
    return stages


def _sample(job: Job, documents: DataFrame, count: int) -> dict[str, list[float]]:
    """What each document that the warm-up has read took, or the first ones where it has read none."""
    rows = _read_rows(job.tables, f"warm_up-{job.input_hash}")
    if len({row.doc_id for row in rows}) < count:
        probe = f"probe-{job.input_hash}"
        with run_lock(job.config.storage.root, job.owner):
            discard_uncommitted(job.tables, probe, 0)
            settle_bills(job.tables, job.config, [job.owner])  # of an estimate that was killed
            reading = Extraction(job, probe, job.config.encoder.model)
            first = first_documents(documents, key=hash_order(job.config.seed), start=0, stop=count)
            share, started = reading.limits.left(Spent()).share(count), datetime.now(timezone.utc)
            paid = reading.read(0, first.select(DOC_ID, F.lit(None).cast("int").alias("arm_id")), share)
            reading.keep(0)
            _enter(job, paid, started)
        log.info(
            "estimate: asked about %d documents, %d calls, %s tokens; the warm-up will not ask about them again",
            count, paid.calls, f"{paid.paid_prompt_tokens + paid.paid_completion_tokens:,}",
        )  # fmt: skip
        rows = _read_rows(job.tables, probe)
    served = {row.doc_id for row in rows if row.final and row.status not in UNSERVED}
    if len(served) < _FEWEST:
        raise EndpointError(
            f"estimate: the endpoint answered about {len(served)} documents, at least {_FEWEST} are needed; "
            "what it said of the others stands in table extractions"
        )
    return _taken(job, [row for row in rows if row.doc_id in served])


def _enter(job: Job, paid: Extracted, started: datetime) -> None:
    """The probe in the ledger: the warm-up will find its replies in the store."""
    now = datetime.now(timezone.utc)
    tokens = paid.paid_prompt_tokens + paid.paid_completion_tokens
    row = {
        "run_id": job.owner, "stage": "estimate", "iteration": 0, "documents": sum(paid.documents.values()),
        "calls": paid.calls, "cached_calls": paid.cached_calls, "prompt_tokens": paid.paid_prompt_tokens,
        "cached_tokens": paid.paid_cached_tokens, "completion_tokens": paid.paid_completion_tokens,
        "seconds": (now - started).total_seconds(), "money": paid.paid_money, "recorded_at": now,
        "flops": inference_flops(job.config.endpoint.model_parameters, tokens, paid.paid_cached_tokens),
    }  # fmt: skip
    job.tables.append(COSTS, job.tables.rows(COSTS, [row]))


def _read_rows(tables: Tables, run_id: str) -> list[Row]:
    return tables.read(EXTRACTIONS).where(F.col("run_id") == run_id).drop("pairs").collect()


def _taken(job: Job, rows: Sequence[Row]) -> dict[str, list[float]]:
    """By document: calls, prompt_tokens, completion_tokens, tokens, money, and seconds at the pace of these calls."""
    keys = [key for row in rows for key in row.request_keys if key]
    asked = job.tables.read(REPLIES).where(F.col("request_key").isin(keys))
    ended = asked.select(
        "request_key", F.col("received_at").cast("double").alias("end"), (F.col("latency_ms") / 1000).alias("latency")
    ).collect()
    latency = {reply.request_key: reply.latency for reply in ended}
    at_once = sum(latency.values()) / max(
        busy_seconds([r.end - r.latency for r in ended], [r.end for r in ended]), 1e-9
    )
    prices = job.config.budget.prompt_price, job.config.budget.completion_price
    by_document: dict[str, dict[str, float]] = {}
    for row in rows:
        found = by_document.setdefault(row.doc_id, dict.fromkeys(MEASURES, 0.0))
        found["calls"] += row.calls + row.cached_calls
        found["prompt_tokens"] += row.prompt_tokens
        found["completion_tokens"] += row.completion_tokens
        found["tokens"] += row.prompt_tokens + row.completion_tokens
        found["money"] += money(row.prompt_tokens, row.completion_tokens, *prices)
        found["seconds"] += sum(latency.get(key, 0.0) for key in row.request_keys if key) / max(at_once, 1.0)
    return {name: [found[name] for found in by_document.values()] for name in MEASURES}


#: what is counted of a document
MEASURES = ("calls", "prompt_tokens", "completion_tokens", "tokens", "money", "seconds")


def _keep(job: Job, stages: Mapping[str, Foreseen], num_read: int) -> None:
    now = datetime.now(timezone.utc)
    rows: list[dict[str, Any]] = [
        {
            "run_id": job.config.run_name, "stage": stage, "measure": name, "low": found.low, "value": found.value,
            "high": found.high, "ends_by": foreseen.ends_by, "sample": num_read, "estimated_at": now,
        }
        for stage, foreseen in stages.items()
        for name, found in {"documents": foreseen.documents, **foreseen.amounts}.items()
    ]  # fmt: skip
    where = " OR ".join(f"(run_id = '{job.config.run_name}' AND stage = '{stage}')" for stage in stages)
    job.tables.replace(ESTIMATES, job.tables.rows(ESTIMATES, rows), where)


def told(stages: Mapping[str, Foreseen]) -> str:
    """An estimate as lines to print."""
    lines = [
        f"expected, and the range that holds it {CONFIDENCE:.0%} of the time for documents like those read,",
        "a sample of all; those that a strategy prefers may be longer or shorter",
    ]
    for stage, foreseen in stages.items():
        lines += ["", f"{stage.replace('_', ' ')}: until {foreseen.ends_by} end it"]
        shown = {"documents": foreseen.documents, **foreseen.amounts}
        for name in ("documents", *MEASURES):
            if name != "money" or shown[name].high:
                lines.append(f"  {name.replace('_', ' '):18}{_range(shown[name])}")
    lines += ["", "seconds are those of the calls, at the pace of the calls so far; Spark's own come on top"]
    return "\n".join(lines)


def _range(found: Range) -> str:
    digits = 0 if found.value >= 100 or found.low == found.value == found.high else 2
    low, value, high = (f"{number:,.{digits}f}" for number in (found.low, found.value, found.high))
    return f"{value:>14}   ({low} to {high})" if low != high else f"{value:>14}"

"""Sixty documents in three arms on real Delta, and what of a run's tables must not depend on how it went."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from pyspark.sql import functions as F

from equal.config import RunConfig, load
from equal.io.tables import Tables
from equal.schemas import ARM_HISTORY, COSTS, EXTRACTIONS, ITERATIONS, QA_PAIRS, REPLIES

JOB = Path(__file__).resolve().parent.parent / "jobs" / "extract.py"
IN_FLIGHT, BUDGET = 4, 18
TOPICS = (
    "The variance of a random sample measures the spread of its values around the mean",
    "A router forwards packets between networks by looking at the address in each header",
    "Bread dough rises because yeast turns sugar into carbon dioxide in a warm kitchen",
)
GUIDE = {"id": "g", "question": "What does the variance of a random sample measure?", "answer": "The spread."}
EXAM = {
    "id": "e",
    "question": "Two dice are thrown at once; how likely is it that both of them show six?",
    "answer": "1/36",
}
#: when and by how much time a row was written does not count, nor what was paid in vain
COMPARED = {
    ARM_HISTORY: "iteration, arm_id, pulls, documents, pairs, reward, standard_error, ds_score, converged, exhausted",
    QA_PAIRS: "iteration, pair_id, arm_id, doc_id, passage_index, question, answer, embedding",
    ITERATIONS: "iteration, arms, documents, pairs, total_documents, total_tokens, stop_reason",
    COSTS: "iteration, stage, documents, calls + cached_calls",
    EXTRACTIONS: "iteration, arm_id, doc_id, status, num_pairs, prompt_tokens, completion_tokens",
}


def contents(spark, config: RunConfig) -> dict[str, list]:
    tables = Tables(spark, config.storage.root)
    return {
        name: sorted(
            map(
                repr,
                spark.sql(
                    f"SELECT {what} FROM {tables.name(name)} WHERE run_id = 'r' AND iteration IS NOT NULL"
                ).collect(),
            )
        )
        for name, what in COMPARED.items()
    }


def settings_file(config: RunConfig, path: Path) -> Path:
    """Write what differs from base.yml, for a job in a process of its own; JSON is YAML."""
    base, mine = asdict(load()), asdict(config)
    changed = {
        name: value if not isinstance(value, dict) else {k: v for k, v in value.items() if v != base[name][k]}
        for name, value in mine.items()
        if value != base[name]
    }
    path.write_text(json.dumps(changed))
    return path


def unbilled(spark, config: RunConfig) -> dict[str, tuple[int, ...]]:
    """By run, calls and tokens of its replies that no row of the ledger tells, or that it tells too often."""
    tables, tokens = Tables(spark, config.storage.root), ("prompt_tokens", "cached_tokens", "completion_tokens")
    sums = [F.sum(name).alias(name) for name in ("calls", *tokens)]
    paid = tables.read(REPLIES).selectExpr("run_id", "1 AS calls", *tokens)
    billed = tables.read(COSTS).selectExpr("run_id", "-calls AS calls", *[f"-{name} AS {name}" for name in tokens])
    rows = paid.union(billed.fillna(0)).groupBy("run_id").agg(*sums).collect()
    return {row.run_id: tuple(row)[1:] for row in rows if any(tuple(row)[1:])}


def paid(spark, config: RunConfig) -> int:
    return Tables(spark, config.storage.root).read(REPLIES).count()

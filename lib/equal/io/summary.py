"""What a run of EQUAL and its random control did, in few numbers, from the Delta tables alone."""

from __future__ import annotations

import json
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from equal.errors import TableError
from equal.io.stage import UPSTREAM
from equal.io.tables import Tables
from equal.schemas import (
    ASSIGNMENTS,
    COSTS,
    DOCUMENTS,
    EVALUATIONS,
    EXTRACTIONS,
    ITERATIONS,
    QA_PAIRS,
    REMOVALS,
    SELECTED_PAIRS,
    STAGES,
)

#: run_id of the stages that belong to the corpus and serve every run
CORPUS = "corpus"


def summarise(tables: Tables, equal_run: str, random_run: str | None = None) -> dict[str, Any]:
    """The numbers of summary.json.

    Counts, tokens and outcomes are those of `equal_run`; seconds are of the corpus stages and of both runs.
    Calls and tokens are of all replies the run used, whether it paid for them or found them in the store, so that
    they do not depend on which run came first. What was not measured is None.

    Args:
        tables: the history.
        equal_run: run_name of the run.
        random_run: run_name of its control, if there is one.

    Raises:
        TableError: a run has no committed iteration.
    """
    runs = [run for run in (equal_run, random_run) if run]
    for run in runs:
        require_run(tables, run)
    used = spend(tables, equal_run)
    losses = [target_loss(tables, equal_run, "base"), target_loss(tables, equal_run, "tuned")]
    control = target_loss(tables, random_run, "tuned") if random_run else None
    finished = stage_mark(tables, equal_run, "finetune")
    return {
        "documents": tables.read(DOCUMENTS).count(),
        "removed": _counts(tables.read(REMOVALS), "stage"),
        "arms": tables.read(ASSIGNMENTS).select("cluster_id").distinct().count(),
        "iterations": used["iterations"],
        "documents_extracted": sum(used["outcomes"].values()),
        **{name: used[name] for name in ("llm_calls", "prompt_tokens", "completion_tokens", "pairs", "outcomes")},
        "distance": {"equal": distance(tables, equal_run), "random": random_run and distance(tables, random_run)},
        "target_loss": dict(zip(("base", "equal", "random"), [row and row["value"] for row in [*losses, control]])),
        "seconds": _seconds(tables, [CORPUS, *runs]),
        "fingerprint": stage_mark(tables, equal_run, "extract").get("fingerprint"),
        "mlflow_run_id": json.loads(finished.get("details", "{}")).get("mlflow_run_id"),
    }


def spend(tables: Tables, run_id: str) -> dict[str, Any]:
    """What a run's committed iterations used and brought, the warm-up documents included.

    Returns:
        iterations (of the bandit), llm_calls, prompt_tokens, completion_tokens, money, pairs, and outcomes
        (documents by final status).
    """
    iterations = tables.read(ITERATIONS).where(F.col("run_id") == run_id)
    totals = iterations.agg(
        F.sum((F.col("iteration") > 0).cast("int")).alias("iterations"),
        *[F.sum(name).alias(name) for name in ("prompt_tokens", "completion_tokens", "money")],
    ).first()
    extractions = committed(tables, EXTRACTIONS, run_id).groupBy("final", "status")
    rows = extractions.agg(
        F.count("*").alias("documents"), F.sum(F.col("calls") + F.col("cached_calls")).alias("calls")
    ).collect()
    outcomes = {row["status"]: row["documents"] for row in rows if row["final"]}
    return {
        **{name: totals[name] or 0 for name in ("iterations", "prompt_tokens", "completion_tokens", "money")},
        "llm_calls": sum(row["calls"] or 0 for row in rows),
        "pairs": committed(tables, QA_PAIRS, run_id).count(),
        "outcomes": dict(sorted(outcomes.items())),
    }


def require_run(tables: Tables, run_id: str) -> None:
    """Check that a run has something to show.

    Raises:
        TableError: it has no committed iteration; the message names the runs that have.
    """
    runs = sorted(row["run_id"] for row in tables.read(ITERATIONS).select("run_id").distinct().collect())
    if run_id not in runs:
        there = f"runs there: {', '.join(runs)}" if runs else "no run is there"
        raise TableError(
            f"run_name: {run_id} has no committed iteration under {tables.root}; {there}; "
            "give one of them as run_name, or run jobs/extract.py first"
        )


def find_control(tables: Tables, equal_run: str) -> str | None:
    """The newest other run whose documents were chosen at random, if there is one."""
    selected = tables.read(SELECTED_PAIRS).where((F.col("method") == "random") & (F.col("run_id") != equal_run))
    runs = selected.select("run_id").distinct().join(tables.read(ITERATIONS), "run_id")
    newest = runs.groupBy("run_id").agg(F.max("finished_at").alias("at")).orderBy(F.desc("at"), "run_id").first()
    return newest["run_id"] if newest else None


def committed(tables: Tables, table: str, run_id: str) -> DataFrame:
    """The run's rows of `table` that belong to an iteration with a commit mark."""
    marks = tables.read(ITERATIONS).where(F.col("run_id") == run_id).select("run_id", "iteration")
    return tables.read(table).join(marks, ["run_id", "iteration"], "left_semi")


def evaluations(tables: Tables, run_id: str, metric: str) -> dict[str, dict[str, Any]]:
    """What was measured of a run, by what it was measured on (`model`); the newest row of each.

    The distance has the models `pairs` (all of the run's pairs) and, where its course was measured, `pairs:N`
    (the pairs up to iteration N).
    """
    rows = tables.read(EVALUATIONS).where((F.col("run_id") == run_id) & (F.col("metric") == metric))
    return {row["model"]: row.asDict() for row in rows.orderBy("evaluated_at", "benchmark").collect()}


def distance(tables: Tables, run_id: str) -> dict[str, float] | None:
    """Transport distance of the run's pairs to the held-out reference, with its bootstrap interval."""
    row = evaluations(tables, run_id, "transport_distance").get("pairs")
    return row and {name: row[name] for name in ("value", "low", "high")}


def target_loss(tables: Tables, run_id: str, model: str) -> dict[str, Any] | None:
    """The evaluation of `base` or `tuned`: nats per answer token on the held-out items."""
    return evaluations(tables, run_id, "target_loss").get(model)


def stage_mark(tables: Tables, run_id: str, stage: str) -> dict[str, Any]:
    """The newest completion mark of a stage; empty when it has not finished."""
    rows = tables.read(STAGES).where((F.col("run_id") == run_id) & (F.col("stage") == stage))
    newest = rows.orderBy(F.desc("finished_at")).first()
    return newest.asDict() if newest else {}


def _counts(frame: DataFrame, column: str) -> dict[str, int]:
    return {row[column]: row["count"] for row in frame.groupBy(column).count().orderBy(column).collect()}


def _seconds(tables: Tables, runs: list[str]) -> dict[str, float]:
    costs = tables.read(COSTS).where(F.col("run_id").isin(runs))
    spent = {row["stage"]: row["s"] for row in costs.groupBy("stage").agg(F.sum("seconds").alias("s")).collect()}
    return {stage: round(spent[stage], 3) for stage in sorted(spent, key=stage_order)}


def stage_order(stage: str) -> tuple[int, str]:
    """Sort key: the place of a stage in the pipeline; unknown ones last, by name."""
    stages = list(UPSTREAM)
    return (stages.index(stage) if stage in stages else len(stages), stage)

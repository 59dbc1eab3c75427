"""What a run of EQUAL and its random control did, in few numbers, from the Delta tables alone."""

from __future__ import annotations

import json
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from equal.errors import TableError
from equal.io.marks import UPSTREAM
from equal.io.tables import Tables
from equal.schemas import (
    ASSIGNMENTS,
    COSTS,
    DOCUMENTS,
    EVALUATIONS,
    EXTRACTIONS,
    ITERATIONS,
    REMOVALS,
    SELECTED_PAIRS,
    STAGES,
    WITHDRAWN,
)

#: run_id of the stages that belong to the corpus and serve every run
CORPUS = "corpus"
#: stages that remove documents
REMOVING = ("ingest", "quality", "deduplicate", "decontaminate")

Measured = dict[tuple[str, str, str], dict[str, Any]]


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
    named = {"equal": equal_run, "random": random_run}
    runs = [run for run in named.values() if run]
    require_runs(tables, runs)
    used = spend(tables, equal_run)
    measured = evaluations(tables, runs)
    marks = {role: stage_marks(tables, run) if run else {} for role, run in named.items()}
    return {
        "documents": tables.read(DOCUMENTS).count(),
        "removed": dict.fromkeys(REMOVING, 0) | _counts(tables.read(REMOVALS), "stage"),
        "strategy": {role: _told(found, "extract", "strategy") for role, found in marks.items()},
        "arms": clustered(tables, ASSIGNMENTS, equal_run).select("cluster_id").distinct().count(),
        "iterations": used["iterations"],
        "documents_extracted": sum(used["outcomes"].values()),
        **{name: used[name] for name in ("llm_calls", "prompt_tokens", "completion_tokens", "pairs", "outcomes")},
        "distance": {
            role: _interval(measured.get((run or "", "transport_distance", "pairs")))
            for role, run in (("equal", equal_run), ("random", random_run))
        },
        "target_loss": {role: row and row["value"] for role, row in by_model(measured, "target_loss", *runs).items()},
        "seconds": _seconds(tables, [CORPUS, *runs]),
        "fingerprint": marks["equal"].get("extract", {}).get("fingerprint"),
        "mlflow_run_id": mlflow_run(marks["equal"]),
    }


def spend(tables: Tables, run_id: str) -> dict[str, Any]:
    """What a run's committed iterations used and brought, the warm-up documents included.

    Returns:
        iterations (of the bandit), warm_up_iterations, llm_calls, prompt_tokens, completion_tokens, money, pairs, and
        outcomes (documents by final status).
    """
    iterations = tables.read(ITERATIONS).where(F.col("run_id") == run_id)
    totals = iterations.agg(
        F.sum((~F.col("warm_up")).cast("int")).alias("iterations"),
        F.sum(F.col("warm_up").cast("int")).alias("warm_up_iterations"),
        *[F.sum(name).alias(name) for name in ("prompt_tokens", "completion_tokens", "money", "pairs")],
    ).first()
    extractions = committed(tables, EXTRACTIONS, run_id).groupBy("final", "status")
    rows = extractions.agg(
        F.count("*").alias("documents"), F.sum(F.col("calls") + F.col("cached_calls")).alias("calls")
    ).collect()
    outcomes = {row["status"]: row["documents"] for row in rows if row["final"]}
    return {
        **{name: total or 0 for name, total in totals.asDict().items()},
        "llm_calls": sum(row["calls"] or 0 for row in rows),
        "outcomes": dict(sorted(outcomes.items())),
    }


def require_runs(tables: Tables, wanted: list[str]) -> None:
    """Check that runs have something to show.

    Raises:
        TableError: one has no committed iteration; the message names the runs that have.
    """
    runs = sorted(row["run_id"] for row in tables.read(ITERATIONS).select("run_id").distinct().collect())
    missing = [run for run in wanted if run not in runs]
    if missing:
        there = f"runs there: {', '.join(runs)}" if runs else "no run is there"
        raise TableError(
            f"run_name: {missing[0]} has no committed iteration under {tables.root}; {there}; "
            "give one of them as run_name, or run jobs/extract.py first"
        )


def find_control(tables: Tables, equal_run: str) -> str | None:
    """The newest other run that read as many documents of the same clustering, chosen at random; None without one.

    Any other one differs in more than the choice. One clustering means one corpus, one model and one prompt, too.
    """
    ends = tables.read(ITERATIONS).groupBy("run_id", "clustering")
    ends = ends.agg(F.max("total_documents").alias("total_documents"), F.max("finished_at").alias("at"))
    own = ends.where(F.col("run_id") == equal_run).select("clustering", "total_documents")
    others = ends.where(F.col("run_id") != equal_run).join(own, ["clustering", "total_documents"])
    drawn = tables.read(SELECTED_PAIRS).where(F.col("method") == "random")
    newest = others.join(drawn, "run_id", "left_semi").orderBy(F.desc("at"), "run_id").first()
    return newest["run_id"] if newest else None


def committed(tables: Tables, table: str, run_id: str) -> DataFrame:
    """The run's rows of `table` that belong to an iteration with a commit mark."""
    marks = tables.read(ITERATIONS).where(F.col("run_id") == run_id).select("run_id", "iteration")
    return tables.read(table).join(marks, ["run_id", "iteration"], "left_semi")


def clustered(tables: Tables, table: str, run_id: str) -> DataFrame:
    """The rows of `table` (assignments or centroids) of the clustering whose clusters are the run's arms."""
    own = tables.read(ITERATIONS).where(F.col("run_id") == run_id).select("clustering")
    return tables.read(table).join(own, "clustering", "left_semi")


def evaluations(tables: Tables, runs: list[str]) -> Measured:
    """What was measured of each run, by (run_id, metric, model); the newest row of each.

    The transport distance has the models `pairs` (all of the run's pairs) and, where its course was measured,
    `pairs:N` (the pairs up to iteration N); the target loss has `base` and `tuned`; how long and how diverse the
    selected pairs are, `selected`.
    """
    rows = tables.read(EVALUATIONS).where(F.col("run_id").isin(runs)).orderBy("evaluated_at", "benchmark")
    return {(row["run_id"], row["metric"], row["model"]): row.asDict() for row in rows.collect()}


def by_model(
    measured: Measured, metric: str, equal_run: str, random_run: str | None = None
) -> dict[str, dict[str, Any] | None]:
    """The evaluations of the base model and of both tuned ones on the held-out items.

    Args:
        measured: of both runs.
        metric: target_loss (nats per answer token) or exact_match (share of the checkable items).
        equal_run: the run; its row of the base model counts.
        random_run: the control.
    """
    wanted = {"base": (equal_run, "base"), "equal": (equal_run, "tuned"), "random": (random_run, "tuned")}
    return {role: measured.get((run or "", metric, model)) for role, (run, model) in wanted.items()}


def stage_marks(tables: Tables, run_id: str) -> dict[str, dict[str, Any]]:
    """The newest completion mark of each finished stage of a run."""
    rows = tables.read(STAGES).where(F.col("run_id") == run_id).orderBy("finished_at")
    return {row["stage"]: row.asDict() for row in rows.collect()}


def mlflow_run(marks: dict[str, dict[str, Any]]) -> str | None:
    """The MLflow run that the fine-tuning stage reported."""
    return _told(marks, "finetune", "mlflow_run_id")


def _told(marks: dict[str, dict[str, Any]], stage: str, name: str) -> str | None:
    """What a stage reported about itself; None where it did not, or has not finished."""
    found: str | None = json.loads(marks.get(stage, {}).get("details", "{}")).get(name)
    return found


def _interval(row: dict[str, Any] | None) -> dict[str, float] | None:
    return row and {name: row[name] for name in ("value", "low", "high")}


def _counts(frame: DataFrame, column: str) -> dict[str, int]:
    return {row[column]: row["count"] for row in frame.groupBy(column).count().orderBy(column).collect()}


def _seconds(tables: Tables, runs: list[str]) -> dict[str, float]:
    costs = tables.read(COSTS).where(F.col("run_id").isin(runs))
    spent = {row["stage"]: row["s"] for row in costs.groupBy("stage").agg(F.sum("seconds").alias("s")).collect()}
    return {stage: round(spent[stage], 3) for stage in sorted(spent, key=stage_order)}


def stage_order(stage: str) -> tuple[int, str]:
    """Sort key: the place of a stage in the pipeline; unknown ones last, by name."""
    stages = ["ingest", WITHDRAWN, *UPSTREAM]
    return (stages.index(stage) if stage in stages else len(stages), stage)

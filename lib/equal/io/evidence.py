"""What the sections of the report show, read from the Delta tables into plain rows."""

from __future__ import annotations

import json
import os
import re
import textwrap
from datetime import datetime
from typing import Any

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from equal.core.qa import find_passage
from equal.io.figures import plane
from equal.io.session import on_databricks
from equal.io.summary import CORPUS, Measured, clustered, committed, mlflow_run, stage_marks, stage_order
from equal.io.tables import Tables
from equal.schemas import (
    ARM_HISTORY,
    ASSIGNMENTS,
    CENTROIDS,
    COSTS,
    DOCUMENTS,
    ESTIMATES,
    EXTRACTIONS,
    ITERATIONS,
    QA_PAIRS,
    REMOVALS,
    REPLIES,
    SELECTED_PAIRS,
)

Record = dict[str, Any]

#: longest excerpt of a source document that is printed
PASSAGE_CHARS = 3000


def removals(tables: Tables) -> list[Record]:
    """Documents dropped, by stage and reason, in the order of the stages."""
    counts = tables.read(REMOVALS).groupBy("stage", "reason").agg(F.count("*").alias("documents"))
    return sorted(_records(counts), key=lambda row: (stage_order(row["stage"]), -row["documents"], row["reason"]))


def arms(tables: Tables, run_id: str, history: list[Record]) -> tuple[list[Record], float]:
    """Every arm with its place on the map and what a run knows of it.

    Args:
        tables: the history.
        run_id: the run.
        history: its rows as `arm_history` returns them.

    Returns:
        arms (arm_id, x, y, size, read, pulls, pairs, reward, standard_error, label), those most read first, and
        the share of the centroids' variance that the plane holds.
    """
    centroids = _records(clustered(tables, CENTROIDS, run_id).orderBy("cluster_id"))
    if not centroids:
        return [], 1.0
    points, share = plane(np.array([row["centroid"] for row in centroids], dtype=np.float64))
    newest = {row["arm_id"]: row for row in history}
    labels = _labels(clustered(tables, ASSIGNMENTS, run_id), tables.read(DOCUMENTS))
    found = []
    for row, (x, y) in zip(centroids, points):
        known = newest.get(row["cluster_id"], {})
        found.append({
            "arm_id": row["cluster_id"], "x": float(x), "y": float(y), "size": row["num_documents"],
            "read": known.get("documents", 0), "pulls": known.get("pulls", 0), "pairs": known.get("pairs", 0),
            "reward": known.get("reward"), "standard_error": known.get("standard_error"),
            "label": labels.get(row["cluster_id"], ""),
        })  # fmt: skip
    return sorted(found, key=lambda arm: (-arm["read"], arm["arm_id"])), share


def _labels(assignments: DataFrame, documents: DataFrame) -> dict[int, str]:
    """The beginning of the document nearest to each centroid: what an arm is about."""
    nearest = assignments.groupBy("cluster_id").agg(F.min(F.struct("distance", "doc_id")).alias("nearest"))
    texts = documents.select("doc_id", F.substring("text", 1, 400).alias("text"))
    joined = nearest.select("cluster_id", "nearest.doc_id").join(texts, "doc_id")
    return {row["cluster_id"]: textwrap.shorten(row["text"], 100, placeholder=" …") for row in joined.collect()}


def arm_history(tables: Tables, run_id: str) -> list[Record]:
    """The run's committed arm rows, oldest first."""
    return _records(committed(tables, ARM_HISTORY, run_id).orderBy("iteration", "arm_id"))


def distance_course(tables: Tables, measured: Measured, run_id: str) -> list[Record]:
    """Distance to the held-out reference against documents read: documents, value, low, high.

    A point wherever the evaluation measured the course, else the final one alone.
    """
    marks = tables.read(ITERATIONS).where(F.col("run_id") == run_id).orderBy("iteration")
    read = {row["iteration"]: row["total_documents"] for row in marks.collect()}
    course = {n: measured.get((run_id, "transport_distance", f"pairs:{n}")) for n in read}
    if not any(course.values()):
        course = {max(read): measured.get((run_id, "transport_distance", "pairs"))}
    return [
        {"documents": read[n], **{k: row[k] for k in ("value", "low", "high")}} for n, row in course.items() if row
    ]


def ledger(tables: Tables, runs: list[str]) -> list[Record]:
    """The cost rows by run and stage, iterations summed, in the order of the stages."""
    tokens = ("prompt_tokens", "cached_tokens", "completion_tokens")
    names = ("documents", "calls", "cached_calls", *tokens, "seconds", "flops", "money")
    costs = tables.read(COSTS).where(F.col("run_id").isin([CORPUS, *runs])).groupBy("run_id", "stage")
    summed = costs.agg(*[F.sum(name).alias(name) for name in names])
    order = {run: place for place, run in enumerate([CORPUS, *runs])}
    return sorted(_records(summed), key=lambda row: (order[row["run_id"]], stage_order(row["stage"])))


def foreseen(tables: Tables, run_id: str, ledger_rows: list[Record]) -> list[Record]:
    """What was estimated for the run, beside what the ledger says it took: stage, measure, low, high, actual."""
    rows = _records(tables.read(ESTIMATES).where(F.col("run_id") == run_id))
    took = {row["stage"]: row for row in ledger_rows if row["run_id"] == run_id}
    took |= _warm_up_after(tables, next((row["estimated_at"] for row in rows if row["stage"] == "warm_up"), None))
    for row in rows:
        stage = took.get(row["stage"], {})
        row["actual"] = (
            stage["prompt_tokens"] + stage["completion_tokens"]
            if stage and row["measure"] == "tokens"
            else stage.get(row["measure"])
        )
    order = ("documents", "calls", "prompt_tokens", "completion_tokens", "tokens", "money", "seconds")
    return sorted(rows, key=lambda row: (stage_order(row["stage"]), order.index(row["measure"])))


def _warm_up_after(tables: Tables, moment: datetime | None) -> dict[str, Record]:
    """What the warm-up took that ended first after a moment; the ledger's sum is that of all configurations.

    With what was paid in vain on the way there: by one that was killed or refused.
    """
    if moment is None:
        return {}
    entered = tables.read(COSTS).where((F.col("run_id") == CORPUS) & (F.col("stage") == "warm_up"))
    rows = _records(entered.where(F.col("recorded_at") >= moment).orderBy("recorded_at"))
    end = next((place for place, row in enumerate(rows, start=1) if row["documents"]), 0)
    sums = ("documents", "calls", "prompt_tokens", "completion_tokens", "money", "seconds")
    return {"warm_up": {name: sum(row[name] for row in rows[:end]) for name in sums}} if end else {}


def rejections(tables: Tables, run_id: str) -> dict[str, int]:
    """Pairs that did not count, by reason."""
    pairs = committed(tables, EXTRACTIONS, run_id).where("final").select(F.explode("pairs").alias("pair"))
    counts = pairs.where("NOT pair.accepted").groupBy(F.col("pair.reason").alias("reason")).count()
    return {row["reason"]: row["count"] for row in counts.orderBy("reason").collect()}


def examples(tables: Tables, run_id: str, count: int) -> list[Record]:
    """Selected pairs, evenly spaced over the ranks, with their source document cut around what was read.

    Returns:
        rank, score, arm_id, question, answer, source_id, source_file, num_chars, and the excerpt as `before`,
        `found` and `after`; `found` is the answer where it stands verbatim in the passage of the pair.
    """
    selected = tables.read(SELECTED_PAIRS).where(F.col("run_id") == run_id)
    ranks = [row["rank"] for row in selected.select("rank").orderBy("rank").collect()]
    chosen = sorted({ranks[round(i)] for i in np.linspace(0, len(ranks) - 1, count)}) if ranks else []
    documents = tables.read(DOCUMENTS).select("doc_id", "source_id", "source_file", "num_chars", "text")
    rows = _records(selected.where(F.col("rank").isin(chosen)).join(documents, "doc_id").orderBy("rank"))
    turns = _turns(tables, run_id, [row["pair_id"] for row in rows])
    passages = [find_passage(row["text"], turns.get(row["pair_id"], "")) for row in rows]
    return [
        {**row, **excerpt(row["text"], passage, row["answer"], PASSAGE_CHARS)} for row, passage in zip(rows, passages)
    ]


def _turns(tables: Tables, run_id: str, pair_ids: list[str]) -> dict[str, str]:
    """The user turn in which the model read the passage of each pair, where its reply was kept."""
    pairs = committed(tables, QA_PAIRS, run_id).where(F.col("pair_id").isin(pair_ids))
    read = committed(tables, EXTRACTIONS, run_id).where(F.col("pass") == "extract")
    read = read.select("iteration", "doc_id", "request_keys")
    asked = pairs.join(read, ["iteration", "doc_id"]).select(
        "pair_id", F.get("request_keys", "passage_index").alias("request_key")
    )
    found = tables.read(REPLIES).join(F.broadcast(asked), "request_key").select("pair_id", "messages")
    return {row["pair_id"]: json.loads(row["messages"])[-1]["content"] for row in found.collect()}


def excerpt(text: str, passage: tuple[int, int] | None, answer: str, max_chars: int) -> dict[str, str]:
    """Cut a document to about `max_chars` around the answer, or around the passage where that has it in other words.

    Args:
        text: the document.
        passage: where the passage stands in it; None for all of it.
        answer: is looked for in the passage; whitespace may differ.
        max_chars: of the excerpt.

    >>> excerpt("One two.  Three four.", None, "two. Three", 100)
    {'before': 'One ', 'found': 'two.  Three', 'after': ' four.'}
    """
    begin, end = passage or (0, len(text))
    words = re.compile(r"\s+".join(map(re.escape, answer.split())))
    match = words.search(text, begin, end) if words.pattern else None
    start, stop = match.span() if match else (begin, min(end, begin + max_chars))
    margin = max((max_chars - (stop - start)) // 2, 0)
    first, last = max(start - margin, 0), min(stop + margin, len(text))
    found = text[start:stop] if match else ""
    before = ("… " if first else "") + text[first:start]
    after = text[start + len(found) : last] + (" …" if last < len(text) else "")
    return {"before": before, "found": found, "after": after}


def loss_curve(tables: Tables, run_id: str) -> list[tuple[int, float]]:
    """Training loss by optimiser step, from the MLflow run that the fine-tuning stage names; empty when there is none.

    MLflow is looked for in storage.root/mlflow.db, else where the process tracks.
    """
    run = mlflow_run(stage_marks(tables, run_id))
    if not run:
        return []
    database = os.path.join(os.path.abspath(tables.root), "mlflow.db")
    if not (os.path.exists(database) or mlflow.is_tracking_uri_set() or on_databricks()):
        return []  # asking MLflow would create an empty store in the working directory
    client = MlflowClient(f"sqlite:///{database}") if os.path.exists(database) else MlflowClient()
    try:
        history = client.get_metric_history(run, "loss")
    except MlflowException:
        return []
    return sorted({metric.step: metric.value for metric in history}.items())


def _records(frame: DataFrame) -> list[Record]:
    return [row.asDict() for row in frame.collect()]

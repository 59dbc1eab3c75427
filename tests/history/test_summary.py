"""summary.json is a function of the tables, its parts add up, and what is missing is None, not zero."""

from __future__ import annotations

import json
from datetime import datetime
from functools import reduce

import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from equal.errors import TableError
from equal.io.summary import find_control, summarise
from equal.schemas import ITERATIONS as ITERATIONS_TABLE
from equal.schemas import SCHEMAS, SELECTED_PAIRS
from filled_tables import (
    DOCS_PER_ITERATION,
    EQUAL_RUN,
    FINGERPRINT,
    ITERATIONS,
    NUM_ARMS,
    RANDOM_RUN,
)

KEYS = {
    "documents", "removed", "strategy", "arms", "iterations", "documents_extracted", "llm_calls", "prompt_tokens",
    "completion_tokens", "pairs", "outcomes", "distance", "target_loss", "seconds", "fingerprint", "mlflow_run_id",
}  # fmt: skip


@pytest.fixture(scope="module")
def summary(spark, history_root):
    from equal.io.tables import Tables

    return summarise(Tables(spark, history_root), EQUAL_RUN, RANDOM_RUN)


def test_every_table_of_the_schema_is_filled(history):
    sizes = [history.read(name).select(F.lit(name).alias("table")).limit(1) for name in SCHEMAS]
    assert {row["table"] for row in reduce(DataFrame.union, sizes).collect()} == set(SCHEMAS)


def test_it_has_exactly_the_promised_keys_and_is_json(summary):
    assert set(summary) == KEYS
    assert json.loads(json.dumps(summary)) == summary


def test_the_parts_add_up(summary):
    extracted = DOCS_PER_ITERATION * (ITERATIONS + 1)
    assert summary["documents_extracted"] == sum(summary["outcomes"].values()) == extracted
    assert summary["llm_calls"] == extracted
    assert summary["prompt_tokens"] == 600 * extracted
    assert summary["removed"] == {"ingest": 10, "withdrawn": 1, "quality": 0, "deduplicate": 9, "decontaminate": 2}
    assert summary["strategy"] == {"equal": "equal", "random": "random"}
    assert summary["arms"] == NUM_ARMS
    assert summary["iterations"] == ITERATIONS


def test_an_iteration_without_its_commit_mark_did_not_happen(summary, history):
    everything = history.read("extractions").where(f"run_id = '{EQUAL_RUN}'").count()
    assert everything == summary["documents_extracted"] + DOCS_PER_ITERATION
    assert 0 < summary["pairs"] < history.read("qa_pairs").where(f"run_id = '{EQUAL_RUN}'").count()


def test_the_comparison_is_that_of_the_final_pairs(summary):
    assert summary["distance"]["equal"] == pytest.approx({"value": 0.21, "low": 0.19, "high": 0.23})
    assert summary["distance"]["random"]["value"] == pytest.approx(0.39)
    assert summary["target_loss"] == pytest.approx({"base": 2.71, "equal": 2.41, "random": 2.52})
    assert summary["fingerprint"] == FINGERPRINT
    assert len(summary["mlflow_run_id"]) == 32


def test_seconds_stand_in_the_order_of_the_stages_and_cover_both_runs(summary):
    assert summary["seconds"]["embed"] == 12.5
    assert summary["seconds"]["extract"] == 12.5 * 2 * (ITERATIONS + 1)
    assert set(summary["seconds"]) >= {"ingest", "warm_up", "cluster", "select", "finetune", "evaluate"}


def test_the_control_is_found_by_how_its_documents_were_chosen(history):
    assert find_control(history, EQUAL_RUN) == RANDOM_RUN
    assert find_control(history, RANDOM_RUN) is None


def test_a_control_read_as_many_documents_of_the_same_clusters(tables):
    """Of each run: how it chose, its clustering, documents read, day of its end."""
    runs = {
        "own": ("equal", "c", 20, 1), "first": ("random", "c", 20, 2), "second": ("random", "c", 20, 3),
        "longer": ("random", "c", 30, 4), "elsewhere": ("random", "d", 20, 5), "sibling": ("equal", "c", 20, 6),
    }  # fmt: skip
    marks = [
        {"run_id": run, "iteration": n, "clustering": clustering, "total_documents": documents * n // 2,
         "finished_at": datetime(2026, 11, day, n)}
        for run, (_, clustering, documents, day) in runs.items() for n in (1, 2)
    ]  # fmt: skip
    tables.append(ITERATIONS_TABLE, tables.rows(ITERATIONS_TABLE, marks))
    selected = [{"run_id": run, "method": method} for run, (method, *_) in runs.items()]
    tables.append(SELECTED_PAIRS, tables.rows(SELECTED_PAIRS, selected))
    found = {run: find_control(tables, run) for run in runs}
    assert found == {
        "own": "second", "sibling": "second", "first": "second", "second": "first", "longer": None, "elsewhere": None
    }  # fmt: skip


def test_without_control_and_evaluation_there_are_gaps_not_zeros(tables):
    mark = {
        "run_id": "alone",
        "iteration": 1,
        "warm_up": False,
        "documents": 0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
    }
    tables.append(ITERATIONS_TABLE, tables.rows(ITERATIONS_TABLE, [mark]))
    summary = summarise(tables, "alone")
    assert summary["distance"] == {"equal": None, "random": None}
    assert set(summary["target_loss"].values()) == {None}
    assert summary["mlflow_run_id"] is None


def test_an_unknown_run_is_an_error_that_names_the_known_ones(history):
    with pytest.raises(TableError, match=f"no-such-run.*{EQUAL_RUN}, {RANDOM_RUN}"):
        summarise(history, "no-such-run")

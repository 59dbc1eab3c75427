"""Delta for real: writes are atomic, replaceable and readable at an earlier version."""

from __future__ import annotations

import pytest
from pyspark.sql import functions as F

from equal.errors import TableError
from equal.schemas import REMOVALS


def _removal(doc_id: str, stage: str) -> dict[str, object]:
    return {"doc_id": doc_id, "stage": stage, "reason": "blank", "evidence": "{}"}


def test_replace_rewrites_only_the_rows_of_its_stage(tables):
    tables.append(REMOVALS, tables.rows(REMOVALS, [_removal("a", "ingest"), _removal("b", "deduplicate")]))
    tables.replace(REMOVALS, tables.rows(REMOVALS, [_removal("c", "deduplicate")]), "stage = 'deduplicate'")
    kept = {(r.doc_id, r.stage) for r in tables.read(REMOVALS).collect()}
    assert kept == {("a", "ingest"), ("c", "deduplicate")}


def test_an_earlier_version_stays_readable(tables):
    tables.append(REMOVALS, tables.rows(REMOVALS, [_removal("a", "ingest")]))
    version = tables.version(REMOVALS)
    tables.append(REMOVALS, tables.rows(REMOVALS, [_removal("b", "ingest")]))
    assert tables.read(REMOVALS, version).count() == 1
    assert tables.read(REMOVALS).count() == 2


def test_a_row_outside_the_replaced_range_fails_and_leaves_the_table_as_it_was(tables):
    with pytest.raises(TableError, match="removals"):
        tables.replace(REMOVALS, tables.rows(REMOVALS, [_removal("a", "ingest")]), "stage = 'deduplicate'")
    assert tables.read(REMOVALS).count() == 0


def test_a_failed_write_says_which_table_and_commits_nothing(tables):
    poisoned = tables.rows(REMOVALS, [_removal("a", "ingest")]).withColumn("reason", F.expr("raise_error('boom')"))
    with pytest.raises(TableError, match="removals"):
        tables.append(REMOVALS, poisoned)
    assert tables.read(REMOVALS).count() == 0

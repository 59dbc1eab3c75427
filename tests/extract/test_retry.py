"""Documents that the endpoint failed are asked about again, and the run is as if it never had."""

from __future__ import annotations

import pytest

from equal.io.stage import run_stage
from equal.io.tables import Tables
from equal.jobs.pipeline import RUN
from equal.retry import retry_failed
from equal.schemas import ARM_HISTORY, EXTRACTIONS, ITERATIONS, QA_PAIRS, REPLIES
from extract_world import BUDGET

LOST = 3


def outcomes(tables: Tables) -> dict[str, tuple]:
    rows = tables.read(EXTRACTIONS).where("run_id = 'r' AND final").collect()
    assert len(rows) == BUDGET
    return {row.doc_id: (row.arm_id, row.status, row.num_pairs) for row in rows}


def pairs(tables: Tables) -> dict[str, tuple]:
    rows = tables.read(QA_PAIRS).where("run_id = 'r'").collect()
    return {row.pair_id: (row.arm_id, row.doc_id, row.question, row.answer, row.embedding) for row in rows}


def last_rewards(tables: Tables) -> dict[int, tuple]:
    rows = tables.read(ARM_HISTORY).where("run_id = 'r'").orderBy("iteration").collect()
    return {row.arm_id: (row.pulls, row.documents, row.pairs, row.reward) for row in rows}


def fail(spark, tables: Tables) -> list[str]:
    """Make it that some documents had failed: outcome, pairs and replies of a server that was not there."""
    rows = tables.read(EXTRACTIONS).where("run_id = 'r' AND final AND num_pairs > 0").orderBy("doc_id").limit(LOST)
    lost = rows.collect()
    documents = ", ".join(f"'{row.doc_id}'" for row in lost)
    keys = ", ".join(f"'{key}'" for row in lost for key in row.request_keys)
    spark.sql(
        f"UPDATE {tables.name(EXTRACTIONS)} SET status = 'failed', num_pairs = 0, pairs = filter(pairs, p -> false) "
        f"WHERE run_id = 'r' AND doc_id IN ({documents})"
    )
    tables.delete(QA_PAIRS, f"doc_id IN ({documents})")
    tables.delete(REPLIES, f"request_key IN ({keys})")
    return [row.doc_id for row in lost]


def test_the_failed_are_asked_again_as_one_more_iteration_and_a_kill_after_its_commit_is_settled(
    spark, finished, server, caplog, monkeypatch
):
    tables = Tables(spark, finished.storage.root)
    before = (outcomes(tables), pairs(tables), last_rewards(tables))
    iterations = tables.read(ITERATIONS).where("run_id = 'r'").orderBy("iteration").collect()
    lost = fail(spark, tables)
    assert {outcomes(tables)[doc_id][1] for doc_id in lost} == {"failed"}
    server.bodies.clear()

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("equal.retry.settle_retries", die)
        with pytest.raises(KeyboardInterrupt):
            run_stage(finished, "extract", retry_failed, even_finished=True)
    assert len(server.bodies) == LOST
    with caplog.at_level("INFO", logger="equal"):
        run_stage(finished, "extract", retry_failed, even_finished=True)
    assert "no document of run r failed, nothing to ask again" in caplog.text
    assert len(server.bodies) == LOST
    assert (outcomes(tables), pairs(tables), last_rewards(tables)) == before
    after = tables.read(ITERATIONS).where("run_id = 'r'").orderBy("iteration").collect()
    assert after[:-1] == iterations
    assert (after[-1].documents, after[-1].total_documents) == (0, iterations[-1].total_documents)
    assert after[-1].total_tokens > iterations[-1].total_tokens
    kept = tables.read(EXTRACTIONS).where("run_id = 'r' AND status = 'failed' AND NOT final")
    assert sorted(row.doc_id for row in kept.collect()) == lost
    version = tables.version(EXTRACTIONS)
    run_stage(finished, "extract", RUN["extract"])
    assert tables.version(EXTRACTIONS) == version

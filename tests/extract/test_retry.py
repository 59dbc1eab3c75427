"""Documents that the endpoint failed are asked about again, and the run is as if it never had."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chat_server import always
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
    assert len({row.pair_id for row in rows}) == len(rows), "of a document that was read twice the pairs stand once"
    return {row.pair_id: (row.arm_id, row.doc_id, row.question, row.answer, row.embedding) for row in rows}


def last_rewards(tables: Tables) -> dict[int, tuple]:
    rows = tables.read(ARM_HISTORY).where("run_id = 'r'").orderBy("iteration").collect()
    return {row.arm_id: (row.pulls, row.documents, row.pairs, row.reward) for row in rows}


def fail(spark, tables: Tables) -> list[str]:
    """Make it that some documents had failed: outcome, pairs and replies of a server that was not there.

    Of one more a request failed beside that which gave its pairs.
    """
    rows = tables.read(EXTRACTIONS).where("run_id = 'r' AND final AND num_pairs > 0").orderBy("doc_id").limit(LOST + 1)
    *lost, half = rows.collect()
    documents = ", ".join(f"'{row.doc_id}'" for row in lost)
    keys = ", ".join(f"'{key}'" for row in lost for key in row.request_keys)
    spark.sql(
        f"UPDATE {tables.name(EXTRACTIONS)} SET status = 'failed', unserved = 1, num_pairs = 0, "
        f"pairs = filter(pairs, p -> false) WHERE run_id = 'r' AND doc_id IN ({documents})"
    )
    spark.sql(f"UPDATE {tables.name(EXTRACTIONS)} SET unserved = 1 WHERE run_id = 'r' AND doc_id = '{half.doc_id}'")
    tables.delete(QA_PAIRS, f"doc_id IN ({documents})")
    tables.delete(REPLIES, f"request_key IN ({keys})")
    return [row.doc_id for row in lost]


def outcome_rows(tables: Tables, condition: str) -> list[str]:
    rows = tables.read(EXTRACTIONS).where(f"run_id = 'r' AND {condition}").collect()
    return sorted(row.doc_id for row in rows)


def test_the_failed_are_asked_again_as_one_more_iteration_and_a_kill_after_its_commit_is_settled(
    spark, finished, server, caplog, monkeypatch
):
    tables = Tables(spark, finished.storage.root)
    before = (outcomes(tables), pairs(tables), last_rewards(tables))
    iterations = tables.read(ITERATIONS).where("run_id = 'r'").orderBy("iteration").collect()
    lost = fail(spark, tables)
    assert {outcomes(tables)[doc_id][1] for doc_id in lost} == {"failed"}
    new_pairs = before[1].keys() - pairs(tables).keys()
    assert new_pairs
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
    assert outcome_rows(tables, "status = 'failed' AND NOT final") == lost
    assert len(outcome_rows(tables, "status = 'accepted' AND unserved > 0 AND NOT final")) == 1
    assert sum(row.pairs for row in after) == sum(row.pairs for row in iterations) + len(new_pairs)
    version = tables.version(EXTRACTIONS)
    run_stage(finished, "extract", RUN["extract"])
    assert tables.version(EXTRACTIONS) == version


def test_what_fails_again_keeps_the_pairs_that_it_had(spark, finished, server):
    tables = Tables(spark, finished.storage.root)
    before = (outcomes(tables), tables.read(QA_PAIRS).where("run_id = 'r'").orderBy("pair_id").collect())
    row = tables.read(EXTRACTIONS).where("run_id = 'r' AND final AND num_pairs > 0").orderBy("doc_id").first()
    spark.sql(f"UPDATE {tables.name(EXTRACTIONS)} SET unserved = 1 WHERE run_id = 'r' AND doc_id = '{row.doc_id}'")
    tables.delete(REPLIES, f"request_key = '{row.request_keys[0]}'")
    server.fault = always("broken")
    run_stage(finished, "extract", retry_failed, even_finished=True)
    assert (outcomes(tables), tables.read(QA_PAIRS).where("run_id = 'r'").orderBy("pair_id").collect()) == before
    assert outcome_rows(tables, "status = 'failed' AND unserved = 1 AND NOT final") == [row.doc_id]


@pytest.mark.chaos  # short: the first of these, and a finished run that a larger budget extends in test_resume.py
def test_a_run_that_is_not_at_its_end_goes_on_after_what_failed(spark, finished, server):
    """What is read next is chosen anew, by a strategy that needs the similarity of every arm."""
    assert finished.bandit.strategy == "warm_start"
    longer = replace(finished, budget=replace(finished.budget, documents=BUDGET + 6))
    tables = Tables(spark, finished.storage.root)
    fail(spark, tables)
    run_stage(longer, "extract", retry_failed, even_finished=True)
    final = tables.read(EXTRACTIONS).where("run_id = 'r' AND final")
    assert (final.count(), final.where("unserved > 0").count()) == (BUDGET + 6, 0)
    assert final.select("doc_id").distinct().count() == BUDGET + 6

"""Extraction as a Spark stage: one outcome a document, paid for once, whatever the server and the partitions do."""

from __future__ import annotations

import json
import sys
import zlib
from collections import Counter

import numpy as np
import pytest
from pyspark import cloudpickle
from pyspark.sql import functions as F

from chat_server import ChatServer, once, passage_of
from equal.core.allowance import UNLIMITED, Allowance
from equal.core.contamination import BenchmarkIndex
from equal.core.items import Item
from equal.core.ngrams import words
from equal.core.qa import passage_key
from equal.io.prompts import load_prompts
from equal.io.replies import client_factory
from equal.io.spool import ReplySpool
from equal.schemas import EXTRACTIONS, QA_PAIRS, REPLIES, SCHEMAS
from equal.transforms.extract import extract_pairs, qa_pairs_of
from equal.transforms.passages import PASSAGES

# workers cannot import a test module: its encoder travels with the task
cloudpickle.register_pickle_by_value(sys.modules[__name__])
KEY = "sk-do-not-store-me"
METALS = ("tin", "lead", "gold", "iron", "zinc", "neon", "argon", "xenon", "boron", "carbon", "sulphur", "cobalt")
#: document -> fault that its requests meet
FAULTS = {
    "d-void": "says_void",
    "d-empty": "says_nothing",
    "d-truncated": "says_half",
    "d-not_json": "says_prose",
    "d-wrong_schema": "says_other_json",
    "d-looping": "says_the_same",
    "d-oversized": "huge",
    "d-context_too_short": "too_long",
    "d-failed": "unavailable",
}


class BagOfWords:
    """Texts with common words have a common direction."""

    def encode(self, texts: list[str]) -> np.ndarray:
        rows = np.zeros((len(texts), 512), dtype=np.float32)
        for row, text in zip(rows, texts):
            for word in words(text):
                row[zlib.crc32(word.encode()) % 512] += 1
            row /= max(float(np.linalg.norm(row)), 1e-9)
        return rows


def text_of(doc_id: str) -> tuple[str, str]:
    name = doc_id.removeprefix("d-")
    return (
        f"The {name} of document {doc_id} melts slowly in a furnace. ",
        f"Its density depends on the purity that the refinery reached for {name} last year.",
    )


def document(doc_id: str, *texts: tuple[str, ...], num_skipped: int = 0):
    found = [(i, passage_key("".join(text)), list(text)) for i, text in enumerate(texts)]
    return (doc_id, zlib.crc32(doc_id.encode()) % 5, num_skipped, found)


@pytest.fixture(scope="module")
def documents(spark):
    rows = [document(f"d-{metal}", text_of(f"d-{metal}")) for metal in METALS]
    rows += [document(doc_id, text_of(doc_id)) for doc_id in FAULTS]
    rows += [
        document("d-two", text_of("d-first"), text_of("d-second"), num_skipped=3),
        document("d-half", text_of("d-good"), text_of("d-failed-2")),
        document("d-none"),
        document(
            "d-secret",
            (
                "The secret number of the old vault door is forty two exactly. ",
                "Nobody knows why the locksmith chose it.",
            ),
        ),
    ]
    return spark.createDataFrame(rows, PASSAGES).cache()


@pytest.fixture
def server():
    with ChatServer(key=KEY) as running:
        running.fault = lambda body: next(
            (fault for doc_id, fault in FAULTS.items() if doc_id in passage_of(body)), ""
        )
        yield running


INDEX = BenchmarkIndex.build(
    {"vault": [Item("1", "The secret number of the old vault door is forty two exactly?", "Yes")]},
    ngram_words=8, short_words=3,
)  # fmt: skip


def extract(
    documents, server, tmp_path, *, known=None, partitions=2, answer="quoted", refine=False, allowance=UNLIMITED,
    **changes,
):  # fmt: skip
    passes = {"refine": refine, "reason": refine}
    first, second, last = load_prompts("general", answer=answer, structured=True, max_pairs=2, **passes)
    settings = {"max_attempts": 2, "timeout_s": 10.0, **changes}
    client = client_factory(server.endpoint(**settings), KEY, ReplySpool(str(tmp_path / "spool")), tasks=2)
    known = known or documents.sparkSession.createDataFrame([], SCHEMAS[REPLIES])
    return extract_pairs(
        documents, known, extract_prompt=first, refine_prompt=second, reason_prompt=last, model="test-model",
        temperature=0.0, max_tokens=64, min_answer_similarity=0.1, min_grounded_share=0.3, make_client=client,
        make_encoder=BagOfWords, index=INDEX, run_id="r", iteration=4, num_partitions=partitions,
        allowance=allowance,
    )  # fmt: skip


def comparable(rows) -> list[dict]:
    return sorted((row.asDict(recursive=True) for row in rows), key=lambda row: (row["doc_id"], row["pass"]))


def test_every_document_has_one_outcome(documents, server, tmp_path):
    frame = extract(documents, server, tmp_path)
    assert frame.schema == SCHEMAS[EXTRACTIONS]
    rows = frame.collect()
    final = {row.doc_id: row for row in rows if row.final}
    assert len(rows) == len(final) == documents.count()
    for doc_id in FAULTS:
        row = final[doc_id]
        # what is too long is asked again, shorter, once
        calls = 2 if doc_id == "d-context_too_short" else 1
        assert (row.status, row.num_pairs, row.calls) == (doc_id.removeprefix("d-"), 0, calls)
        assert row.attempts == (2 if doc_id == "d-failed" else calls)
        assert (row.error is None) == (row.status == "void")
    statuses = Counter(row.status for row in final.values())
    assert statuses["accepted"] == len(METALS) + 2
    assert (final["d-none"].status, final["d-none"].calls, final["d-none"].passages) == ("void", 0, 0)
    assert final["d-secret"].status == "contaminated"
    assert "vault" in final["d-secret"].error
    assert (final["d-two"].passages, final["d-two"].calls, final["d-two"].num_pairs) == (2, 2, 2)
    assert "3 passages" in final["d-two"].error
    half = final["d-half"]  # one passage failed, the other gave a pair: it counts, and can be asked again
    assert (half.status, half.num_pairs, "failed: passage 1" in half.error) == ("accepted", 1, True)
    assert {d for d, row in final.items() if row.unserved} == {"d-half", "d-failed", "d-context_too_short"}


def test_rows_hold_what_the_server_was_asked_and_what_it_took(documents, server, tmp_path):
    gold = {row.doc_id: row for row in extract(documents, server, tmp_path).collect()}["d-gold"]
    assert (gold.run_id, gold.iteration, gold["pass"]) == ("r", 4, "extract")
    assert gold.prompt_version.startswith("general/quoted@")
    assert gold.prompt_tokens > 100
    assert gold.completion_tokens > 3
    assert gold.paid_prompt_tokens + gold.paid_completion_tokens == gold.prompt_tokens + gold.completion_tokens
    (asked,) = [body["messages"] for body in server.bodies if "d-gold" in passage_of(body)]
    assert gold.paid_cached_tokens == sum(len(turn["content"].split()) for turn in asked[:-1]) > 0
    (pair,) = gold.pairs
    assert pair.answer in ("".join(text_of("d-gold")), text_of("d-gold")[0].strip(), text_of("d-gold")[1])
    assert pair.accepted
    assert pair.reason is None
    assert np.isclose(np.linalg.norm(pair.embedding), 1.0, atol=1e-6)
    assert np.allclose(pair.embedding, BagOfWords().encode([f"{pair.question}\n{pair.answer}"])[0])


def test_a_task_keeps_its_client_and_so_its_connections_from_batch_to_batch(spark, documents, server, tmp_path):
    size = "spark.sql.execution.arrow.maxRecordsPerBatch"
    usual = spark.conf.get(size)
    spark.conf.set(size, "1")
    try:
        metals = documents.where(documents.doc_id.isin([f"d-{metal}" for metal in METALS]))
        rows = extract(metals, server, tmp_path, partitions=1).collect()
    finally:
        spark.conf.set(size, usual)
    assert {row.status for row in rows} == {"accepted"}
    assert len(rows) == len(METALS) > len(server.connections)


def test_the_partitioning_and_order_of_documents_do_not_show(documents, server, tmp_path):
    one = extract(documents.orderBy("doc_id"), server, tmp_path / "a", partitions=1)
    seven = extract(documents.orderBy(F.desc("doc_id")), server, tmp_path / "b", partitions=7)
    assert seven.rdd.getNumPartitions() == 7
    # `d-failed-2` and `d-failed` retry on their own, nothing else depends on time
    assert comparable(one.collect()) == comparable(seven.collect())


def test_nothing_is_paid_for_twice(documents, tables, server, tmp_path):
    first = extract(documents, server, tmp_path).collect()
    paid = len(server.bodies)
    unpaid = {"d-failed", "d-context_too_short", "d-half"}  # what failed was not paid for, and is tried again
    # a task that is tried again, or a killed job: replies lie in the spool
    again = extract(documents, server, tmp_path).collect()
    assert {passage_of(body).split()[4] for body in server.bodies[paid:]} <= {*FAULTS, "d-failed-2"}
    assert len(server.bodies) - paid == 6  # two attempts for each of two failures, a whole and a shorter passage
    # a later run: replies lie in the table
    spool = ReplySpool(str(tmp_path / "spool"))
    assert spool.fold(tables) == tables.read(REPLIES).count() > len(METALS)
    paid = len(server.bodies)
    last = extract(documents, server, tmp_path, known=tables.read(REPLIES)).collect()
    assert len(server.bodies) - paid == 6
    assert spool.fold(tables) == 0

    stored = [row.asDict(recursive=True) for row in (*first, *tables.read(REPLIES).collect())]
    assert KEY not in json.dumps(stored, default=str)
    for rows in (again, last):
        for before, after in zip(comparable(first), comparable(rows)):
            if before["doc_id"] in unpaid:
                continue
            assert (after["calls"], after["attempts"]) == (0, 0)
            assert after["cached_calls"] == before["calls"]
            bill = {"paid_prompt_tokens", "paid_cached_tokens", "paid_completion_tokens"}
            assert [after[name] for name in bill] == [0, 0, 0]
            changed = {"calls", "cached_calls", "attempts", *bill}
            assert {k: v for k, v in after.items() if k not in changed} == {
                k: v for k, v in before.items() if k not in changed
            }


def test_what_does_not_fit_the_allowance_is_not_sent_be_it_stored_or_not(documents, server, tmp_path):
    some = documents.where("doc_id in ('d-tin', 'd-two')")
    free = {row.doc_id: row for row in extract(some, server, tmp_path / "a").collect()}
    assert server.counted == []
    assert free["d-two"].needed_tokens is None
    enough = Allowance(tokens=free["d-tin"].prompt_tokens + 64 + 10)  # of the passages of d-two, one
    for spool, paid in (("b", True), ("a", False)):
        rows = {row.doc_id: row for row in extract(some, server, tmp_path / spool, allowance=enough).collect()}
        two = rows["d-two"]
        assert (two.calls, two.cached_calls) == (int(paid), int(not paid))
        assert [key is None for key in two.request_keys] == [False, True]  # a passage each
        assert (two.status, two.num_pairs, rows["d-tin"].num_pairs) == ("accepted", 1, 1)
        assert "over_budget: passage 1" in two.error
        assert two.needed_tokens == free["d-two"].prompt_tokens + 2 * 64


def test_another_prompt_is_another_request(documents, server, tmp_path):
    some = documents.where("doc_id in ('d-tin', 'd-gold')")
    for answer in ("quoted", "written"):
        extract(some, server, tmp_path, answer=answer).collect()
    assert len(server.bodies) == 4


def test_refine_and_reason_are_passes_of_their_own(documents, server, tmp_path):
    rows = extract(documents, server, tmp_path, answer="written", refine=True).collect()
    assert Counter(row.doc_id for row in rows if row.final) == Counter(row.doc_id for row in documents.collect())
    tin = {row["pass"]: row for row in rows if row.doc_id == "d-tin"}
    assert (tin["extract"].final, tin["extract"].status, tin["extract"].pairs) == (False, "proposed", [])
    assert (tin["refine"].final, tin["reason"].final) == (False, True)
    assert (tin["reason"].status, tin["reason"].num_pairs) == ("accepted", 1)
    assert tin["reason"].pairs[0].answer.endswith("!!")  # a mark of the server's for each further pass
    assert tin["reason"].calls == tin["refine"].calls == tin["extract"].calls == 1
    void = [row for row in rows if row.doc_id == "d-void"]
    assert [(row["pass"], row.final) for row in void] == [("extract", True)]


def test_a_passage_that_two_documents_share_is_read_in_both(documents, tables, server, tmp_path, spark):
    shared = [document("a", text_of("d-tin")), document("b", text_of("d-tin"), text_of("d-tin"))]
    frame = spark.createDataFrame(shared, PASSAGES)
    rows = extract(frame, server, tmp_path, partitions=1).collect()
    assert {row.doc_id: (row.num_pairs, row.num_rejected) for row in rows} == {"a": (1, 0), "b": (1, 1)}
    assert len(server.bodies) == 1
    ReplySpool(str(tmp_path / "spool")).fold(tables)
    assert tables.read(REPLIES).count() == 1
    rows = extract(frame, server, tmp_path, known=tables.read(REPLIES), partitions=1).collect()
    assert {row.doc_id: (row.passages, row.cached_calls) for row in rows} == {"a": (1, 1), "b": (1, 2)}
    assert len(server.bodies) == 1


def test_accepted_pairs_and_only_they_become_qa_pairs(documents, tables, server, tmp_path):
    rows = extract(documents, server, tmp_path, refine=True, answer="written")
    tables.append(EXTRACTIONS, rows)
    pairs = qa_pairs_of(tables.read(EXTRACTIONS))
    assert pairs.schema == SCHEMAS[QA_PAIRS]
    tables.append(QA_PAIRS, pairs)
    accepted = tables.read(EXTRACTIONS).agg(F.sum("num_pairs")).first()[0]
    stored = tables.read(QA_PAIRS).collect()
    assert len(stored) == len({row.pair_id for row in stored}) == accepted > len(METALS)
    assert all(row.embedding and row.question and row.answer for row in stored)
    assert not [row for row in stored if row.doc_id in (*FAULTS, "d-secret", "d-none")]


def test_transient_faults_leave_no_trace_but_attempts(documents, server, tmp_path):
    some = documents.where("doc_id in ('d-tin', 'd-gold', 'd-lead')")
    server.fault = once("busy", "reset", "html")
    rows = extract(some, server, tmp_path, max_attempts=4).collect()
    assert {row.status for row in rows} == {"accepted"}
    assert sum(row.attempts for row in rows) == 3 + 3


def test_no_documents_cost_nothing(documents, server, tmp_path):
    assert extract(documents.where("doc_id = ''"), server, tmp_path).count() == 0
    assert server.bodies == []

"""Replies that are known are found by the passages' keys, however large their table is."""

from __future__ import annotations

from datetime import datetime, timezone

from equal.schemas import REPLIES, SCHEMAS
from equal.transforms.extract import _with_replies
from equal.transforms.passages import PASSAGES


def test_passages_travel_to_the_replies_and_each_document_gets_those_to_any_of_its_passages(spark):
    def document(doc_id: str, arm_id: int | None, *keys: str) -> tuple:
        return doc_id, arm_id, 1, [(index, key, [f"Of {key}."]) for index, key in enumerate(keys)]

    def reply(request_key: str, passage_key: str) -> dict:
        known = {"request_key": request_key, "passage_key": passage_key, "text": f"to {request_key}"}
        return {**dict.fromkeys(SCHEMAS[REPLIES].fieldNames()), **known, "received_at": datetime.now(timezone.utc)}

    documents = [
        document("a", 3, "k1", "k2", "k1"),
        document("b", None, "k1"),
        document("c", 4),
        document("d", 4, "k4"),
    ]
    replies = [reply("r1", "k1"), reply("r2", "k1"), reply("r3", "k2"), reply("r4", "k3")]
    rows = [[each[name] for name in SCHEMAS[REPLIES].fieldNames()] for each in replies]
    threshold = spark.conf.get("spark.sql.autoBroadcastJoinThreshold")
    spark.conf.set("spark.sql.autoBroadcastJoinThreshold", "-1")  # as if no side were small enough to be sent around
    try:
        known = spark.createDataFrame(rows, SCHEMAS[REPLIES])
        found = _with_replies(spark.createDataFrame(documents, PASSAGES), known)
        plan = found._jdf.queryExecution().executedPlan().toString()
        got = {row.doc_id: row for row in found.collect()}
    finally:
        spark.conf.set("spark.sql.autoBroadcastJoinThreshold", threshold)
    assert plan.count("BroadcastHashJoin") == 1
    assert "SortMergeJoin" not in plan
    for doc_id, arm_id, skipped, passages in documents:
        row = got.pop(doc_id)
        assert (row.arm_id, row.num_skipped, [tuple(passage) for passage in row.passages]) == (
            arm_id,
            skipped,
            passages,
        )
        asked = {key for _, key, _ in passages}
        expected = {each["request_key"]: each["text"] for each in replies if each["passage_key"] in asked}
        assert {each.request_key: each.text for each in row.known} == expected
        assert len(row.known) == len(expected)
    assert not got

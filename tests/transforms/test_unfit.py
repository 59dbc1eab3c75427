"""Every rule turns down its plant with what it measured, and the rest stays, however the rows are cut."""

from __future__ import annotations

import json

import pytest

from equal.core.quality import QualityLimits
from equal.transforms.quality import find_unfit

LIMITS = QualityLimits(8, 0.5, 0.5, 0.5)
PLAIN = "The variance of a sample tells how far its values lie from their mean, on the whole."
GERMAN = "Die Varianz einer Stichprobe sagt, wie weit ihre Werte im Ganzen von ihrem Mittel entfernt liegen."
ROWS = [
    ("plain", "wiki/variance", "a.jsonl", PLAIN),
    ("unnamed", None, "a.jsonl", f"Another one. {PLAIN}"),
    ("short", "wiki/short", "a.jsonl", "See the next page."),
    ("symbols", "wiki/table", "a.jsonl", f"{PLAIN} {'+-|=' * 60}"),
    ("lines", "wiki/menu", "a.jsonl", "\n".join(["Home and more of it"] * 9 + ["Contact us"])),
    ("runs", "wiki/loop", "a.jsonl", "one two three four five six seven " * 9),
    ("german", "wiki/varianz", "a.jsonl", GERMAN),
    ("blocked", "spam.example/page", "a.jsonl", PLAIN),
    ("file", "wiki/other", "dump-2019.jsonl", PLAIN),
]
SCHEMA = "doc_id string, source_id string, source_file string, text string"


@pytest.mark.parametrize("partitions", [1, 7])
def test_each_rule_finds_its_plant(spark, partitions: int):
    documents = spark.createDataFrame(ROWS, SCHEMA).repartition(partitions)
    unfit = find_unfit(documents, LIMITS, languages=["en"], blocked_sources=[r"^spam\.", "2019"]).collect()
    assert {(row.stage, row.source_file) for row in unfit} == {("quality", "a.jsonl"), ("quality", "dump-2019.jsonl")}
    found = {row.doc_id: (row.reason, json.loads(row.evidence)) for row in unfit}
    assert {name: reason for name, (reason, _) in found.items()} == {
        "short": "few_words", "symbols": "many_symbols", "lines": "repeated_lines", "runs": "repeated_runs",
        "german": "other_language", "blocked": "blocked_source", "file": "blocked_source",
    }  # fmt: skip
    assert found["short"][1] == {"value": 4, "limit": 8}
    assert found["german"][1] == {"value": "de", "limit": "en"}
    assert found["blocked"][1] == {"value": "spam.example/page", "limit": r"^spam\."}
    assert found["file"][1] == {"value": "dump-2019.jsonl", "limit": "2019"}
    assert found["symbols"][1]["value"] > found["symbols"][1]["limit"] == 0.5


def test_with_every_rule_off_all_documents_stay(spark):
    documents = spark.createDataFrame(ROWS, SCHEMA)
    assert find_unfit(documents, QualityLimits(0, 1, 1, 1), languages=[], blocked_sources=[]).count() == 0

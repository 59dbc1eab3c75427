"""Markup goes, lines and indentation stay, and a removal never takes a document away with it."""

from __future__ import annotations

from pyspark.sql import functions as F

from equal.config import load
from equal.transforms.documents import clean_records, kept_documents, parse_records, split_records

PATTERNS = load().documents.markup_patterns
CODE = (
    "## Title\n\nA list `List<String>` and `x < y > z`.\n\n"
    "    def f(x):\n\tif x < 3:   \n        return '<b>'\n\n\n\n### End ## of ##\n"
)
CASES = {
    CODE: CODE.replace("'<b>'", "' '").replace("3:   \n", "3:\n").replace("\n\n\n\n", "\n\n").rstrip("\n"),
    "<p class='x'>One</p>\r\n<br/>two<script>\nvar a = 1;\n</script> three": "One\n two  three",
    "<p>\u00a0</p>\n\n<p>after an empty line</p>": " after an empty line",
    "<style>p {}</style> then <script>never closed": "then <script>never closed",
    "cost $5 \\ $1 and \U0001f600 e\u0301": "cost $5 \\ $1 and \U0001f600 e\u0301",
}


def clean(
    spark, rows: list[tuple], known=(), gone=(), *, patterns=PATTERNS, partitions: int = 1, max_chars: int = 1000
):
    records = spark.createDataFrame(rows, "source_file string, source_id string, text string, reason string")
    records = records.withColumn("preview", F.substring("text", 1, 10)).repartition(partitions)
    documents = spark.createDataFrame(
        [(doc_id, doc_id in gone) for doc_id in known], "doc_id string, withdrawn boolean"
    )
    return clean_records(records, documents, min_chars=3, max_chars=max_chars, markup_patterns=patterns)


def test_markup_goes_and_lines_indentation_and_headings_stay(spark):
    rows = [("f", str(i), text, None) for i, text in enumerate(CASES)]
    cleaned = {r.source_id: r.text for r in clean(spark, rows).collect()}
    assert [cleaned[str(i)].strip(" ") for i in range(len(CASES))] == [e.strip(" ") for e in CASES.values()]


def test_without_patterns_only_the_ends_of_lines_change(spark):
    (row,) = clean(spark, [("f", "1", "<p>a  b</p> \n\n c", None)], patterns=()).collect()
    assert row.text == "<p>a  b</p>\n\n c"


def test_a_million_blanks_take_no_longer_than_a_million_letters(spark):
    rows = [("f", str(i), f"a{blank * 900_000}b", None) for i, blank in enumerate((" ", "\n", " \n", "\t"))]
    lengths = {r.source_id: r.num_chars for r in clean(spark, rows, patterns=(), max_chars=2_000_000).collect()}
    assert lengths == {"0": 900_002, "1": 4, "2": 4, "3": 900_002}


def test_ids_are_of_source_id_and_normalised_text_and_do_not_depend_on_partitioning(spark):
    rows = [("f", str(i % 3), f"text number {i % 5}", None) for i in range(30)]
    one, seven = ({tuple(r) for r in clean(spark, rows, partitions=n).collect()} for n in (1, 7))
    assert one == seven
    assert sum(row[6] is None for row in one) == 15
    pairs = clean(spark, [("f", "1", "a  b c", None), ("g", "2", "a b\nc", None)]).collect()
    assert len({r.doc_id for r in pairs}) == 2
    assert len({r.content_hash for r in pairs}) == 1


def test_a_record_that_is_already_there_becomes_a_removal_with_another_id(spark):
    (document,) = clean(spark, [("f", "1", "the text", None)]).collect()
    again = clean(spark, [("g", "1", "the  text", None), ("g", "2", "new text", None)], [document.doc_id])
    documents, removals = split_records(again, 3)
    (removed,) = removals.collect()
    assert removed.reason == "repeated_record"
    assert removed.doc_id != document.doc_id
    assert document.doc_id in removed.evidence
    assert [(r.source_id, r.batch) for r in documents.collect()] == [("2", 3)]
    assert kept_documents(documents, removals).count() == 1


def test_a_withdrawn_text_may_come_again_as_a_document_of_its_own(spark):
    (document,) = clean(spark, [("f", "1", "the text", None)]).collect()
    again = clean(spark, [("g", "1", "the text", None)] * 2, [document.doc_id], [document.doc_id]).collect()
    assert sorted(row.reason or "" for row in again) == ["", "repeated_record"]
    assert len({document.doc_id, *(row.doc_id for row in again)}) == 3


def test_kept_documents_can_be_asked_for_as_of_some_stages(spark):
    documents = spark.createDataFrame([("a",), ("b",), ("c",)], "doc_id string")
    removals = spark.createDataFrame([("a", "deduplicate"), ("b", "decontaminate")], "doc_id string, stage string")
    assert {r.doc_id for r in kept_documents(documents, removals).collect()} == {"c"}
    assert {r.doc_id for r in kept_documents(documents, removals, "deduplicate").collect()} == {"b", "c"}


def test_a_field_may_have_any_name(spark):
    raw = spark.createDataFrame([("f", '{"a.b": "x", "my text": "hello"}')], "source_file string, value string")
    (row,) = parse_records(raw, file_format="jsonl", id_field="a.b", text_field="my text").collect()
    assert (row.source_id, row.text, row.reason) == ("x", "hello", None)

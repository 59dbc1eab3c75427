"""Planted benchmark items are found with evidence; boilerplate is spared and said to be."""

from __future__ import annotations

import json
import pickle

import pyarrow as pa

from equal.core.contamination import BenchmarkIndex
from equal.core.items import Item
from equal.transforms.decontaminate import (
    SharedIndex,
    count_by_benchmark,
    find_contaminated,
    find_hits,
    spared_ngrams,
)

COIN = Item("coin", "A fair coin is tossed ten times; what is the probability of exactly 3 heads?", "0.117")
NOTICE = Item("notice", "This work may be copied and given away under the same terms. Who owns it?", "All.")
MEAN = Item("mean", "What is a mean?", "A sum over a count.")
SCHEMA = "doc_id string, source_file string, text string"


def contaminated(spark, rows, *, share: float, partitions: int = 2):
    index = BenchmarkIndex.build({"exam": [COIN, NOTICE, MEAN]}, ngram_words=10, short_words=3)
    documents = spark.createDataFrame(rows, SCHEMA).repartition(partitions)
    hits = find_hits(documents, index)
    spared = spared_ngrams(hits, documents.count(), max_document_share=share)
    return find_contaminated(hits, spared).collect(), spared.collect()


def corpus() -> list[tuple[str, str, str]]:
    notice = "This work may be copied and given away under the same terms."
    rows = [(f"plain{i}", "f", f"Nothing of note in text number {i}. {notice}") for i in range(12)]
    return [
        *rows,
        ("coin", "g", f"Exercise 7. {COIN.question} {notice}"),
        ("almost", "g", COIN.question.replace("ten", "12").replace("3", "4")),
        ("mean", "g", "He asked WHAT IS A MEAN, and went."),
    ]


def test_planted_items_are_found_and_boilerplate_is_spared_for_any_partitions(spark):
    removed, spared = contaminated(spark, corpus(), share=0.5, partitions=1)
    again, _ = contaminated(spark, corpus()[::-1], share=0.5, partitions=7)
    assert {tuple(r) for r in removed} == {tuple(r) for r in again}
    evidence = {r.doc_id: json.loads(r.evidence) for r in removed}
    assert {r.doc_id: (r.stage, r.reason, r.source_file) for r in removed} == dict.fromkeys(
        ("coin", "mean"), ("decontaminate", "contaminated", "g")
    )
    assert evidence["coin"] == {
        "benchmark": "exam", "item_id": "coin", "ngram": "a fair coin is tossed ten times what is the", "position": 2,
        "num_ngrams": 6,
    }  # fmt: skip
    assert evidence["mean"]["ngram"] == "what is a mean"
    assert [(r.item_id, r.documents) for r in spared] == [("notice", 13)] * 3


def test_each_benchmark_is_told_what_it_removed_and_by_which_words(spark):
    index = BenchmarkIndex.build({"exam": [COIN, NOTICE], "quiz": [MEAN]}, ngram_words=10, short_words=3)
    documents = spark.createDataFrame(corpus(), SCHEMA)
    hits = find_hits(documents, index)
    spared = spared_ngrams(hits, documents.count(), max_document_share=0.5)
    exam, quiz = sorted(count_by_benchmark(hits, spared).collect())
    assert exam[:4] == ("exam", 1, 1, 3)
    assert [row.documents for row in exam.frequent] == [1] * 6
    assert quiz == ("quiz", 1, 1, 0, [("what is a mean", 1)])
    assert len(count_by_benchmark(hits, spared.limit(0)).where("benchmark = 'exam'").first().frequent) == 9


def test_an_ngram_in_most_documents_is_named_first_and_ten_at_most(spark):
    rows = [(f"d{i}", "f", " ".join(f"w{n}" for n in range(i, 40))) for i in range(20)]
    item = Item("long", " ".join(f"w{n}" for n in range(40)), "")
    index = BenchmarkIndex.build({"exam": [item]}, ngram_words=10, short_words=3)
    documents = spark.createDataFrame(rows, SCHEMA)
    hits = find_hits(documents, index)
    (row,) = count_by_benchmark(hits, spared_ngrams(hits, documents.count(), max_document_share=1.0)).collect()
    assert (row.documents, row.items, row.spared, len(row.frequent)) == (20, 1, 0, 10)
    assert row.frequent[0] == (" ".join(f"w{n}" for n in range(19, 29)), 20)


def test_what_is_rare_enough_or_in_fewer_than_ten_documents_is_never_spared(spark):
    removed, spared = contaminated(spark, corpus(), share=0.9)
    assert (len(removed), spared) == (14, [])
    removed, spared = contaminated(spark, corpus()[4:], share=0.0)
    assert (len(removed), spared) == (10, [])


def test_an_index_reaches_tasks_by_itself_and_not_in_what_they_are_sent(spark):
    items = [COIN, *(Item(str(i), " ".join(f"w{i}x{j}" for j in range(40)), "") for i in range(3000))]
    index = BenchmarkIndex.build({"exam": items}, ngram_words=10, short_words=3)
    shared = SharedIndex(spark.sparkContext.broadcast(index))
    assert len(pickle.dumps(index)) > 1 << 20  # what is larger Spark writes to disk, with all that is beside it
    assert len(pickle.dumps(shared)) < 1000

    def look_up(batches):
        for batch in batches:
            hits = [shared.match(text) for text in batch.column(0).to_pylist()]
            yield pa.RecordBatch.from_pydict({"item": [hit.item_id if hit else "" for hit in hits]})

    texts = spark.createDataFrame([(COIN.question,), ("Nothing of note.",)], "text string")
    assert sorted(row.item for row in texts.mapInArrow(look_up, "item string").collect()) == ["", "coin"]

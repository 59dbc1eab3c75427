"""Passages are the document's own text, whole sentences, any layout, any partitioning."""

from __future__ import annotations

import pytest

from equal.core.qa import passage_key
from equal.transforms.passages import PASSAGES, detect_sentences, passages

PROSE = "Tin melts at 232 degrees (Celsius). Lead needs 327! 😀 Is that more? Yes."
DOCSTRING = """Return the mean.

    Parameters
    ----------
    a : array
        The data, e.g. np.diag(s). Not None.
"""
TEXTS = {
    "prose": PROSE,
    "docstring": DOCSTRING,
    "code": "\n".join(f"    x{i} = f(x{i - 1}, [{i}, ...])" for i in range(200)),
    "long": " ".join(f"Sentence number {i} says something." for i in range(300)),
    "solid": "x" * 5000,
    "blank": " \n ",
    "empty": "",
    "table": "| a | b |\n|---|---|\n" * 100,
}


@pytest.fixture(scope="module")
def documents(spark):
    rows = [(name, number, text) for number, (name, text) in enumerate(TEXTS.items())]
    return spark.createDataFrame(rows, "doc_id string, arm_id int, text string")


@pytest.fixture(scope="module")
def whole(documents):
    rows = passages(documents, passage_chars=1000, max_passages=1000).collect()
    return {row.doc_id: row for row in rows}


def test_every_document_has_one_row(whole, documents):
    assert set(whole) == set(TEXTS)
    assert [whole[name].arm_id for name in TEXTS] == list(range(len(TEXTS)))
    assert passages(documents, passage_chars=1000, max_passages=2).schema == PASSAGES


@pytest.mark.parametrize("name", [name for name in TEXTS if TEXTS[name].strip()])
def test_passages_join_to_the_text_within_the_bound(whole, name):
    found = whole[name].passages
    texts = ["".join(passage.sentences) for passage in found]
    assert "".join(texts) == TEXTS[name]
    assert max(map(len, texts)) <= 1000
    assert [passage.passage_index for passage in found] == list(range(len(found)))
    assert [passage.passage_key for passage in found] == [passage_key(text) for text in texts]
    assert whole[name].num_skipped == 0


def test_nothing_to_read_is_no_passage(whole):
    assert (whole["blank"].passages, whole["empty"].passages) == ([], [])


def test_sentences_are_those_of_the_text(whole):
    assert [s.strip() for s in whole["prose"].passages[0].sentences] == [
        "Tin melts at 232 degrees (Celsius).",
        "Lead needs 327!",
        "😀 Is that more?",
        "Yes.",
    ]
    assert "a : array\n        The data, e.g. np.diag(s)." in "".join(whole["docstring"].passages[0].sentences)


def test_passages_beyond_the_limit_are_counted(whole, documents):
    some = {row.doc_id: row for row in passages(documents, passage_chars=1000, max_passages=2).collect()}
    for name in TEXTS:
        assert some[name].passages == whole[name].passages[:2]
        assert some[name].num_skipped == max(len(whole[name].passages) - 2, 0)
    assert some["long"].num_skipped > 5


def test_any_partitioning_gives_the_same(whole, documents):
    seven = passages(documents.repartition(7), passage_chars=1000, max_passages=1000).collect()
    assert {row.doc_id: row for row in seven} == whole


def test_the_detector_keeps_words_whole(documents):
    (row,) = detect_sentences(documents.where("doc_id = 'prose'")).collect()
    assert "".join("".join(row.detected).split()) == "".join(PROSE.split())

"""An example pair stands with what the model read: its answer in its passage, or the passage itself."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equal.core.qa import Prompt
from equal.io import evidence
from equal.io.prompts import load_prompts

FIRST = "It takes 12 days. " + "The first chapter goes on. " * 200
SECOND = "The second chapter begins with <s> tags and &lt;s> tags. It takes 12 weeks, [INST] they say.\n"


@pytest.fixture
def prompt() -> Prompt:
    return load_prompts("general", answer="written", refine=False, structured=True, max_pairs=3)[0]


@pytest.fixture
def examples(tables, prompt):
    """The examples of a document of two passages, given the pairs' (passage, answer)."""
    place = {"run_id": "r", "iteration": 1, "doc_id": "d"}

    def write(*pairs: tuple[int, str]) -> list[dict[str, object]]:
        found = [{**place, "pair_id": f"p{n}", "passage_index": i, "answer": a} for n, (i, a) in enumerate(pairs)]
        read = {"extract": ["k0", "k1"], "refine": ["k2"]}
        replies = [
            {"request_key": f"k{i}", "messages": json.dumps(prompt.messages(text), ensure_ascii=False)}
            for i, text in enumerate((FIRST, SECOND, FIRST))
        ]
        rows = {
            "documents": [{"doc_id": "d", "text": FIRST + SECOND}],
            "iterations": [{"run_id": "r", "iteration": 1}],
            "extractions": [{**place, "pass": name, "request_keys": keys} for name, keys in read.items()],
            "replies": [*replies, replies[1]],
            "qa_pairs": found,
            "selected_pairs": [{**pair, "rank": rank} for rank, pair in enumerate(found, start=1)],
        }
        for name, written in rows.items():
            tables.append(name, tables.rows(name, written))
        return evidence.examples(tables, "r", len(pairs))

    return write


def test_an_excerpt_is_of_the_passage_that_the_pair_was_made_of(examples):
    in_other_words, verbatim, of_the_first = examples((1, "Three months."), (1, "12"), (0, "12"))
    assert in_other_words["found"] == ""
    assert in_other_words["after"].startswith(SECOND.strip())
    assert in_other_words["before"].startswith("… ")
    assert (verbatim["found"], verbatim["after"]) == ("12", " weeks, [INST] they say.\n")
    assert of_the_first["after"].startswith(" days.")


@given(st.text(max_size=200), st.lists(st.text("abc(.*", min_size=1, max_size=5), min_size=1, max_size=5), st.text())
def test_an_answer_is_found_whatever_the_whitespace(before, words, after):
    text = f"{before} {chr(10).join(words)} {after}"
    cut = evidence.excerpt(text, None, "  ".join(words), max_chars=10_000)
    assert cut["found"].split() == words
    assert cut["before"] + cut["found"] + cut["after"] == text


@given(st.integers(0, 5000), st.integers(100, 1000))
def test_an_excerpt_keeps_to_its_length_and_marks_its_cuts(place, max_chars):
    text = "x" * place + " needle " + "y" * (5000 - place)
    cut = evidence.excerpt(text, None, "needle", max_chars)
    assert cut["found"] == "needle"
    assert len("".join(cut.values())) <= max_chars + 4
    assert cut["before"].startswith("… ") == (place + 1 > (max_chars - 6) // 2)


@pytest.mark.parametrize(
    ("passage", "max_chars", "before", "after"),
    [
        ((5, 9), 4, "… ", "text …"),
        ((5, 9), 8, "… e ", "text i …"),
        ((5, 12), 4, "… ", "text …"),
        (None, 4, "", "some …"),
    ],
    ids=["passage", "what is around it", "its beginning", "no reply was kept"],
)
def test_an_answer_in_other_words_shows_its_passage(passage, max_chars, before, after):
    cut = evidence.excerpt("some text in a book", passage, "other words", max_chars)
    assert cut == {"before": before, "found": "", "after": after}

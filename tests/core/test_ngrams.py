"""Words keep digits, the rule finds every shared run, and nothing else matches."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equal.core import ngrams
from equal.core.items import Item
from equal.core.ngrams import BenchmarkIndex, Hit, ngram_key, normalise, words

LONG = Item("q1", "A fair coin is tossed ten times; what is the probability of exactly 3 heads?", "0.117")
SHORT = Item("q2", "What is 7 times 8?", "56")


def build(*items: Item, spared: frozenset[int] = frozenset()) -> BenchmarkIndex:
    return BenchmarkIndex.build({"exam": items}, ngram_words=10, short_words=3, spared=spared)


def test_normalise_joins_composed_and_decomposed_letters_and_any_whitespace():
    assert normalise("  Cafe\u0301 \u00a0\n\tau lait ") == normalise("Caf\u00e9 au lait") == "Caf\u00e9 au lait"


@given(st.text())
def test_normalise_is_idempotent(text: str):
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("Hello, WORLD!", ["hello", "world"]),
        ("<p class='x'>one</p><br/>two", ["one", "two"]),
        ("if x < 3 and y > 2:", ["if", "x", "3", "and", "y", "2"]),
        ("It&#39;s 1,250 and 3.5 &amp; more", ["its", "1250", "and", "3", "5", "more"]),
        ("zero\u200bwidth soft\u00adhyphen", ["zerowidth", "softhyphen"]),
        ("\uff11\uff12 \ufb01ne", ["12", "fine"]),
        ("\u4f60\u597d ok", ["\u4f60", "\u597d", "ok"]),
        ("snake_case $\\frac{1}{2}$", ["snake", "case", "frac", "1", "2"]),
    ],
)
def test_words(text: str, expected: list[str]):
    assert words(text) == expected


def test_a_shared_run_of_ten_words_is_found_whatever_its_case_markup_and_line_breaks():
    text = "Exercise.\n<b>A fair COIN</b> is tossed\nten times - what is the Probability of, say, two heads"
    assert build(LONG).match(text) == Hit("exam", "q1", "a fair coin is tossed ten times what is the", 1)


def test_nine_shared_words_are_not_enough():
    assert build(LONG).match("a fair coin is tossed ten times what is nothing") is None


def test_a_different_number_is_a_different_item():
    other = "A fair coin is tossed 12 times; what is the probability of exactly 4 heads?"
    assert build(LONG).match(other) is None
    assert build(SHORT).match("What is 7 times 9?") is None


def test_a_short_question_matches_whole_and_without_its_answer():
    assert build(SHORT).match("He asked: what is 7 times 8? Nobody knew.") == Hit("exam", "q2", "what is 7 times 8", 2)
    assert build(SHORT).match("what is 7 times") is None


def test_a_short_question_with_a_long_answer_is_found_by_itself():
    item = Item("q3", "Define the sample median.", "It is the middle value once all the values are put in order.")
    assert build(item).match("Define the sample median").item_id == "q3"
    assert build(item).match("the middle value once all the values are put in order").item_id == "q3"


def test_items_below_the_short_limit_are_reported_and_match_nothing():
    index = build(Item("tiny", "Why?", ""), LONG)
    assert index.unmatchable == ("exam/tiny",)
    assert index.match("Why? Why? Why?") is None


def test_a_spared_ngram_does_not_match_but_its_neighbours_do():
    text = "a fair coin is tossed ten times what is the probability of exactly 3 heads"
    first = build(LONG).match(text)
    again = build(LONG, spared=frozenset({first.key})).match(text)
    assert again.position == first.position + 1
    every = frozenset(hit.key for hit in build(LONG).matches(text))
    assert build(LONG, spared=every).match(text) is None


def test_an_index_without_items_matches_nothing_and_survives_pickling():
    assert BenchmarkIndex.build({}, ngram_words=10, short_words=3).match("anything at all") is None
    assert pickle.loads(pickle.dumps(build(LONG, SHORT))).match(SHORT.question).item_id == "q2"


def test_a_collision_of_window_hashes_is_no_match(monkeypatch):
    monkeypatch.setattr(ngrams, "_BASE", np.uint64(1))  # every order of the same words collides
    index = build(Item("q", "one two three four", ""), Item("r", "four three two one", ""))
    assert index.match("two one three four") is None
    assert index.match("four three two one").item_id == "r"


def test_the_first_benchmark_that_holds_an_ngram_is_named():
    index = BenchmarkIndex.build({"a": [LONG], "b": [LONG]}, ngram_words=10, short_words=3)
    assert index.match(LONG.text).benchmark == "a"


def test_keys_do_not_change_between_machines():
    assert ngram_key("what is 7 times 8") == build(SHORT).match("What is 7 times 8?").key == -6274212664155531708


WORD = st.sampled_from(["a", "b", "c", "d", "1", "2"])
SENTENCE = st.lists(WORD, max_size=25)


@settings(max_examples=300, deadline=None)
@given(st.lists(SENTENCE, max_size=4), SENTENCE, st.integers(3, 6))
def test_matches_are_those_of_a_search_through_all_runs(questions: list[list[str]], text: list[str], width: int):
    items = [Item(str(i), " ".join(q), "") for i, q in enumerate(questions)]
    index = BenchmarkIndex.build({"b": items}, ngram_words=width, short_words=2)
    expected = {}
    for tokens in questions:
        size = min(width, len(tokens))
        for start in range(len(tokens) - size + 1) if size >= 2 else []:
            run = tokens[start : start + size]
            places = [i for i in range(len(text) - size + 1) if text[i : i + size] == run]
            if places:
                expected[" ".join(run)] = places[0]
    assert {hit.ngram: hit.position for hit in index.matches(" ".join(text))} == expected

"""The rule finds every shared run of words and nothing else; the compiled search agrees with it."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equal.core.contamination import BenchmarkIndex, Hit, ngram_key
from equal.core.items import Item
from equal.core.ngrams import words
from equal.core.texts import Texts

LONG = Item("q1", "A fair coin is tossed ten times; what is the probability of exactly 3 heads?", "0.117")
SHORT = Item("q2", "What is 7 times 8?", "56")


def build(*items: Item, spared: frozenset[int] = frozenset()) -> BenchmarkIndex:
    return BenchmarkIndex.build({"exam": items}, ngram_words=10, short_words=3, spared=spared)


def test_a_shared_run_of_ten_words_is_found_whatever_its_case_markup_and_line_breaks():
    text = "Exercise.\n<b>A fair COIN</b> is tossed\nten times - what is the Probability of, say, two heads"
    assert build(LONG).match(text) == Hit("exam", "q1", "a fair coin is tossed ten times what is the", 1)


@pytest.mark.parametrize(
    "page",
    [
        '<img alt="{}" src="coin.png">',
        "<p>Heads &amp; tails</p><div data-question='{}'/>",
        "&lt;a title=&quot;{}&quot;&gt;a coin&lt;/a&gt;",
    ],
)
def test_an_item_inside_a_tag_is_found_as_a_model_reads_it(page: str):
    text = page.format(LONG.question)
    assert [hit.item_id for hit in build(LONG).matches(text)] == ["q1"] * (len(words(LONG.question)) - 9)
    assert build(LONG).candidates(Texts.as_they_are(["<br/>", text, "a < b"])).tolist() == [False, True, False]


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


def test_a_key_that_stands_for_other_words_is_no_match():
    index, other = build(Item("q", "one two three four", "")), build(Item("r", "four three two one", ""))
    assert other.match("four three two one").item_id == "r"
    # what a collision of 64-bit keys would look like
    collided = replace(index, _runs=replace(other._runs, sources=index._runs.sources, firsts=index._runs.firsts))
    assert collided.candidates(Texts.as_they_are(["four three two one"])).tolist() == [True]
    assert collided.match("four three two one") is None


def test_a_long_item_is_found_by_every_one_of_its_runs():
    text = " ".join(f"w{i}" for i in range(300))
    assert [hit.position for hit in build(Item("long", text, "")).matches(f"before {text}")] == [*range(1, 292)]


def test_the_first_benchmark_that_holds_an_ngram_is_named():
    index = BenchmarkIndex.build({"a": [LONG], "b": [LONG]}, ngram_words=10, short_words=3)
    assert index.match(LONG.text).benchmark == "a"


def test_keys_do_not_change_between_machines():
    assert ngram_key("what is 7 times 8") == build(SHORT).match("What is 7 times 8?").key == -6274212664155531708


WORD = st.sampled_from(["a", "b", "c", "d", "1", "2"])
SENTENCE = st.lists(WORD, max_size=25)


@settings(max_examples=300, deadline=None)
@given(st.lists(SENTENCE, max_size=4), SENTENCE, st.integers(1, 6), st.integers(1, 6))
def test_matches_are_those_of_a_search_through_all_runs(
    questions: list[list[str]], text: list[str], one: int, other: int
):
    items = [Item(str(i), " ".join(q), "") for i, q in enumerate(questions)]
    short, width = sorted((one, other))
    index = BenchmarkIndex.build({"b": items}, ngram_words=width, short_words=short)
    expected = {}
    for tokens in questions:
        size = min(width, len(tokens))
        for start in range(len(tokens) - size + 1) if size >= short else []:
            run = tokens[start : start + size]
            places = [i for i in range(len(text) - size + 1) if text[i : i + size] == run]
            if places:
                expected[" ".join(run)] = places[0]
    joined = " ".join(text)
    hits = [(hit.position, len(hit.ngram), hit.ngram) for hit in index.matches(joined)]
    assert hits == sorted((position, len(ngram), ngram) for ngram, position in expected.items())
    assert index.candidates(Texts.as_they_are([joined])).tolist() == [bool(expected)]


#: what a page may put between the words of an item, and what of it the rule must not see
DRESS = [
    "{}",
    "<b>{}</b>",
    "{},",
    "({})",
    "\n{}\t",
    "\u201c{}\u201d",
    "{}\u00ad",
    "&nbsp;{}",
    "<a title='{}'>",
    "&lt;i {}",
    "\ufb01 {}",
    "{} \U0001f600",
]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([*words(LONG.question), "x"]), st.sampled_from(DRESS)), max_size=30), st.text()
)
def test_the_compiled_search_misses_nothing_whatever_stands_around_the_words(parts, other: str):
    index = build(LONG, SHORT)
    texts = [" ".join(dress.format(word) for word, dress in parts), other, f"{other} {LONG.question} {other}", ""]
    assert index.candidates(Texts.as_they_are(texts)).tolist() == [bool(index.matches(text)) for text in texts]


def test_many_texts_are_searched_at_once_and_none_is_taken_for_its_neighbour():
    texts = Texts.as_they_are(["what is 7 times", "8 he said", SHORT.question.upper(), "", "What is 7 times 9?"])
    assert build(LONG, SHORT).candidates(texts).tolist() == [False, False, True, False, False]
    assert build().candidates(texts).tolist() == [False] * 5
    assert build(LONG).candidates(Texts.as_they_are([])).tolist() == []


@pytest.mark.parametrize(
    ("question", "short"),
    [
        ("公平的硬币抛十次，恰好三次正面的概率是多少？", "什么是平均数？"),
        ("قطعة نقدية عادلة ترمى عشر مرات ما احتمال ظهور الصورة ثلاثا", "ما هُوَ المُتوسِّط؟"),
        ("Честную монету бросают десять раз; какова вероятность трёх орлов ровно?", "Что такое среднее?"),
        ("एक निष्पक्ष सिक्का दस बार उछाला जाता है क्या है प्रायिकता", "माध्य क्या है?"),
    ],
    ids=["chinese", "arabic", "russian", "hindi"],
)
def test_items_in_any_script_are_found_in_a_text_around_them(question: str, short: str):
    index = build(Item("long", question, ""), Item("short", short, ""), LONG)
    assert index.unmatchable == ()
    for wanted, text in (("long", question), ("short", short)):
        around = f"Before it: {text} и 后"
        assert {hit.item_id for hit in index.matches(around)} == {wanted}
        held = index.candidates(Texts.as_they_are([around, LONG.question, "Before it и 后"]))
        assert held.tolist() == [True, True, False]


def test_items_without_a_word_are_reported():
    assert build(Item("faces", "\U0001f600 \U0001f601 \U0001f602 ?!", ""), LONG).unmatchable == ("exam/faces",)


def test_a_text_of_fifty_megabytes_is_searched_to_its_end():
    filler = "entirelyotherwordsthanthoseoftheitemstandhere " * 1_120_000
    assert len(filler) > 50_000_000
    index = build(LONG)
    assert index.candidates(Texts.as_they_are([filler, filler + LONG.question])).tolist() == [False, True]
    assert index.match(filler + LONG.question).position == 1_120_000

"""Cutting loses nothing; an answer is lifted verbatim, from the window nearest to the question."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from equal.core.sentences import MAX_SENTENCE_CHARS, best_quote, pack, split_at

DOCSTRING = """Fill a tank (of any shape).

    Parameters
    ----------
    volume : float
        Volume of the tank(s) in litres. See [..., None] below.

    Returns
    -------
    float
        Seconds until it is full.
"""

layouts = st.lists(
    st.sampled_from(["Tin melts. ", "a b\n", "\n\n", " ", "---\n", "x" * 500, "😀 is it?\n", "(s) "])
).map("".join)


@given(text=layouts | st.text(), seed=st.integers(0, 3))
def test_pieces_join_to_the_text_whatever_the_detector_says(text: str, seed: int) -> None:
    detected = [["no such sentence", *text.split(".")], re.findall(r"[^.?!\n]+", text), [], list(text)][seed]
    pieces = split_at(text, detected)
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= MAX_SENTENCE_CHARS for piece in pieces)


@given(sentences=st.lists(st.text(min_size=1, max_size=60)), passage_chars=st.integers(1, 100))
def test_packing_keeps_order_and_bound(sentences: list[str], passage_chars: int) -> None:
    packed = pack(sentences, passage_chars)
    kept = [sentence for passage in packed for sentence in passage]
    assert [s for s in kept if s.strip()] == [s for s in sentences if s.strip()]
    for passage in packed:
        assert len(passage) == 1 or len("".join(passage)) <= passage_chars
        assert "".join(passage).strip()


def test_layout_ends_sentences_and_brackets_do_not() -> None:
    # as a rule-based detector finds them, wrong starts included
    detected = [
        "Fill a tank",
        "(of any shape).",
        "Parameters",
        "Volume of the tank",
        "(s) in litres.",
        "See [..",
        ".",
        ", None] below.",
    ]
    pieces = [piece.strip() for piece in split_at(DOCSTRING, detected)]
    assert pieces == [
        "Fill a tank",
        "(of any shape).",
        "Parameters\n    ----------",
        "volume : float",
        "Volume of the tank(s) in litres.",
        "See [..., None] below.",
        "Returns\n    -------",
        "float\n        Seconds until it is full.",
    ]


def unit(*values: float) -> np.ndarray:
    vector = np.asarray(values, dtype=np.float32)
    return vector / np.linalg.norm(vector)


SENTENCES = [
    "Copper melts at a thousand degrees.\n",
    "Tin melts at 232 degrees in dry air.\n",
    "Lead melts at 327 degrees in dry air.\n",
    "Gold is a metal of great beauty and price.\n",
]


def test_the_nearest_sentence_is_lifted_verbatim() -> None:
    vectors = np.stack([unit(1, 0, 0), unit(0, 1, 0), unit(0, 0, 1), unit(-1, 0, 0)])
    quote = best_quote("How hot?", unit(0, 1, 0), SENTENCES, vectors)
    assert quote is not None
    assert quote.text == SENTENCES[1].strip()
    assert quote.similarity == 1.0


def test_a_window_is_the_mean_of_its_unit_vectors() -> None:
    vectors = np.stack([unit(1, 0, 0), unit(0, 1, 0), unit(0, 0, 1), unit(-1, 0, 0)])
    question = unit(0, 1, 1)
    quote = best_quote("How hot?", question, SENTENCES, vectors)
    assert quote is not None
    assert quote.text == "".join(SENTENCES[1:3]).strip()
    mean = vectors[1:3].mean(axis=0)
    assert np.isclose(quote.similarity, mean @ question / np.linalg.norm(mean))


def test_on_a_tie_the_shorter_then_the_earlier_window_wins() -> None:
    quote = best_quote("How hot?", unit(1, 0, 0), SENTENCES, np.tile(unit(1, 0, 0), (4, 1)))
    assert quote is not None
    assert quote.text == SENTENCES[0].strip()


def test_an_echo_of_the_question_is_no_answer() -> None:
    vectors = np.stack([unit(1, 0), unit(1, 0.3)])
    quote = best_quote(
        "How to compute the singular value decomposition?", unit(1, 0),
        ["Compute the singular value decomposition. ", "Its factors are two rotations and a scaling."], vectors,
    )  # fmt: skip
    assert quote is not None
    assert "rotations" in quote.text


def test_headings_do_not_answer() -> None:
    sentences = ["Other parameters and options\n------\n", "1, 2, 3\n", "ok"]
    assert best_quote("Which?", unit(1, 0), sentences, np.tile(unit(1, 0), (3, 1))) is None


@given(st.lists(st.text(max_size=40), max_size=8), st.integers(0, 9))
def test_every_quote_stands_in_its_passage(sentences: list[str], seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(len(sentences), 4)).astype(np.float32)
    quote = best_quote("?", unit(1, 0, 0, 0), sentences, vectors)
    if quote is not None:
        assert "".join(quote.text.split()) in "".join("".join(sentences).split())


def test_zero_vectors_are_survived() -> None:
    quote = best_quote("How hot?", unit(1, 0), SENTENCES, np.zeros((4, 2), dtype=np.float32))
    assert quote is not None
    assert quote.similarity == 0.0

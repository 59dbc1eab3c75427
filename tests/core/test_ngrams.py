"""Words keep digits and drop what only looks different."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equal.core.ngrams import normalise, words


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
        ("<div\n  class='x y'\n>one</div >two<br />three<x:y-1 z_a=>", ["one", "two", "three"]),
        ("if x < 3 and y > 2:", ["if", "x", "3", "and", "y", "2"]),
        ("i<n and j>m", ["i", "n", "and", "j", "m"]),
        ("cast<T of one, two <three> four", ["cast", "t", "of", "one", "two", "four"]),
        ("It&#39;s 1,250 and 3.5 &amp; more", ["its", "1250", "and", "3", "5", "more"]),
        ("zero\u200bwidth soft\u00adhyphen", ["zerowidth", "softhyphen"]),
        ("\uff11\uff12 \ufb01ne", ["12", "fine"]),
        ("\u4f60\u597d ok", ["\u4f60", "\u597d", "ok"]),
        ("snake_case $\\frac{1}{2}$", ["snake", "case", "frac", "1", "2"]),
    ],
)
def test_words(text: str, expected: list[str]):
    assert words(text) == expected

"""Each rule by hand, at its threshold and switched off; what is measured is a share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equal.core.quality import QualityLimits, find_faults, repeated_line_share, symbol_share

OFF = QualityLimits(0, 1.0, 1.0, 1.0)
SENTENCE = "the mean of a sample is near the mean of what it was drawn from"


@pytest.mark.parametrize(
    ("text", "share"),
    [("", 0.0), (" \n", 0.0), ("ab 12", 0.0), ("a+b=c", 0.4), ("x_1 \u00e9!", 0.4), ("\U0001f600", 1.0)],
)
def test_symbols_are_what_is_neither_letter_nor_digit_nor_blank(text: str, share: float):
    assert symbol_share(text) == pytest.approx(share)


def test_repeated_lines_count_by_their_characters():
    assert repeated_line_share("one\ntwo!\none\n\n  one ") == pytest.approx(6 / 13)
    assert repeated_line_share("") == repeated_line_share("one\ntwo") == 0.0


@pytest.mark.parametrize(
    ("text", "limits", "expected"),
    [
        ("one two three", QualityLimits(4, 1, 1, 1), ("few_words", 3, 4)),
        ("one two three", QualityLimits(3, 1, 1, 1), None),
        ("ab +-*", QualityLimits(0, 0.59, 1, 1), ("many_symbols", 0.6, 0.59)),
        ("ab +-*", QualityLimits(0, 0.6, 1, 1), None),
        ("row\nrow\nrow\nend", QualityLimits(0, 1, 0.4, 1), ("repeated_lines", 0.5, 0.4)),
        ("row\nrow\nrow\nend", QualityLimits(0, 1, 0.5, 1), None),
        ("a b c d e a b c d e a b c d e", QualityLimits(0, 1, 1, 0.5), ("repeated_runs", 6 / 11, 0.5)),
        ("a b c d e a b c d e a b c d e", QualityLimits(0, 1, 1, 0.55), None),
        (SENTENCE, QualityLimits(10, 0.1, 0.0, 0.0), None),
    ],
)
def test_a_rule_holds_up_to_its_limit_and_says_what_it_found(text: str, limits: QualityLimits, expected):
    (fault,) = find_faults([text], limits)
    assert fault is None if expected is None else (fault.reason, fault.limit) == (expected[0], expected[2])
    assert fault is None or fault.value == pytest.approx(expected[1])


def test_texts_are_judged_one_by_one():
    faults = find_faults(["", SENTENCE, "x", f"{SENTENCE} " * 9], QualityLimits(5, 0.5, 0.5, 0.5))
    assert [fault and fault.reason for fault in faults] == ["few_words", None, "few_words", "repeated_runs"]
    assert find_faults([], OFF) == []


@given(st.lists(st.text(), max_size=5))
def test_nothing_falls_when_every_rule_is_off_and_every_value_is_a_share(texts: list[str]):
    assert find_faults(texts, OFF) == [None] * len(texts)
    for fault in find_faults(texts, QualityLimits(0, 0.0, 0.0, 0.0)):
        assert fault is None or 0 < fault.value <= 1

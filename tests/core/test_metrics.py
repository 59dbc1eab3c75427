"""Metrics against published values, hand-worked cases and brute force."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equal.core.metrics import (
    exact_match,
    has_checkable_answer,
    mean_and_error,
    mean_cosine,
    mtld,
    numbers,
    pass_at_k,
    ratio_by_item,
    type_token_ratio,
)

# exact match -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,234.50 of 10", ["1234.5", "10"]),
        ("from -3 to +4", ["-3", "4"]),
        ("10-4 and x-2 and (5)-1", ["10", "4", "2", "5", "1"]),
        ("\u22127 is minus seven", ["-7"]),
        ("P = 1/6, not 3 / 4", ["1/6", "3/4"]),
        ("1e-5 or 2.5E3", ["1/100000", "2500"]),
        ("$1,000 and -$5 and 30%", ["1000", "-5", "30"]),
        (".5 and 0.5.", ["1/2", "1/2"]),
        ("x1, H2O, 3rd and v2.1b are names", []),
        ("1/0 is none", []),
        ("", []),
    ],
)
def test_numbers_are_read_as_people_write_them(text, expected):
    assert numbers(text) == [Fraction(value) for value in expected]


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6))
def test_written_numbers_are_read_back(top, bottom):
    assert numbers(f"The answer is {top:,}.") == [top]
    assert numbers(f"so p = {top}/{bottom}") == [Fraction(top, bottom)]
    assert numbers(f"it costs {top / 100:.2f} in all") == [Fraction(f"{top / 100:.2f}")]


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ("She has 3 + 4 = 7 left, so 18.", "16 - 3 - 4 = 9, and 9 * 2 = 18.\n#### 18"),
        ("That makes $1,200.00.", "#### 1200"),
        ("The probability is 0.5", "The chance of heads is 1/2."),
        ("= 2.50", "The mean is 2.5."),
        ("(b)", "B"),
        ("First we note that.\nYes.", "yes"),
        ("there are 9", "So we have n - 1 = 9 degrees of freedom."),
        ("-3/4", "The slope is \u22123/4."),
    ],
)
def test_the_same_answer_in_other_words_matches(prediction, answer):
    assert has_checkable_answer(answer)
    assert exact_match(prediction, answer)


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ("The answer is 18, I had 7.", "#### 18"),
        ("The answer is 180", "#### 18"),
        ("eighteen", "#### 18"),
        ("", "#### 18"),
        ("-3", "It is 3."),
        ("0.333", "The chance is 1/3."),
        ("C, or rather B or A", "B"),
        ("", "yes"),
        ("yesterday", "yes"),
    ],
)
def test_another_answer_does_not_match(prediction, answer):
    assert has_checkable_answer(answer)
    assert not exact_match(prediction, answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "   ",
        "The estimator divides by n - 1.",
        "A matrix is singular when its determinant vanishes and only then.",
        "The correlation always lies between -1 and 1.",
        "The derivative of the function is 3 x^2",
        "Variables x1 and x2 are jointly independent of y3",
    ],
)
def test_answers_without_a_result_are_not_checked(answer):
    assert not has_checkable_answer(answer)


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_judged_without_failing(prediction, answer):
    exact_match(prediction, answer)
    if has_checkable_answer(answer):
        assert exact_match(answer, answer)


# means and intervals ---------------------------------------------------------------------------------------------


def test_mean_and_error_by_hand():
    # variance of 1, 2, 3, 4 is 5/3
    assert mean_and_error([1, 2, 3, 4]) == pytest.approx((2.5, math.sqrt(5 / 12)))
    assert mean_and_error([7.0]) == (7.0, None)
    with pytest.raises(ValueError, match="there is none"):
        mean_and_error([])


def ratio_and_error(totals, counts) -> tuple[float, float | None]:
    return mean_and_error(ratio_by_item(totals, counts))


def test_ratio_by_hand():
    # 30 / 10; residuals 0, 3, -3; sqrt(18 / 2 / 3) / (10 / 3)
    assert ratio_and_error([6, 12, 12], [2, 3, 5]) == pytest.approx((3.0, math.sqrt(3) / (10 / 3)))
    assert ratio_by_item([6, 12, 12], [2, 3, 5]) == pytest.approx([3.0, 3.9, 2.1])
    assert ratio_and_error([6], [2]) == (3.0, None)
    for totals, counts in (([], []), ([1.0], [0]), ([1.0, 2.0], [1])):
        with pytest.raises(ValueError, match=r"values|counts"):
            ratio_and_error(totals, counts)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20), st.integers(1, 9))
def test_ratio_of_equal_lengths_is_the_mean(values, length):
    mean, error = mean_and_error(values)
    totals = [value * length for value in values]
    assert ratio_and_error(totals, [length] * len(values)) == pytest.approx((mean, error), abs=1e-9)


def test_ratio_error_is_the_spread_of_repeated_samples():
    rng = np.random.default_rng(0)

    def sample() -> tuple[float, float | None]:
        counts = rng.integers(5, 100, size=60)
        return ratio_and_error(list(counts * rng.normal(2.0, 0.5, size=60)), list(counts))

    drawn = [sample() for _ in range(400)]
    assert np.mean([error for _, error in drawn]) == pytest.approx(np.std([ratio for ratio, _ in drawn]), rel=0.12)


def test_the_error_of_a_difference_over_the_same_items_is_the_spread_of_repeated_samples():
    """Of two models that find the same items hard: their own errors are many times that of the difference."""
    rng = np.random.default_rng(1)

    def sample() -> tuple[float, float, float]:
        counts = rng.integers(5, 100, size=60)
        hard = rng.normal(2.0, 0.5, size=60)
        one, other = (
            ratio_by_item(list(counts * (hard + shift + rng.normal(0, 0.05, size=60))), list(counts))
            for shift in (0.0, 0.1)
        )
        return *mean_and_error(other - one), mean_and_error(one)[1]

    gaps, errors, own = np.array([sample() for _ in range(400)]).T
    assert gaps.mean() == pytest.approx(0.1, abs=0.002)
    assert errors.mean() == pytest.approx(gaps.std(), rel=0.12)
    assert own.mean() > 5 * errors.mean()


# pass@k ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 7), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations(range(n), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(any(i < c for i in s) for s in subsets) / len(subsets))


def test_pass_at_k_survives_large_samples():
    assert pass_at_k(1000, 1, 1) == pytest.approx(0.001)
    assert pass_at_k(2000, 1000, 100) == 1.0


@pytest.mark.parametrize(("n", "c", "k"), [(5, 6, 1), (5, -1, 1), (5, 2, 0), (5, 2, 6), (0, 0, 1)])
def test_pass_at_k_refuses_what_has_no_meaning(n, c, k):
    with pytest.raises(ValueError, match="pass_at_k"):
        pass_at_k(n, c, k)


# lexical diversity -----------------------------------------------------------------------------------------------


def test_type_token_ratio_by_hand():
    assert type_token_ratio(["the", "cat", "saw", "the", "dog"]) == 0.8
    assert type_token_ratio([]) == 0.0


def test_mtld_by_hand():
    # a a: ratio 1, then 1/2, a factor each two tokens, either way
    assert mtld(["a"] * 8) == 2.0
    # forward: 1, 1, 1, 3/4 above 0.72, so (1 - 3/4) / 0.28 of a factor: 4 / 0.892857 = 4.48
    # backward a c b a: the same
    assert mtld(["a", "b", "c", "a"]) == pytest.approx(4.48)
    # forward as above; backward b b completes a factor at once and a c has none
    assert mtld(["c", "a", "b", "b"]) == pytest.approx((4 / (0.25 / 0.28) + 4 / 1) / 2)
    assert mtld(list("abcdefg")) == 7.0
    assert mtld([]) == 0.0


@given(st.lists(st.sampled_from("abcdefgh"), max_size=60))
def test_mtld_is_the_same_backwards(tokens):
    assert mtld(tokens) == pytest.approx(mtld(tokens[::-1]))


def test_repetition_lowers_diversity():
    rng = np.random.default_rng(0)
    rich, poor = rng.integers(500, size=400).astype(str), rng.integers(20, size=400).astype(str)
    assert mtld(list(rich)) > 5 * mtld(list(poor))


def test_mean_cosine_is_that_of_all_pairs_of_different_rows():
    vectors = np.random.default_rng(3).normal(size=(7, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = [vectors[i] @ vectors[j] for i in range(7) for j in range(i)]
    assert mean_cosine(vectors) == pytest.approx(np.mean(cosines))
    assert mean_cosine(np.array([[1.0, 0.0], [1.0, 0.0]])) == 1.0
    assert mean_cosine(vectors[:1]) is None

"""Ranges hold what comes as often as they say, and no budget is foreseen to be exceeded."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from equal.core import estimate
from equal.core.estimate import CONFIDENCE, affordable, busy_seconds, foresee, total

AMOUNTS = st.lists(st.floats(0.5, 1e4), min_size=2, max_size=20)


def test_examples_of_the_docstring():
    assert doctest.testmod(estimate).failed == 0


@pytest.mark.parametrize("size", [4, 30])
def test_the_interval_holds_the_sum_of_further_documents_as_often_as_it_says(size):
    rng = np.random.default_rng(size)
    held = 0
    for _ in range(2000):
        taken = rng.normal(100, 20, size + 50)
        interval = total(taken[:size], 50)
        held += interval.low <= taken[size:].sum() <= interval.high
    # three standard errors of a share of 2,000
    assert abs(held / 2000 - CONFIDENCE) < 0.02


@settings(deadline=None)
@given(AMOUNTS, st.integers(1, 1000))
def test_the_interval_is_that_of_student(sample, count):
    found = total(sample, count)
    error = np.std(sample, ddof=1) * np.sqrt(count**2 / len(sample) + count)
    high = stats.t.interval(CONFIDENCE, len(sample) - 1, loc=np.mean(sample) * count, scale=max(error, 1e-300))[1]
    assert found.high == pytest.approx(high, rel=1e-9)
    assert 0 <= found.low <= found.value <= found.high


@settings(deadline=None)
@given(AMOUNTS, st.integers(1, 1000), st.floats(0, 1e6))
def test_no_budget_is_foreseen_to_be_exceeded_and_more_budget_reads_no_fewer(sample, documents, budget):
    found = foresee({"tokens": sample}, documents, {"tokens": budget})
    more = foresee({"tokens": sample}, documents, {"tokens": 2 * budget})
    assert found.documents.low <= found.documents.value <= found.documents.high <= documents
    assert (found.ends_by == "documents") == (not budget or affordable(sample, budget).value >= documents)
    if budget:
        assert found.amounts["tokens"].high <= budget
        assert found.documents.value <= more.documents.value


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), min_size=1, max_size=30))
def test_busy_is_what_a_clock_counts_that_runs_while_a_request_does(requests):
    ticks = {tick for start, length in requests for tick in range(start, start + length)}
    assert busy_seconds([s for s, _ in requests], [s + n for s, n in requests]) == len(ticks)

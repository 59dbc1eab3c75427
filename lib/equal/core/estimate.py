"""What reading documents will take, foreseen from a few that were read (prediction intervals of Student's t).

>>> total([2.0, 2.0, 2.0], 10)
Range(low=20.0, value=20.0, high=20.0)
>>> busy_seconds([0.0, 1.0, 10.0], [2.0, 3.0, 11.0])
4.0
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

#: of the intervals
CONFIDENCE = 0.9


@dataclass(frozen=True)
class Range:
    """An expected value and the interval that holds the true one with probability CONFIDENCE."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Foreseen:
    """What reading takes.

    Attributes:
        documents: that are read until a budget ends it.
        amounts: of each thing that the sample counts.
        ends_by: the budget that ends it, or `documents`.
    """

    documents: Range
    amounts: dict[str, Range]
    ends_by: str


def total(sample: Sequence[float], count: int) -> Range:
    """The sum over `count` further documents of which a sample is at hand.

    Its error is that of the sample's mean, count^2 s^2 / n, and the further documents' own spread, count s^2.

    Args:
        sample: what each of n documents took; two at least.
        count: further documents from the same population.
    """
    values = np.asarray(sample, dtype=np.float64)
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    error = _quantile(len(values)) * spread * math.sqrt(count**2 / len(values) + count)
    return Range(max(mean * count - error, 0.0), mean * count, mean * count + error)


def affordable(sample: Sequence[float], budget: float) -> Range:
    """Documents that a budget is enough for, from the interval of what one takes on average."""
    values = np.asarray(sample, dtype=np.float64)
    mean = float(values.mean())
    error = _quantile(len(values)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    cheap, dear = max(mean - error, float(values.min())), mean + error
    return Range(*(budget / each if each else math.inf for each in (dear, mean, cheap)))


def foresee(
    sample: Mapping[str, Sequence[float]], documents: int, budgets: Mapping[str, float], stored: int = 0
) -> Foreseen:
    """What reading `documents` takes, or as many of them as the budgets are enough for; no budget is exceeded.

    Args:
        sample: thing counted -> what each document of the sample took of it.
        documents: at most.
        budgets: of things that the sample counts; 0 is no limit.
        stored: documents among them whose replies are there; they count for the budgets, and take nothing more.
    """
    counts, ends_by = Range(documents, documents, documents), "documents"
    for name, budget in budgets.items():
        if not budget:
            continue
        enough = affordable(sample[name], budget)
        if enough.value < counts.value:
            ends_by = name
        counts = Range(*(min(a, b) for a, b in zip(_bounds(counts), _bounds(enough))))
    counts = Range(*map(math.floor, _bounds(counts)))
    new = [max(int(count) - stored, 0) for count in _bounds(counts)]
    amounts = {}
    for name, values in sample.items():
        limit = budgets.get(name) or math.inf
        low, value, high = (total(values, count) for count in new)
        amounts[name] = Range(min(low.low, limit), min(value.value, limit), min(high.high, limit))
    return Foreseen(counts, amounts, ends_by)


def busy_seconds(starts: Sequence[float], ends: Sequence[float]) -> float:
    """Length of the union of intervals: when at least one request was under way, whatever lay between them."""
    busy, until = 0.0, -math.inf
    for start, end in sorted(zip(starts, ends)):
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return busy


def _quantile(size: int) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, size - 1))


def _bounds(interval: Range) -> tuple[float, float, float]:
    return interval.low, interval.value, interval.high

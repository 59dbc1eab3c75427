"""What a text must be before anything is paid for: long enough, not mostly symbols, not the same over and over.

The rules are of the kind that Rae et al. 2021 (Gopher) filter the web with; the defaults of conf/base.yml are so
lenient that code and formulas pass.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from equal.core.minhash_kernels import shingle_hashes
from equal.core.texts import Texts
from equal.core.word_kernels import hash_words

FEW_WORDS, MANY_SYMBOLS = "few_words", "many_symbols"
REPEATED_LINES, REPEATED_RUNS = "repeated_lines", "repeated_runs"
OTHER_LANGUAGE, BLOCKED_SOURCE = "other_language", "blocked_source"

#: words of a run whose repetition is counted
RUN_WORDS = 5
_SYMBOL = re.compile(r"[^\w\s]|_")
_BLANK = re.compile(r"\s")


@dataclass(frozen=True)
class QualityLimits:
    """The thresholds; a rule is off at the value in brackets.

    Attributes:
        min_words: fewest words (0).
        max_symbol_share: of the characters that are not blanks, those that are neither letters nor digits (1).
        max_repeated_lines: of the characters in lines, those of lines that stood there before (1).
        max_repeated_runs: of the runs of five words, those that stood there before (1).
    """

    min_words: int
    max_symbol_share: float
    max_repeated_lines: float
    max_repeated_runs: float


@dataclass(frozen=True)
class Fault:
    """The first rule that a text breaks, what was measured and what is allowed."""

    reason: str
    value: float
    limit: float


def find_faults(texts: Sequence[str], limits: QualityLimits) -> list[Fault | None]:
    """The first rule, in the order of `QualityLimits`, that each text breaks; None where it breaks none."""
    counts, repeated = _runs(texts)
    return [_fault(text, int(count), float(share), limits) for text, count, share in zip(texts, counts, repeated)]


def symbol_share(text: str) -> float:
    """Share of characters that are neither letters nor digits among those that are not blanks."""
    blanks = len(_BLANK.findall(text))
    return len(_SYMBOL.findall(text)) / (len(text) - blanks) if len(text) > blanks else 0.0


def repeated_line_share(text: str) -> float:
    """Share of the characters of lines that stand in lines which are there before; blank lines do not count."""
    lines = [line for part in text.split("\n") if (line := part.strip())]
    total = sum(map(len, lines))
    return 1 - sum(map(len, set(lines))) / total if total else 0.0


def _runs(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Words of each text, and the share of its runs of words that stood there before."""
    packed = Texts.of(texts)
    words, bounds = hash_words(packed.data, packed.starts, packed.stops)
    hashes, ends = shingle_hashes(words, bounds, RUN_WORDS)
    repeated = np.zeros(len(texts))
    for i, (start, stop) in enumerate(pairwise(ends)):
        if stop > start:
            repeated[i] = 1 - len(np.unique(hashes[start:stop])) / (stop - start)
    return np.diff(bounds), repeated


def _fault(text: str, count: int, repeated_runs: float, limits: QualityLimits) -> Fault | None:
    if count < limits.min_words:
        return Fault(FEW_WORDS, count, limits.min_words)
    if limits.max_symbol_share < 1 and (share := symbol_share(text)) > limits.max_symbol_share:
        return Fault(MANY_SYMBOLS, share, limits.max_symbol_share)
    if limits.max_repeated_lines < 1 and (share := repeated_line_share(text)) > limits.max_repeated_lines:
        return Fault(REPEATED_LINES, share, limits.max_repeated_lines)
    if repeated_runs > limits.max_repeated_runs:
        return Fault(REPEATED_RUNS, repeated_runs, limits.max_repeated_runs)
    return None

"""How good answers and collections of answers are: exact match, pass@k, means with errors, lexical diversity."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

#: standard errors on either side of a mean that hold the true one with 90 % probability
Z90 = 1.645
#: answers of at most this many words are compared as a whole
_SHORT_WORDS = 3
#: MTLD's type-token ratio at which a factor is complete (McCarthy and Jarvis 2010)
_MTLD_THRESHOLD = 0.72

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
# a minus is a sign unless it follows an operand; digits inside a word or a longer number are no number
_NUMBER = re.compile(rf"(?:(?<![\w)\].%])(?P<sign>[-+]))?\$?(?<![\w.,])(?P<top>{_DIGITS})(?:e(?P<power>[-+]?\d+)\b)?"
                     rf"(?:\s?/\s?(?P<bottom>{_DIGITS}))?(?![\w^])", re.IGNORECASE)  # fmt: skip
#: what makes the number after it a result and not a part of an expression such as n - 1
_CUE = re.compile(
    r"(?:=|≈|:|####|^|\b(?:is|are|was|be|equals?|gives?|of|about|approximately|roughly|exactly|only|has|have|makes?"
    r"|costs?|total|answer))\s*(?:\\?[(\[{$])?\s*$",
    re.IGNORECASE,
)
#: a unit of up to three words and closing marks may follow a result
_TAIL = re.compile(r"\s*(?:%|percent|°)?\s*(?:[^\W\d_]+\s*){0,3}[.!)\]}$\\]*\s*$")


def has_checkable_answer(answer: str) -> bool:
    """Whether `exact_match` means anything: the answer ends in a number that is its result, or is very short."""
    return _result(answer) is not None or 0 < len(_plain(answer).split()) <= _SHORT_WORDS


def exact_match(prediction: str, answer: str) -> bool:
    """Whether a prediction gives the answer.

    A numeric answer is compared by value with the last number of the prediction, as GSM8K is scored;
    currency and percent signs and thousands commas do not count. A short one is compared in words,
    without case and punctuation, with the prediction or its last line.

    >>> exact_match("3 boxes of 6 hold 18 eggs.", "3 * 6 = 18. #### 18")
    True
    """
    expected = _result(answer)
    if expected is not None:
        found = numbers(prediction)
        return bool(found) and found[-1] == expected
    lines = [line for line in prediction.splitlines() if line.strip()]
    return bool(lines) and _plain(answer) in (_plain(prediction), _plain(lines[-1]))


def numbers(text: str) -> list[Fraction]:
    """The numbers of a text in order: signs, commas, decimals, powers of ten and fractions are read."""
    return [value for match in _NUMBER.finditer(_one_minus(text)) if (value := _value(match)) is not None]


def mean_and_error(values: Sequence[float] | np.ndarray) -> tuple[float, float | None]:
    """The mean and its standard error; None for a single value.

    Raises:
        ValueError: there is no value.
    """
    array = _array(values)
    if len(array) == 1:
        return float(array[0]), None
    return float(array.mean()), float(array.std(ddof=1) / math.sqrt(len(array)))


def ratio_by_item(totals: Sequence[float], counts: Sequence[int]) -> np.ndarray:
    """What each item stands for in sum(totals) / sum(counts), such as negative log-likelihood per token.

    Their mean is the ratio, and the standard error of that mean the linearised one of a ratio of sums, for items of
    different length. So two ratios over the same items are compared by `mean_and_error` of their difference.

    >>> ratio_by_item([6, 12], [2, 4]).tolist()
    [3.0, 3.0]

    Raises:
        ValueError: there is no item, the lengths differ, or the counts add up to 0.
    """
    top, bottom = _array(totals), _array(counts)
    if len(top) != len(bottom) or bottom.sum() <= 0:
        raise ValueError(f"counts: {len(bottom)} adding up to {bottom.sum():g}, expected {len(top)} above 0")
    ratio = top.sum() / bottom.sum()
    return ratio + (top - ratio * bottom) / bottom.mean()


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """The unbiased chance that one of k samples passes, 1 - C(n - c, k) / C(n, k) (Chen et al. 2021).

    Raises:
        ValueError: not 0 <= num_correct <= num_samples, or not 1 <= k <= num_samples.
    """
    if not 0 <= num_correct <= num_samples or not 1 <= k <= num_samples:
        raise ValueError(f"pass_at_k: {num_correct} of {num_samples} correct, k {k}; expected c <= n and 1 <= k <= n")
    return float(1 - Fraction(math.comb(num_samples - num_correct, k), math.comb(num_samples, k)))


def type_token_ratio(tokens: Sequence[str]) -> float:
    """Distinct tokens over tokens, in (0, 1]; 0 for none. It falls with length: compare equal lengths."""
    return len(set(tokens)) / len(tokens) if tokens else 0.0


def mtld(tokens: Sequence[str]) -> float:
    """Measure of textual lexical diversity: tokens a factor, mean of both directions (McCarthy and Jarvis 2010).

    A factor is complete where its type-token ratio falls to 0.72; the rest counts by how far it has fallen.
    A text without any repetition has no factor: its length is returned.
    """
    if not tokens:
        return 0.0
    return (_tokens_a_factor(tokens) + _tokens_a_factor(tokens[::-1])) / 2


def mean_cosine(vectors: np.ndarray) -> float | None:
    """Mean cosine of two different rows, in [-1, 1]: the lower, the more diverse (EQUAL, App. N).

    Args:
        vectors: (n, d) of unit length.

    Returns:
        None where there are no two.
    """
    n = len(vectors)
    if n < 2:
        return None
    total = vectors.sum(axis=0, dtype=np.float64)
    return float((total @ total - n) / (n * (n - 1)))


def _tokens_a_factor(tokens: Sequence[str]) -> float:
    factors, types, count = 0.0, set[str](), 0
    for token in tokens:
        types.add(token)
        count += 1
        if len(types) / count <= _MTLD_THRESHOLD:
            factors, types, count = factors + 1, set(), 0
    if count:
        factors += (1 - len(types) / count) / (1 - _MTLD_THRESHOLD)
    return len(tokens) / factors if factors else float(len(tokens))


def _result(answer: str) -> Fraction | None:
    """The number that an answer states as its result at its end."""
    text = _one_minus(answer)
    matches = list(_NUMBER.finditer(text))
    if not matches:
        return None
    last = matches[-1]
    stated = _CUE.search(text[: last.start()]) and _TAIL.match(text[last.end() :])
    return _value(last) if stated else None


def _value(match: re.Match[str]) -> Fraction | None:
    top = Fraction(match["top"].replace(",", ""))
    bottom = Fraction((match["bottom"] or "1").replace(",", ""))
    power = int(match["power"] or 0)
    if bottom == 0 or abs(power) > 400:  # beyond every float: text that happens to look so
        return None
    value = top / bottom * Fraction(10) ** power
    return -value if match["sign"] == "-" else value


def _one_minus(text: str) -> str:
    return text.replace("\u2212", "-").replace("\u2013", "-")


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"[^\w]+", " ", folded).split())


def _array(values: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if not array.size:
        raise ValueError("values: there is none; a mean or interval needs at least one")
    return array

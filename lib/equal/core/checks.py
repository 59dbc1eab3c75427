"""Whether a pair counts: every rule by which one is rejected, each with its own reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from equal.core.ngrams import words
from equal.core.qa import MIN_QUESTION_CHARS, QA, is_looping
from equal.core.sentences import content_words

#: words in a row that nobody writes by chance
_RUN_WORDS = 8
#: share of words two questions have in common from which one is a copy of the other
_COPY_JACCARD = 0.7


@dataclass(frozen=True)
class Rejection:
    """Why a pair does not count.

    Attributes:
        reason: one word to group by: empty, looping, copied_example, copied_prompt, ungrounded, contaminated ...
        evidence: for a person.
    """

    reason: str
    evidence: str = ""


def reject_question(question: str, example_questions: Sequence[str]) -> Rejection | None:
    """The first rule that a question breaks.

    Args:
        question: the question.
        example_questions: those of the prompt's worked examples; a small model gives them back.
    """
    if len(question) < MIN_QUESTION_CHARS:
        return Rejection("empty")
    if is_looping(question):
        return Rejection("looping")
    for example in example_questions:
        if jaccard(question, example) >= _COPY_JACCARD:
            return Rejection("copied_example", example)
    return None


def reject_answer(
    pair: QA, passage: str, *, min_grounded_share: float, match: Callable[[str], object]
) -> Rejection | None:
    """The first rule that an answer, or the pair as a whole, breaks.

    Args:
        pair: question and answer.
        passage: what they were read from.
        min_grounded_share: of the answer's content words that must stand in the passage.
        match: benchmark lookup; anything but None means contamination.
    """
    if not pair.answer.strip():
        return Rejection("empty")
    if is_looping(pair.answer):
        return Rejection("looping")
    share = grounded_share(pair.answer, passage)
    if share < min_grounded_share:
        return Rejection("ungrounded", f"{share:.2f} of the answer's content words stand in the passage")
    hit = match(f"{pair.question}\n{pair.answer}")
    return None if hit is None else Rejection("contaminated", str(hit))


def reject_prompt(pair: QA, passage: str, prompt: str) -> Rejection | None:
    """Whether a pair gives away what the model was told: words in a row of the prompt that the passage lacks.

    Args:
        pair: question and answer.
        passage: what they were read from.
        prompt: the turns that are the same for every passage.
    """
    leaked = _runs(f"{pair.question}\n{pair.answer}") & _prompt_runs(prompt)
    leaked -= _runs(passage) if leaked else frozenset()
    return Rejection("copied_prompt", " ".join(min(leaked))) if leaked else None


def _runs(text: str) -> frozenset[tuple[str, ...]]:
    tokens = words(text)
    return frozenset(tuple(tokens[i : i + _RUN_WORDS]) for i in range(len(tokens) - _RUN_WORDS + 1))


@lru_cache(maxsize=8)
def _prompt_runs(prompt: str) -> frozenset[tuple[str, ...]]:
    return _runs(prompt)


def same_question(question: str) -> str:
    """What two questions share when they are the same one: their words."""
    return " ".join(words(question))


def same_wording(question: str) -> str:
    """What two questions share when they are the same but for case, blanks and their end; signs and tags tell apart.

    >>> same_wording("What is  2 - 3?") == same_wording("what is 2 - 3"), same_wording("What is 2 + 3?")
    (True, 'what is 2 + 3')
    """
    return " ".join(question.casefold().split()).rstrip(" ?.!")


def jaccard(a: str, b: str) -> float:
    """Jaccard similarity of two texts' word sets.

    >>> jaccard("What is a mean?", "what is the mean")
    0.6
    """
    first, second = _word_set(a), _word_set(b)
    return len(first & second) / max(len(first | second), 1)


def grounded_share(answer: str, passage: str) -> float:
    """Share of the answer's content words that the passage holds; 1 for an answer without any.

    >>> grounded_share("It has 12 eggs.", "A box holds 12 of them.")
    0.5
    """
    wanted = content_words(answer)
    return len(wanted & _passage_words(passage)) / len(wanted) if wanted else 1.0


@lru_cache(maxsize=256)  # every question is held beside every example
def _word_set(text: str) -> frozenset[str]:
    return frozenset(words(text))


@lru_cache(maxsize=8)  # a passage has several answers, which are checked in a row
def _passage_words(passage: str) -> frozenset[str]:
    return frozenset(content_words(passage))

"""Sentences of a document: cutting, packing into passages, and finding the ones that answer a question.

A sentence keeps the whitespace that follows it, so that joining sentences gives the document back, line
breaks and indentation included.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from equal.core.ngrams import words

#: a longer "sentence" is a listing or a table: cut, at a line break if there is one
MAX_SENTENCE_CHARS = 400
#: sentences that one lifted answer may hold
MAX_ANSWER_SENTENCES = 3
#: a sentence with fewer letters is a heading or a bullet, where no answer begins or ends
_MIN_LETTERS = 20
#: content words that an answer must have beyond the question's
_MIN_NEW_WORDS = 3
_HEADING = re.compile(r"\n[ \t]*([-=~^*])\1{2,}[ \t]*(?:\n|$)")
#: a blank line, or a line that underlines a heading, with the indentation of the next line
_LAYOUT_END = re.compile(r"\n\s*\n\s*|\n[ \t]*([-=~^*])\1{2,}[ \t]*\n\s*")


@dataclass(frozen=True)
class Quote:
    """An answer lifted from a passage.

    Attributes:
        text: its sentences, verbatim.
        similarity: cosine of the question and the mean of the sentences' unit vectors.
    """

    text: str
    similarity: float


def split_at(text: str, detected: Sequence[str]) -> list[str]:
    """Cut a text where detected sentences begin, and where its layout says that one does.

    Args:
        text: the document.
        detected: its sentences as a detector returned them, in order; whitespace may have been lost.

    Returns:
        Pieces of at most MAX_SENTENCE_CHARS that join to `text`. A detected start inside a word, as
        detectors find them in `np.diag(s)`, is none; blank lines and underlined headings end a sentence;
        a piece without letters belongs to the one before it.
    """
    starts = {match.end() for match in _LAYOUT_END.finditer(text)}
    position = 0
    for sentence in map(str.strip, detected):
        found = text.find(sentence, position)
        if found >= 0:
            position = found + len(sentence)
            if found and text[found - 1].isspace():
                starts.add(found)
    pieces = [""]
    for start, stop in pairwise([0, *sorted(starts - {0, len(text)}), len(text)]):
        if _num_letters(pieces[-1]) and _num_letters(text[start:stop]):
            pieces.append("")
        pieces[-1] += text[start:stop]
    return [part for piece in pieces for part in _cut(piece)]


def pack(sentences: Sequence[str], passage_chars: int) -> list[list[str]]:
    """Group sentences into passages of at most `passage_chars` characters, never splitting a sentence.

    >>> pack(["One. ", "Two. ", "Three. "], passage_chars=10)
    [['One. ', 'Two. '], ['Three. ']]
    """
    passages: list[list[str]] = []
    room = 0
    for sentence in sentences:
        if not passages or len(sentence) > room:
            passages.append([])
            room = passage_chars
        passages[-1].append(sentence)
        room -= len(sentence)
    return [passage for passage in passages if "".join(passage).strip()]


def best_quote(question: str, vector: np.ndarray, sentences: Sequence[str], vectors: np.ndarray) -> Quote | None:
    """The one to three neighbouring sentences that answer best.

    Args:
        question: the question.
        vector: (d,) its unit vector.
        sentences: n sentences of one passage.
        vectors: (n, d) their unit vectors.

    Returns:
        The window with the highest cosine, the shorter and then the earlier one on a tie, among those that
        say something the question does not; None when there is none.
    """
    best: Quote | None = None
    asked = content_words(question)
    sums = np.concatenate([np.zeros((1, vectors.shape[1])), np.cumsum(vectors, axis=0, dtype=np.float64)])
    for width in range(1, min(MAX_ANSWER_SENTENCES, len(sentences)) + 1):
        windows = sums[width:] - sums[:-width]
        norms = np.maximum(np.linalg.norm(windows, axis=1), 1e-12)
        for start, similarity in enumerate(windows @ vector / norms):
            if best is not None and similarity <= best.similarity + 1e-9:
                continue
            window = sentences[start : start + width]
            if _can_answer(window, asked):
                best = Quote(_dedent("".join(window)), float(similarity))
    return best


def _can_answer(window: Sequence[str], asked: set[str]) -> bool:
    """Whether neighbouring sentences can be an answer at all: no heading among them, no echo of the question."""
    if min(_num_letters(window[0]), _num_letters(window[-1])) < _MIN_LETTERS:
        return False
    text = "".join(window)
    return not _HEADING.search(text) and len(content_words(text) - asked) >= _MIN_NEW_WORDS


def _num_letters(text: str) -> int:
    return sum(map(str.isalpha, text))


def _cut(sentence: str) -> list[str]:
    """Pieces of at most MAX_SENTENCE_CHARS, cut after a line break, else after a space, else anywhere."""
    pieces = []
    while len(sentence) > MAX_SENTENCE_CHARS:
        head = sentence[:MAX_SENTENCE_CHARS]
        stop = max(head.rfind("\n"), 0) or max(head.rfind(" "), 0) or MAX_SENTENCE_CHARS - 1
        pieces.append(sentence[: stop + 1])
        sentence = sentence[stop + 1 :]
    return [*pieces, sentence] if sentence else pieces


def _dedent(text: str) -> str:
    """Without the indentation that all lines after the first share."""
    lines = text.strip().split("\n")
    indents = [len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()]
    cut = min(indents, default=0)
    return "\n".join([lines[0], *[line[cut:].rstrip() for line in lines[1:]]])


def content_words(text: str) -> set[str]:
    """Numbers, and words of four letters and more."""
    return {word for word in words(text) if len(word) > 3 or word.isdigit()}

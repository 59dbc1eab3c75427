"""A question with its answer: the unit of reference sets, benchmarks and extracted pairs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One reference or benchmark item.

    Attributes:
        item_id: unique within its file.
        question: the question.
        answer: its answer; empty when the set has none.
    """

    item_id: str
    question: str
    answer: str

    @property
    def text(self) -> str:
        """What is embedded: question and answer together."""
        return f"{self.question}\n{self.answer}"

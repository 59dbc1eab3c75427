"""A passage, a pair on its way, a pass over a document: what a reading works on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from equal.core.chat import UNASKED, UNSERVED, Reply, Request


@dataclass(frozen=True)
class Passage:
    """A run of sentences that is read at once; each sentence keeps the whitespace after it."""

    index: int
    key: str
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """As it stands in the document."""
        return "".join(self.sentences)

    def first(self, num: int) -> Passage:
        """Its first sentences alone, under the key of the whole, by which all replies about it are looked up."""
        return replace(self, sentences=self.sentences[:num])

    def after(self, num: int, *, index: int) -> Passage:
        """What follows them, as a passage of its own; under the same key, as its replies are looked up with theirs."""
        return replace(self, index=index, sentences=self.sentences[num:])


@dataclass
class Pair:
    """A pair on its way; it counts while `reason` is empty."""

    passage: Passage
    question: str
    answer: str
    similarity: float | None = None
    reason: str = ""
    evidence: str = ""
    embedding: np.ndarray | None = None

    def drop(self, reason: str, evidence: str = "") -> None:
        """Reject the pair; the first reason stays."""
        if not self.reason:
            self.reason, self.evidence = reason, evidence

    def pair_id(self, doc_id: str) -> str:
        """128-bit hex hash of document, passage, question and answer."""
        parts = "\x1f".join([doc_id, str(self.passage.index), self.question, self.answer])
        return hashlib.blake2b(parts.encode("utf-8", "replace"), digest_size=16).hexdigest()


@dataclass
class Pass:
    """One pass over a document: what was asked, what came back.

    Attributes:
        keys: of each passage the key of the request that was sent last; None where none was sent.
        unserved: passages about which the endpoint gave no reply.
        notes: for a person, what was not asked about as it stands.
    """

    name: str
    prompt_version: str
    requests: list[Request] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    unserved: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, requests: Sequence[Request], replies: Sequence[Reply]) -> None:
        """What was asked about one passage, in that order."""
        self.requests += requests
        self.replies += replies
        self.unserved += replies[-1].failure in UNSERVED
        self.keys.append(None if replies[-1].failure in UNASKED else requests[-1].key)

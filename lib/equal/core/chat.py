"""A chat request, its reply, and the key under which a reply is paid for once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

#: of a request that its client did not send, as it had given the server up
NOT_SENT = "not_sent"
#: of one whose worst case was above what was left of its document's allowance
OVER_BUDGET = "over_budget"
UNASKED = (NOT_SENT, OVER_BUDGET)
#: what is the endpoint's fault, not the document's: dead letters, which may be asked again
UNSERVED = ("failed", "context_too_short")
#: one turn: {"role": "system" | "user" | "assistant", "content": ...}
Message = dict[str, str]


@dataclass(frozen=True)
class Request:
    """One chat completion that is wanted.

    Attributes:
        messages: the turns, fixed part first, so that the server's prefix cache holds it.
        model: the served name.
        parameters: decoding parameters of the API, such as temperature and max_tokens.
        schema: JSON schema of the reply, or None for plain text.
        prompt_version: which prompt made the messages; not part of the key, the messages are.
        passage_key: hash of the passage that is read.
    """

    messages: tuple[Message, ...]
    model: str
    parameters: Mapping[str, float | int]
    schema: Mapping[str, Any] | None = None
    prompt_version: str = ""
    passage_key: str = ""

    @cached_property
    def key(self) -> str:
        """Hash of all that the reply depends on."""
        return request_key(self.messages, self.model, self.parameters, self.schema)


@dataclass(frozen=True)
class Reply:
    """What came back, or why nothing did.

    Attributes:
        finish_reason: the server's `stop` or `length`; `oversized` when the body was too large to be kept.
        prompt_tokens: as the server counted them; likewise cached_tokens and completion_tokens.
        latency_ms: of the attempt that succeeded.
        attempts: HTTP requests sent, the successful one included; 0 for a reply that was read back.
        received_at: seconds since the epoch.
        failure: "" for a reply, else `failed`, `not_sent`, `context_too_short` or `over_budget`; then no text.
        error: the failure in words.
        cached: it was paid for earlier and read back.
    """

    text: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    latency_ms: float = 0.0
    attempts: int = 0
    received_at: float = 0.0
    failure: str = ""
    error: str = field(default="", compare=False)
    cached: bool = False

    def from_store(self) -> Reply:
        """The same reply, read back instead of asked for."""
        return replace(self, cached=True, attempts=0)


def request_key(
    messages: tuple[Message, ...], model: str, parameters: Mapping[str, Any], schema: Mapping[str, Any] | None
) -> str:
    """128-bit hex hash of rendered prompt, model, decoding parameters and schema; the order of mappings is nothing."""
    canonical = json.dumps([list(messages), model, dict(parameters), schema], sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()

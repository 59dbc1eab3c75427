"""How many tokens a prompt has: vLLM's `/tokenize` counts them with the model's own tokenizer and chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from equal.core.chat import Message, Reply, Request
from equal.io.completions import PassingError, raise_for
from equal.io.connections import beside_api

#: tokens that a chat template may put around one message, and before the reply; those known take up to a dozen
_TEMPLATE_TOKENS = 32
#: of a server that does not know an address; some gateways say 403, and a refused key shows at the request itself
_NO_ROUTE = frozenset({403, 404, 405})


def tokenize_url(url: str) -> str:
    """Where the server of a chat API counts tokens."""
    return beside_api(url, "tokenize")


def tokenize_body(request: Request) -> dict[str, Any]:
    """What is asked there."""
    return {"model": request.model, "messages": list(request.messages)}


def read_count(messages: Sequence[Message], status: int, headers: Mapping[str, str], content: bytes | None) -> Reply:
    """A reply without text: the count of `/tokenize`, or `largest_size` where the server does not know that address.

    Raises:
        PassingError: another attempt may give a count.
        FinalError: none will.
    """
    if status in _NO_ROUTE:
        return Reply(prompt_tokens=largest_size(messages))
    if status != 200:
        raise_for(status, headers, content or b"")
    try:
        return Reply(prompt_tokens=read_size(content or b""))
    except ValueError as error:
        raise PassingError("HTTP 200 but no count of tokens", status=200) from error


def read_size(content: bytes) -> int:
    """The count in a reply of `/tokenize`.

    Raises:
        ValueError: there is none.
    """
    try:
        count = json.loads(content)["count"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError("no count") from error
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"no count: {count!r:.100}")
    return count


def largest_size(messages: Sequence[Message]) -> int:
    """A size that no byte-level BPE exceeds, for a server without `/tokenize`.

    A token of such a tokenizer stands for one UTF-8 byte at least, and a template adds a few to each message. The
    bound is about four times the true size of English text, so a run under it stops that much earlier.
    """
    text_bytes = sum(len(message["content"].encode("utf-8", "replace")) for message in messages)
    return text_bytes + _TEMPLATE_TOKENS * (len(messages) + 1)

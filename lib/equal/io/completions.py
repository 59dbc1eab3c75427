"""What a server's answer to a chat request says: a reply, a failure that may pass, or one that will not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

from equal.core.chat import NOT_SENT, Reply

#: status, headers in any case, body or None for one that is too large -> what it says
Read = Callable[[int, Mapping[str, str], bytes | None], Reply]

_RETRIED = frozenset({408, 429, *range(500, 600)})
#: statuses that no request will fare better with, and what to do
_HOPELESS = {
    401: "give the right key by the environment variable of endpoint.key_env, or by endpoint.key_secret",
    403: "give a key that may use the model, by endpoint.key_env or endpoint.key_secret",
    404: "correct endpoint.url or endpoint.model",
}
#: statuses of a server that may be away; 0 is no answer at all
PERHAPS_AWAY = frozenset({0, 502, 503, 504})


class PassingError(Exception):
    """A failure that another attempt may cure; `unread` when no model can have seen the request."""

    def __init__(self, message: str, *, status: int = 0, retry_after_s: float = 0.0, unread: bool = False) -> None:
        super().__init__(message)
        self.status, self.retry_after_s, self.unread = status, retry_after_s, unread


class FinalError(Exception):
    """A failure that no attempt cures; `failure` as in Reply."""

    def __init__(self, message: str, *, failure: str = "failed", hopeless: bool = False) -> None:
        super().__init__(message)
        self.failure, self.hopeless = failure, hopeless


def raise_for(status: int, headers: Mapping[str, str], content: bytes) -> None:
    """Raise what a status other than 200 means.

    Raises:
        PassingError: it may pass.
        FinalError: it will not.
    """
    message = _error_message(content)
    said = f"HTTP {status}: {message}" if message else f"HTTP {status}"
    if status in _RETRIED:
        raise PassingError(said, status=status, retry_after_s=_retry_after_s(headers))
    if status == 400 and ("maximum context length" in message or "max_model_len" in message):
        raise FinalError(f"{said}; lower extraction.passage_chars or max_tokens", failure="context_too_short")
    if status in _HOPELESS:  # the document is read when that is mended: it is no dead letter
        raise FinalError(f"{said}; {_HOPELESS[status]}", failure=NOT_SENT, hopeless=True)
    raise FinalError(said)


def _error_message(content: bytes) -> str:
    """The server's words, at most 300 characters, whatever shape they come in."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    for name in ("error", "message", "detail"):
        if isinstance(value, dict) and name in value:
            value = value[name]
    return " ".join(str(value).split())[:300]


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks for, as a number or as a date; 0 when it does not."""
    said = headers.get("retry-after", "0")
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def chat_url(url: str) -> str:
    """Where a server whose API has this base takes chat requests."""
    return f"{url}/chat/completions"


def read_chat(status: int, headers: Mapping[str, str], content: bytes | None) -> Reply:
    """What the server says to a chat request; raises as `raise_for` and `read_completion` do."""
    if status != 200:
        raise_for(status, headers, content or b"")
    return Reply(finish_reason="oversized") if content is None else read_completion(content, headers)


def read_completion(content: bytes, headers: Mapping[str, str]) -> Reply:
    """The reply that an answer with status 200 holds.

    Raises:
        PassingError: it holds none.
    """
    try:
        value = json.loads(content)
        choice, usage = value["choices"][0], value.get("usage") or {}
        return Reply(
            # JSON can spell lone surrogates, which neither a file nor a table can hold
            text=str(choice["message"].get("content") or "").encode("utf-8", "replace").decode("utf-8"),
            finish_reason=str(choice.get("finish_reason") or ""),
            prompt_tokens=_count(usage.get("prompt_tokens")),
            cached_tokens=_count((usage.get("prompt_tokens_details") or {}).get("cached_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        kind = headers.get("content-type", "unknown")
        raise PassingError(f"HTTP 200 but no chat completion (content type {kind})", status=200) from error


def _count(value: object) -> int:
    """A token count; 0 for what is none."""
    return value if isinstance(value, int) and 0 <= value < 2**31 else 0

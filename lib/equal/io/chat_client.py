"""The chat client of a Python worker, for any server that speaks vLLM's `/v1/chat/completions`.

Bounded concurrency, a deadline a request, retries with jitter on what may pass, none on what will not.
Whatever a server does becomes a typed `Reply`; nothing is raised.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from equal.core.chat import Reply, Request
from equal.io.prompt_size import largest_size, read_size, tokenize_body, tokenize_url

#: bytes of a response that are read; a reply of 4,000 tokens has about 30,000
MAX_BODY_BYTES = 4_000_000
#: seconds; the longest pause between two attempts, and the longest Retry-After that is honoured
_MAX_WAIT_S = 60.0
#: 500s after which a request is sent without its schema: a grammar compiler may have crashed on it
_SCHEMA_PATIENCE = 2
#: requests in a row, at least, that must find no server before it counts as gone
_UNREACHED_LIMIT = 5
_RETRIED = frozenset({408, 429, *range(500, 600)})
_HOPELESS = frozenset({401, 403, 404})
#: of a server that does not know an address
_NO_ROUTE = frozenset({404, 405})

#: status, headers, body or None for one that is too large -> what it says
Read = Callable[[int, httpx.Headers, bytes | None], Reply]


class _PassingError(Exception):
    """A failure that another attempt may cure."""

    def __init__(self, message: str, *, status: int = 0, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status, self.retry_after_s = status, retry_after_s


class _FinalError(Exception):
    """A failure that no attempt cures; `failure` as in Reply."""

    def __init__(self, message: str, *, failure: str = "failed", hopeless: bool = False) -> None:
        super().__init__(message)
        self.failure, self.hopeless = failure, hopeless


@dataclass(frozen=True)
class ClientFactory:
    """Makes a client in a Python worker; picklable, the key never shown.

    Attributes:
        url: base of the API, such as http://127.0.0.1:8000/v1.
        in_flight: requests at once of one client; there is one client a running task.
        timeout_s: of one attempt, from first byte sent to last byte read.
        max_attempts: tries of one request.
        max_wait_s: longest pause between two tries.
    """

    url: str
    key: str = field(repr=False)
    in_flight: int
    timeout_s: float
    max_attempts: int
    max_wait_s: float = _MAX_WAIT_S

    def __call__(self) -> ChatClient:
        """A client for the running event loop; close it with `async with`."""
        return ChatClient(self)


class ChatClient:
    """Sends requests, at most `in_flight` at once.

    After a wrong key or an unknown model, or when as many requests in a row as are in flight (and at least five)
    could not reach the server at all, the rest fail at once instead of each waiting through its own retries.
    """

    def __init__(self, settings: ClientFactory) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.in_flight)
        self._unreached = 0
        self._given_up = ""
        self._http = httpx.AsyncClient(
            base_url=settings.url.rstrip("/"),
            headers={"Authorization": f"Bearer {settings.key}"} if settings.key else {},
            timeout=httpx.Timeout(settings.timeout_s),
            limits=httpx.Limits(max_connections=settings.in_flight, max_keepalive_connections=settings.in_flight),
        )

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, request: Request) -> Reply:
        """Send one request until it succeeds, cannot succeed, or its attempts are used up."""
        async with self._slots:
            if self._given_up:
                return Reply(failure="failed", error=self._given_up)
            return await self._ask("/chat/completions", _body(request), _read_chat)

    async def count(self, request: Request) -> Reply:
        """A reply without text whose prompt_tokens are those of the request's prompt, or a failure as of `ask`."""

        def read(status: int, headers: httpx.Headers, content: bytes | None) -> Reply:
            if status in _NO_ROUTE:
                return Reply(prompt_tokens=largest_size(request.messages))
            return _read_count(status, headers, content)

        async with self._slots:
            if self._given_up:
                return Reply(failure="failed", error=self._given_up)
            return await self._ask(tokenize_url(self._settings.url), tokenize_body(request), read)

    async def _ask(self, path: str, body: dict[str, Any], read: Read) -> Reply:
        attempts, server_errors = 0, 0
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._settings.max_attempts),
            wait=self._wait,
            retry=retry_if_exception_type(_PassingError),
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    attempts += 1
                    if server_errors >= min(_SCHEMA_PATIENCE, self._settings.max_attempts - 1):
                        body.pop("response_format", None)
                    try:
                        reply = await self._send(path, body, read, attempts)
                    except _PassingError as failure:
                        server_errors += failure.status == 500
                        raise
        except (_PassingError, _FinalError) as failure:
            return self._failed(failure, attempts)
        self._unreached = 0
        return reply

    def _failed(self, failure: _PassingError | _FinalError, attempts: int) -> Reply:
        if isinstance(failure, _FinalError):
            if failure.hopeless:
                self._given_up = self._hidden(f"not sent: {failure}")
            return Reply(failure=failure.failure, error=self._hidden(str(failure)), attempts=attempts)
        self._unreached = self._unreached + 1 if failure.status == 0 else 0
        if self._unreached >= max(_UNREACHED_LIMIT, self._settings.in_flight):
            self._given_up = f"not sent: {self._unreached} requests in a row got no answer from {self._settings.url}"
        return Reply(failure="failed", error=self._hidden(f"{failure} ({attempts} attempts)"), attempts=attempts)

    def _hidden(self, message: str) -> str:
        """Without the key, which some servers repeat when they refuse it."""
        return message.replace(self._settings.key, "***") if self._settings.key else message

    def _wait(self, state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        asked = failure.retry_after_s if isinstance(failure, _PassingError) else 0.0
        jittered = wait_random_exponential(multiplier=0.5, max=self._settings.max_wait_s)(state)
        return min(max(asked, jittered), self._settings.max_wait_s)

    async def _send(self, path: str, body: dict[str, Any], read: Read, attempt: int) -> Reply:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                status, headers, content = await self._post(path, body)
        except TimeoutError as error:
            raise _PassingError(f"no reply within timeout_s={self._settings.timeout_s:g}") from error
        except httpx.HTTPError as error:
            raise _PassingError(f"{type(error).__name__}: {error}") from error
        reply = read(status, headers, content)
        latency_ms = (time.monotonic() - started) * 1000
        return replace(reply, latency_ms=latency_ms, attempts=attempt, received_at=time.time())

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[int, httpx.Headers, bytes | None]:
        """Status, headers and body; the body is None when it is larger than MAX_BODY_BYTES."""
        content = bytearray()
        async with self._http.stream("POST", path, json=body) as response:
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MAX_BODY_BYTES:
                    return response.status_code, response.headers, None
            return response.status_code, response.headers, bytes(content)


def _body(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = {"model": request.model, "messages": list(request.messages), **request.parameters}
    if request.schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "reply", "schema": request.schema}}
    return body


def _raise_for(status: int, headers: httpx.Headers, content: bytes) -> None:
    message = _error_message(content)
    said = f"HTTP {status}: {message}" if message else f"HTTP {status}"
    if status in _RETRIED:
        raise _PassingError(said, status=status, retry_after_s=_retry_after_s(headers))
    if status == 400 and ("maximum context length" in message or "max_model_len" in message):
        raise _FinalError(f"{said}; lower extraction.passage_chars or max_tokens", failure="context_too_short")
    raise _FinalError(said, hopeless=status in _HOPELESS)


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


def _retry_after_s(headers: httpx.Headers) -> float:
    try:
        return max(0.0, float(headers.get("retry-after", "0")))
    except ValueError:  # the header may be a date; the backoff will do
        return 0.0


def _read_chat(status: int, headers: httpx.Headers, content: bytes | None) -> Reply:
    if status != 200:
        _raise_for(status, headers, content or b"")
    return Reply(finish_reason="oversized") if content is None else _read_completion(content, headers)


def _read_count(status: int, headers: httpx.Headers, content: bytes | None) -> Reply:
    if status != 200:
        _raise_for(status, headers, content or b"")
    try:
        return Reply(prompt_tokens=read_size(content or b""))
    except ValueError as error:
        raise _PassingError("HTTP 200 but no count of tokens", status=200) from error


def _read_completion(content: bytes, headers: httpx.Headers) -> Reply:
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
        raise _PassingError(f"HTTP 200 but no chat completion (content type {kind})", status=200) from error


def _count(value: object) -> int:
    """A token count; 0 for what is none."""
    return value if isinstance(value, int) and 0 <= value < 2**31 else 0

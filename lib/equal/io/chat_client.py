"""The chat client of a Python worker, for any server that speaks vLLM's `/v1/chat/completions`.

Bounded concurrency, a deadline a request, retries with jitter on what may pass, none on what will not, one wait for a
server that is away. Whatever a server does becomes a typed `Reply`; nothing is raised.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from aiohttp import ClientConnectorError, ClientError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from equal.core.chat import NOT_SENT, Reply, Request
from equal.io.completions import PERHAPS_AWAY, FinalError, PassingError, Read, chat_url, read_chat
from equal.io.connections import exchange, open_session
from equal.io.pace import Pace
from equal.io.prompt_size import read_count, tokenize_body, tokenize_url
from equal.io.servers import Server, Servers

#: seconds; the longest pause between two attempts, and the longest Retry-After that is honoured
_MAX_WAIT_S = 60.0
#: of a server, or of what stands before it, that has too much to do
_OVERLOADED = frozenset({429, 503})
#: 500s after which a request is sent without its schema: a grammar compiler may have crashed on it
_SCHEMA_PATIENCE = 2
#: requests in a row, at least, that must find no server before it counts as gone
_UNREACHED_LIMIT = 5
#: requests that must have ended before their failed share is one
_SHARE_OF = 20
#: spreads of chance by which it must be above the allowed one: a healthy run is looked at thousands of times
_SPREADS = 3.0


@dataclass(frozen=True)
class ClientFactory:
    """Makes a client in a Python worker; picklable, the key never shown.

    Attributes:
        servers: base of each server's API, such as http://127.0.0.1:8000/v1, and its part of the requests.
        in_flight: requests at once of one client; there is one client a running task.
        timeout_s: of one attempt, from first byte sent to last byte read.
        max_attempts: tries of one request.
        max_failed_share: of one client's requests; clearly above it the client sends no more.
        restart_wait_s: for a server that is away; 0 does not wait.
        max_wait_s: longest pause between two tries.
        elsewhere: the servers of a model that those do not serve.
    """

    servers: Mapping[str, float]
    key: str = field(repr=False)
    in_flight: int
    timeout_s: float
    max_attempts: int
    max_failed_share: float
    restart_wait_s: float
    max_wait_s: float = _MAX_WAIT_S
    elsewhere: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __call__(self) -> ChatClient:
        """A client for the running event loop; close it with `async with`."""
        return ChatClient(self)


class ChatClient:
    """Sends requests, at most `in_flight` at once, and no more than a few that would only wait in the server.

    When the server is away, all requests wait together until it answers again. What reached no model meanwhile is sent
    again as if for the first time; of what broke off under way that holds once, as it may be what ends the server.

    The rest fail at once, and nothing more is sent, after a wrong key or an unknown model; when the server did not
    come back in restart_wait_s; when as many requests in a row as are in flight (and at least five) got no answer;
    when at least twenty have ended and clearly more than max_failed_share of them failed.

    All this is known to one client, that is to one running task: another makes its own experience, and the driver
    judges the iteration over all of them.
    """

    def __init__(self, settings: ClientFactory) -> None:
        self._settings = settings
        self._unreached = self._num_ended = self._num_failed = 0
        self._given_up = ""
        self._http = open_session(settings.key)
        urls = dict.fromkeys([*settings.servers, *(url for weights in settings.elsewhere.values() for url in weights)])
        self._slots = Pace(self._http, urls, settings.in_flight)
        self._servers = {
            model: Servers(self._http, weights, settings.restart_wait_s)
            for model, weights in {"": settings.servers, **settings.elsewhere}.items()
        }

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._slots.close()
        for servers in self._servers.values():
            await servers.close()
        await self._http.close()

    async def ask(self, request: Request) -> Reply:
        """Send one request until it succeeds, cannot succeed, or its attempts are used up."""
        async with self._slots:
            reply = await self._ask(chat_url, _body(request), read_chat)
        self._judge(reply)
        return reply

    async def count(self, request: Request) -> Reply:
        """A reply without text whose prompt_tokens are those of the request's prompt, or a failure as of `ask`."""
        async with self._slots:
            reply = await self._ask(tokenize_url, tokenize_body(request), partial(read_count, request.messages))
        if reply.failure:  # its successes would hide that no request is answered
            self._judge(reply)
        return reply

    def _judge(self, reply: Reply) -> None:
        if not reply.failure:
            self._unreached = 0
        self._num_ended += 1
        self._num_failed += reply.failure == "failed"
        allowed = self._settings.max_failed_share
        spread = math.sqrt(self._num_ended * allowed * (1 - allowed))
        surplus = self._num_failed - allowed * self._num_ended
        if self._num_ended >= _SHARE_OF and surplus > _SPREADS * spread + 1 and not self._given_up:
            self._given_up = (
                f"not sent: {self._num_failed} of {self._num_ended} requests of this task failed, clearly above "
                f"endpoint.max_failed_share={allowed:g}; the last: {reply.error}"
            )

    async def _ask(self, url_at: Callable[[str], str], body: dict[str, Any], read: Read) -> Reply:
        sent, uncounted, server_errors, broken_off = 0, 0, 0, False
        tried: set[Server] = set()
        servers = self._servers.get(body["model"], self._servers[""])
        retrying = AsyncRetrying(
            stop=lambda _: sent - uncounted >= self._settings.max_attempts,
            wait=self._wait,
            retry=retry_if_exception_type(PassingError),
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    server = await self._server(servers, tried)
                    sent += 1
                    tried.add(server)
                    if server_errors >= min(_SCHEMA_PATIENCE, self._settings.max_attempts - 1):
                        body.pop("response_format", None)
                    try:
                        with server.busy():
                            reply = await self._send(url_at(server.url), body, read, sent)
                        if url_at is chat_url:  # that it counts tokens does not say that its model works
                            server.served()
                    except PassingError as failure:
                        server_errors += failure.status == 500
                        if failure.status in _OVERLOADED:
                            self._slots.refused()
                        if failure.status in PERHAPS_AWAY and await self._was_away(servers, server):
                            uncounted += failure.unread or not broken_off
                            broken_off = broken_off or not failure.unread
                        else:
                            server.failed()
                        raise
        except (PassingError, FinalError) as failure:
            return self._failed(failure, sent)
        return reply

    async def _server(self, servers: Servers, tried: set[Server]) -> Server:
        """Where the next attempt goes."""
        if self._given_up:
            raise FinalError(self._given_up, failure=NOT_SENT)
        try:
            server = await servers.next(tried)
        except TimeoutError as error:
            raise self._not_back(servers) from error
        if self._given_up:  # meanwhile
            raise FinalError(self._given_up, failure=NOT_SENT)
        return server

    async def _was_away(self, servers: Servers, server: Server) -> bool:
        """Whether the server was away; with no other one, it returns when that is back."""
        try:
            return await servers.lost(server)
        except TimeoutError as error:
            raise self._not_back(servers) from error

    def _not_back(self, servers: Servers) -> FinalError:
        return FinalError(
            f"no answer from {servers} for endpoint.restart_wait_s={self._settings.restart_wait_s:g} seconds; "
            "start the server and run again, or raise it",
            failure=NOT_SENT,
            hopeless=True,
        )

    def _failed(self, failure: PassingError | FinalError, attempts: int) -> Reply:
        if isinstance(failure, FinalError):
            if failure.hopeless:
                self._given_up = self._hidden(f"not sent: {failure}")
            return Reply(failure=failure.failure, error=self._hidden(str(failure)), attempts=attempts)
        self._unreached = self._unreached + 1 if failure.status == 0 else 0
        if self._unreached >= max(_UNREACHED_LIMIT, self._settings.in_flight):
            self._given_up = f"not sent: {self._unreached} requests in a row got no answer from {self._servers['']}"
        return Reply(failure="failed", error=self._hidden(f"{failure} ({attempts} attempts)"), attempts=attempts)

    def _hidden(self, message: str) -> str:
        """Without the key, which some servers repeat when they refuse it."""
        return message.replace(self._settings.key, "***") if self._settings.key else message

    def _wait(self, state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        asked = failure.retry_after_s if isinstance(failure, PassingError) else 0.0
        jittered = wait_random_exponential(multiplier=0.5, max=self._settings.max_wait_s)(state)
        return min(max(asked, jittered), self._settings.max_wait_s)

    async def _send(self, url: str, body: dict[str, Any], read: Read, attempt: int) -> Reply:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                status, headers, content = await exchange(self._http, "POST", url, json.dumps(body).encode())
        except TimeoutError as error:
            raise PassingError(f"no reply within timeout_s={self._settings.timeout_s:g}") from error
        except ClientError as error:
            unread = isinstance(error, ClientConnectorError)
            raise PassingError(f"{type(error).__name__}: {error}", unread=unread) from error
        if status != 200 and content and self._settings.key:  # some servers repeat the key when they refuse it
            content = content.replace(self._settings.key.encode(), b"***")
        reply = read(status, headers, content)
        latency_ms = (time.monotonic() - started) * 1000
        return replace(reply, latency_ms=latency_ms, attempts=attempt, received_at=time.time())


def _body(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = {"model": request.model, "messages": list(request.messages), **request.parameters}
    if request.schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "reply", "schema": request.schema}}
    return body

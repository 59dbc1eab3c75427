"""A server that goes away in mid-run and comes back, or does not; a task that stops itself when too much fails."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from chat_server import ChatServer, always
from equal.core.chat import Reply, Request
from equal.io.chat_client import ClientFactory


def asked(url: str, count: int, **changes: object) -> list[Reply]:
    settings = {
        **{"key": "", "in_flight": 4, "timeout_s": 5.0, "max_attempts": 1, "max_wait_s": 0.05},
        **{"max_failed_share": 1.0, "restart_wait_s": 20.0, **changes},
    }

    async def all_of_them() -> list[Reply]:
        async with ClientFactory({url: 1.0}, **settings)() as client:  # type: ignore[arg-type]
            requests = [Request(({"role": "user", "content": str(i)},), "m", {}) for i in range(count)]
            return list(await asyncio.gather(*map(client.ask, requests)))

    return asyncio.run(all_of_them())


@contextmanager
def restarting(noticed: Callable[[], bool]) -> Iterator[tuple[ChatServer, list[ChatServer]]]:
    """Two servers on one port: the first ends with four requests under way, the second comes when that was noticed."""
    first = ChatServer()
    second: list[ChatServer] = []

    def restart() -> None:
        while len(first.bodies) < 5 + 4:
            time.sleep(0.005)
        first.__exit__()
        give_up = time.monotonic() + 30
        # a time would be too short where this process stands still
        while not noticed() and time.monotonic() < give_up:
            time.sleep(0.005)
        second.append(ChatServer(port=first.port))
        second[0].__enter__()

    first.fault = lambda body: "hang" if int(said(body)) >= 5 else ""
    with first:
        thread = threading.Thread(target=restart)
        thread.start()
        try:
            yield first, second
        finally:
            thread.join()
            second[0].__exit__()


def said(body: dict) -> str:
    return body["messages"][-1]["content"]


def test_a_server_that_restarts_costs_no_request(caplog: pytest.LogCaptureFixture) -> None:
    def warnings() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]

    with restarting(noticed=lambda: bool(warnings())) as (first, second):
        replies = asked(first.url, 30, timeout_s=60.0)  # this process may stand still beside another
        assert [reply.failure for reply in replies] == [""] * 30
        # what was under way was asked twice, nothing else, and nobody hammered at the closed door
        assert sorted(int(said(body)) for body in second[0].bodies) == list(range(5, 30))
        assert sum(reply.attempts for reply in replies) <= 30 + 2 * 4
    away, back = warnings()
    assert f"no answer from {first.url}" in away
    assert "endpoint.restart_wait_s=20" in away
    assert "answers again" in back


def test_without_a_wait_a_restart_fails_what_is_asked_meanwhile() -> None:
    with restarting(noticed=lambda: True) as (first, _):
        assert "failed" in {reply.failure for reply in asked(first.url, 30, restart_wait_s=0.0)}


def test_a_server_that_does_not_come_back_is_waited_for_once() -> None:
    with ChatServer() as server:
        pass
    started = time.monotonic()
    replies = asked(server.url, 200, restart_wait_s=0.6)
    assert 0.6 <= time.monotonic() - started < 5
    assert {reply.failure for reply in replies} == {"not_sent"}
    assert all("endpoint.restart_wait_s=0.6" in reply.error and "start the server" in reply.error for reply in replies)
    assert sum(reply.attempts for reply in replies) <= 4


def test_a_gateway_before_a_starting_server_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer() as server:
        ready = time.monotonic() + 0.5
        monkeypatch.setattr(
            server._http.RequestHandlerClass,
            "do_GET",
            lambda self: self._send(502 if time.monotonic() < ready else 200, {}, b"{}"),
        )
        server.fault = lambda body: "unavailable" if time.monotonic() < ready else ""
        replies = asked(server.url, 12)
        assert {reply.failure for reply in replies} == {""}
        assert len(server.bodies) <= 12 + 4


def test_a_client_that_closes_leaves_nobody_waiting_for_the_server() -> None:
    with ChatServer() as server:
        url = server.url  # of nobody, once it has ended

    async def left_over() -> set[asyncio.Task[object]]:
        async with ClientFactory({url: 1.0}, "", 4, 5.0, 1, 1.0, 20.0, max_wait_s=0.05)() as client:
            asked = asyncio.ensure_future(client.ask(Request(({"role": "user", "content": "0"},), "m", {})))
            while not client._servers[""]._all[0].outage.away:
                await asyncio.sleep(0.01)
            asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(left_over()) == set()


def test_a_server_that_answers_is_not_away() -> None:
    """Its failures use up attempts as ever, and a request that breaks the server is not sent for ever."""
    with ChatServer() as server:
        server.fault = lambda body: "reset" if said(body) == "3" else ""
        replies = asked(server.url, 12, max_attempts=3)
        assert [reply.failure for reply in replies] == ["failed" if i == 3 else "" for i in range(12)]
        assert replies[3].attempts == 3


@pytest.mark.parametrize("broken", ["reset", "unavailable"])  # a gateway says 503 of what its server broke off
def test_a_request_that_ends_the_server_is_carried_over_once(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer() as server:
        gone_until = 0.0

        def fault(body: dict) -> str:
            nonlocal gone_until
            gone_until = time.monotonic() + 0.2
            return broken

        monkeypatch.setattr(
            server._http.RequestHandlerClass,
            "do_GET",
            lambda self: self._send(503 if time.monotonic() < gone_until else 200, {}, b"{}"),
        )
        server.fault = fault
        (reply,) = asked(server.url, 1, max_attempts=2)
        assert (reply.failure, reply.attempts) == ("failed", 3)


@pytest.mark.parametrize(("bad", "stops"), [(lambda i: i % 2 == 1, False), (lambda i: i > 0, True)])
def test_a_task_stops_when_more_than_the_allowed_share_fails(bad: Callable[[int], bool], stops: bool) -> None:
    with ChatServer() as server:
        server.fault = lambda body: "bad_request" if bad(int(said(body))) else ""
        replies = asked(server.url, 120, in_flight=1, max_failed_share=0.5)
        assert len(server.bodies) == (20 if stops else 120)
        served = [i for i, reply in enumerate(replies) if not reply.failure]
        assert served == [i for i in range(20 if stops else 120) if not bad(i)]
        if stops:
            assert "19 of 20 requests" in replies[-1].error
            assert "endpoint.max_failed_share=0.5; the last: HTTP 400: Grammar error" in replies[-1].error


def test_what_is_too_long_is_no_failure_of_the_endpoint() -> None:
    with ChatServer() as server:
        server.fault = always("too_long")
        assert {reply.failure for reply in asked(server.url, 50, max_failed_share=0.0)} == {"context_too_short"}

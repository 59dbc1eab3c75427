"""Requests in flight follow the server, as far as it tells how many it works on."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_server import ChatServer
from equal.core.chat import Request
from equal.io.connections import open_session
from equal.io.pace import Pace, followed
from equal.io.replies import client_factory
from equal.io.spool import ReplySpool


@given(st.integers(1, 500), st.floats(0, 500), st.floats(0, 2000), st.integers(1, 500), st.booleans())
def test_the_limit_is_never_above_the_cap_nor_below_one(limit, running, waiting, cap, full):
    assert 1 <= followed(min(limit, cap), running, waiting, cap, full=full) <= cap


@given(st.integers(1, 64), st.integers(65, 500))
def test_it_settles_where_a_few_wait(works_on, cap):
    limit = cap
    for _ in range(60):
        limit = followed(limit, min(limit, works_on), max(0, limit - works_on), cap, full=True)
        assert limit >= works_on  # no slot of the server is free while there is work
    assert limit <= works_on * 1.25 + 2


def test_a_server_that_works_on_nothing_yet_changes_nothing():
    assert followed(40, running=0, waiting=40, cap=64, full=True) == 40
    assert followed(40, running=0, waiting=0, cap=64, full=False) == 40


def follow(server: ChatServer, cap: int, seconds: float, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The limits of a client whose slots are all taken."""
    monkeypatch.setattr("equal.io.pace._EVERY_S", 0.05)

    async def main() -> list[int]:
        async with open_session("") as http:
            pace, limits = Pace(http, [server.url], cap), []
            for _ in range(cap):
                await pace.__aenter__()
            for _ in range(int(seconds / 0.05)):
                await asyncio.sleep(0.05)
                limits.append(pace.limit)
            await pace.close()
            return limits

    return asyncio.run(main())


def test_a_server_that_does_not_tell_gets_the_cap(monkeypatch):
    with ChatServer() as server:
        assert set(follow(server, 12, 0.3, monkeypatch)) == {12}


def test_one_whose_requests_wait_gets_fewer_and_one_that_recovers_gets_more(monkeypatch):
    with ChatServer() as server:
        server.works_on, server._in_flight = 4, 12  # a third of what is there is worked on
        limits = follow(server, 40, 1.0, monkeypatch)
        assert limits[-1] < 5 < limits[0] < 40
        server._in_flight = 4
        assert follow(server, 40, 1.0, monkeypatch)[-1] == 40


def test_a_gateways_error_page_does_not_end_the_following(monkeypatch):
    with ChatServer() as server:
        server.works_on, server._in_flight, server.metrics_status = 4, 12, 502
        threading.Timer(0.3, setattr, (server, "metrics_status", 200)).start()
        limits = follow(server, 40, 1.3, monkeypatch)
    assert limits[0] == 40
    assert limits[-1] < 5


def test_a_refusal_halves_and_what_is_taken_without_one_grows_again(monkeypatch):
    monkeypatch.setattr("equal.io.pace._EVERY_S", 0.05)

    async def main(server: ChatServer) -> list[int]:
        async with open_session("") as http:
            pace = Pace(http, [server.url], 40)
            for _ in range(40):
                await pace.__aenter__()
            pace.refused()
            pace.refused()  # of the same moment
            limits = [pace.limit]
            await asyncio.sleep(1.5)
            await pace.close()
            return [*limits, pace.limit]

    with ChatServer() as server:
        assert asyncio.run(main(server)) == [20, 40]


def test_a_clients_requests_in_flight_fall_to_what_the_server_works_on(monkeypatch, tmp_path):
    monkeypatch.setattr("equal.io.pace._EVERY_S", 0.05)
    spool = ReplySpool(str(tmp_path))

    async def ask_all(server: ChatServer) -> list[int]:
        seen: list[int] = []
        async with client_factory(server.endpoint(in_flight=30), "", spool, tasks=1)() as client:

            async def one(number: int) -> None:
                turn = {"role": "user", "content": f"<passage>Tin {number} melts.</passage>"}
                reply = await client.ask(Request((turn,), "test-model", {"max_tokens": 9}, None, "p@1", f"k{number}"))
                assert not reply.failure
                seen.append(server._in_flight)

            await asyncio.gather(*map(one, range(120)))
        return seen

    with ChatServer() as server:
        server.works_on, server.delay_s = 5, 0.1
        seen = asyncio.run(ask_all(server))
    assert server.most_in_flight > 15
    assert max(seen[60:]) <= 8

"""Several servers of one model: shares, one that dies and comes back, one that serves another model."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

from chat_server import ChatServer, always, endpoint_at
from equal.config import load
from equal.core.chat import Reply, Request
from equal.errors import ConfigError, EndpointError
from equal.io.chat_client import ClientFactory
from equal.io.endpoint import check_servers


def asked(servers: dict[str, float], count: int, **changes: object) -> list[Reply]:
    settings = {
        **{"key": "", "in_flight": 8, "timeout_s": 5.0, "max_attempts": 2, "max_wait_s": 0.05},
        **{"max_failed_share": 1.0, "restart_wait_s": 20.0, **changes},
    }

    async def all_of_them() -> list[Reply]:
        async with ClientFactory(servers, **settings)() as client:  # type: ignore[arg-type]
            requests = [Request(({"role": "user", "content": str(i)},), "m", {}) for i in range(count)]
            return list(await asyncio.gather(*map(client.ask, requests)))

    return asyncio.run(all_of_them())


def numbers(server: ChatServer) -> list[int]:
    return sorted(int(body["messages"][-1]["content"]) for body in server.bodies)


def test_requests_are_shared_out_by_weight() -> None:
    with ChatServer() as one, ChatServer() as three:
        one.delay_s = three.delay_s = 0.02
        replies = asked({one.url: 1.0, three.url: 3.0}, 160)
        assert [reply.failure for reply in replies] == [""] * 160
        assert sorted(numbers(one) + numbers(three)) == list(range(160))
        # of eight at once two and six, but for the moments in which one waits for the other
        assert (one.most_in_flight, three.most_in_flight) == (2, 6)
        assert 25 <= len(one.bodies) <= 55


def test_one_that_dies_is_passed_over_and_taken_back_when_it_answers_again() -> None:
    dying, lasting = ChatServer(), ChatServer()
    back: list[ChatServer] = []

    def die_and_return() -> None:
        while len(dying.bodies) < 10:
            time.sleep(0.002)
        dying.__exit__()
        served = len(lasting.bodies)
        while len(lasting.bodies) < served + 60:  # it serves alone meanwhile
            time.sleep(0.002)
        back.append(ChatServer(port=dying.port))
        back[0].__enter__()

    dying.delay_s = lasting.delay_s = 0.02
    thread = threading.Thread(target=die_and_return)
    with lasting, dying:
        thread.start()
        replies = asked({dying.url: 1.0, lasting.url: 1.0}, 400)
        thread.join()
    back[0].__exit__()
    assert [reply.failure for reply in replies] == [""] * 400
    assert back[0].bodies, "it is asked again"
    twice = len(dying.bodies) + len(lasting.bodies) + len(back[0].bodies) - 400
    assert 0 <= twice <= 4, "what was under way to it"


@pytest.mark.parametrize(("fault", "served"), [("broken", 200), ("unavailable", 200), ("busy", 200), ("hang", 60)])
def test_one_that_only_fails_is_drained_and_taken_back_when_it_serves_again(fault: str, served: int) -> None:
    """It is there, and has the fewest requests under way as it fails them fast: the others would all go there."""
    with ChatServer() as failing, ChatServer() as lasting:
        lasting.delay_s = 0.05
        failing.fault = lambda body: fault if len(lasting.bodies) < served else ""  # what the other has served
        replies = asked({failing.url: 1.0, lasting.url: 1.0}, 800, timeout_s=1.5 if fault == "hang" else 10.0)
        assert [reply.failure for reply in replies] == [""] * 800, "each was tried at the other one next"
        failed = sum(reply.attempts for reply in replies) - 800
        # what went there before the first failures came back, then one now and then
        assert 3 <= failed <= 8 + 3
        assert len(failing.bodies) - failed >= 100, "it is asked again"


def test_that_it_counts_tokens_does_not_say_that_a_server_serves() -> None:
    with ChatServer() as failing, ChatServer() as lasting:
        failing.fault, lasting.delay_s = always("broken"), 0.02

        async def counted_and_asked() -> list[Reply]:
            servers = {failing.url: 1.0, lasting.url: 1.0}
            async with ClientFactory(servers, "", 8, 5.0, 2, 1.0, 20.0, max_wait_s=0.05)() as client:

                async def both(number: int) -> Reply:
                    request = Request(({"role": "user", "content": str(number)},), "m", {})
                    await client.count(request)
                    return await client.ask(request)

                return list(await asyncio.gather(*map(both, range(200))))

        assert {reply.failure for reply in asyncio.run(counted_and_asked())} == {""}
        assert len(failing.bodies) <= 8 + 3


def test_where_all_fail_none_is_spared() -> None:
    with ChatServer() as one, ChatServer() as other:
        one.fault = other.fault = always("broken")
        started = time.monotonic()
        replies = asked({one.url: 1.0, other.url: 1.0}, 100)
        assert time.monotonic() - started < 10
        assert {(reply.failure, reply.attempts) for reply in replies} == {("failed", 2)}
        assert min(len(one.bodies), len(other.bodies)) >= 70


def test_when_none_is_left_the_run_stops_as_with_one() -> None:
    with ChatServer() as first, ChatServer() as second:
        urls = {first.url: 1.0, second.url: 2.0}
    started = time.monotonic()
    replies = asked(urls, 20, restart_wait_s=0.5)
    assert time.monotonic() - started < 5
    assert {reply.failure for reply in replies} == {"not_sent"}
    assert all(url in replies[0].error for url in urls)


def test_one_that_serves_another_model_is_named_before_anything_is_asked() -> None:
    with ChatServer() as right, ChatServer(model="another") as wrong:
        endpoint = endpoint_at(right.url, others={wrong.url: 1.0})
        with pytest.raises(EndpointError, match=f"'test-model', served at {wrong.url}: another"):
            check_servers(endpoint, "", min_context=1)
        assert not right.bodies


@pytest.mark.parametrize("restart_wait_s", [20.0, 0.0])
def test_one_that_is_down_at_the_start_is_named_and_the_others_serve(
    restart_wait_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    with ChatServer() as down, ChatServer() as gone:
        pass
    with ChatServer() as up:
        for first, second in [(down, up), (up, down)]:
            caplog.clear()
            check_servers(endpoint_at(first.url, others={second.url: 1.0}), "", min_context=1)
            (warned,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
            assert f"no answer from {down.url}" in warned
            assert "the others serve alone" in warned
        replies = asked({down.url: 1.0, up.url: 1.0}, 100, restart_wait_s=restart_wait_s)
        assert {reply.failure for reply in replies} == {""}
        up.key = "another key"
        with pytest.raises(EndpointError, match=f"{up.url} refuses the key"):
            check_servers(endpoint_at(down.url, others={up.url: 1.0}), "wrong", min_context=1)
        with pytest.raises(EndpointError, match=r"endpoint\.url: no answer from not a url"):
            check_servers(endpoint_at(up.url, others={"not a url": 1.0}), "another key", min_context=1)
    with pytest.raises(EndpointError, match=f"no answer from {down.url}"):
        check_servers(endpoint_at(down.url, others={gone.url: 1.0}), "", min_context=1)


def test_one_behind_a_gateway_that_does_not_reach_it_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer() as starting, ChatServer() as up:
        monkeypatch.setattr(
            starting._http.RequestHandlerClass, "do_GET", lambda self: self._send(502, {}, b"<html>Bad Gateway</html>")
        )
        check_servers(endpoint_at(starting.url, others={up.url: 1.0}), "", min_context=1)
        with pytest.raises(EndpointError, match="answers HTTP 502"):
            check_servers(endpoint_at(starting.url), "", min_context=1)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ("{http://b:1/v1: 0}", "endpoint.others: gives http://b:1/v1 the weight 0, allowed: above 0"),
        ("{http://a:1/v1/: 1}", "endpoint.others: has http://a:1/v1/, which is endpoint.url"),
        ("{http://k@b:1/v1: 1}", "endpoint.others: holds a user or a key before @"),
        ("[http://b:1/v1]", "endpoint.others: is ['http://b:1/v1'] (list), expected a mapping of names to numbers"),
    ],
)
def test_what_is_no_share_is_named(others: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(overrides=["endpoint.url=http://a:1/v1", f"endpoint.others={others}"])
    assert said in str(error.value)


def test_another_model_is_asked_where_it_is_served_and_checked_there() -> None:
    with ChatServer(model="m") as first, ChatServer(model="judge") as second:
        factory = ClientFactory({first.url: 1.0}, "", 4, 5.0, 1, 1.0, 0.0, elsewhere={"judge": {second.url: 1.0}})

        async def both() -> list[Reply]:
            async with factory() as client:
                requests = [Request(({"role": "user", "content": "0"},), model, {}) for model in ("m", "judge")]
                return [await client.ask(request) for request in requests]

        assert [reply.failure for reply in asyncio.run(both())] == ["", ""]
        assert [[body["model"] for body in server.bodies] for server in (first, second)] == [["m"], ["judge"]]
        endpoint = endpoint_at(first.url, model="m", refine_model="judge", refine_url=second.url)
        check_servers(endpoint, "", min_context=1)
        assert endpoint.elsewhere == {"judge": {second.url: 1.0}}
        for other in ("refine_model", "teacher_model"):
            with pytest.raises(EndpointError, match=f"'judge', served at {first.url}: m"):
                check_servers(endpoint_at(first.url, model="m", **{other: "judge"}), "", min_context=1)
        taught = endpoint_at(first.url, model="m", teacher_model="judge", teacher_url=second.url)
        check_servers(taught, "", min_context=1)
        assert taught.elsewhere == endpoint.elsewhere

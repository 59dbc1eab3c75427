"""The client against a real server with every fault; what a user reads when the endpoint cannot serve."""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime, parsedate_to_datetime

import pytest

from chat_server import FAULTS, ChatServer, always, endpoint_at, once
from equal.core.chat import Reply, Request
from equal.errors import EndpointError
from equal.io.chat_client import ClientFactory
from equal.io.endpoint import check_endpoint, read_key
from equal.io.replies import client_factory
from equal.io.spool import ReplySpool

KEY = "sk-do-not-show-me"
REQUEST = Request(
    ({"role": "user", "content": "<passage>Tin melts at 232 degrees.</passage>"},),
    "test-model",
    {"max_tokens": 16, "temperature": 0.0},
    {"type": "object", "properties": {"questions": {"type": "array"}}},
)


def factory(server: ChatServer, **changes: object) -> ClientFactory:
    settings = {
        **{"key": server.key, "in_flight": 4, "timeout_s": 2.0, "max_attempts": 3, "max_wait_s": 0.05},
        **{"max_failed_share": 1.0, "restart_wait_s": 0.0, **changes},
    }
    return ClientFactory({server.url: 1.0}, **settings)  # type: ignore[arg-type]


def ask(server: ChatServer, *requests: Request, **changes: object) -> list[Reply]:
    async def all_of_them() -> list[Reply]:
        async with factory(server, **changes)() as client:
            return list(await asyncio.gather(*map(client.ask, requests)))

    return asyncio.run(all_of_them())


def numbered(count: int) -> list[Request]:
    return [Request((*REQUEST.messages[:-1], {"role": "user", "content": str(i)}), "m", {}) for i in range(count)]


@pytest.mark.parametrize(
    "fault",
    ["busy", "broken", "unavailable", "html", "no_body", "cut_body", "no_choices", "deep_body", "reset"],
)
def test_what_may_pass_is_tried_again(fault: str) -> None:
    with ChatServer() as server:
        server.fault = once(fault, fault)
        (reply,) = ask(server, REQUEST)
        assert (reply.failure, reply.attempts, len(server.bodies)) == ("", 3, 3)
        server.fault = always(fault)
        (reply,) = ask(server, REQUEST)
        assert (reply.failure, reply.attempts, reply.text) == ("failed", 3, "")
        assert "3 attempts" in reply.error


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_the_deadline_is_for_the_whole_reply(fault: str) -> None:
    with ChatServer() as server:
        server.fault = once(fault)
        started = time.monotonic()
        (reply,) = ask(server, REQUEST, timeout_s=0.5)
        assert (reply.failure, reply.attempts) == ("", 2)
        assert time.monotonic() - started < 5
        server.fault = always(fault)
        (reply,) = ask(server, REQUEST, timeout_s=0.2)
        assert "timeout_s=0.2" in reply.error


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        ("bad_request", "failed"),
        ("unauthorised", "not_sent"),
        ("unknown_model", "not_sent"),
        ("too_long", "context_too_short"),
    ],
)
def test_what_will_not_pass_is_asked_once(fault: str, failure: str) -> None:
    with ChatServer() as server:
        server.fault = always(fault)
        (reply,) = ask(server, REQUEST)
        assert (reply.failure, reply.attempts, len(server.bodies)) == (failure, 1, 1)
        assert reply.error.startswith("HTTP 4")


def test_a_wrong_key_stops_the_others_before_they_are_sent() -> None:
    with ChatServer(key="right") as server:
        replies = ask(server, *numbered(50), key="wrong")
        assert len(server.bodies) <= 4
        assert {reply.failure for reply in replies} == {"not_sent"}
        assert replies[-1].error.startswith("not sent: HTTP 401")
        assert "environment variable of endpoint.key_env" in replies[-1].error


def test_a_share_of_one_lets_every_request_be_tried() -> None:
    with ChatServer() as server:
        server.fault = always("bad_request")
        replies = ask(server, *numbered(40), max_failed_share=1.0)
        assert [reply.failure for reply in replies] == ["failed"] * 40


def test_a_server_that_is_gone_fails_the_rest_at_once() -> None:
    with ChatServer() as server:
        pass
    started = time.monotonic()
    replies = ask(server, *numbered(200))
    assert time.monotonic() - started < 5
    assert {reply.failure for reply in replies} == {"failed", "not_sent"}
    assert "got no answer" in replies[-1].error
    assert sum(reply.attempts for reply in replies) <= 8 * 3


def test_bad_requests_among_good_ones_do_not_stop_the_others() -> None:
    with ChatServer() as server:
        server.fault = lambda body: "reset" if int(body["messages"][-1]["content"]) % 3 == 0 else ""
        replies = ask(server, *numbered(24), in_flight=1, max_attempts=1)
        assert [i for i, reply in enumerate(replies) if reply.failure] == list(range(0, 24, 3))


def test_the_server_may_say_when_to_come_back() -> None:
    with ChatServer() as server:
        server.fault = once("busy_for_a_second")
        started = time.monotonic()
        ask(server, REQUEST, max_wait_s=10.0)
        assert time.monotonic() - started >= 1.0


@pytest.mark.parametrize(("fault", "slots"), [("busy", 4), ("unavailable", 4), ("broken", 8)])
def test_a_refusal_for_too_much_work_halves_the_requests_at_once(fault: str, slots: int) -> None:
    async def one(server: ChatServer) -> int:
        async with factory(server, in_flight=8)() as client:
            assert (await client.ask(REQUEST)).attempts == 2
            return client._slots.limit

    with ChatServer() as server:
        server.fault = once(fault)
        assert asyncio.run(one(server)) == slots


def test_a_date_too_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer() as server:
        # dates have whole seconds: this one is more than one, at most two away
        date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=2), usegmt=True)
        monkeypatch.setitem(__import__("chat_server")._ANSWERS, "busy", (429, {"Retry-After": date}, ""))
        server.fault = once("busy")
        started = time.monotonic()
        assert ask(server, REQUEST)[0].attempts == 2
        assert time.monotonic() - started < 0.9, "max_wait_s caps it"
        server.fault = once("busy")
        assert ask(server, REQUEST, max_wait_s=10.0)[0].attempts == 2
        assert time.time() >= parsedate_to_datetime(date).timestamp()
        monkeypatch.setitem(__import__("chat_server")._ANSWERS, "busy", (429, {"Retry-After": "soon"}, ""))
        server.fault = once("busy")
        assert ask(server, REQUEST)[0].attempts == 2


def test_repeated_500s_drop_the_schema_and_the_reply_counts_under_the_same_key() -> None:
    with ChatServer() as server:
        server.fault = lambda body: "broken" if "response_format" in body else ""
        (reply,) = ask(server, REQUEST, max_attempts=5)
        assert (reply.failure, reply.attempts) == ("", 3)
        assert ["response_format" in body for body in server.bodies] == [True, True, False]


def test_no_more_than_in_flight_at_once() -> None:
    with ChatServer() as server:
        server.delay_s = 0.05
        replies = ask(server, *numbered(20), in_flight=3)
        assert not [reply for reply in replies if reply.failure]
        assert server.most_in_flight == 3


def test_a_huge_body_is_dropped_not_held() -> None:
    with ChatServer() as server:
        server.fault = always("huge")
        (reply,) = ask(server, REQUEST)
        assert (reply.failure, reply.finish_reason, reply.text, len(server.bodies)) == ("", "oversized", "", 1)


@pytest.mark.parametrize("fault", ["", *FAULTS])
def test_the_key_goes_in_the_header_and_nowhere_else(
    fault: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with ChatServer(key=KEY) as server, caplog.at_level(logging.DEBUG):
        server.fault = always(fault)
        made = factory(server, timeout_s=0.2, max_attempts=1)
        (reply,) = ask(server, REQUEST, timeout_s=0.2, max_attempts=1)
        assert server.bodies, "the key was accepted"
        paying = client_factory(server.endpoint(), KEY, ReplySpool("spool"), tasks=2)
        shown = [repr(made), repr(paying), repr(reply), str(server.bodies), caplog.text, "".join(capfd.readouterr())]
    assert KEY not in "".join(shown)


def test_a_server_that_repeats_the_key_does_not_get_it_into_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = (401, {}, f'{{"error": {{"message": "Incorrect API key provided: {KEY}"}}}}')
    monkeypatch.setitem(__import__("chat_server")._ANSWERS, "unauthorised", answer)
    with ChatServer() as server:
        server.fault = always("unauthorised")
        replies = ask(server, REQUEST, REQUEST, key=KEY, in_flight=1)
        assert [KEY in reply.error for reply in replies] == [False, False]
        assert "Incorrect API key provided: ***" in replies[0].error


def test_factories_travel_to_workers() -> None:
    made = pickle.loads(pickle.dumps(client_factory(endpoint(), KEY, ReplySpool("spool"), tasks=3)))
    assert made.client.key == KEY
    assert [made.in_flight(partition) for partition in range(3)] == [3, 3, 2]


def endpoint(**changes: object):
    return endpoint_at(**{"url": "http://127.0.0.1:9/v1", **changes})


def test_check_tells_the_context_length() -> None:
    with ChatServer(key=KEY, max_model_len=2048) as server:
        assert check_endpoint(server.endpoint(), KEY, min_context=2048) == 2048
    with ChatServer(max_model_len=None) as server:
        assert check_endpoint(server.endpoint(), "", min_context=10**9) is None


def test_check_names_what_is_wrong_and_the_remedy() -> None:
    with ChatServer(key=KEY, max_model_len=512) as server:
        for changes, key, min_context, said, remedy in [
            ({}, "sk-wrong", 0, "environment variable EQUAL_ENDPOINT_KEY", "set the environment variable"),
            ({}, "", 0, "endpoint.key_secret", "set the environment variable"),
            ({"model": ""}, KEY, 0, "endpoint.model: is '', served at", "set it to one of those served"),
            ({"model": "gpt"}, KEY, 0, "test-model", "set it to one of those served"),
            ({}, KEY, 513, "context of 512 tokens, prompt and reply need at least 513", "lower extraction.max_tokens"),
            ({"url": "not a url"}, KEY, 0, "endpoint.url", "start the server or correct it"),
            ({"url": server.url.replace("/v1", ":x")}, KEY, 0, "endpoint.url", "start the server or correct it"),
        ]:
            with pytest.raises(EndpointError) as raised:
                check_endpoint(server.endpoint(**changes), key, min_context=min_context)
            assert said in str(raised.value)
            assert f"; {remedy}" in str(raised.value)
            assert KEY not in str(raised.value)


def test_check_of_a_server_that_is_down_or_hangs_or_is_another() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        with pytest.raises(EndpointError, match=r"no answer from .* start the server"):
            check_endpoint(endpoint(url=url, timeout_s=1.0), "")
    with pytest.raises(EndpointError, match="ClientConnectorError"):
        check_endpoint(endpoint(url=url), "")
    with ChatServer() as server:
        server.model = None  # type: ignore[assignment]  # a list of models that names none
        with pytest.raises(EndpointError, match=r"endpoint\.model"):
            check_endpoint(server.endpoint(), "")


def test_the_key_comes_from_the_environment_or_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUAL_ENDPOINT_KEY", f" {KEY}\n")
    assert read_key(endpoint()) == KEY
    monkeypatch.delenv("EQUAL_ENDPOINT_KEY")
    assert read_key(endpoint()) == ""
    named = endpoint(key_secret="scope/name")
    assert read_key(named, lambda scope, name: f"{scope}-{name}") == "scope-name"


@pytest.mark.parametrize("secret", ["scope", "scope/", "/name"])
def test_a_secret_is_named_by_scope_and_name(secret: str) -> None:
    with pytest.raises(EndpointError, match="expected scope/name; give both"):
        read_key(endpoint(key_secret=secret))


def test_a_secret_that_cannot_be_read_says_so_without_its_cause() -> None:
    def refuse(scope: str, name: str) -> str:
        raise PermissionError(KEY)

    with pytest.raises(EndpointError, match=r"could not be read \(PermissionError\)") as raised:
        read_key(endpoint(key_secret="scope/name"), refuse)
    assert KEY not in str(raised.value)


def test_a_key_that_no_header_can_carry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUAL_ENDPOINT_KEY", "schlüssel")
    with pytest.raises(EndpointError, match="EQUAL_ENDPOINT_KEY: holds characters") as raised:
        read_key(endpoint())
    assert "schl" not in str(raised.value)

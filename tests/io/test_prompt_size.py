"""How many tokens a prompt has, asked of a real server or bounded."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_server import ChatServer
from equal.core.chat import Reply, Request
from equal.io.chat_client import ClientFactory
from equal.io.prompt_size import largest_size, read_size, tokenize_url

KEY = "sk-do-not-show-me"
REQUEST = Request(
    ({"role": "system", "content": "Write questions."}, {"role": "user", "content": "Tin melts at 232 °C."}),
    "test-model",
    {"max_tokens": 16},
)


def exchange(server: ChatServer, *, key: str = KEY) -> tuple[Reply, Reply]:
    """The count of a request, then the reply to it, of one client."""

    async def both() -> tuple[Reply, Reply]:
        async with ClientFactory({server.url: 1.0}, key, 2, 2.0, 3, 1.0, 0.0, max_wait_s=0.05)() as client:
            return await client.count(REQUEST), await client.ask(REQUEST)

    return asyncio.run(both())


def test_the_servers_tokenizer_counts_what_the_server_bills() -> None:
    with ChatServer(key=KEY) as server:
        size, reply = exchange(server)
    assert (size.failure, size.text, size.prompt_tokens) == ("", "", reply.prompt_tokens)
    assert server.counted == [{"model": "test-model", "messages": list(REQUEST.messages)}]


def test_a_server_that_does_not_count_gets_a_bound_and_is_asked_all_the_same() -> None:
    with ChatServer(key=KEY) as server:
        server.tokenizes = False
        size, reply = exchange(server)
    assert size.prompt_tokens == largest_size(REQUEST.messages) > reply.prompt_tokens
    assert not reply.failure


def test_a_count_is_tried_again_and_fails_like_a_request() -> None:
    with ChatServer(key=KEY) as server:
        server.count_faults = ["unavailable", "html"]
        size, _ = exchange(server)
        assert (size.failure, size.attempts) == ("", 3)
        server.count_faults = ["broken"] * 3
        size, reply = exchange(server)
        assert (size.failure, size.prompt_tokens, reply.failure) == ("failed", 0, "")
    with ChatServer(key=KEY) as server:
        size, reply = exchange(server, key="sk-wrong")
        assert (size.failure, reply.failure) == ("not_sent", "not_sent")
        assert not server.bodies  # a wrong key is known before the request itself is sent


@pytest.mark.parametrize("said", [b"", b"[]", b"{}", b'{"count": "9"}', b'{"count": 0}', b"[" * 100_000])
def test_no_count_is_no_count(said: bytes) -> None:
    with pytest.raises(ValueError, match="no count"):
        read_size(said)


def test_the_address_lies_beside_the_version() -> None:
    assert tokenize_url("http://h:1/v1") == tokenize_url("http://h:1/v1/") == "http://h:1/tokenize"
    assert tokenize_url("http://h/proxy") == "http://h/proxy/tokenize"


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_the_bound_is_above_a_token_a_byte(texts: list[str]) -> None:
    messages = [{"role": "user", "content": text} for text in texts]
    assert largest_size(messages) > sum(len(text.encode("utf-8", "replace")) for text in texts)

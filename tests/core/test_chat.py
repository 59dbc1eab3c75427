"""The key under which a reply is paid for once."""

from __future__ import annotations

from equal.core.chat import Request


def request(**changes: object) -> Request:
    values = {
        "messages": ({"role": "user", "content": "a"},),
        "model": "m",
        "parameters": {"max_tokens": 1, "top_p": 2},
    }
    return Request(**{**values, **changes})  # type: ignore[arg-type]


def test_request_keys_depend_on_everything_that_shapes_a_reply_and_on_nothing_else() -> None:
    key = request().key
    assert len(key) == 32
    assert request(parameters={"top_p": 2, "max_tokens": 1}).key == key
    assert request(prompt_version="x", passage_key="y").key == key
    others = [
        request(messages=({"role": "user", "content": "b"},)),
        request(messages=({"role": "system", "content": "a"},)),
        request(model="n"),
        request(parameters={"max_tokens": 2, "top_p": 2}),
        request(schema={"type": "object"}),
    ]
    assert len({key, *[r.key for r in others]}) == 1 + len(others)

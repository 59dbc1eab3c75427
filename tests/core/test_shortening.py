"""A passage that the server has no room for is asked about again, shorter, once, and the record says so."""

from __future__ import annotations

import re

import pytest
from test_reading import METALS, draft_or_refine, pairs, questions, read, recipe

from equal.core.chat import Reply, Request
from equal.core.pairs import Passage
from equal.core.shortening import sentences_that_fit

LONG = Passage(2, "l", tuple(f"Metal number {i} melts at {200 + i} degrees in a furnace. " for i in range(30)))
CONTEXT = "HTTP 400: This model's maximum context length is"
HALF = f"{CONTEXT} 512 tokens. However, your prompt contains at least 513 input tokens"
SENTENCES = ["x" * 99 + " "] * 10


def too_long(error: str = HALF) -> Reply:
    return Reply(failure="context_too_short", error=error, attempts=1)


def sentences_in(request: Request) -> int:
    return len(re.findall(r"Metal number", request.messages[-1]["content"]))


def test_half_of_the_sentences_are_asked_about_again() -> None:
    asked: list[Request] = []

    def says(request: Request) -> str | Reply:
        asked.append(request)
        if request.passage_key == "m":
            return questions()
        return too_long() if sentences_in(request) > 15 else questions("At how many degrees melts number 9?")

    reading = read(says, METALS, LONG, recipe=recipe())
    assert sorted(map(sentences_in, asked)) == [0, 15, 30]
    assert [request.passage_key for request in reading.passes[0].requests] == ["m", "l", "l"]
    assert [reply.failure for reply in reading.passes[0].replies] == ["", "context_too_short", ""]
    assert [pair.passage.index for pair in reading.pairs if not pair.reason] == [2]
    assert all(pair.passage.sentences == LONG.sentences[:15] for pair in reading.pairs if not pair.reason)
    short = [request.key for request in asked if sentences_in(request) in (0, 15)]
    assert sorted(reading.passes[0].keys) == sorted(short), "of each passage the request that was answered"
    assert reading.passes[0].keys[0] == next(request.key for request in asked if request.passage_key == "m")
    assert reading.status == "accepted"
    assert "passage 2 shortened to 15 of 30 sentences, quoted" in reading.error
    assert "context_too_short" not in reading.error


def test_once_and_no_more() -> None:
    asked: list[Request] = []
    reading = read(lambda r: asked.append(r) or too_long(), LONG, recipe=recipe())  # type: ignore[func-returns-value]
    assert [sentences_in(request) for request in asked] == [30, 15]
    assert reading.status == "context_too_short"
    assert "shortened to 15 of 30" in reading.error


def test_one_sentence_cannot_be_shortened() -> None:
    asked: list[Request] = []
    one = Passage(0, "o", METALS.sentences[:1])
    reading = read(lambda r: asked.append(r) or too_long(), one, recipe=recipe())  # type: ignore[func-returns-value]
    assert (len(asked), reading.status) == (1, "context_too_short")
    assert "shortened" not in reading.error


def test_a_refinement_is_shortened_too() -> None:
    mended = pairs(("When does tin melt?", "Tin melts at 232 degrees."))
    says = draft_or_refine(mended)

    def refuse_the_whole(request: Request) -> str | Reply:
        whole = "Lead is heavier, and" in request.messages[-1]["content"]
        return too_long() if whole and "refine" in request.prompt_version else says(request)

    reading = read(refuse_the_whole, METALS, recipe=recipe("written", refine=True))
    assert [pair.answer for pair in reading.pairs if not pair.reason] == ["Tin melts at 232 degrees."]
    assert "passage 0 shortened to 1 of 2 sentences, refine" in reading.error


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        # 2,000 characters are 500 tokens, 250 too many with the reply's 100: 1,000 characters, 1,250 with the margin
        ("350 tokens. However, your prompt contains 500 input tokens", 0),
        # 50 too many: 200 characters, 250 with the margin, three sentences
        ("550 tokens. However, your prompt contains 500 input tokens", 7),
        (
            "maximum context length is 550 tokens. However, you requested 600 tokens (500 in the messages, 100 in the",
            7,
        ),
        # a server that counts otherwise: one sentence less at least
        ("9000 tokens. However, your prompt contains 500 input tokens", 9),
        # it stopped counting: half
        ("550 tokens. However, your prompt contains at least 451 input tokens", 5),
        ("a secret", 5),
    ],
)
def test_the_servers_numbers_say_how_much(said: str, kept: int) -> None:
    assert sentences_that_fit(SENTENCES, 2000, 100, f"{CONTEXT} {said}") == kept

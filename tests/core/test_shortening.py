"""A passage that the server has no room for is read in two parts, each shortened once; the record says so."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import numpy as np
import pytest
from test_reading import METALS, bag_of_words, draft_or_refine, pairs, questions, read, recipe

from equal.core.allowance import Allowance
from equal.core.chat import Reply, Request
from equal.core.pairs import Passage
from equal.core.reading import Reading, read_document
from equal.core.shortening import sentences_that_fit

LONG = Passage(1, "l", tuple(f"Metal number {i} melts at {200 + i} degrees in a furnace. " for i in range(30)))
CONTEXT = "HTTP 400: This model's maximum context length is"
HALF = f"{CONTEXT} 512 tokens. However, your prompt contains at least 513 input tokens"
SENTENCES = ["x" * 99 + " "] * 10


def too_long(error: str = HALF) -> Reply:
    return Reply(failure="context_too_short", error=error, attempts=1)


def metals_in(request: Request) -> list[int]:
    return [
        int(number) for number in re.findall(r"Metal number (\d+) melts at \d+ degrees in a furnace\.", shown(request))
    ]


def shown(request: Request) -> str:
    return request.messages[-1]["content"]


def sentences_in(request: Request) -> int:
    return len(metals_in(request))


def room_for(most: int, asked: list[Request]) -> Callable[[Request], str | Reply]:
    """A model that has room for so many sentences, and asks about the first of those it is shown."""

    def says(request: Request) -> str | Reply:
        asked.append(request)
        if request.passage_key == "m":
            return questions()
        metals = metals_in(request)
        if len(metals) > most:
            return too_long()
        return questions(f"At how many degrees does metal number {metals[0]} melt in a furnace?")

    return says


def test_half_of_the_sentences_are_asked_about_again_and_then_the_other_half() -> None:
    asked: list[Request] = []
    reading = read(room_for(15, asked), METALS, LONG, recipe=recipe())
    first, second = list(range(15)), list(range(15, 30))
    assert sorted(map(metals_in, asked)) == [[], first, first + second, second]
    assert [request.passage_key for request in reading.passes[0].requests] == ["m", "l", "l", "l"]
    assert [reply.failure for reply in reading.passes[0].replies] == ["", "context_too_short", "", ""]
    accepted = [pair for pair in reading.pairs if not pair.reason]
    read_parts = [(pair.passage.index, pair.passage.sentences) for pair in accepted]
    assert read_parts == [(1, LONG.sentences[:15]), (2, LONG.sentences[15:])]
    keys = {request.key: metals_in(request) for request in asked}
    assert [keys[key] for key in reading.passes[0].keys if key] == [[], first, second], "by the pairs' passage_index"
    assert reading.status == "accepted"
    assert "passage 1 shortened to 15 of 30 sentences, extract; the rest of passage 1 is passage 2" in reading.error
    assert "not read" not in reading.error
    assert "context_too_short" not in reading.error


def test_the_rest_is_shortened_once_too_and_what_stays_unread_is_said() -> None:
    def read_long() -> tuple[list[list[int]], Reading]:
        asked: list[Request] = []
        says = room_for(12, asked)

        def says_how_much(request: Request) -> str | Reply:
            said = says(request)
            chars = sum(len(message["content"]) for message in request.messages)
            # 1,000 tokens too much with the reply of 100, where each is one character
            told = f"{CONTEXT} {chars + 100 - 1000} tokens. However, your prompt contains {chars} input tokens"
            return too_long(told) if isinstance(said, Reply) and sentences_in(request) == 30 else said

        reading = read(says_how_much, LONG, recipe=recipe())
        return [metals_in(request) for request in asked], reading

    asked, reading = read_long()
    begun = len(asked[1])
    assert asked == [[*range(30)], [*range(begun)], [*range(begun, 30)], [*range(begun, begun + (30 - begun) // 2)]]
    assert [pair.passage.sentences[0] for pair in reading.pairs] == [LONG.sentences[0], LONG.sentences[begun]]
    assert reading.error.endswith("sentences, extract; the rest of passage 2 was not read")
    asked_again, again = read_long()
    assert (asked_again, again.passes[0].keys, again.error) == (asked, reading.passes[0].keys, reading.error)


@pytest.mark.parametrize(("tokens", "read_parts"), [(124, 1), (125, 2)])
def test_the_rest_is_asked_about_only_if_it_fits_into_the_documents_allowance(tokens: int, read_parts: int) -> None:
    """The beginning took 10 + 5; the rest may take 10 + 100."""
    asked: list[Request] = []
    says = room_for(15, asked)

    async def ask(request: Request) -> Reply:
        said = says(request)
        return said if isinstance(said, Reply) else Reply(said, "stop", 10, 0, 5, attempts=1)

    async def count(request: Request) -> Reply:
        return Reply(prompt_tokens=10)

    async def encode(texts: list[str]) -> np.ndarray:
        return bag_of_words(texts)

    limit = Allowance(tokens=tokens)
    reading = asyncio.run(
        read_document([LONG], recipe(), ask=ask, count=count, encode=encode, match=lambda text: None, allowance=limit)
    )
    assert len(asked) == 1 + read_parts
    assert (reading.need.tokens, len(reading.pairs)) == (125, read_parts)
    assert ("over_budget: passage 2" in reading.error) == (read_parts == 1)
    assert [key is None for key in reading.passes[0].keys] == [False, read_parts == 1]


def test_the_pairs_of_both_parts_are_refined_each_with_its_own() -> None:
    refined: list[list[int]] = []

    def says(request: Request) -> str | Reply:
        metals = metals_in(request)
        if len(metals) > 15:
            return too_long()
        if "refine" in request.prompt_version:
            refined.append(metals)
        at = metals[0]
        return pairs(
            (f"At how many degrees does metal number {at} melt?", f"Metal number {at} melts at {200 + at} degrees.")
        )

    reading = read(says, LONG, recipe=recipe("written", refine=True))
    assert refined == [list(range(15)), list(range(15, 30))]
    assert [pair.passage.index for pair in reading.pairs if not pair.reason] == [1, 2]


def test_once_and_no_more() -> None:
    asked: list[Request] = []
    reading = read(lambda r: asked.append(r) or too_long(), LONG, recipe=recipe())  # type: ignore[func-returns-value]
    assert [sentences_in(request) for request in asked] == [30, 15]
    assert reading.status == "context_too_short"
    assert "shortened to 15 of 30 sentences, extract; the rest of passage 1 was not read" in reading.error


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

"""No document takes more than its allowance, whatever replies say and in whatever order they come."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equal.core.allowance import NOTHING, OVER_BUDGET, Account, Allowance, Amount, ask_within
from equal.core.chat import Reply, Request
from equal.core.costs import money
from equal.core.reading import Passage, Reading, Recipe, read_document
from equal.io.prompts import load_prompts

MAX_TOKENS = 60
#: what the simulated model may say
SAYINGS = ("pairs", "pairs", "pairs", "prose", "nothing", "no usage", "half a usage", "failed", "not counted")


@dataclass(frozen=True)
class Behaviour:
    """What a server does with one passage: of either pass (prompt tokens, tokens of the reply, what it says)."""

    extract: tuple[int, int, str]
    refine: tuple[int, int, str]


behaviours = st.builds(
    Behaviour, *[st.tuples(st.integers(1, 200), st.integers(0, MAX_TOKENS), st.sampled_from(SAYINGS))] * 2
)
allowances = st.builds(
    Allowance,
    st.one_of(st.just(math.inf), st.integers(0, 1500)),
    st.one_of(st.just(math.inf), st.floats(0, 2e-3)),
    st.floats(0.01, 3),
    st.floats(0.01, 9),
).filter(lambda allowance: allowance.limited)


def passage(index: int) -> Passage:
    return Passage(index, f"p{index}", (f"The metal number {index} melts at {index * 7 + 100} degrees in a furnace.",))


class Server:
    """Does what it is told to; `order` says how long each reply takes."""

    def __init__(self, behaviours: list[Behaviour], order: list[int]) -> None:
        self.behaviours, self.order = behaviours, order
        self.sent: list[str] = []
        self.tokens = (0, 0)

    def _does(self, request: Request) -> tuple[int, int, str]:
        does = self.behaviours[int(request.passage_key[1:])]
        return does.refine if "refine" in request.prompt_version else does.extract

    async def count(self, request: Request) -> Reply:
        size, _, says = self._does(request)
        return Reply(failure="failed", error="HTTP 500") if says == "not counted" else Reply(prompt_tokens=size)

    async def ask(self, request: Request) -> Reply:
        size, length, says = self._does(request)
        self.sent.append(request.key)
        for _ in range(self.order[int(request.passage_key[1:])]):
            await asyncio.sleep(0)
        if says == "failed":
            return Reply(failure="failed", error="HTTP 503")
        self.tokens = (self.tokens[0] + size, self.tokens[1] + length)
        number = int(request.passage_key[1:])
        question, answer = f"At what does metal number {number} melt?", f"Metal {number} melts at so many degrees."
        said = json.dumps({"pairs": [{"number": 1, "question": question, "answer": answer}]})
        text = "" if says == "nothing" else "I would rather not." if says == "prose" else said
        counts = {"no usage": (0, 0, 0), "half a usage": (size, 0, 0)}.get(says, (size, 0, length))
        return Reply(text, "stop", *counts, attempts=1)


def read(server: Server, allowance: Allowance) -> Reading:
    extract, refine, _ = load_prompts("general", answer="written", refine=True, structured=True, max_pairs=3)
    recipe = Recipe(extract, refine, "m", 0.0, MAX_TOKENS, min_answer_similarity=0.0, min_grounded_share=0.0)

    async def encode(texts: list[str]) -> np.ndarray:
        return np.ones((len(texts), 2), np.float32) / math.sqrt(2)

    passages = [passage(i) for i in range(len(server.behaviours))]
    reading = read_document(
        passages, recipe, ask=server.ask, count=server.count, encode=encode, match=lambda text: None,
        allowance=allowance,
    )  # fmt: skip
    return asyncio.run(reading)


def outcome(reading: Reading) -> tuple[object, ...]:
    kept = [(pair.passage.index, pair.question, pair.answer, pair.reason) for pair in reading.pairs]
    return kept, reading.setbacks, reading.status, reading.need, [done.replies for done in reading.passes]


@settings(max_examples=300, deadline=None)
@given(st.lists(behaviours, min_size=1, max_size=5), allowances, st.randoms(use_true_random=False))
def test_nothing_is_overspent_and_the_order_of_arrival_is_nothing(does, allowance, random):
    order = list(range(len(does)))
    server, shuffled = Server(does, order), Server(does, random.sample(order, len(order)))
    reading = read(server, allowance)
    recorded = [
        sum(getattr(reply, name) for done in reading.passes for reply in done.replies)
        for name in ("prompt_tokens", "completion_tokens")
    ]
    for prompt_tokens, completion_tokens in (server.tokens, recorded):  # what it took, and what is written down
        cost = money(prompt_tokens, completion_tokens, allowance.prompt_price, allowance.completion_price)
        assert prompt_tokens + completion_tokens <= allowance.tokens
        assert cost <= allowance.money
    assert sum(server.tokens) <= sum(recorded)
    assert outcome(read(shuffled, allowance)) == outcome(reading)


@settings(max_examples=100, deadline=None)
@given(st.lists(behaviours, min_size=1, max_size=5), allowances)
def test_with_what_it_needed_everything_is_sent(does, allowance):
    order = list(range(len(does)))
    need = read(Server(does, order), allowance).need
    for _ in range(3):  # a refused request hides what a second pass would have needed
        enough = Allowance(need.tokens, need.money, allowance.prompt_price, allowance.completion_price)
        reading = read(Server(does, order), enough)
        need = need.or_more(reading.need)
    assert not [reply for done in reading.passes for reply in done.replies if reply.failure == OVER_BUDGET]


def test_requests_are_admitted_in_the_order_of_passages_and_refused_ones_are_on_record():
    does = [Behaviour((size, 10, "pairs"), (500, 10, "pairs")) for size in (40, 200, 30)]
    server = Server(does, [0, 1, 2])
    reading = read(server, Allowance(tokens=200))
    assert len(server.sent) == 2  # 100 and 90 are reserved, 260 does not fit between them; then 500 does not
    first, second = reading.passes
    assert [reply.failure for reply in first.replies] == ["", OVER_BUDGET, ""]
    assert first.keys == [first.requests[0].key, None, first.requests[2].key]
    assert [reply.failure for reply in second.replies] == [OVER_BUDGET, OVER_BUDGET]
    assert reading.status == OVER_BUDGET
    assert "over_budget: passage 1, written: not sent: 200 prompt tokens" in reading.error
    assert reading.need == Amount(40 + 10 + 30 + 10 + 2 * (500 + MAX_TOKENS))


def test_without_a_limit_nothing_is_counted():
    async def count(request: Request) -> Reply:
        raise AssertionError("counted")

    async def ask(request: Request) -> Reply:
        return Reply("x", "stop", 5, 0, 5)

    request = Request((), "m", {"max_tokens": 9})
    account = Account(Allowance(prompt_price=1.0))
    assert [reply.text for reply in asyncio.run(ask_within(account, [request], ask=ask, count=count))] == ["x"]
    assert account.need == NOTHING


@pytest.mark.parametrize("documents", [1, 3, 7])
def test_shares_never_add_up_to_more_than_the_whole(documents):
    whole = Allowance(100, 0.1)
    share = whole.share(documents)
    assert share.tokens * documents <= 100
    assert math.fsum([share.money] * documents) <= 0.1 * (1 + 1e-15)
    assert Allowance().share(documents) == Allowance()

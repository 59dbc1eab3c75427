"""What a document may spend at most: requests are admitted by their worst case and settled by what they really took.

    count prompts -> admit in order, prompt + max_tokens reserved -> ask what was admitted -> settle -> the next pass

A document's allowance and the size of its prompts are all that an admission depends on, never what other documents
take meanwhile: so the outcome is the same in every order of arrival, under every partitioning and when run again.

    >>> account = Account(Allowance(tokens=100))
    >>> account.admit(30, 40), account.admit(30, 40)
    (True, False)
    >>> account.settle(30, 5)
    >>> account.admit(30, 30), account.need.tokens
    (True, 140)
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from equal.core.chat import OVER_BUDGET, Reply, Request
from equal.core.costs import money

Ask = Callable[[Request], Awaitable[Reply]]
#: a request -> a reply without text whose prompt_tokens is the size of the prompt, or a failure
Count = Callable[[Request], Awaitable[Reply]]
#: the requests of a pass -> a reply each
AskAll = Callable[[Sequence[Request]], Awaitable[list[Reply]]]


@dataclass(frozen=True)
class Amount:
    """Tokens (prompt and completion) and the money that they cost; false when there are none."""

    tokens: int = 0
    money: float = 0.0

    def __bool__(self) -> bool:
        return self.tokens > 0

    def or_more(self, other: Amount) -> Amount:
        """The larger of each."""
        return Amount(max(self.tokens, other.tokens), max(self.money, other.money))


@dataclass(frozen=True)
class Allowance:
    """What may be spent; math.inf where there is no limit. Prices are per million tokens."""

    tokens: float = math.inf
    money: float = math.inf
    prompt_price: float = 0.0
    completion_price: float = 0.0

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all; if not, nothing needs to be counted before it is sent."""
        return self.tokens < math.inf or self.money < math.inf

    def cost(self, prompt_tokens: int, completion_tokens: int) -> Amount:
        """What so many tokens take of it."""
        price = money(prompt_tokens, completion_tokens, self.prompt_price, self.completion_price)
        return Amount(prompt_tokens + completion_tokens, price)

    def short_of(self, need: Amount) -> str:
        """`tokens` or `money`: of which there is less than needed, or none at all; "" when it is enough."""
        if self.tokens <= 0 or self.tokens < need.tokens:
            return "tokens"
        return "money" if self.money <= 0 or self.money < need.money else ""

    def covers(self, need: Amount) -> float:
        """How many documents of this need it is enough for; math.inf without a limit."""
        by_tokens = self.tokens / need.tokens if need.tokens else math.inf
        by_money = self.money / need.money if need.money else math.inf
        covered = min(by_tokens, by_money)
        return math.floor(covered) if covered < math.inf else covered

    def share(self, documents: int) -> Allowance:
        """An equal part for each of so many documents; together they are never more than the whole."""
        tokens = self.tokens // documents if self.tokens < math.inf else self.tokens
        return replace(self, tokens=tokens, money=self.money / documents)


NOTHING, UNLIMITED = Amount(), Allowance()


class Account:
    """What one document has taken and reserved of its allowance, a pass at a time.

    Attributes:
        need: the most it had taken and wanted at once, refused requests among them: with this much, all are admitted.
    """

    def __init__(self, allowance: Allowance) -> None:
        self.allowance, self.need = allowance, NOTHING
        # (prompt tokens, completion tokens)
        self._taken = self._reserved = self._wanted = (0, 0)

    def admit(self, prompt_tokens: int, max_tokens: int) -> bool:
        """Reserve a request's worst case, if it still fits."""
        request = (prompt_tokens, max_tokens)
        self._wanted = _sum(self._wanted, request)
        self.need = self.need.or_more(self.allowance.cost(*_sum(self._taken, self._wanted)))
        reserved = _sum(self._reserved, request)
        worst = self.allowance.cost(*_sum(self._taken, reserved))
        if worst.tokens > self.allowance.tokens or worst.money > self.allowance.money:
            return False
        self._reserved = reserved
        return True

    def settle(self, prompt_tokens: int, completion_tokens: int) -> None:
        """The pass is over: what its replies took stands in place of all that was reserved."""
        self._taken = _sum(self._taken, (prompt_tokens, completion_tokens))
        self._reserved = self._wanted = (0, 0)


def _sum(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    return a[0] + b[0], a[1] + b[1]


async def ask_within(account: Account, requests: Sequence[Request], *, ask: Ask, count: Count) -> list[Reply]:
    """Ask the requests of one pass, as far as they are admitted in their order.

    Stored replies are admitted like those that are paid for now, by a count of their prompt and not by what the server
    said they took: a run from the store admits what the first run did, whatever way the server has of counting.

    Args:
        account: of the document.
        requests: with `max_tokens` among their parameters.
        ask: one request -> one reply; never raises for what a server may do.
        count: called only when there is a limit.

    Returns:
        A reply a request: `over_budget`, or what the count failed with, where it was not sent. A failed request takes
        nothing, as nobody says what it took; a reply that does not say counts as its worst case.
    """
    if not account.allowance.limited:
        return list(await asyncio.gather(*map(ask, requests)))
    sizes = await asyncio.gather(*map(count, requests))
    limits = [int(request.parameters["max_tokens"]) for request in requests]
    admitted = [
        not size.failure and account.admit(size.prompt_tokens, most) for size, most in zip(sizes, limits, strict=True)
    ]

    async def ask_one(request: Request, size: Reply, most: int, fits: bool) -> Reply:
        if size.failure:
            return size
        if not fits:
            error = f"not sent: {size.prompt_tokens} prompt tokens and up to {most} of a reply are above what is left"
            return Reply(failure=OVER_BUDGET, error=error)
        reply = await ask(request)
        if reply.failure:
            return reply
        unsaid = most if reply.text or not reply.prompt_tokens else 0  # an empty reply may well have taken nothing
        return replace(
            reply,
            prompt_tokens=reply.prompt_tokens or size.prompt_tokens,
            completion_tokens=reply.completion_tokens or unsaid,
        )

    replies = list(await asyncio.gather(*map(ask_one, requests, sizes, limits, admitted)))
    account.settle(sum(reply.prompt_tokens for reply in replies), sum(reply.completion_tokens for reply in replies))
    return replies

"""What the bandit loop works on: budgets, what was spent, pairs, what an iteration brought, and all of it together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from equal.core.allowance import NOTHING, Allowance, Amount
from equal.core.bandit import ArmState, Pull
from equal.core.transport import Estimate

#: share of a money budget that is never spent, so that the rounding of sums does not exceed it
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Limits:
    """The three budgets; 0 is no limit. Tokens and money count cached replies too, so that a rerun stops alike.

    Attributes:
        prompt_price: per million tokens; likewise completion_price.
        first_need: what a document may need, as long as none was read that would show it.
    """

    documents: int
    tokens: int
    money: float
    prompt_price: float = 0.0
    completion_price: float = 0.0
    first_need: Amount = NOTHING

    def left(self, spent: Spent) -> Allowance:
        """What may still be spent of tokens and money."""
        tokens = self.tokens - spent.tokens if self.tokens else math.inf
        money = self.money * (1 - _ROUNDING) - spent.money if self.money else math.inf
        return Allowance(tokens, money, self.prompt_price, self.completion_price)

    def covered(self, spent: Spent, need: Amount) -> float:
        """Documents whose worst case is covered by what is left; one at least as long as nothing is known of it."""
        covered = self.left(spent).covers(need or self.first_need)
        return covered if need else max(covered, 1)


@dataclass(frozen=True)
class Spent:
    """What the committed iterations used."""

    documents: int = 0
    tokens: int = 0
    money: float = 0.0

    def after(self, extracted: Extracted) -> Spent:
        """With what an extraction took."""
        return Spent(
            self.documents + sum(extracted.documents.values()),
            self.tokens + extracted.prompt_tokens + extracted.completion_tokens,
            self.money + extracted.money,
        )


@dataclass(frozen=True)
class Pairs:
    """Accepted pairs in order of pair_id.

    Attributes:
        arm_ids: (n,) arm of each pair.
        doc_ids: (n,) document of each pair.
        embeddings: (n, d) float32 unit vectors.
    """

    pair_ids: np.ndarray
    arm_ids: np.ndarray
    doc_ids: np.ndarray
    embeddings: np.ndarray

    def of_arm(self, arm_id: int) -> Pairs:
        """The pairs of one arm, U_j."""
        return self.where(self.arm_ids == arm_id)

    def where(self, chosen: np.ndarray) -> Pairs:
        """The pairs for which the (n,) mask is true."""
        return Pairs(self.pair_ids[chosen], self.arm_ids[chosen], self.doc_ids[chosen], self.embeddings[chosen])

    def union(self, other: Pairs) -> Pairs:
        """Both together, again in order of pair_id, so that no reward depends on the order of arrival."""
        if not len(self.pair_ids):
            return other
        if not len(other.pair_ids):
            return self
        at = np.searchsorted(self.pair_ids, other.pair_ids, side="right")  # a few into many: nothing is sorted again
        return Pairs(*[np.insert(mine, at, vars(other)[name], axis=0) for name, mine in vars(self).items()])


@dataclass(frozen=True)
class Extracted:
    """What one iteration's extraction brought.

    Attributes:
        documents: documents read, by arm.
        replaced: pairs of an earlier reading of the same documents, whose place those of this one take.
        outcomes: documents by outcome; adds up to the documents read.
        prompt_tokens: of all replies used, cached or not; likewise completion_tokens and money.
        paid_prompt_tokens: of the replies that were asked for now; likewise the other paid_ figures.
        paid_cached_tokens: those of paid_prompt_tokens that the server's prefix cache answered.
        need: the largest worst case of a document; nothing where neither tokens nor money are limited.
    """

    documents: dict[int, int]
    pairs: Pairs
    outcomes: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    cached_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    money: float = 0.0
    paid_prompt_tokens: int = 0
    paid_cached_tokens: int = 0
    paid_completion_tokens: int = 0
    paid_money: float = 0.0
    need: Amount = NOTHING
    replaced: int = 0


@dataclass(frozen=True)
class Scored:
    """The transport estimate of an arm and the standard error of its reward."""

    estimate: Estimate
    standard_error: float | None


@dataclass(frozen=True)
class Iteration:
    """One finished iteration, as it is recorded.

    Attributes:
        warm_up: it read documents of the warm-up, as several may do.
        reserved: what its documents were allowed to take, where a budget limits it.
    """

    number: int
    warm_up: bool
    reserved: Amount
    arms: dict[int, ArmState]
    scores: dict[int, float]
    converged: dict[int, bool]
    extracted: Extracted
    spent: Spent
    stop_reason: str
    transport_flops: float


@dataclass(frozen=True)
class Flight:
    """An iteration that was chosen and is not committed.

    Attributes:
        scores: of the arms, by which they were chosen; empty where none were.
        share: what each of its documents may take.
        warm_up: it reads documents of the warm-up.
    """

    number: int
    pulls: tuple[Pull, ...]
    scores: dict[int, float]
    share: Allowance
    warm_up: bool

    @property
    def documents(self) -> int:
        """That it reads."""
        return sum(pull.stop - pull.start for pull in self.pulls)

    @property
    def reserved(self) -> Amount:
        """What they may take together; nothing of what is not limited."""
        tokens = int(self.share.tokens) * self.documents if self.share.tokens < math.inf else 0
        return Amount(tokens, self.share.money * self.documents if self.share.money < math.inf else 0.0)


@dataclass
class State:
    """Everything the next choice depends on; a fold over the committed rows."""

    arms: dict[int, ArmState]
    pairs: Pairs
    spent: Spent
    next_iteration: int
    need: Amount = NOTHING

    def ahead(self, flights: Sequence[Flight]) -> State:
        """As it is known while flights are under way: their documents are taken, and all is spent that they may take.

        Rewards are those of before; an arm that is being pulled counts as pulled, so that its bonus falls at once.
        """
        arms, spent = dict(self.arms), self.spent
        for flight in flights:
            for pull in flight.pulls:
                if pull.arm_id is not None:
                    arm = arms[pull.arm_id]
                    arms[pull.arm_id] = replace(arm, taken=pull.stop, pulls=arm.pulls + 1)
            reserved = flight.reserved
            spent = Spent(
                spent.documents + flight.documents, spent.tokens + reserved.tokens, spent.money + reserved.money
            )
        return replace(self, arms=arms, spent=spent, next_iteration=self.next_iteration + len(flights))


def ahead_of_last(state: State, before: State, reserved: Amount) -> State:
    """What an iteration was chosen by that began before the last committed one had ended.

    Args:
        state: after the last committed iteration.
        before: before it.
        reserved: what its documents were allowed to take.

    Returns:
        What `before.ahead([flight])` was while that flight was under way.
    """
    arms = {}
    for arm_id, arm in state.arms.items():
        known = before.arms[arm_id]
        arms[arm_id] = replace(arm, pairs=known.pairs, reward=known.reward, standard_error=known.standard_error)
    tokens, money = before.spent.tokens + reserved.tokens, before.spent.money + reserved.money
    return State(arms, before.pairs, Spent(state.spent.documents, tokens, money), state.next_iteration, before.need)


@dataclass(frozen=True)
class Policy:
    """How documents are chosen: see `core.strategies`.

    Attributes:
        seed: of drawn scores.
        pipeline_depth: iterations under way at once; with 2, each is chosen by the rewards of the last but one.
    """

    strategy: str
    arms_per_iteration: int
    docs_per_pull: int
    exploration: str
    alpha: float
    warm_up_documents: int
    seed: int = 0
    pipeline_depth: int = 1

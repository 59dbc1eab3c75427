"""The bandit loop (Algorithm 1) in plain Python; sampling, extraction, scoring and recording are handed in.

    while the budget lasts:  choose arms by DS score -> extract -> union reward -> record

No budget is exceeded: an iteration reads as many documents as what is left covers by their worst case, as far as
earlier documents show it, and none of them takes more than an equal share of what is left.
State is a fold over what `record` has committed, so a killed run goes on where its last commit stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from equal.core.allowance import NOTHING, Allowance, Amount
from equal.core.bandit import ArmState, Pull, choose_pulls
from equal.core.strategies import IN_ONE_ORDER, arm_scores
from equal.core.transport import Estimate, reward

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
        ids = np.concatenate([self.pair_ids, other.pair_ids])
        order = np.argsort(ids, kind="stable")
        return Pairs(
            ids[order],
            np.concatenate([self.arm_ids, other.arm_ids])[order],
            np.concatenate([self.doc_ids, other.doc_ids])[order],
            np.concatenate([self.embeddings, other.embeddings])[order],
        )


@dataclass(frozen=True)
class Extracted:
    """What one iteration's extraction brought.

    Attributes:
        documents: documents read, by arm.
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


@dataclass(frozen=True)
class Scored:
    """The transport estimate of an arm and the standard error of its reward."""

    estimate: Estimate
    standard_error: float | None


@dataclass(frozen=True)
class Iteration:
    """One finished iteration, as it is recorded; `warm_up`: it read documents of the warm-up, as several may do."""

    number: int
    warm_up: bool
    arms: dict[int, ArmState]
    scores: dict[int, float]
    converged: dict[int, bool]
    extracted: Extracted
    spent: Spent
    stop_reason: str
    transport_flops: float


@dataclass
class State:
    """Everything the next choice depends on; a fold over the committed rows."""

    arms: dict[int, ArmState]
    pairs: Pairs
    spent: Spent
    next_iteration: int
    need: Amount = NOTHING


@dataclass(frozen=True)
class Policy:
    """How documents are chosen: see `core.strategies`; `seed` is that of drawn scores."""

    strategy: str
    arms_per_iteration: int
    docs_per_pull: int
    exploration: str
    alpha: float
    warm_up_documents: int
    seed: int = 0


Extract = Callable[[int, list[Pull], Allowance], Extracted]
Score = Callable[[Pairs], Scored]
Record = Callable[[Iteration], None]


def run_bandit(
    state: State, *, policy: Policy, limits: Limits, extract: Extract, score: Score, record: Record
) -> tuple[State, str]:
    """Pull arms until a budget is reached or no documents are left.

    Args:
        state: where to start; changed by every iteration.
        policy: how to choose.
        limits: the budgets.
        extract: (iteration, pulls, what each document may take) -> what the documents gave; the only step that costs
            money.
        score: pairs of one arm -> transport estimate against the reference.
        record: commits an iteration; called last, once for each.

    Returns:
        The final state and why it stopped: documents, tokens, money or exhausted.
    """
    while not (reason := stop_reason(state, policy, limits)):
        state = run_iteration(state, policy, limits, extract, score, record)
    return state, reason


def stop_reason(state: State, policy: Policy, limits: Limits) -> str:
    """The budget that no further document is sure to fit in, or `exhausted` when none is left; empty to go on."""
    if limits.documents and state.spent.documents >= limits.documents:
        return "documents"
    if short := limits.left(state.spent).short_of(state.need):
        return short
    return "" if choose(state, policy, limits) else "exhausted"


def choose(state: State, policy: Policy, limits: Limits) -> list[tuple[Pull, float]]:
    """The next pulls with their DS scores; the warm-up documents come first, whatever their arm."""
    documents = limits.documents - state.spent.documents if limits.documents else math.inf
    covered = min(documents, limits.covered(state.spent, state.need))
    left = int(covered) if covered < math.inf else None
    unread = sum(arm.size for arm in state.arms.values()) - state.spent.documents
    if warming_up(state, policy):
        return _in_order(state, min(policy.warm_up_documents - state.spent.documents, unread), left)
    if policy.strategy in IN_ONE_ORDER:
        return _in_order(state, min(policy.arms_per_iteration * policy.docs_per_pull, unread), left)
    arms = list(state.arms.values())
    scores = arm_scores(
        arms,
        strategy=policy.strategy,
        exploration=policy.exploration,
        alpha=policy.alpha,
        docs_per_pull=policy.docs_per_pull,
        seed=policy.seed,
    )
    at_once, docs = policy.arms_per_iteration, policy.docs_per_pull
    return choose_pulls(arms, scores, arms_per_iteration=at_once, docs_per_pull=docs, documents_left=left)


def warming_up(state: State, policy: Policy) -> bool:
    """Whether warm-up documents are left: iteration 0 reads them, and the next ones where a budget is too short."""
    return state.spent.documents < policy.warm_up_documents


def _in_order(state: State, wanted: int, left: int | None) -> list[tuple[Pull, float]]:
    count = wanted if left is None else min(wanted, left)
    start = state.spent.documents
    return [(Pull(None, start, start + count), float("nan"))] if count > 0 else []


def run_iteration(
    state: State, policy: Policy, limits: Limits, extract: Extract, score: Score, record: Record
) -> State:
    """One turn of Algorithm 1, lines 4 to 11: choose, extract, update the union reward of touched arms, commit."""
    chosen = choose(state, policy, limits)
    pulls = [pull for pull, _ in chosen]
    share = limits.left(state.spent).share(sum(pull.stop - pull.start for pull in pulls))
    extracted = extract(state.next_iteration, pulls, share)
    scores = {pull.arm_id: ds for pull, ds in chosen if pull.arm_id is not None}
    return commit(state, extracted, scores, policy, limits, score, record)


def commit(
    state: State, extracted: Extracted, scores: dict[int, float], policy: Policy, limits: Limits, score: Score,
    record: Record,
) -> State:  # fmt: skip
    """Lines 6 to 11: the reward of an arm that was touched is that of the union of its pairs; then it is recorded."""
    pairs, warm_up = state.pairs.union(extracted.pairs), warming_up(state, policy)
    touched: dict[int, ArmState] = {}
    converged: dict[int, bool] = {}
    flops = 0.0
    for arm_id, documents in sorted(extracted.documents.items()):
        arm, of_arm = state.arms[arm_id], pairs.of_arm(arm_id)
        # warm-up documents without a pair are no observation: the arm stays unpulled, and so first in line; those with
        # one are a single observation, in however many iterations a short budget lets the warm-up be read
        warmed = max(arm.pulls, int(len(of_arm.pair_ids) > 0))
        count = warmed if warm_up else arm.pulls + int(documents > 0)  # none are new when some are asked about again
        pulled = replace(arm, taken=arm.taken + documents, pulls=count)
        scored = score(of_arm) if len(of_arm.pair_ids) else None
        touched[arm_id] = _rewarded(pulled, len(of_arm.pair_ids), scored)
        converged[arm_id] = scored is None or scored.estimate.converged
        flops += scored.estimate.flops if scored else 0.0
    spent, need = state.spent.after(extracted), state.need.or_more(extracted.need)
    after = State({**state.arms, **touched}, pairs, spent, state.next_iteration + 1, need)
    reason = stop_reason(after, policy, limits)
    record(Iteration(state.next_iteration, warm_up, touched, scores, converged, extracted, spent, reason, flops))
    return after


def _rewarded(arm: ArmState, num_pairs: int, scored: Scored | None) -> ArmState:
    """Eq. 2: the reward of the union of all the arm's pairs; without pairs it stays as it is."""
    if scored is None:
        return arm
    return replace(arm, pairs=num_pairs, standard_error=scored.standard_error, reward=reward(scored.estimate.value))

"""The bandit loop (Algorithm 1) in plain Python; sampling, extraction, scoring and recording are handed in.

    while the budget lasts:  choose arms by DS score -> extract -> union reward -> record

With `pipeline_depth` 2 the next iteration is chosen and extracted while the last one still is, or is being recorded:

    extract 1 | score 1 | record 1
    extract 2 ...................... | score 2 | record 2
                        | extract 3, chosen by 1 ...

No budget is exceeded: an iteration reads as many documents as what is left covers by their worst case, as far as
earlier documents show it, and none of them takes more than an equal share of what is left.
State is a fold over what `record` has committed, so a killed run goes on where its last commit stands.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from equal.core.allowance import Allowance
from equal.core.bandit import ArmState, Pull, choose_pulls
from equal.core.strategies import IN_ONE_ORDER, arm_scores
from equal.core.transport import reward
from equal.state import Extracted, Flight, Iteration, Limits, Pairs, Policy, Scored, State

Extract = Callable[[int, list[Pull], Allowance], Extracted]
Score = Callable[[Pairs], Scored]
Record = Callable[[Iteration], None]


def run_bandit(
    state: State, *, policy: Policy, limits: Limits, extract: Extract, score: Score, record: Record,
    ahead: State | None = None,
) -> tuple[State, str]:  # fmt: skip
    """Pull arms until a budget is reached or no documents are left.

    Args:
        state: where to start.
        policy: how to choose.
        limits: the budgets.
        extract: (iteration, pulls, what each document may take) -> what the documents gave; the only step that costs
            money. With a pipeline_depth of 2 it is called in another thread.
        score: pairs of one arm -> transport estimate against the reference.
        record: commits an iteration; called once for each, in order, one at a time, in another thread. With a
            pipeline_depth of 2 the next one begins before it has ended. If it fails nothing after it is recorded.
        ahead: of a run that is resumed with a pipeline_depth of 2: what the iteration after the last committed one was
            chosen by, which is not what the last one brought. None where the last one was waited for.

    Returns:
        The final state and why it stopped: documents, tokens, money or exhausted.
    """
    depth = policy.pipeline_depth
    flying: deque[tuple[Flight, Future[Extracted]]] = deque()
    recording: deque[Future[None]] = deque()
    with ThreadPoolExecutor(depth) as pool, ThreadPoolExecutor(1) as recorder:

        def start(flight: Flight | None) -> bool:
            if flight is not None:
                extracting = pool.submit(extract, flight.number, list(flight.pulls), flight.share)
                flying.append((flight, extracting))
            return flight is not None

        if ahead is not None:
            start(next_flight(ahead, policy, limits, under_way=depth - 1))
        while True:
            while len(flying) < depth:
                flights = [flight for flight, _ in flying]
                waits = any(flight.warm_up for flight in flights)  # its arms are those of its documents, when it ends
                if waits or not start(next_flight(state.ahead(flights), policy, limits, under_way=len(flights))):
                    break
            if not flying:
                _wait(recording, 0)
                return state, stop_reason(state, policy, limits)
            flight, extracting = flying.popleft()
            extracted = extracting.result()
            _wait(recording, 0)  # before the next is handed over: behind one that failed nothing is recorded
            state, iteration = settle(state, flight, extracted, policy, limits, score, last=not flying)
            recording.append(recorder.submit(record, iteration))
            _wait(recording, depth - 1)


def _wait(recording: deque[Future[None]], left: int) -> None:
    """Until so many records, or fewer, are left to be written; the failure of one that was is raised."""
    while len(recording) > left:
        recording.popleft().result()


def next_flight(state: State, policy: Policy, limits: Limits, *, under_way: int) -> Flight | None:
    """The next iteration; None when the budget or the corpus holds none, or none before those under way have ended.

    Of a budget of tokens or money that several iterations share at once, each leaves its part to those that may start
    while it runs. Where a part would not do for a whole iteration, they run one after the other.

    Args:
        state: as it is known now, with what is under way reserved.
        policy: how to choose.
        limits: the budgets.
        under_way: iterations that are being extracted.
    """
    if stop_reason(state, policy, limits):
        return None
    left, warm_up = limits.left(state.spent), warming_up(state, policy)
    parts = 1 if warm_up else policy.pipeline_depth - under_way
    if left.limited and (parts > 1 or under_way):
        whole = _count(choose(state, policy, replace(limits, tokens=0, money=0.0)))
        if left.share(parts).covers(state.need or limits.first_need) < whole:
            if under_way:
                return None
            parts = 1
    chosen = choose(state, policy, limits)
    scores = {pull.arm_id: ds for pull, ds in chosen if pull.arm_id is not None}
    pulls = tuple(pull for pull, _ in chosen)
    share = left.share(_count(chosen) * parts)
    return Flight(state.next_iteration, pulls, scores, share, warm_up)


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


def of_warm_up(pulls: Sequence[Pull], policy: Policy) -> bool:
    """Whether an iteration reads warm-up documents, so that no other is under way beside it."""
    return pulls[0].arm_id is None and pulls[0].start < policy.warm_up_documents


def _in_order(state: State, wanted: int, left: int | None) -> list[tuple[Pull, float]]:
    count = wanted if left is None else min(wanted, left)
    start = state.spent.documents
    return [(Pull(None, start, start + count), float("nan"))] if count > 0 else []


def _count(chosen: list[tuple[Pull, float]]) -> int:
    return sum(pull.stop - pull.start for pull, _ in chosen)


def settle(
    state: State, flight: Flight, extracted: Extracted, policy: Policy, limits: Limits, score: Score,
    *, last: bool = True,
) -> tuple[State, Iteration]:  # fmt: skip
    """Lines 6 to 11: the reward of an arm that was touched is that of the union of its pairs.

    Args:
        state: after the iteration before.
        flight: the iteration.
        extracted: what it brought.
        policy: as of `run_bandit`, likewise limits and score.
        last: no other iteration is under way, so that it can be the one that stops the run.

    Returns:
        The state after it, and what is to be recorded.
    """
    pairs = state.pairs.union(extracted.pairs)
    touched: dict[int, ArmState] = {}
    converged: dict[int, bool] = {}
    flops = 0.0
    for arm_id, documents in sorted(extracted.documents.items()):
        arm, of_arm = state.arms[arm_id], pairs.of_arm(arm_id)
        # warm-up documents without a pair are no observation: the arm stays unpulled, and so first in line; those with
        # one are a single observation, in however many iterations a short budget lets the warm-up be read
        warmed = max(arm.pulls, int(len(of_arm.pair_ids) > 0))
        # none are new when some are asked about again
        count = warmed if flight.warm_up else arm.pulls + int(documents > 0)
        pulled = replace(arm, taken=arm.taken + documents, pulls=count)
        scored = score(of_arm) if len(of_arm.pair_ids) else None
        touched[arm_id] = _rewarded(pulled, len(of_arm.pair_ids), scored)
        converged[arm_id] = scored is None or scored.estimate.converged
        flops += scored.estimate.flops if scored else 0.0
    spent, need = state.spent.after(extracted), state.need.or_more(extracted.need)
    after = State({**state.arms, **touched}, pairs, spent, flight.number + 1, need)
    reason = stop_reason(after, policy, limits) if last else ""
    return after, Iteration(
        flight.number, flight.warm_up, flight.reserved, touched, flight.scores, converged, extracted, spent, reason,
        flops,
    )  # fmt: skip


def _rewarded(arm: ArmState, num_pairs: int, scored: Scored | None) -> ArmState:
    """Eq. 2: the reward of the union of all the arm's pairs; without pairs it stays as it is."""
    if scored is None:
        return arm
    return replace(arm, pairs=num_pairs, standard_error=scored.standard_error, reward=reward(scored.estimate.value))

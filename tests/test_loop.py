"""The loop over a planted world."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equal.core.allowance import Amount
from equal.loop import run_bandit
from equal.state import Limits, Pairs, State
from loop_world import POLICY, World


def test_no_document_is_read_twice_and_the_budget_is_met_to_the_document():
    world = World([20, 20, 20, 20])
    state, reason = world.run(documents=31)
    assert reason == "documents"
    assert len(world.read) == len(set(world.read)) == state.spent.documents == 31


def test_after_every_arm_was_seen_the_best_arm_is_drained_before_worse_ones():
    world = World([12, 30, 30, 30])
    world.run(documents=60)
    taken = world.iterations[-1].spent.documents
    counts = [sum(doc.endswith(f"-{arm}") for doc in world.read) for arm in range(4)]
    assert taken == 60
    assert counts[0] == 12
    assert counts[1] > counts[2] >= counts[3]


def test_the_warm_up_is_every_arms_first_observation():
    world = World([9, 9])
    world.run(documents=4)
    first = world.iterations[0]
    assert first.number == 0
    assert {arm: state.pulls for arm, state in first.arms.items()} == {0: 1, 1: 1}
    assert first.arms[1].reward == pytest.approx(0.9)
    assert first.transport_flops == sum(arm.pairs for arm in first.arms.values())


def test_an_arm_whose_warm_up_gave_no_pair_is_pulled_before_any_other():
    world = World([9, 9])
    fruitful = world.extract

    def barren_in_arm_1(iteration, pulls, share):
        extracted = fruitful(iteration, pulls, share)
        return replace(extracted, pairs=extracted.pairs.of_arm(0)) if iteration == 0 else extracted

    world.extract = barren_in_arm_1
    world.run(policy=replace(POLICY, arms_per_iteration=1), documents=7)
    assert world.iterations[0].arms[1].pulls == 0
    assert list(world.iterations[1].arms) == [1]


def test_a_budget_of_tokens_is_met_as_closely_as_worst_cases_allow_and_never_exceeded():
    world = World([50, 50])
    world.need = Amount(25)
    state, reason = world.run(tokens=203)
    assert reason == world.iterations[-1].stop_reason == "tokens"
    # a document takes 10 and may take 25: at 20 left no further one is sure to fit
    assert 203 - 25 < state.spent.tokens <= 203
    assert all(documents == 1 or share.tokens >= 25 for share, documents in world.shares)


def test_a_budget_of_money_likewise_and_rounding_does_not_exceed_it():
    world = World([50, 50])
    world.prices, world.need = (1e5, 1e5), Amount(10, 1.0)  # 0.1 a token
    state, reason = world.run(money=12.0)
    assert reason == "money"
    assert 12.0 - 1.0 - 1e-6 < state.spent.money <= 12.0
    for (share, documents), made in zip(world.shares, world.iterations):
        before = made.spent.money - made.extracted.money
        assert before + documents * share.money < 12.0


def test_shares_are_equal_and_together_never_more_than_what_is_left():
    world = World([50, 50])
    world.need = Amount(10)
    world.run(tokens=173)
    left = 173
    for share, documents in world.shares:
        assert documents * share.tokens <= left
        left -= 10 * documents


def test_warm_up_documents_that_the_budget_does_not_cover_at_once_are_read_in_several_iterations():
    world = World([9, 9])
    world.need, world.first_need = Amount(40), Amount(1000)
    world.run(tokens=130)
    # of a need that nobody knows yet one document is tried; of a known one what is left holds three, then two
    assert [documents for _, documents in world.shares][:2] == [1, 3]
    assert world.read[:4] == world.in_order[:4]
    assert {arm.pulls for made in world.iterations[:1] for arm in made.arms.values()} == {1}
    # one that covers the last of the four counts as the warm-up, too
    assert [made.warm_up for made in world.iterations] == [True] * 2 + [False] * (len(world.iterations) - 2)
    assert len(world.iterations) > 2


@pytest.mark.parametrize("strategy", ["equal", "warm_start", "similarity", "random"])
def test_without_a_limit_in_reach_every_document_is_read_and_the_last_iteration_says_so(strategy):
    world = World([5, 1, 7])
    state, reason = world.run(policy=replace(POLICY, strategy=strategy), documents=1000)
    assert reason == "exhausted"
    assert sorted(world.read) == world.in_order
    assert state.spent.documents == 13
    assert [made.stop_reason for made in world.iterations] == [""] * (len(world.iterations) - 1) + ["exhausted"]


def test_the_random_control_reads_the_hash_order_and_starts_with_the_same_documents():
    equal, random = World([10, 10, 10]), World([10, 10, 10])
    equal.run(documents=16)
    random.run(policy=replace(POLICY, strategy="random"), documents=16)
    assert random.read == random.in_order[:16]
    assert equal.read[:4] == random.read[:4]


def test_warm_started_arms_that_cannot_win_are_never_swept():
    warm, swept = World([12] * 10), World([12] * 10)
    policy = replace(POLICY, warm_up_documents=10)  # one document an arm, by its hash
    warm.run(policy=replace(policy, strategy="warm_start"), documents=32)
    swept.run(policy=replace(policy, warm_up_documents=0), documents=32)
    assert {arm: sum(doc.endswith(f"-{arm}") for doc in warm.read) for arm in range(4)} == {0: 12, 1: 12, 2: 1, 3: 1}
    assert {int(doc.split("-")[1]) for doc in swept.read} == set(range(10))


@given(
    mine=st.lists(st.tuples(st.text("ab", max_size=3), st.integers(0, 9)), max_size=8),
    more=st.lists(st.tuples(st.text("ab", max_size=3), st.integers(0, 9)), max_size=8),
)
def test_a_union_is_both_in_order_of_pair_id_with_every_column_in_step(mine, more):
    def pairs(rows):
        rows = sorted(rows, key=lambda row: row[0])
        ids, numbers = np.array([row[0] for row in rows], object), np.array([row[1] for row in rows], int)
        return Pairs(ids, numbers, np.array([f"d{n}" for n in numbers], object), np.stack([numbers] * 2, axis=1) * 1.0)

    both = pairs(mine).union(pairs(more))
    expected = sorted(sorted(mine, key=lambda row: row[0]) + sorted(more, key=lambda row: row[0]), key=lambda r: r[0])
    assert list(zip(both.pair_ids.tolist(), both.arm_ids.tolist())) == expected
    assert both.doc_ids.tolist() == [f"d{n}" for _, n in expected]
    assert both.embeddings.tolist() == [[n, n] for _, n in expected]


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 15), min_size=1, max_size=6),
    documents=st.integers(1, 60),
    strategy=st.sampled_from(["equal", "warm_start", "similarity", "random"]),
    exploration=st.sampled_from(["paper", "variance", "thompson"]),
    cut=st.integers(1, 6),
)
def test_a_run_killed_after_any_commit_ends_like_an_uninterrupted_one(sizes, documents, strategy, exploration, cut):
    policy = replace(POLICY, strategy=strategy, exploration=exploration, alpha=1.0)
    whole = World(sizes)
    state, reason = whole.run(policy=policy, documents=documents)
    broken = World(sizes)

    class KilledError(Exception):
        pass

    state_at_kill = [broken.state()]

    def record(iteration):
        if len(broken.iterations) >= cut:
            raise KilledError
        broken.iterations.append(iteration)
        before = state_at_kill[0]
        state_at_kill[0] = State(
            {**before.arms, **iteration.arms},
            before.pairs.union(iteration.extracted.pairs),
            iteration.spent,
            iteration.number + 1,
        )

    limits = Limits(documents, 0, 0.0)
    with suppress(KilledError):
        run_bandit(
            broken.state(), policy=policy, limits=limits, extract=broken.extract, score=broken.score, record=record
        )
    resumed, again = broken.run(state_at_kill[0], policy=policy, documents=documents)
    assert again == reason
    assert resumed.arms == state.arms
    assert resumed.spent == state.spent
    assert resumed.pairs.pair_ids.tolist() == state.pairs.pair_ids.tolist()

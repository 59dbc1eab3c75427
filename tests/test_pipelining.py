"""Two iterations under way at once: the same run however it is cut, and still within every budget."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equal.core.allowance import Allowance, Amount
from equal.core.bandit import Pull
from equal.loop import of_warm_up
from equal.state import Extracted, Iteration, State, ahead_of_last
from loop_world import POLICY, World

TWO = replace(POLICY, pipeline_depth=2)


class NotWrittenError(Exception):
    pass


class Greedy(World):
    """Each document wants some tokens, and takes what it is allowed of them; who runs beside whom is noted."""

    def __init__(self, sizes: list[int], limit: int = 0, fails_at: int | None = None) -> None:
        super().__init__(sizes)
        self.limit, self.fails_at, self.lock = limit, fails_at, threading.Lock()
        self.reading: set[int] = set()
        self.open: dict[int, int] = {}
        self.seconds = 0.001
        self.beside: list[set[int]] = []
        self.beside_read: list[int] = []

    def extract(self, iteration: int, pulls: list[Pull], share: Allowance) -> Extracted:
        found = super().extract(iteration, pulls, share)
        wants = [10 + 7 * (sum(map(ord, doc)) % 5) for doc in found.pairs.doc_ids]
        took = [int(min(want, share.tokens)) for want in wants]
        with self.lock:
            self.open[iteration] = int(share.tokens * len(wants)) if self.limit else 0
            self.reading.add(iteration)
            self.beside.append(set(self.reading))
            self.beside_read.append(len(wants))
            spent = self.iterations[-1].spent.tokens if self.iterations else 0
            # of those that were read and are not recorded yet, what they took; those recorded are closed below
            assert not self.limit or spent + sum(self.open.values()) <= self.limit
        time.sleep(self.seconds)
        with self.lock:
            self.open[iteration] = sum(took)
            self.reading.remove(iteration)
        need = Amount(max(wants)) if self.limit else found.need
        return replace(found, prompt_tokens=sum(took), completion_tokens=0, need=need)

    def record(self, iteration: Iteration) -> None:
        time.sleep(self.seconds)
        if iteration.number == self.fails_at:
            raise NotWrittenError
        with self.lock:
            del self.open[iteration.number]
            super().record(iteration)


def folded(world: World, iterations: list[Iteration]) -> State:
    """The state after these iterations."""
    state = world.state()
    for made in iterations:
        arms, pairs = {**state.arms, **made.arms}, state.pairs.union(made.extracted.pairs)
        state = State(arms, pairs, made.spent, made.number + 1, state.need.or_more(made.extracted.need))
    return state


def seen(iterations: list[Iteration]) -> list[tuple[object, ...]]:
    """What of iterations is a function of settings and replies."""
    return [(made.number, made.arms, made.scores, made.reserved, made.spent, made.stop_reason) for made in iterations]


def test_an_iteration_is_read_beside_the_next_but_the_warm_up_alone():
    world = Greedy([20, 20, 20, 20])
    world.seconds = 0.05
    state, reason = world.run(policy=TWO, documents=31)
    assert (reason, state.spent.documents) == ("documents", 31)
    assert len(world.read) == len(set(world.read)) == 31
    assert world.beside[0] == {0}
    assert {1, 2} in world.beside
    assert all(max(beside) - min(beside) < 2 and len(beside) <= 2 for beside in world.beside)
    assert [made.number for made in world.iterations] == list(range(len(world.iterations)))
    assert [made.stop_reason for made in world.iterations] == [""] * (len(world.iterations) - 1) + ["documents"]


@pytest.mark.parametrize("strategy", ["equal", "random"])
def test_by_its_pulls_the_warm_up_is_told_from_what_another_iteration_may_run_beside(strategy):
    world, told = Greedy([20, 20, 20, 20], limit=900), {}
    extract = world.extract

    def telling(iteration: int, pulls: list[Pull], share: Allowance) -> Extracted:
        told[iteration] = of_warm_up(pulls, policy)
        return extract(iteration, pulls, share)

    policy = replace(TWO, strategy=strategy, warm_up_documents=7)
    world.extract = telling
    world.run(policy=policy, documents=31, tokens=900)
    assert told == {made.number: made.warm_up for made in world.iterations}
    assert {True, False} == set(told.values())


def test_arms_are_chosen_by_the_rewards_of_the_last_iteration_but_one():
    world = Greedy([30, 30, 30])
    world.run(policy=replace(TWO, arms_per_iteration=1, warm_up_documents=0), documents=18)
    # the sweep knows what is under way; then the third pull of arm 0 is chosen before the last of the sweep is known
    assert [sorted(made.arms) for made in world.iterations[:5]] == [[0], [1], [2], [0], [0]]
    assert world.iterations[3].scores[0] == pytest.approx(1 + math.sqrt(2 * math.log(3)) / 4)


def test_where_a_part_of_the_budget_would_not_do_iterations_run_one_after_the_other():
    world = Greedy([50, 50], limit=400)
    _, reason = world.run(policy=TWO, tokens=400)
    assert reason == world.iterations[-1].stop_reason == "tokens"
    assert world.beside[-1] == {world.iterations[-1].number}
    # one that could not read all that it wants waits for what the other leaves
    assert {read for beside, read in zip(world.beside, world.beside_read) if len(beside) > 1} <= {6}
    assert 400 - 38 < world.iterations[-1].spent.tokens <= 400


def test_of_two_iterations_the_first_leaves_half_and_the_warm_up_which_runs_alone_nothing():
    world = Greedy([50, 50], limit=1000)
    world.run(policy=TWO, tokens=1000)
    left = 1000 - world.iterations[0].spent.tokens
    assert [share.tokens for share, _ in world.shares[:2]] == [1000 // 4, left // 12]


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    documents=st.integers(1, 50),
    tokens=st.sampled_from([0, 150, 400, 900]),
    strategy=st.sampled_from(["equal", "warm_start", "similarity", "random"]),
    exploration=st.sampled_from(["paper", "variance", "thompson"]),
    warm_up=st.sampled_from([0, 3]),
)
def test_a_run_that_is_resumed_after_any_commit_ends_like_an_unbroken_one_within_its_budget(
    sizes, documents, tokens, strategy, exploration, warm_up
):
    policy = replace(TWO, strategy=strategy, exploration=exploration, alpha=1.0, warm_up_documents=warm_up)
    whole = Greedy(sizes, tokens)
    state, reason = whole.run(policy=policy, documents=documents, tokens=tokens)
    assert state.spent.documents <= documents
    assert not tokens or state.spent.tokens <= tokens
    for cut in range(1, len(whole.iterations)):
        killed = Greedy(sizes, tokens, fails_at=cut)
        with pytest.raises(NotWrittenError):
            killed.run(policy=policy, documents=documents, tokens=tokens)
        done = killed.iterations
        assert seen(done) == seen(whole.iterations[:cut])
        ahead = None
        if not done[-1].warm_up:
            ahead = ahead_of_last(folded(whole, done), folded(whole, done[:-1]), done[-1].reserved)
        resumed = Greedy(sizes, tokens)
        resumed.iterations = list(done)
        after, again = resumed.run(folded(whole, done), policy=policy, ahead=ahead, documents=documents, tokens=tokens)
        assert (again, after.spent) == (reason, state.spent)
        assert seen(resumed.iterations) == seen(whole.iterations)
        assert after.pairs.pair_ids.tolist() == state.pairs.pair_ids.tolist()


def test_the_next_iteration_begins_while_the_last_is_recorded_and_not_the_one_after():
    world, begun = Greedy([30, 30]), [threading.Event() for _ in range(9)]
    extract, record, at_once = world.extract, world.record, []

    def telling(iteration: int, pulls: list[Pull], share: Allowance) -> Extracted:
        begun[iteration].set()
        return extract(iteration, pulls, share)

    def waiting(iteration: Iteration) -> None:
        at_once.append(iteration.number)
        assert len(at_once) == 1
        if 0 < iteration.number < 4:  # the last is 5
            assert begun[iteration.number + 2].wait(20)
        time.sleep(0.02)
        # it was chosen by what the next one brought, which waits for this one to be recorded
        assert not begun[iteration.number + 3].is_set()
        record(iteration)
        at_once.pop()

    world.extract, world.record = telling, waiting
    world.run(policy=replace(TWO, arms_per_iteration=1), documents=4 + 5 * 3)
    assert [made.number for made in world.iterations] == list(range(6))


def test_one_after_the_other_nothing_is_read_while_something_is_recorded():
    world, recorded = Greedy([30, 30]), []
    extract, record = world.extract, world.record

    def telling(iteration: int, pulls: list[Pull], share: Allowance) -> Extracted:
        assert recorded == list(range(iteration))
        return extract(iteration, pulls, share)

    def slow(iteration: Iteration) -> None:
        time.sleep(0.02)
        record(iteration)
        recorded.append(iteration.number)

    world.extract, world.record = telling, slow
    world.run(documents=16)
    assert recorded == [0, 1, 2]


@pytest.mark.parametrize("depth", [1, 2])
def test_behind_a_record_that_fails_nothing_is_recorded_and_at_most_what_was_under_way_is_read(depth):
    world = Greedy([30, 30], fails_at=2)
    with pytest.raises(NotWrittenError):
        world.run(policy=replace(TWO, pipeline_depth=depth), documents=60)
    assert [made.number for made in world.iterations] == [0, 1]
    assert len(world.read) == 4 + 6 * {1: 2, 2: 4}[depth]
    with pytest.raises(NotWrittenError):  # also when it is the last
        Greedy([30, 30], fails_at=2).run(policy=replace(TWO, pipeline_depth=depth), documents=16)


def test_an_iteration_that_fails_commits_nothing_after_it_and_ends_the_run_when_the_other_has_ended():
    world, ended = Greedy([20, 20]), []
    extract = world.extract

    def third_fails(iteration: int, pulls: list[Pull], share: Allowance) -> Extracted:
        if iteration == 3:
            raise OSError("no server")
        found = extract(iteration, pulls, share)
        time.sleep(0.05)
        ended.append(iteration)
        return found

    world.extract = third_fails
    with pytest.raises(OSError, match="no server"):
        world.run(policy=TWO, documents=40)
    assert [made.number for made in world.iterations] == [0, 1, 2]
    assert sorted(ended) in ([0, 1, 2, 4], [0, 1, 2])

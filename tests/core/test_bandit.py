"""The bandit against values worked out by hand, and against what must hold for every set of arms."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equal.core.bandit import (
    WORST_REWARD,
    ArmState,
    Pull,
    arms_at_once,
    choose_pulls,
    ds_scores,
    exploration_weight,
    fold,
    largest_k,
    require_affordable,
)
from equal.errors import BudgetError, TableError


def arm(arm_id: int, *, size: int = 100, taken: int = 10, pulls: int = 1, reward: float | None = 0.5) -> ArmState:
    return ArmState(arm_id, size, taken, pulls, 0 if reward is None else 7, reward, None)


def pulls_of(arms, *, n: int = 2, docs: int = 10, left: int | None = None, schedule="paper", alpha=0.0):
    scores = ds_scores(arms, schedule=schedule, alpha=alpha)
    chosen = choose_pulls(arms, scores, arms_per_iteration=n, docs_per_pull=docs, documents_left=left)
    return [pull for pull, _ in chosen]


# Eq. 1 -----------------------------------------------------------------------------------------------------------


def test_paper_schedule_by_hand():
    # T = 4 + 1 + 5 = 10, alpha = 1/11; sqrt(2 ln 10 / 4) = 1.07298..., / 1 = 2.14597..., / 5 = 0.95971...
    arms = [arm(0, pulls=4, reward=0.50), arm(1, pulls=1, reward=0.40), arm(2, pulls=5, reward=0.60)]
    scores = ds_scores(arms, schedule="paper", alpha=9.9)
    assert scores[0] == pytest.approx(0.597544, abs=1e-6)
    assert scores[1] == pytest.approx(0.595088, abs=1e-6)
    assert scores[2] == pytest.approx(0.687246, abs=1e-6)


def test_constant_schedule_by_hand():
    # alpha 0.5 turns the order round: 0.5 * 2.14597 = 1.07298 for the arm pulled once
    arms = [arm(0, pulls=4, reward=0.50), arm(1, pulls=1, reward=0.40), arm(2, pulls=5, reward=0.60)]
    scores = ds_scores(arms, schedule="constant", alpha=0.5)
    assert scores == pytest.approx({0: 1.036492, 1: 1.472983, 2: 1.079853}, abs=1e-6)


def test_exploration_fades_as_in_the_paper():
    # the factor times sqrt(2 ln T), with one pull of the arm: the numbers of the method notes
    def bonus(total: int) -> float:
        return exploration_weight(total, "paper", 0.0) * math.sqrt(2 * math.log(total))

    assert bonus(10) == pytest.approx(0.1951, abs=1e-4)
    assert bonus(1000) == pytest.approx(0.0037, abs=1e-4)


def test_one_pull_in_all_has_no_exploration_term():
    assert ds_scores([arm(3, reward=0.25)], schedule="constant", alpha=100.0) == {3: 0.25}


def test_unknown_schedule_names_the_allowed():
    with pytest.raises(ValueError, match=r"'annealed', allowed: paper, constant"):
        exploration_weight(3, "annealed", 0.1)


def test_pulled_without_pairs_is_worse_than_any_reward():
    assert WORST_REWARD == -1.0
    scores = ds_scores([arm(0, reward=None), arm(1, reward=-0.9), arm(2, pulls=0, taken=0)], schedule="paper", alpha=0)
    assert scores[0] < scores[1] < scores[2] == math.inf


# choice ----------------------------------------------------------------------------------------------------------


def test_unexplored_arms_come_first_in_order_of_id():
    arms = [arm(5, reward=1.0), arm(9, pulls=0, taken=0, reward=None), arm(2, pulls=0, taken=0, reward=None)]
    assert pulls_of(arms, n=3) == [Pull(2, 0, 10), Pull(9, 0, 10), Pull(5, 10, 20)]


def test_ties_go_to_the_smaller_id():
    arms = [arm(8), arm(3), arm(5)]
    assert [p.arm_id for p in pulls_of(arms, n=2)] == [3, 5]


def test_exhausted_arm_leaves_and_its_last_partial_batch_was_used():
    arms = [arm(0, size=13, taken=10, reward=0.9), arm(1, size=20, taken=20, reward=1.0), arm(2, reward=0.1)]
    assert pulls_of(arms, n=3) == [Pull(0, 10, 13), Pull(2, 10, 20)]


def test_budget_cuts_the_last_pull():
    assert pulls_of([arm(0), arm(1), arm(2)], n=3, left=14) == [Pull(0, 10, 20), Pull(1, 10, 14)]
    assert pulls_of([arm(0)], left=0) == []


def test_scores_come_with_the_pulls():
    arms = [arm(0, reward=0.2), arm(1, reward=0.7)]
    chosen = choose_pulls(arms, {0: 0.2, 1: 0.7}, arms_per_iteration=5, docs_per_pull=1, documents_left=None)
    assert chosen == [(Pull(1, 10, 11), 0.7), (Pull(0, 10, 11), 0.2)]


rewards = st.none() | st.floats(-1.0, 1.1, allow_nan=False)


@st.composite
def arm_sets(draw) -> list[ArmState]:
    ids = draw(st.lists(st.integers(0, 60), unique=True, max_size=12))
    made = []
    for arm_id in ids:
        size = draw(st.integers(1, 40))
        pulls = draw(st.integers(0, 5))
        taken = draw(st.integers(0, size)) if pulls else 0
        # few distinct rewards, so that ties happen
        reward = draw(st.none() | st.sampled_from([0.1, 0.5, 0.9]) | rewards) if pulls else None
        made.append(arm(arm_id, size=size, taken=taken, pulls=pulls, reward=reward))
    return made


@given(arm_sets(), st.integers(1, 15), st.integers(1, 12), st.none() | st.integers(0, 80), st.booleans())
def test_every_choice_keeps_the_rules(arms, n, docs, left, paper):
    schedule = "paper" if paper else "constant"
    scores = ds_scores(arms, schedule=schedule, alpha=0.3)
    chosen = choose_pulls(arms, scores, arms_per_iteration=n, docs_per_pull=docs, documents_left=left)
    by_id = {a.arm_id: a for a in arms}
    read = sum(pull.stop - pull.start for pull, _ in chosen)
    assert left is None or read <= left
    assert len(chosen) <= n
    assert len({pull.arm_id for pull, _ in chosen}) == len(chosen)
    for pull, _ in chosen:
        state = by_id[pull.arm_id]
        assert state.taken == pull.start < pull.stop <= min(state.size, state.taken + docs)
    # in falling order of score, ties by id, and nobody left out that should have come before
    keys = [(-score, pull.arm_id) for pull, score in chosen]
    assert keys == sorted(keys)
    open_keys = sorted((-scores[a.arm_id], a.arm_id) for a in arms if a.taken < a.size)
    assert keys == open_keys[: len(keys)]
    # it stops short only for want of arms or of budget
    if left is None or read < left:
        assert len(chosen) == min(n, len(open_keys))
    unexplored = [a.arm_id for a in arms if a.pulls == 0]
    explored_chosen = [pull for pull, _ in chosen if pull.arm_id not in unexplored]
    assert not explored_chosen or set(unexplored) <= {pull.arm_id for pull, _ in chosen}


@given(arm_sets(), st.randoms(use_true_random=False))
def test_choice_does_not_depend_on_the_order_of_arms(arms, shuffler: random.Random):
    shuffled = list(arms)
    shuffler.shuffle(shuffled)
    assert pulls_of(arms, n=4, left=25) == pulls_of(shuffled, n=4, left=25)


def test_a_whole_run_reads_every_document_once():
    arms = {i: arm(i, size=size, taken=0, pulls=0, reward=None) for i, size in enumerate([3, 25, 10, 1])}
    read: list[tuple[int, int]] = []
    while chosen := pulls_of(list(arms.values()), n=2, docs=4, left=35 - len(read)):
        for pull in chosen:
            read += [(pull.arm_id, i) for i in range(pull.start, pull.stop)]
            old = arms[pull.arm_id]
            arms[pull.arm_id] = dataclasses.replace(old, taken=pull.stop, pulls=old.pulls + 1, reward=pull.arm_id / 10)
    assert len(read) == len(set(read)) == 35
    # the arms 0 and 3 were explored and emptied, the best two are emptied before the budget ends
    assert {a: sum(1 for b, _ in read if b == a) for a in arms} == {0: 3, 1: 21, 2: 10, 3: 1}


# the budget's bound on k -----------------------------------------------------------------------------------------


def test_largest_k_by_hand():
    assert largest_k(10, 1000, 1 / 3) == 33
    assert largest_k(10, 200, 0.3334) == 6
    assert largest_k(10, 29, 1 / 3) == 0
    assert largest_k(10, 0, 1 / 3) is None
    assert largest_k(1, 10, 0.7) == 7  # 10 * 0.7 is 7.000000000000001 or 6.999..., never 6 arms


@given(st.integers(1, 500), st.integers(1, 50), st.integers(1, 10**6), st.floats(0.0, 1.0))
def test_the_bound_is_the_last_k_that_is_accepted(k, docs, budget, share):
    bound = largest_k(docs, budget, share)
    assert bound is not None
    assert bound * docs <= budget * share + docs * 1e-6
    require_affordable(bound, docs, budget, share)
    with pytest.raises(BudgetError, match=rf"\b{bound + k}\b.*largest k that fits is {bound};|not even one arm fits"):
        require_affordable(bound + k, docs, budget, share)


def test_too_many_arms_names_field_bound_and_remedy():
    with pytest.raises(BudgetError) as caught:
        require_affordable(64, 10, 200, 0.3334)
    message = str(caught.value)
    for part in (
        "cluster.k: is 64",
        "640 documents",
        "0.3334",
        "200 documents",
        "cluster.k=6",
        "bandit.docs_per_pull",
    ):
        assert part in message


def test_no_document_limit_allows_any_k():
    require_affordable(10**6, 10, 0, 1 / 3)


# the history -----------------------------------------------------------------------------------------------------


def row(iteration: int, arm_id: int, pulls: int, run_id: str = "r", **more) -> dict[str, object]:
    base = {
        "run_id": run_id, "iteration": iteration, "arm_id": arm_id, "pulls": pulls, "documents": 10 * pulls,
        "pairs": 6 * pulls, "reward": 0.1 * pulls, "standard_error": None, "ds_score": None, "converged": True,
        "exhausted": False, "fingerprint": "f",
    }  # fmt: skip
    return {**base, **more}


def test_fold_takes_the_latest_row_of_each_arm():
    rows = [row(0, 4, 1), row(1, 7, 1), row(2, 4, 2, reward=0.33, standard_error=0.01), row(2, 7, 2)]
    state = fold(rows)
    assert list(state) == [4, 7]
    assert state[4] == ArmState(4, 20, 20, 2, 12, 0.33, 0.01)
    assert state[7].pulls == 2


@given(
    st.dictionaries(st.tuples(st.integers(0, 9), st.integers(0, 5)), st.integers(1, 9), max_size=25),
    st.randoms(use_true_random=False),
)
def test_fold_knows_no_order_and_no_repetition(cells, shuffler: random.Random):
    rows = [row(iteration, arm_id, pulls) for (iteration, arm_id), pulls in cells.items()]
    repeated = rows + [dict(r) for r in rows]
    shuffler.shuffle(repeated)
    state = fold(repeated)
    assert state == fold(rows)
    for arm_id, known in state.items():
        last = max(iteration for iteration, a in cells if a == arm_id)
        assert known.pulls == cells[last, arm_id]


def test_fold_refuses_two_truths():
    with pytest.raises(TableError, match="arm 4 has two different rows of iteration 1"):
        fold([row(1, 4, 1), row(1, 4, 2)])
    with pytest.raises(TableError, match="rows of 2 runs"):
        fold([row(1, 4, 1), row(1, 5, 1, run_id="other")])


def test_no_history_is_no_state():
    assert fold([]) == {}


@pytest.mark.parametrize(("num_arms", "at_once"), [(1, 1), (16, 1), (64, 3), (1000, 50)])
def test_one_arm_in_twenty_is_pulled_at_once(num_arms: int, at_once: int):
    assert arms_at_once(num_arms) == at_once

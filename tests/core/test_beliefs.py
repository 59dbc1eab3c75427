"""What is believed of arms: against values worked out by hand, and against the world that the model assumes."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equal.core.bandit import WORST_REWARD, ArmState, ds_scores
from equal.core.beliefs import believe, prior_of, sampling_variance
from equal.core.strategies import arm_scores


def arm(arm_id: int, similarity: float, reward: float | None = None, pairs: int = 10, error: float | None = 0.01):
    read = reward is not None
    return ArmState(
        arm_id, 100, 10 if read else 0, int(read), pairs if read else 0, reward, error if read else None,
        np.full(100, similarity),
    )  # fmt: skip


def scores(arms, strategy="warm_start", exploration="paper", alpha=0.0, seed=1):
    return arm_scores(
        arms, strategy=strategy, exploration=exploration, alpha=alpha, docs_per_pull=10, seed=seed
    )  # fmt: skip


def test_arms_on_a_line_are_believed_and_so_is_the_line_where_nothing_was_read():
    # reward = 0.1 + 2 similarity without any deviation: tau is 0, and the unread arm at 0.25 is worth 0.6
    arms = [arm(j, s, 0.1 + 2 * s) for j, s in enumerate((0.0, 0.1, 0.2, 0.3))]
    found = believe([*arms, arm(9, 0.25)], 10)
    assert found[9].mean == pytest.approx(0.6, abs=1e-6)
    assert [found[j].mean for j in range(4)] == pytest.approx([0.1, 0.3, 0.5, 0.7], abs=1e-6)


def test_sampling_variance_by_hand():
    # own s^2 a pair: 0.01^2 * 10 = 0.001 and 0.03^2 * 30 = 0.027, pooled 0.014; half its own and three quarters
    arms = [arm(0, 0.1, 0.5, 10, 0.01), arm(1, 0.1, 0.5, 30, 0.03), arm(2, 0.1, 0.5, 2, None), arm(3, 0.1)]
    expected = [(0.0005 + 0.007) / 10, (0.75 * 0.027 + 0.25 * 0.014) / 30, 0.014 / 2, 0.014]
    assert sampling_variance(arms) == pytest.approx(expected)


def test_tau_by_hand_where_similarity_says_nothing():
    # rewards +-0.2 at both similarities, so the line is flat; 4 * 0.04 / (0.01 + tau^2) = 2 gives tau^2 = 0.07
    similarity, measured = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.3, 0.7, 0.3, 0.7])
    means, variances, tau2 = prior_of(similarity, measured, np.full(4, 0.01), np.array([0.0, 0.5]))
    assert means == pytest.approx([0.5, 0.5])
    assert tau2 == pytest.approx(0.07, rel=1e-6)
    # of a mean over all four, and at an end over two
    assert variances == pytest.approx([0.08 / 2, 0.08 / 4], rel=1e-6)


def test_what_was_measured_surely_overrules_the_prior_and_what_was_not_does_not():
    noisy = [arm(j, 0.1 * (j % 5), 0.5 + 0.1 * (-1) ** j, 10, 0.02) for j in range(20)]
    sure, unsure = arm(20, 0.2, 0.9, 500, 0.001), arm(21, 0.2, 0.9, 1, None)
    found = believe([*noisy, sure, unsure], 10)
    assert found[20].mean == pytest.approx(0.9, abs=0.01)
    assert 0.5 < found[21].mean < found[20].mean - 0.02
    assert found[20].error < found[21].error


def test_the_next_documents_similarity_counts_not_that_of_those_read():
    arms = [arm(j, s, 0.1 + 2 * s) for j, s in enumerate((0.0, 0.1, 0.2, 0.3))]
    falling = dataclasses.replace(arms[3], similarities=np.r_[np.full(10, 0.3), np.full(90, 0.05)])
    assert believe([*arms[:3], falling], 10)[3].mean == pytest.approx(0.2, abs=1e-6)


def test_what_an_arm_was_better_than_its_similarity_it_stays_for_its_next_documents():
    # rewards lie 0.1 above and below 0.1 + similarity; the arm read at 0.3 was 0.2 above, its next ones are at 0.1
    others = [arm(j, 0.1 * (j // 2), 0.1 + 0.1 * (j // 2) + 0.1 * (-1) ** j, 500, 0.001) for j in range(10)]
    better = dataclasses.replace(arm(10, 0.3, 0.6, 500, 0.001), similarities=np.r_[np.full(10, 0.3), np.full(90, 0.1)])
    found = believe([*others, better], 10)
    line = np.polyfit([*(0.1 * (j // 2) for j in range(10)), 0.3], [*(a.reward for a in others), 0.6], 1)
    assert found[10].mean == pytest.approx(0.6 - 0.2 * line[0], abs=1e-3)


def test_before_anything_is_read_similarity_ranks_and_an_arm_without_pairs_is_last():
    unread = [arm(j, s) for j, s in enumerate((0.1, 0.4, 0.2))]
    assert sorted(scores(unread), key=lambda j: -scores(unread)[j]) == [1, 2, 0]
    barren = dataclasses.replace(arm(7, 0.9), taken=10, pulls=1)
    assert scores([*unread, barren])[7] == WORST_REWARD


def test_beliefs_cover_the_truth_of_a_world_as_the_model_has_it():
    rng = np.random.default_rng(3)
    similarity = rng.uniform(0, 0.4, 400)
    truth = 0.2 + 0.5 * similarity + 0.05 * rng.standard_normal(400)
    errors = rng.choice([0.01, 0.05, 0.2], 400)
    rewards = truth + errors * rng.standard_normal(400)
    arms = [
        arm(j, similarity[j], rewards[j] if j < 200 else None, max(round(0.04 / errors[j] ** 2), 1), errors[j])
        for j in range(400)
    ]
    found = believe(arms, 10)
    inside = [abs(found[j].mean - truth[j]) < 1.645 * found[j].error for j in range(400)]
    assert 0.85 < np.mean(inside[:200]) < 0.95
    assert 0.85 < np.mean(inside[200:]) < 0.95
    shrunk = [abs(found[j].mean - truth[j]) for j in range(200)]
    assert np.mean(shrunk) < 0.6 * np.mean(np.abs(rewards[:200] - truth[:200]))


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.lists(
        st.tuples(
            st.floats(-1, 1), st.none() | st.floats(-1, 1), st.integers(1, 60), st.none() | st.floats(0, 0.3)
        ),
        min_size=1, max_size=12,
    ),
    st.sampled_from(["paper", "constant", "variance", "thompson"]),
    st.randoms(),
)  # fmt: skip
def test_scores_are_finite_and_do_not_depend_on_the_order_of_arms(drawn, exploration, shuffler):
    arms = [arm(j, *row) for j, row in enumerate(drawn)]
    found = scores(arms, exploration=exploration, alpha=1.0)
    assert all(math.isfinite(score) for score in found.values())
    if exploration != "thompson":
        other = scores(shuffler.sample(arms, len(arms)), exploration=exploration, alpha=1.0)
        assert other == pytest.approx(found, abs=1e-6)


# exploration by the error ----------------------------------------------------------------------------------------


def test_variance_adds_standard_errors_and_an_unknown_one_is_the_largest():
    arms = [arm(0, 0, 0.5, error=0.1), arm(1, 0, 0.4, error=0.3), arm(2, 0, 0.1, error=None), arm(3, 0)]
    expected = {0: 0.7, 1: 1.0, 2: 0.7, 3: math.inf}
    assert scores(arms, "equal", "variance", 2.0) == pytest.approx(expected)


def test_a_drawn_score_is_that_of_the_seed_and_of_what_was_read_and_spreads_by_the_error():
    arms = [arm(j, 0, 0.5, error=0.1) for j in range(2000)]
    found = scores(arms, "equal", "thompson")
    assert found == scores(arms, "equal", "thompson")
    assert found != scores(arms, "equal", "thompson", seed=2)
    later = [dataclasses.replace(arms[0], taken=11), *arms[1:]]
    assert found != scores(later, "equal", "thompson")
    values = np.array(list(found.values()))
    assert values.mean() == pytest.approx(0.5, abs=0.01)
    assert values.std() == pytest.approx(0.1, rel=0.1)


def test_equal_scores_by_eq_1_and_unknown_names_are_refused():
    arms = [arm(0, 0.1, 0.5), arm(1, 0.3), arm(2, 0.2, 0.4)]
    assert scores(arms, "equal", "constant", 0.3) == ds_scores(arms, schedule="constant", alpha=0.3)
    with pytest.raises(ValueError, match="'best', allowed: equal, warm_start"):
        scores(arms, "best")
    with pytest.raises(ValueError, match="arm 0 has none"):
        scores([dataclasses.replace(arms[0], similarities=None)])

"""Transport costs against POT, against closed forms, and against what a distance between samples must do."""

from __future__ import annotations

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equal.core import transport
from equal.core.costs import transport_flops
from equal.core.transport import (
    MAX_COST,
    Estimate,
    bootstrap,
    cost_and_error,
    cost_matrix,
    reward,
    standard_error,
    transport_cost,
)

SETTINGS = {"max_pairs": 500, "splits": 8, "seed": 5}


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def cloud(n: int, d: int = 24, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    """Unit vectors around the first axis; `shift` moves their centre towards the second."""
    centre = np.zeros(d)
    centre[:2] = 1.0, shift
    return unit(centre + 0.2 * np.random.default_rng(seed).normal(size=(n, d)))


def split(x: np.ndarray, y: np.ndarray, **changes) -> Estimate:
    return transport_cost(x, y, **{"estimator": "split", **SETTINGS, **changes})


def plain(x: np.ndarray, y: np.ndarray, **changes) -> Estimate:
    return transport_cost(x, y, **{"estimator": "plain", **SETTINGS, **changes})


def test_cost_is_one_minus_cosine():
    x = np.array([[1.0, 0.0], [0.0, 2.0]])
    y = np.array([[3.0, 0.0], [-1.0, 0.0], [1.0, 1.0]])
    expected = [[0.0, 2.0, 1 - 0.5**0.5], [1.0, 1.0, 1 - 0.5**0.5]]
    np.testing.assert_allclose(cost_matrix(x, y), expected, atol=1e-12)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6))
def test_cost_stays_in_its_range_and_is_half_of_the_squared_distance(n, m, seed):
    rng = np.random.default_rng(seed)
    x, y = unit(rng.normal(size=(n, 3))), unit(rng.normal(size=(m, 3)))
    costs = cost_matrix(x.astype(np.float32), np.vstack([y, x, -x]).astype(np.float32))
    assert costs.min() >= 0.0
    assert costs.max() <= MAX_COST
    np.testing.assert_allclose(costs[:, :m], ot.dist(x, y, "sqeuclidean") / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.empty((0, 3)), np.ones((2, 3)), "x: has shape"),
        (np.ones((2, 3)), np.empty((0, 3)), "y: has shape"),
        (np.ones((2, 3)), np.ones((2, 4)), r"y: has shape \(2, 4\), expected \(n, 3\)"),
        (np.array([[1.0, 0.0], [0.0, 0.0]]), np.ones((1, 2)), "x: has rows that are zero"),
        (np.ones((1, 2)), np.array([[np.nan, 1.0]]), "y: has rows that are zero or not finite"),
    ],
)
def test_vectors_without_a_direction_are_refused(x, y, words):
    with pytest.raises(ValueError, match=words):
        cost_matrix(x, y)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 10**6))
@settings(max_examples=40)
def test_plain_is_the_exact_cost_of_pot(n, m, seed):
    x, y = cloud(n, seed=seed), cloud(m, shift=0.5, seed=seed + 1)
    estimate = plain(x, y)
    assert estimate.value == pytest.approx(ot.solve_sample(x, y, metric="sqeuclidean").value / 2, abs=1e-9)
    assert estimate == Estimate(
        estimate.value, True, n, m, transport_flops(n, m, x.shape[1], n + m), estimate.standard_error
    )
    assert (estimate.standard_error is None) == (n == 1)


@given(st.integers(1, 12), st.integers(0, 10**6))
@settings(max_examples=40)
def test_one_halving_is_pots_debiased_split(half, seed):
    x, y = cloud(2 * half, seed=seed), cloud(2 * half, shift=0.5, seed=seed + 1)
    halves = (np.arange(half), np.arange(half, 2 * half))
    oracle = ot.solve_sample(x, y, metric="sqeuclidean", debias="split").value / 2
    assert transport._one_split(transport._Points(x, y), halves, halves) == pytest.approx(oracle, abs=1e-9)


@given(st.integers(1, 25), st.integers(1, 25), st.integers(0, 10**6))
def test_halves_share_no_document_and_lose_no_row(n, documents, seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(documents, size=n)
    first, second = transport._halves(groups, rng)
    assert sorted([*first, *second]) == list(range(n))
    assert not set(groups[first]) & set(groups[second])
    largest = np.bincount(groups).max()
    assert abs(len(first) - len(second)) <= largest


@pytest.mark.parametrize("n", [4, 10, 40, 200])
def test_equal_distributions_cost_nothing_at_any_size(n):
    y = cloud(40, d=384, seed=1)
    values = [split(cloud(n, d=384, seed=100 + r), y).value for r in range(20)]
    noise = plain(cloud(n, d=384, seed=100), y).value
    assert abs(np.mean(values)) < 3 * np.std(values) / 20**0.5 + 0.01
    assert noise > 0.5  # what the paper's cost calls a distance here


def test_a_shift_is_found_at_its_true_size():
    # for equal shapes transport moves the mean: half the squared distance of the means
    x, y = cloud(400, shift=0.6, seed=2), cloud(400, seed=3)
    truth = np.sum((x.mean(0) - y.mean(0)) ** 2) / 2
    assert split(x, y).value == pytest.approx(truth, rel=0.08)
    assert plain(x, y).value > 2 * truth


def test_size_biases_plain_and_not_split():
    y, same = cloud(60, d=384, seed=1), cloud(200, d=384, seed=2)
    assert plain(same[:3], y).value > plain(same, y).value + 0.05
    few = np.mean([split(same[3 * i : 3 * i + 3], y).value for i in range(60)])
    assert few == pytest.approx(split(same, y).value, abs=0.02)


def test_pairs_of_one_document_stay_in_one_half():
    # five near copies a document hide the arm's noise from halves that both hold some of them
    rng = np.random.default_rng(4)
    y, documents = cloud(40, d=384, seed=1), np.repeat(np.arange(12), 5)
    apart, together = [], []
    for r in range(20):
        x = unit(cloud(12, d=384, seed=50 + r)[documents] + 0.01 * rng.normal(size=(60, 384)))
        apart.append(split(x, y).value)
        together.append(split(x, y, doc_index=documents).value)
    assert abs(np.mean(together)) < 0.03
    assert np.mean(apart) > 0.15


def test_arms_are_ranked_by_their_share_of_the_target():
    y, rng = cloud(40, d=64, seed=1), np.random.default_rng(0)
    for estimator in ("split", "plain"):
        rewards = []
        for share in (0.0, 0.3, 0.6, 1.0):
            near = int(60 * share)
            x = np.vstack([cloud(60 - near, d=64, shift=2.0, seed=7), cloud(near, d=64, seed=8)])
            estimate = transport_cost(x[rng.permutation(60)], y, **{"estimator": estimator, **SETTINGS})
            rewards.append(reward(estimate.value))
        assert rewards == sorted(rewards)
        assert rewards[-1] > rewards[0] + 0.1


def test_the_sign_turns_once():
    assert [reward(value) for value in (0.0, 0.25, MAX_COST)] == [1.0, 0.75, -1.0]


def test_the_same_rows_and_seed_give_the_same_bits():
    x, y = cloud(30, seed=1), cloud(21, shift=0.4, seed=2)
    assert split(x, y) == split(x.copy(), y.copy())
    assert split(x, y).value != split(x, y, seed=6).value
    assert split(x, y, doc_index=np.repeat(np.arange(15), 2)) == split(x, y, doc_index=np.repeat(np.arange(15), 2) + 9)


@pytest.mark.parametrize("estimator", ["split", "plain"])
def test_rotation_and_length_change_nothing(estimator):
    x, y = cloud(20, d=6, seed=1), cloud(16, d=6, shift=0.4, seed=2)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))[0]
    before = transport_cost(x, y, **{"estimator": estimator, **SETTINGS}).value
    after = transport_cost(3.0 * x @ turn, 0.5 * y @ turn, **{"estimator": estimator, **SETTINGS}).value
    assert after == pytest.approx(before, abs=1e-9)


@pytest.mark.parametrize("estimator", ["split", "plain"])
def test_max_pairs_bounds_both_sets(estimator):
    x, y = cloud(300, seed=1), cloud(250, shift=0.5, seed=2)
    few = transport_cost(x, y, estimator=estimator, max_pairs=50, splits=4, seed=1)
    assert (few.num_x, few.num_y) == (50, 50)
    full = transport_cost(x, y, **{"estimator": estimator, **SETTINGS})
    assert (full.num_x, full.num_y) == (300, 250)


def test_a_subsample_costs_the_debiased_estimate_little():
    x, y = cloud(300, seed=1), cloud(250, shift=0.5, seed=2)
    assert split(x, y, max_pairs=50).value == pytest.approx(split(x, y).value, abs=0.02)


def test_two_and_three_points_are_compared_one_by_one():
    # E c(x, y) - c(x1, x2) / 2 - c(y1, y2) / 2, the energy distance
    for n in (2, 3):
        x, y = cloud(n, seed=1), cloud(n, shift=1.0, seed=2)
        off = ~np.eye(n, dtype=bool)
        energy = cost_matrix(x, y).mean() - cost_matrix(x, x)[off].mean() / 2 - cost_matrix(y, y)[off].mean() / 2
        assert split(x, y, splits=1000).value == pytest.approx(energy, abs=0.006)


def test_a_single_pair_borrows_the_noise_of_the_other_side():
    x, y = cloud(1, shift=1.0, seed=1), cloud(12, seed=2)
    inner = cost_matrix(y, y)[~np.eye(12, dtype=bool)].mean()
    expected = cost_matrix(x, y).mean() - inner
    assert split(x, y, splits=1000).value == pytest.approx(expected, abs=0.006)
    assert split(y, x, splits=1000).value == pytest.approx(expected, abs=0.006)
    assert split(x, y[:1]).value == pytest.approx(cost_matrix(x, y[:1])[0, 0])


def test_a_single_document_counts_as_a_set_that_cannot_be_halved():
    x, y = cloud(6, shift=1.0, seed=1), cloud(12, seed=2)
    halves = transport._halves(np.zeros(6, int), np.random.default_rng(0))
    assert [len(half) for half in halves] == [6, 0]
    value = split(x, y, doc_index=np.zeros(6, int), splits=200).value
    assert 0 < value < plain(x, y).value


def test_unknown_estimator_names_the_allowed():
    with pytest.raises(ValueError, match="'exact', allowed: split, plain"):
        transport_cost(cloud(2), cloud(2), **{"estimator": "exact", **SETTINGS})


@pytest.mark.filterwarnings("ignore:numItermax reached")
def test_a_solver_that_gives_up_is_recorded(monkeypatch):
    x, y = cloud(40, seed=1), cloud(40, shift=0.5, seed=2)
    assert plain(x, y).converged
    monkeypatch.setattr(transport, "_MAX_PIVOTS", 1)
    assert not plain(x, y).converged


def resampled(x, documents, y, **changes) -> np.ndarray:
    arguments = {"estimator": "split", "num_resamples": 60, **SETTINGS, **changes}
    return bootstrap(x, documents, y, **arguments)


def error_of(x, documents, y, estimator: str) -> float:
    _, error = cost_and_error(x, np.asarray(documents), y, estimator=estimator, num_resamples=40, **SETTINGS)
    assert error is not None
    return error


@pytest.mark.parametrize("estimator", ["split", "plain"])
def test_documents_are_the_observations_not_pairs(estimator):
    # two documents of thirty near copies: as pairs they would seem to be sixty observations
    y = cloud(40, seed=1)
    rows = np.vstack([np.repeat(cloud(1, seed=2), 30, 0), np.repeat(cloud(1, shift=3.0, seed=3), 30, 0)])
    x = unit(rows + 0.01 * np.random.default_rng(0).normal(size=rows.shape))
    assert error_of(x, np.repeat([0, 1], 30), y, estimator) > 4 * error_of(x, np.arange(60), y, estimator)


@pytest.mark.parametrize("estimator", ["split", "plain"])
@pytest.mark.parametrize("pairs_per_document", [1, 3])
def test_standard_error_is_the_spread_of_repeated_arms(estimator, pairs_per_document):
    y, num = cloud(40, seed=1), 30
    documents = np.repeat(np.arange(num), pairs_per_document)

    def arm(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        near = int(rng.binomial(num, 0.5))
        rows = np.vstack([cloud(near, seed=seed), cloud(num - near, shift=2.0, seed=seed + 1)])
        return unit(rows[documents] + 0.1 * rng.normal(size=(len(documents), rows.shape[1])))

    values = [transport_cost(arm(10 * r), y, **{"estimator": estimator, **SETTINGS}).value for r in range(100)]
    errors = [error_of(arm(10 * r), documents, y, estimator) for r in range(12)]
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.35)


def test_the_error_of_plain_is_that_of_its_linear_part():
    """Leaving out a document moves the cost as its potentials say, so the jackknife gives nearly the same error."""
    x, y, documents = cloud(40, seed=2), cloud(25, shift=1.0, seed=1), np.repeat(np.arange(20), 2)
    without = np.array([plain(x[documents != g], y).value for g in range(20)])
    jackknife = np.sqrt(19 / 20 * ((without - without.mean()) ** 2).sum())
    assert error_of(x, documents, y, "plain") == pytest.approx(jackknife, rel=0.15)


def test_resampling_does_not_shift_the_debiased_estimate():
    # copies of a document in both halves would hide noise and raise every resampled value
    x, y = cloud(40, d=384, seed=2), cloud(40, d=384, seed=1)
    values = resampled(x, np.arange(40), y)
    assert values.shape == (60,)
    assert np.mean(values) == pytest.approx(split(x, y).value, abs=0.02)


def test_bootstrap_is_seeded():
    x, y, documents = cloud(20, seed=2), cloud(20, seed=1), np.repeat(np.arange(5), 4)
    np.testing.assert_array_equal(resampled(x, documents, y), resampled(x, documents, y))
    assert not np.array_equal(resampled(x, documents, y), resampled(x, documents, y, seed=9))


def test_one_document_has_no_standard_error():
    for estimator in ("split", "plain"):
        how = {"estimator": estimator, "num_resamples": 4, **SETTINGS}
        assert cost_and_error(cloud(6, seed=2), np.zeros(6), cloud(9, seed=1), **how)[1] is None
    assert standard_error(np.array([0.1, 0.2, 0.3]), num_documents=1) is None
    assert standard_error(np.array([0.1]), num_documents=5) is None
    assert standard_error(np.array([0.1, 0.3]), num_documents=5) == pytest.approx(0.2 / 2**0.5)

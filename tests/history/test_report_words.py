"""What the report says of its numbers, and how it writes and places them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equal.io import report
from equal.io.figures import plane


def _near(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.02, "high": value + 0.02}


@pytest.mark.parametrize(
    ("equal", "random", "said"),
    [
        (_near(0.20), _near(0.30), "closer to the target than"),
        (_near(0.30), _near(0.20), "farther from the target than"),
        (_near(0.29), _near(0.30), "intervals overlap"),
        (_near(0.31), _near(0.30), "intervals overlap"),
        (_near(0.20), None, "no random control"),
        (None, None, "has not been measured"),
    ],
)
def test_the_verdict_on_the_distance_is_what_the_intervals_say(equal, random, said):
    losses = {"base": None, "equal": None, "random": None}
    assert said in report.verdict({"equal": equal, "random": random}, losses)[0]


def _judged(*values: float) -> dict[str, object]:
    return {"value": sum(values) / len(values), "item_values": list(values)}


@pytest.mark.parametrize(
    ("equal", "random", "said"),
    [
        # an easy and a hard item; differences -0.2 and -0.24, or 0.2 and 0.24: 0.22, standard error 0.02
        (_judged(1.0, 4.0), _judged(1.2, 4.24), "the lower by 0.220 (item by item, 90% interval 0.187 to 0.253)"),
        (_judged(1.2, 4.24), _judged(1.0, 4.0), "the higher by 0.220 (item by item, 90% interval 0.187 to 0.253)"),
        # differences -0.3 and 0.1: 0.1, standard error 0.2
        (_judged(1.0, 4.1), _judged(1.3, 4.0), "lower by 0.100 (item by item, 90% interval −0.229 to 0.429), so"),
        (_judged(1.0, 4.0), _judged(1.0, 4.0), "EQUAL’s equals it"),
        (_judged(2.0), _judged(3.0), "EQUAL’s is the lower by 1.000 on a single item"),
        (_judged(1.0, 4.0), _judged(3.0), "they were judged on 2 and 1 items, so nothing follows"),
    ],
)
def test_the_verdict_on_the_loss_compares_item_by_item(equal, random, said):
    losses = {"base": {"value": 2.7}, "equal": equal, "random": random}
    text = report.verdict({"equal": None, "random": None}, losses)[1]
    assert said in text
    assert ("not clearly apart" in text) == ("−" in said)
    assert f"from 2.700 to {equal['value']:.3f} nats per answer token, on random’s to {random['value']:.3f}; " in text


@given(st.integers(2, 12), st.integers(0, 10_000))
def test_the_verdict_on_the_loss_does_not_ask_how_hard_the_items_are(n, seed):
    rng = np.random.default_rng(seed)
    hard, equal, random = rng.normal(scale=(9.0, 1.0, 1.0), size=(n, 3)).T
    plain, harder = (report._loss_gap(list(equal + more), list(random + more)) for more in (0.0, hard))
    assert plain == harder


@given(st.integers(2, 30), st.integers(0, 10_000))
def test_the_plane_keeps_distances_of_flat_data_and_its_signs(n, seed):
    rng = np.random.default_rng(seed)
    flat = rng.normal(size=(n, 2))
    turned = flat @ np.linalg.qr(rng.normal(size=(6, 2)))[0].T
    points, share = plane(turned)
    gaps = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    assert np.allclose(np.linalg.norm(points[:, None] - points[None], axis=-1), gaps)
    assert math.isclose(share, 1.0)
    assert np.allclose(plane(turned)[0], points)
    assert all(points[np.abs(points[:, axis]).argmax(), axis] >= 0 for axis in (0, 1))


def test_a_single_arm_has_a_place():
    points, share = plane(np.ones((1, 4)))
    assert points.tolist() == [[0.0, 0.0]]
    assert share == 1.0


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (report.duration(8.24), "8.2 s"),
        (report.duration(59.96), "1 min 00 s"),
        (report.duration(365), "6 min 05 s"),
        (report.duration(7800), "2 h 10 min"),
        (report.flops(3.1e15), "3.1 PFLOP"),
        (report.flops(0.0), "–"),
        (report.flops(2.5e20), "250 EFLOP"),
        (report.percent(0.0), "0%"),
        (report.percent(0.0002), "< 0.1%"),
        (report.percent(0.046), "4.6%"),
        (report.percent(0.11), "11%"),
        (report.number(-0.0421), "−0.042"),
        (report.number(None), "–"),
        (report.count(1234567), "1,234,567"),
    ],
)
def test_numbers_read_well(shown, expected):
    assert shown == expected

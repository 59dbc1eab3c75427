"""A strategy that looks at documents' similarity reads what it should, on real Delta and through a real server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from equal.io.marks import Marks
from equal.io.stage import run_stage
from equal.io.tables import Tables
from equal.jobs.pipeline import RUN
from equal.schemas import ASSIGNMENTS, DOCUMENTS, EMBEDDINGS, EXTRACTIONS, REPLIES
from equal.training.encoder import EncoderFactory
from equal.transforms.sampling import hash_order
from extract_world import BUDGET, GUIDE, TOPICS


def test_a_warm_started_run_reads_the_most_similar_documents_and_sweeps_no_other_arm(spark, config):
    bandit = replace(config.bandit, strategy="warm_start", arms_per_iteration=1, docs_per_pull=6)
    run_stage(replace(config, bandit=bandit), "extract", RUN["extract"])
    tables = Tables(spark, config.storage.root)
    read = tables.read(EXTRACTIONS).where("run_id = 'r' AND final").select("doc_id", "iteration")
    rows = tables.read(DOCUMENTS).join(tables.read(EMBEDDINGS), "doc_id").join(read, "doc_id", "left").collect()
    assert sum(row.iteration is not None for row in rows) == tables.read(REPLIES).count() == BUDGET
    # of the guide's topic, first those that the order promises
    folder = Path(config.storage.root, "encoders", Marks.read(tables, config).of("warm_up")["input_hash"])
    settings = config.encoder
    encoder = EncoderFactory(str(folder), settings.dtype, settings.max_tokens, settings.batch_size)()
    guide = encoder.encode([f"{GUIDE['question']}\n{GUIDE['answer']}"])[0].astype(float)
    arm = [row for row in rows if row.text.startswith(TOPICS[0]) and row.iteration != 0]
    nearest = sorted(arm, key=lambda row: -float(np.dot(row.embedding, guide)))[: BUDGET - 6]
    assert {row.doc_id for row in rows if row.iteration} == {row.doc_id for row in nearest}


def test_the_papers_own_choice_reads_an_arm_in_hash_order(spark, config):
    bandit = replace(config.bandit, strategy="equal", exploration="paper", arms_per_iteration=2)
    run_stage(replace(config, bandit=bandit), "extract", RUN["extract"])
    tables = Tables(spark, config.storage.root)
    read = tables.read(EXTRACTIONS).where("run_id = 'r' AND final").select("doc_id", "iteration")
    rows = tables.read(ASSIGNMENTS).join(read, "doc_id", "left").orderBy(hash_order(config.seed)).collect()
    assert sum(row.iteration is not None for row in rows) == BUDGET
    for arm in range(3):
        iterations = [row.iteration for row in rows if row.cluster_id == arm]
        taken = [n for n in iterations if n is not None]
        assert iterations[: len(taken)] == sorted(taken), "the first of the arm, in that order"

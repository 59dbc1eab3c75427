"""What the bandit job will not begin, and says so before it asks the endpoint for anything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pyspark.sql import SparkSession

from chat_server import always
from equal.errors import BudgetError, EndpointError, InputError, RunLockedError, TableError
from equal.io.lock import run_lock
from equal.io.marks import Marks
from equal.io.stage import Job, run_stage
from equal.io.tables import Tables
from equal.jobs.pipeline import ARMS, RUN
from equal.run import fruitless
from equal.schemas import ITERATIONS
from equal.state import Extracted, Pairs
from extract_world import paid


def test_a_second_process_on_one_run_name_is_refused_before_it_asks_anything(prepared, server):
    refused = pytest.raises(RunLockedError, match="run_name: r is being worked on by process")
    with run_lock(prepared.storage.root, prepared.run_name), refused:
        run_stage(prepared, "extract", RUN["extract"])
    assert not server.bodies


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ({"url": "http://127.0.0.1:9/v1"}, "endpoint.url: no answer from http://127.0.0.1:9/v1"),
        ({"key_env": "EQUAL_TEST_NO_KEY"}, "refuses the key"),
        ({"model": "another"}, "endpoint.model: .*another.*test-model"),
        ({}, "context"),
    ],
    ids=["down", "wrong key", "unknown model", "short context"],
)
@pytest.mark.parametrize("stage", ["warm_up", "extract"])
def test_an_endpoint_that_cannot_serve_is_named_before_anything_is_asked(
    stage: str, endpoint: dict[str, str], message: str, prepared, server, monkeypatch
):
    changed = replace(prepared, endpoint=replace(prepared.endpoint, **endpoint))
    if stage == "warm_up":  # other settings than the finished one's
        changed = replace(changed, warm_up=replace(changed.warm_up, epochs=3))
    monkeypatch.setattr(server, "key", "wanted" if "key_env" in endpoint else "")
    monkeypatch.setattr(server, "max_model_len", 4096 if endpoint else 64)
    body = {**ARMS, **RUN}[stage]
    tables = Tables(SparkSession.getActiveSession(), prepared.storage.root)
    job = Job(changed, tables.spark, tables, stage, "h", Marks.read(tables, changed))
    with pytest.raises(EndpointError, match=message):
        body(job)
    assert not server.bodies


def test_a_context_that_no_passage_fits_stops_the_run(config, server):
    server.fault = always("too_long")
    with pytest.raises(EndpointError, match=r"(?s)\d of \d documents .*extraction\.passage_chars"):
        run_stage(config, "extract", RUN["extract"])


def test_rows_of_another_configuration_are_refused_with_both_hashes(spark, unbroken):
    config = unbroken.config
    other = replace(config, bandit=replace(config.bandit, exploration="constant"))
    with pytest.raises(TableError, match="choose another run_name, or restore the settings") as refused:
        run_stage(other, "extract", RUN["extract"])
    tables = Tables(spark, config.storage.root)
    hashes = {row.history_hash for row in tables.read(ITERATIONS).collect()}
    assert hashes == {Marks.read(tables, config).history_hash()}
    assert hashes.pop() in str(refused.value)
    assert Marks.read(tables, other).history_hash() in str(refused.value)


@pytest.mark.parametrize(
    ("section", "changed", "stage"),
    [
        ("deduplicate", {"threshold": 0.9}, "deduplicate"),
        ("decontaminate", {"ngram_words": 11}, "decontaminate"),
        ("encoder", {"max_tokens": 48}, "warm_up"),
        ("cluster", {"k": 2}, "cluster"),
    ],
)
def test_what_another_configuration_made_is_not_built_upon(prepared, server, section, changed, stage):
    other = replace(prepared, **{section: replace(getattr(prepared, section), **changed)})
    with pytest.raises(TableError, match=f"stage {stage}: its output .* was made with other settings"):
        run_stage(other, "extract", RUN["extract"])
    assert not server.bodies


def test_arms_that_a_smaller_budget_cannot_sweep_are_refused(prepared, server):
    bandit, budget = replace(prepared.bandit, strategy="equal"), replace(prepared.budget, documents=12)
    other = replace(prepared, bandit=bandit, budget=budget)
    with pytest.raises(BudgetError, match="largest k that fits is 2"):
        run_stage(other, "extract", RUN["extract"])
    assert not server.bodies


@pytest.mark.parametrize(
    ("guide", "message"), [("", "reference.guide: is empty"), ("/nowhere/guide.jsonl", "no such file")]
)
def test_a_reference_set_that_is_not_there_is_named_before_anything_is_asked(prepared, server, guide, message):
    other = replace(prepared, reference=replace(prepared.reference, guide=guide))
    with pytest.raises(InputError, match=message):
        run_stage(other, "extract", RUN["extract"])
    assert not server.bodies


def test_a_warm_up_that_proves_too_dear_for_the_token_budget_ends_after_its_first_documents(spark, config, server):
    server.bodies.clear()
    other = replace(config, warm_up=replace(config.warm_up, fraction=0.2))
    other = replace(other, extraction=replace(other.extraction, max_tokens=99))  # no reply is there yet
    dear = replace(other, budget=replace(other.budget, tokens=2000))
    with pytest.raises(BudgetError, match=r"first 1 of its 12 documents took .* tokens.*above budget\.tokens=2000"):
        run_stage(dear, "warm_up", ARMS["warm_up"])
    assert len(server.bodies) == 1
    assert paid(config) == 6 + 1  # it is kept; six were there
    # nor is a warm-up finished of which the budget kept something out: runs with other budgets would build on it
    with pytest.raises(BudgetError, match=r"budget\.tokens: is 50, which the warm-up's documents do not fit in whole"):
        run_stage(replace(other, budget=replace(other.budget, tokens=50)), "warm_up", ARMS["warm_up"])
    assert len(server.bodies) == 1


def test_a_warm_up_without_a_pair_is_told_by_its_outcomes():
    nothing = Pairs(*np.empty((4, 0)))
    parts = [Extracted({}, nothing, {"void": 3, "looping": 1}), Extracted({}, nothing, {"looping": 5})]
    assert "not one pair came of 9 documents (looping 6, void 3)" in fruitless(9, parts)


def test_a_warm_up_above_the_budget_is_refused(prepared, server):
    other = replace(
        prepared, warm_up=replace(prepared.warm_up, fraction=0.5), budget=replace(prepared.budget, documents=20)
    )
    with pytest.raises(BudgetError, match="reads 30 of 60 documents, above the budget of 20"):
        run_stage(other, "warm_up", ARMS["warm_up"])
    assert not server.bodies
    tables = Tables(SparkSession.getActiveSession(), prepared.storage.root)
    assert Marks.read(tables, prepared).finished("warm_up")  # what was refused took nothing away

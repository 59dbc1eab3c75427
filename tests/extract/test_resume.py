"""Whatever stops a run, the next one ends where an unbroken one would, paying once."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from chat_server import always
from equal.errors import EndpointError
from equal.extraction import Extraction
from equal.history import Run, open_state, state_ahead
from equal.io.marks import Marks
from equal.io.stage import run_stage
from equal.io.tables import Tables
from equal.jobs.pipeline import ARMS, RUN
from equal.schemas import ARM_HISTORY, CENTROIDS, COSTS, EXTRACTIONS, ITERATIONS, QA_PAIRS, REPLIES, STAGES
from extract_world import BUDGET, IN_FLIGHT, JOB, KEY, contents, key_in, paid, settings_file, unbilled
from small_disk import needs_namespaces, run_out_of_space


def test_the_budget_is_met_exactly_and_every_document_has_one_outcome(spark, unbroken):
    tables = Tables(spark, unbroken.config.storage.root)
    last = tables.read(ITERATIONS).orderBy("iteration").collect()[-1]
    assert (last.total_documents, last.stop_reason) == (BUDGET, "documents")
    final = tables.read(EXTRACTIONS).where("run_id = 'r' AND final")
    assert (final.count(), final.select("doc_id").distinct().count()) == (BUDGET, BUDGET)
    assert paid(unbroken.config) == BUDGET
    # the six warm-up documents were paid for before
    assert unbroken.calls == BUDGET - 6
    told = json.loads(Path(unbroken.config.storage.root, "r", "progress.json").read_text())
    assert (told["state"], told["stop_reason"], told["iteration"]) == ("finished", "documents", last.iteration)
    assert told["spent"] == {"documents": BUDGET, "tokens": last.total_tokens, "money": 0.0}
    assert (sum(told["outcomes"].values()), told["pairs"]) == (
        BUDGET,
        tables.read(QA_PAIRS).where("run_id = 'r'").count(),
    )


def test_the_extraction_is_one_mlflow_run_with_a_step_an_iteration(spark, unbroken):
    client = mlflow.MlflowClient(f"sqlite:///{unbroken.config.storage.root}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("equal").experiment_id], "tags.stage = 'extract'")
    committed = Tables(spark, unbroken.config.storage.root).read(ITERATIONS).orderBy("iteration").collect()
    points = client.get_metric_history(run.info.run_id, "documents")
    assert [(m.step, m.value) for m in points] == [(row.iteration, row.total_documents) for row in committed]
    assert run.data.metrics["best_reward"] >= run.data.metrics["mean_reward"]


def test_the_ledger_holds_the_tokens_of_the_prefix_cache_once(spark, unbroken):
    tables = Tables(spark, unbroken.config.storage.root)
    stored = tables.read(REPLIES).agg(F.sum("cached_tokens")).first()[0]
    costs = tables.read(COSTS).where("cached_tokens > 0").collect()
    assert {row.stage for row in costs} == {"warm_up", "extract"}
    assert sum(row.cached_tokens for row in costs) == stored
    assert unbilled(unbroken.config) == {}
    whole = tables.read(STAGES).where("stage = 'extract'").first().seconds
    billed = tables.read(COSTS).where("stage = 'extract'").agg(F.sum("seconds")).first()[0]
    assert 0.7 * whole < billed <= whole, "opening the run and writing its rows are of an iteration, too"


def test_a_token_budget_is_never_exceeded_and_what_a_document_needs_is_read_back(spark, config):
    limited = replace(config, budget=replace(config.budget, documents=0, tokens=2200))
    run_stage(limited, "extract", RUN["extract"])
    tables = Tables(spark, config.storage.root)
    last = tables.read(ITERATIONS).orderBy("iteration").collect()[-1]
    needed = tables.read(EXTRACTIONS).where("run_id = 'r'").agg(F.max("needed_tokens")).first()[0]
    assert last.stop_reason == "tokens"
    assert 2200 - needed < last.total_tokens <= 2200
    marks = Marks.read(tables, limited)
    state = open_state(tables, Run("r", last.clustering, marks.history_hash(), limited.fingerprint()), 0)
    assert state.need.tokens == needed > limited.extraction.max_tokens


def test_what_a_pipelined_iteration_was_chosen_by_is_read_back(spark, unbroken):
    tables = Tables(spark, unbroken.config.storage.root)
    last = tables.read(ITERATIONS).orderBy("iteration").collect()[-1]
    run = Run("r", last.clustering, last.history_hash, last.fingerprint)
    state = open_state(tables, run, 0)
    ahead = state_ahead(tables, run, state)
    history = tables.read(ARM_HISTORY).where("run_id = 'r'").orderBy("iteration").collect()
    known = {row.arm_id: row for row in history if row.iteration < last.iteration}
    assert any(ahead.arms[arm_id].reward != state.arms[arm_id].reward for arm_id in last.arms)
    for arm_id, arm in ahead.arms.items():
        assert (arm.taken, arm.pulls) == (state.arms[arm_id].taken, state.arms[arm_id].pulls)
        row = known[arm_id]
        assert (arm.reward, arm.standard_error, arm.pairs) == (row.reward, row.standard_error, row.pairs)
    assert (ahead.spent.documents, ahead.next_iteration) == (last.total_documents, last.iteration + 1)
    assert ahead.spent.tokens == last.total_tokens - last.prompt_tokens - last.completion_tokens  # nothing is limited


def test_the_alignment_before_and_after_the_warm_up_is_in_mlflow(prepared):
    client = mlflow.MlflowClient(f"sqlite:///{prepared.storage.root}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("equal").experiment_id])
    assert {"mrr_before", "mrr_after", "loss_before", "loss_after"} <= set(run.data.metrics)


def test_a_killed_run_goes_on_and_pays_at_most_for_what_was_in_flight(
    spark, config, server, unbroken, tmp_path, monkeypatch
):
    """The key that it was given stands nowhere afterwards."""
    monkeypatch.setenv("EQUAL_ENDPOINT_KEY", KEY)
    monkeypatch.setattr(server, "key", KEY)
    (tmp_path / "events").mkdir()
    events = f"-Dspark.eventLog.enabled=true -Dspark.eventLog.dir={(tmp_path / 'events').as_uri()}"
    server.bodies.clear()
    server.delay_s = 0.4
    settings = settings_file(config, tmp_path / "job.yml")
    log = (tmp_path / "job.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, str(JOB), "--config", str(settings)],
        stdout=log, stderr=log, start_new_session=True,
        env={**os.environ, "SPARK_DRIVER_MEMORY": "1g", "SPARK_SUBMIT_OPTS": events},
    )  # fmt: skip
    give_up = time.monotonic() + 400
    while len(server.bodies) < 7:
        running = process.poll() is None and time.monotonic() < give_up
        assert running, (tmp_path / "job.log").read_text()[-2000:]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)  # driver, JVM and Python workers alike
    process.wait()
    assert contents(config)[ITERATIONS] != unbroken.contents[ITERATIONS]
    server.delay_s = 0.05
    run_stage(config, "extract", RUN["extract"])
    assert contents(config) == unbroken.contents
    assert unbroken.calls <= len(server.bodies) <= unbroken.calls + IN_FLIGHT
    assert paid(config) == BUDGET
    assert unbilled(config) == {}
    assert key_in(tmp_path, (tmp_path / "job.log").read_text()) == []


@pytest.mark.chaos
@needs_namespaces
def test_a_full_disk_stops_a_run_by_name_and_it_ends_where_there_is_room_as_if_there_always_had_been(
    spark, config, server, unbroken, tmp_path
):
    server.bodies.clear()
    disk, store = tmp_path / "disk", Path(config.storage.root)
    disk.mkdir()
    settings = settings_file(replace(config, storage=replace(config.storage, root=str(disk))), tmp_path / "job.yml")
    # a tmpfs gives whole pages
    used = sum(-(-file.stat().st_size // 4096) * 4096 for file in store.rglob("*") if file.is_file())
    said = run_out_of_space(
        [sys.executable, str(JOB), "--config", str(settings)],
        disk=disk, size=used + 200_000, kept=tmp_path / "kept", before=store,
    )  # fmt: skip
    # whichever write meets it: one of a table, or another below storage.root
    assert re.search(r"no space left on the device (that holds|of) storage\.root; free some or move", said)
    moved = replace(config, storage=replace(config.storage, root=str(tmp_path / "kept")))
    assert contents(moved)[ITERATIONS] != unbroken.contents[ITERATIONS]
    run_stage(moved, "extract", RUN["extract"])
    assert contents(moved) == unbroken.contents
    assert unbroken.calls <= len(server.bodies) <= unbroken.calls + IN_FLIGHT


def test_an_endpoint_that_fails_stops_the_run_and_loses_nothing(spark, config, server, unbroken):
    server.bodies.clear()
    served = iter(range(8))
    server.fault = lambda body: "" if next(served, None) is not None else "broken"
    with pytest.raises(EndpointError, match="Replies that came are kept: mend the endpoint"):
        run_stage(config, "extract", RUN["extract"])
    assert Tables(spark, config.storage.root).read(EXTRACTIONS).where("run_id = 'r' AND status = 'failed'").count()
    server.fault = lambda body: ""
    server.bodies.clear()
    run_stage(config, "extract", RUN["extract"])
    assert contents(config) == unbroken.contents
    assert len(server.bodies) == unbroken.calls - 8
    assert unbilled(config) == {}, "what came before it failed is on the bill"
    vain = Tables(spark, config.storage.root).read(COSTS).where("run_id = 'r' AND iteration IS NULL").collect()
    assert [(row.calls, row.documents) for row in vain] == [(2, 0)], "the other six are of an iteration that was whole"


def test_a_killed_iteration_leaves_rows_that_no_reader_counts_and_the_next_run_drops(
    spark, config, unbroken, monkeypatch
):
    """Death between the last of an iteration's rows and its commit mark; other clusters meanwhile change nothing."""
    append = Tables.append

    def die(tables: Tables, table: str, frame: DataFrame) -> None:
        if table == ITERATIONS:
            raise KeyboardInterrupt
        append(tables, table, frame)

    with monkeypatch.context() as patched:
        patched.setattr(Tables, "append", die)
        with pytest.raises(KeyboardInterrupt):
            run_stage(config, "extract", RUN["extract"])
    left = contents(config)
    assert all(left[name] for name in (EXTRACTIONS, QA_PAIRS, ARM_HISTORY, COSTS))
    assert not left[ITERATIONS]
    for settings in (replace(config, cluster=replace(config.cluster, k=2)), config):
        run_stage(settings, "cluster", ARMS["cluster"])
    run_stage(config, "extract", RUN["extract"])
    assert contents(config) == unbroken.contents
    assert unbilled(config) == {}
    tables = Tables(spark, config.storage.root)
    named = {row.clustering for row in tables.read(ITERATIONS).collect()}
    assert named == {Marks.read(tables, config).of("cluster")["input_hash"]}
    kept = {row.clustering: row["count"] for row in tables.read(CENTROIDS).groupBy("clustering").count().collect()}
    assert sorted(kept.values()) == [2, 3]
    assert kept[named.pop()] == 3


def test_a_finished_run_is_passed_over_and_a_larger_budget_extends_it(spark, finished, server, caplog):
    config = finished
    server.fault = always("broken")
    before = contents(config)
    with caplog.at_level("INFO", logger="equal"):
        run_stage(config, "extract", RUN["extract"])
    assert "already finished" in caplog.text
    assert contents(config) == before
    server.fault = lambda body: ""
    server.bodies.clear()
    extended = replace(config, budget=replace(config.budget, documents=BUDGET + 6))
    run_stage(extended, "extract", RUN["extract"])
    assert len(server.bodies) == 6
    assert set(before[EXTRACTIONS]) < set(contents(config)[EXTRACTIONS])
    tables = Tables(spark, config.storage.root)
    for rows in (tables.read(ITERATIONS), tables.read(ARM_HISTORY), tables.read(STAGES).where("stage = 'extract'")):
        named = {row.fingerprint for row in rows.select("fingerprint").collect()}
        assert named == {config.fingerprint(), extended.fingerprint()}
    assert tables.read(ITERATIONS).select("history_hash").distinct().count() == 1, "a larger budget goes on"


def test_a_killed_warm_up_goes_on_without_asking_again(spark, config, server, monkeypatch):
    other = replace(config, warm_up=replace(config.warm_up, fraction=0.2))

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("equal.jobs.warm_up.tune_encoder", die)
        with pytest.raises(KeyboardInterrupt):
            run_stage(other, "warm_up", ARMS["warm_up"])
    assert len(server.bodies) == 6
    run_stage(other, "warm_up", ARMS["warm_up"])
    assert len(server.bodies) == 6
    rows = Tables(spark, config.storage.root).read(EXTRACTIONS).where("run_id LIKE 'warm_up%'")
    assert rows.groupBy("run_id").count().select("count").orderBy("count").collect() == [(6,), (12,)]


@pytest.mark.chaos  # short: the lane's control run, tests/transforms/test_known_replies.py
def test_replies_of_a_run_that_was_abandoned_serve_the_others(spark, config, server, monkeypatch):
    """A run died with replies in its spool and is never resumed; another run asks the same."""

    keep = Extraction.keep

    def die(reading: Extraction, iteration: int) -> None:
        if reading.spool(iteration).count():
            raise KeyboardInterrupt
        keep(reading, iteration)

    with monkeypatch.context() as patched:
        patched.setattr(Extraction, "keep", die)
        with pytest.raises(KeyboardInterrupt):
            run_stage(replace(config, run_name="abandoned"), "extract", RUN["extract"])
    assert server.bodies
    run_stage(config, "extract", RUN["extract"])
    asked = [json.dumps(body["messages"]) for body in server.bodies]
    assert len(asked) == len(set(asked))
    assert unbilled(config) == {}
    assert Tables(spark, config.storage.root).read(COSTS).where("run_id = 'abandoned' AND calls > 0").count() == 1

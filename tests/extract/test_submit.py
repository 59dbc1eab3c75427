"""The same jobs by spark-submit on a standalone cluster: executors in JVMs of their own, the same tables."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chat_server import ChatServer
from equal.config import RunConfig
from equal.io.stage import run_stage
from equal.jobs.pipeline import RUN, STAGES
from extract_world import KEY, contents, key_in, settings_file, stored
from standalone import standalone_cluster, submit_command

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.timeout(2400)  # a whole pipeline beside another process of tests


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with standalone_cluster(tmp_path_factory.mktemp("cluster"), workers=1, cores=2, memory="2g") as url:
        yield url


def submit(job: str, master: str, *arguments: str, options: tuple[str, ...] = ()) -> str:
    """Run a job by spark-submit; returns its exit status and what it printed."""
    done = subprocess.run(
        [*submit_command(ROOT / "jobs" / f"{job}.py", master, *options), *arguments],
        env={**os.environ, "PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # spark-submit sends what a job prints to stdout, whichever it chose
        text=True,
        check=False,
    )  # fmt: skip
    return f"{done.returncode} {done.stdout}"


#: table -> what must not depend on where the jobs run
COMPARED = {
    "documents": ["doc_id", "text"],
    "removals": ["doc_id", "stage", "reason", "evidence"],
    "assignments": ["doc_id", "cluster_id"],
    "extractions": ["iteration", "arm_id", "doc_id", "status", "num_pairs"],
    "qa_pairs": ["pair_id", "arm_id", "iteration"],
    "arm_history": ["iteration", "arm_id", "pulls", "pairs", "reward"],
    "selected_pairs": ["pair_id", "rank"],
}


def table(config: RunConfig, name: str) -> list[tuple[str, ...]]:
    return sorted(tuple(str(row[column]) for column in COMPARED[name]) for row in stored(config, name))


def submit_watched(
    job: str, master: str, config: RunConfig, folder: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Submit a job with a key that the server asks for; it is shown nowhere, Spark's event log included.

    Returns:
        What the job printed.
    """
    monkeypatch.setenv("EQUAL_ENDPOINT_KEY", KEY)
    monkeypatch.setattr(server, "key", KEY)
    events = folder / "events"
    events.mkdir(exist_ok=True)
    said = submit(
        job, master, "--config", str(settings_file(config, folder / "cluster.yml")),
        options=(
            "--properties-file", str(ROOT / "conf" / "spark.conf"),
            "--conf", "spark.eventLog.enabled=true", "--conf", f"spark.eventLog.dir={events.as_uri()}",
        ),
    )  # fmt: skip
    assert said.startswith("0 "), said[-3000:]
    assert key_in(folder, said) == []
    return said


@pytest.mark.chaos
def test_a_cluster_extracts_what_a_local_session_extracts(master, config, unbroken, tmp_path, server, monkeypatch):
    """Executors read the encoder and write the spool on their own."""
    submit_watched("extract", master, config, tmp_path, server, monkeypatch)
    assert contents(config) == unbroken.contents


@pytest.mark.chaos
def test_a_cluster_writes_the_tables_that_a_local_session_writes(
    master, finished, tmp_path, tiny_model, server, monkeypatch
):
    """Every job by itself, in order, and then the pipeline, which finds nothing left to do."""
    run_stage(finished, "select", RUN["select"])
    elsewhere = replace(
        finished,
        storage=replace(finished.storage, root=str(tmp_path / "cluster")),
        finetune=replace(finished.finetune, base_model=tiny_model, epochs=1),
        evaluate=replace(finished.evaluate, max_items=4),
    )
    for stage in STAGES:
        job = "select_pairs" if stage == "select" else stage
        said = submit_watched(job, master, elsewhere, tmp_path, server, monkeypatch)
        assert f"{stage}: " in said
    said = submit_watched("pipeline", master, elsewhere, tmp_path, server, monkeypatch)
    assert said.count("already finished") == len(STAGES) - 1  # ingest looks for new files
    assert "pipeline: all 11 stages finished" in said
    for name in COMPARED:
        assert table(finished, name), name
        assert table(elsewhere, name) == table(finished, name)
    assert {("base", "target_loss"), ("tuned", "target_loss")} <= {
        (row["model"], row["metric"]) for row in stored(elsewhere, "evaluations")
    }


@pytest.mark.chaos
def test_a_job_is_submitted_to_this_machine_alone(finished, tmp_path):
    elsewhere = replace(finished, storage=replace(finished.storage, root=str(tmp_path / "here")))
    said = submit(
        "ingest", "local[1]", "--config", str(settings_file(elsewhere, tmp_path / "here.yml")),
        options=("--properties-file", str(ROOT / "conf" / "spark.conf")),
    )  # fmt: skip
    assert said.startswith("0 "), said[-3000:]
    assert table(elsewhere, "documents") == table(finished, "documents")


def test_a_session_without_delta_is_told_what_to_add(tmp_path):
    said = submit("ingest", "local[1]", "--set", f"storage.root={tmp_path / 'root'}")
    assert said.startswith("2 "), said[-3000:]
    assert "--properties-file conf/spark.conf" in said

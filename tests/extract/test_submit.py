"""The same jobs by spark-submit on a standalone cluster: executors in JVMs of their own, the same tables."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyspark
import pytest
from deltalake import DeltaTable

from equal.io.stage import run_stage
from equal.jobs.pipeline import RUN
from extract_world import settings_file

ROOT = Path(__file__).resolve().parents[2]
SPARK_HOME = Path(pyspark.__file__).parent

pytestmark = pytest.mark.timeout(2400)  # a whole pipeline beside another process of tests


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A master and one worker on the loopback interface, ended by process id."""
    folder = tmp_path_factory.mktemp("cluster")
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str) -> Path:
        log = folder / f"{name}.log"
        command = [str(SPARK_HOME / "bin" / "spark-class"), f"org.apache.spark.deploy.{name}", *arguments]
        environment = {**os.environ, "SPARK_WORKER_DIR": str(folder / "work"), "PYSPARK_PYTHON": sys.executable}
        with log.open("wb") as file:
            started.append(
                subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
            )
        return log

    def wait_for(log: Path, pattern: str) -> re.Match[str]:
        for _ in range(240):
            if found := re.search(pattern, log.read_text(errors="replace")):
                return found
            time.sleep(0.5)
        raise AssertionError(log.read_text(errors="replace")[-2000:])

    web = ("--host", "127.0.0.1", "--port", "0", "--webui-port", "0")
    try:
        url = wait_for(start("master.Master", *web), r"Starting Spark master at (spark://\S+)").group(1)
        wait_for(start("worker.Worker", *web, "-c", "2", "-m", "2g", url), r"Successfully registered with master")
        yield url
    finally:
        for process in reversed(started):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)


def submit(job: str, master: str, *arguments: str, options: tuple[str, ...] = ()) -> str:
    """Run a job by spark-submit; returns its exit status and what it printed."""
    done = subprocess.run(
        [str(SPARK_HOME / "bin" / "spark-submit"), "--master", master, *options, str(ROOT / "jobs" / f"{job}.py"),
         *arguments],
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


def table(root: str, name: str) -> list[tuple[str, ...]]:
    rows = DeltaTable(f"{root}/tables/{name}").to_pyarrow_table(columns=COMPARED[name]).to_pylist()
    return sorted(tuple(map(str, row.values())) for row in rows)


def test_a_cluster_writes_the_tables_that_a_local_session_writes(master, finished, tmp_path, tiny_model):
    """Every job in order; executors read models and write the spool on their own."""
    run_stage(finished, "select", RUN["select"])
    elsewhere = replace(
        finished,
        storage=replace(finished.storage, root=str(tmp_path / "cluster")),
        finetune=replace(finished.finetune, base_model=tiny_model, epochs=1),
        evaluate=replace(finished.evaluate, max_items=4),
    )
    said = submit(
        "pipeline", master, "--config", str(settings_file(elsewhere, tmp_path / "cluster.yml")),
        options=("--properties-file", str(ROOT / "conf" / "spark.conf")),
    )  # fmt: skip
    assert said.startswith("0 "), said[-3000:]
    assert "pipeline: all 11 stages finished" in said
    for name in COMPARED:
        assert table(finished.storage.root, name), name
        assert table(elsewhere.storage.root, name) == table(finished.storage.root, name)
    evaluations = DeltaTable(f"{elsewhere.storage.root}/tables/evaluations").to_pyarrow_table().to_pylist()
    assert {("base", "target_loss"), ("tuned", "target_loss")} <= {
        (row["model"], row["metric"]) for row in evaluations
    }


def test_a_session_without_delta_is_told_what_to_add(tmp_path):
    said = submit("ingest", "local[1]", "--set", f"storage.root={tmp_path / 'root'}")
    assert said.startswith("2 "), said[-3000:]
    assert "--properties-file conf/spark.conf" in said

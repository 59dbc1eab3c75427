"""The same jobs by spark-submit on a standalone cluster: executors in JVMs of their own, the same tables."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyspark
import pytest
import torch
from deltalake import DeltaTable

from chat_server import ChatServer
from corpus import write_corpus
from equal.jobs.pipeline import main as pipeline
from reference import write_reference

ROOT = Path(__file__).resolve().parent.parent
SPARK_HOME = Path(pyspark.__file__).parent

pytestmark = pytest.mark.timeout(2400)  # a whole pipeline twice, beside another process of tests


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


def command_line(root: Path, settings: tuple[str, ...]) -> list[str]:
    """The demo's settings and those of this test, as a job takes them."""
    settings = (f"documents.path={root.parent / 'source'}", f"storage.root={root}", "budget.documents=30", *settings)
    return ["--config", str(ROOT / "conf" / "demo.yml"), *(p for setting in settings for p in ("--set", setting))]


def submit(job: str, master: str, root: Path, *options: str, settings: tuple[str, ...] = ()) -> str:
    """Run a job by spark-submit; returns its exit status and what it printed."""
    script = [str(ROOT / "jobs" / f"{job}.py"), *command_line(root, settings)]
    done = subprocess.run(
        [str(SPARK_HOME / "bin" / "spark-submit"), "--master", master, *options, *script],
        env={**os.environ, "PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # spark-submit sends what a job prints to stdout, whichever it chose
        text=True,
        check=False,
    )
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


def table(root: Path, name: str) -> list[tuple[str, ...]]:
    rows = DeltaTable(str(root / "tables" / name)).to_pyarrow_table(columns=COMPARED[name]).to_pylist()
    return sorted(tuple(map(str, row.values())) for row in rows)


def test_a_cluster_writes_the_tables_that_a_local_session_writes(master, spark, tmp_path, tiny_model):
    """Every job in order; executors read models and write the spool on their own."""
    # as in a fresh process; the tuned encoder depends on it in the last bit
    torch.set_num_threads(os.cpu_count() or 1)
    write_corpus(300, tmp_path / "source", packages=["scipy", "numpy"])
    write_reference(tmp_path / "reference")
    held_out = tmp_path / "reference" / "held_out.jsonl"
    with ChatServer() as server:
        settings = (
            f"reference.guide={tmp_path / 'reference' / 'guide.jsonl'}", f"reference.held_out={held_out}",
            f"decontaminate.benchmarks={{held_out: {held_out}}}", f"endpoint.url={server.url}",
            f"endpoint.model={server.model}", "extraction.min_answer_similarity=0.0", "warm_up.fraction=0.04",
            "cluster.k=3", "bandit.docs_per_pull=2", "bandit.arms_per_iteration=2",
            f"finetune.base_model={tiny_model}", "finetune.epochs=1", "evaluate.max_items=4",
        )  # fmt: skip
        properties = ("--properties-file", str(ROOT / "conf" / "spark.conf"))
        said = submit("pipeline", master, tmp_path / "cluster", *properties, settings=settings)
        assert said.startswith("0 "), said[-3000:]
        assert "pipeline: all 11 stages finished" in said
        pipeline(command_line(tmp_path / "local", settings))
    assert len(table(tmp_path / "cluster", "documents")) > 250
    for name in COMPARED:
        assert table(tmp_path / "cluster", name), name
        assert table(tmp_path / "cluster", name) == table(tmp_path / "local", name)


def test_a_session_without_delta_is_told_what_to_add(tmp_path):
    said = submit("ingest", "local[1]", tmp_path / "root")
    assert said.startswith("2 "), said[-3000:]
    assert "--properties-file conf/spark.conf" in said

"""The real vLLM server, killed in the middle of a run and started again: the run ends as if it had not been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from threading import Thread

import pytest
from deltalake import DeltaTable

from equal.config import load
from equal.io.spool import ReplySpool
from equal.io.stage import run_stage
from equal.jobs.pipeline import ARMS, CORPUS, RUN

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "demo"))

pytestmark = [pytest.mark.vllm, pytest.mark.chaos, pytest.mark.timeout(2400)]
KEY, BUDGET, KILLED_AFTER = "a key of this test", 24, 6


class Killable:
    """A server that can be killed and comes back under the same address."""

    def __init__(self, model_dir: Path, log: Path) -> None:
        import server

        self.port, self._log = server._free_port(), log.open("wb")
        self._command = server._command(model_dir, self.port, 4096)
        self._environment = server._environment(KEY)
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def wait_ready(self) -> None:
        give_up = time.monotonic() + 900
        while time.monotonic() < give_up:
            assert self._process.poll() is None, Path(self._log.name).read_text()[-2000:]
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        raise TimeoutError(self._log.name)

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # its engine is a process of its own
        self._process.wait()


@pytest.fixture
def server(tmp_path: Path):
    from model import convert

    running = Killable(convert(), tmp_path / "vllm.log")
    running.wait_ready()
    yield running
    running.kill()


def rows(root: str, table: str) -> list[dict[str, object]]:
    return DeltaTable(f"{root}/tables/{table}").to_pyarrow_table().to_pylist()


def test_a_server_that_is_killed_and_comes_back_costs_the_run_no_document(server, spark, tmp_path, monkeypatch):
    from corpus import write_corpus
    from reference import write_reference
    from server import MODEL_NAME

    monkeypatch.setenv("EQUAL_ENDPOINT_KEY", KEY)
    write_corpus(60, tmp_path / "source", packages=["scipy", "networkx"])
    write_reference(tmp_path / "reference")
    root = str(tmp_path / "storage")
    settings = {
        "storage.root": root,
        "documents.path": tmp_path / "source",
        "reference.guide": tmp_path / "reference" / "guide.jsonl",
        "reference.held_out": tmp_path / "reference" / "held_out.jsonl",
        "endpoint.url": f"http://127.0.0.1:{server.port}/v1",
        "endpoint.model": MODEL_NAME,
        "endpoint.in_flight": 4,
        "warm_up.enabled": "false",
        "cluster.k": 3,
        "cluster.max_sweep_share": 1.0,
        "bandit.docs_per_pull": 8,
        "bandit.arms_per_iteration": 3,
        "budget.documents": BUDGET,
        "run_name": "r",
    }
    config = load(str(ROOT / "conf" / "demo.yml"), [f"{name}={value}" for name, value in settings.items()])
    for stage, body in (CORPUS | ARMS).items():
        run_stage(config, stage, body)

    spooled: list[int] = []

    def kill_and_start_again() -> None:
        while not spooled:
            spools = (tmp_path / "storage" / "spool").glob("*/*")  # of runs, an iteration each
            arrived = sum(ReplySpool(str(folder)).count() for folder in spools)
            if arrived >= KILLED_AFTER:
                server.kill()
                spooled.append(arrived)
            time.sleep(0.05)
        time.sleep(3)
        server.start()

    killer = Thread(target=kill_and_start_again, daemon=True)
    killer.start()
    run_stage(config, "extract", RUN["extract"])
    killer.join(timeout=10)
    assert spooled, "the run ended before its server was killed"
    assert spooled[0] < BUDGET
    final = [row for row in rows(root, "extractions") if row["final"]]
    assert len({row["doc_id"] for row in final}) == len(final) == BUDGET
    assert not {row["status"] for row in final} & {"failed", "not_sent"}
    replies = rows(root, "replies")
    assert len({row["request_key"] for row in replies}) == len(replies) == sum(row["calls"] for row in final)

"""A standalone Spark cluster on the loopback interface, for the tests and benchmarks that submit jobs to one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyspark

SPARK_HOME = Path(pyspark.__file__).parent
_START_S = 120.0


@contextmanager
def standalone_cluster(folder: Path, *, workers: int, cores: int, memory: str) -> Iterator[str]:
    """Start a master and workers and yield the master's URL; they are ended by process id.

    Args:
        folder: logs and the workers' files go there.
        workers: how many.
        cores: of each.
        memory: of each, such as 2g.

    Raises:
        RuntimeError: one did not start; the end of its log.
    """
    started: list[subprocess.Popen[bytes]] = []
    environment = {**os.environ, "SPARK_WORKER_DIR": str(folder / "work"), "PYSPARK_PYTHON": sys.executable}

    def start(log: Path, role: str, *arguments: str) -> Path:
        command = [str(SPARK_HOME / "bin" / "spark-class"), f"org.apache.spark.deploy.{role}", *arguments]
        with log.open("wb") as file:
            started.append(
                subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
            )
        return log

    local = ("--host", "127.0.0.1", "--port", "0", "--webui-port", "0")
    try:
        url = _wait_for(
            start(folder / "master.log", "master.Master", *local), r"Starting Spark master at (spark://\S+)"
        )
        size = ("-c", str(cores), "-m", memory)
        logs = [start(folder / f"worker-{n}.log", "worker.Worker", *local, *size, url) for n in range(workers)]
        for log in logs:
            _wait_for(log, r"(Successfully registered) with master")
        yield url
    finally:
        for process in reversed(started):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)


def submit_command(job: Path, master: str, *options: str) -> list[str]:
    """What submits a job; its arguments follow."""
    return [str(SPARK_HOME / "bin" / "spark-submit"), "--master", master, *options, str(job)]


def _wait_for(log: Path, pattern: str) -> str:
    give_up = time.monotonic() + _START_S
    while time.monotonic() < give_up:
        if found := re.search(pattern, log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.2)
    raise RuntimeError(f"{log.stem}: did not start\n{log.read_text(errors='replace')[-2000:]}")

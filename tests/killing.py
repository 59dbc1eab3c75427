"""Kill -9 of a job of Spark's: all of it, or one Python worker that has a request open."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import IO

import psutil


def start(command: list[str], log: IO[bytes], **environment: str) -> subprocess.Popen[bytes]:
    """A job in a session of its own, by which all that it starts is found again."""
    return subprocess.Popen(
        command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **environment}
    )  # fmt: skip


def kill_all(job: subprocess.Popen[bytes]) -> None:
    """Kill driver, JVM, Python daemon and workers; none is left when this returns.

    The daemon makes a process group of its own, so the job's group is not all of it; the session is.
    """
    give_up = time.monotonic() + 30
    while found := list(_processes(job)):
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        job.poll()  # takes the exit status, else it would stay as a zombie
        assert time.monotonic() < give_up, found
    job.wait()


def workers_asking(job: subprocess.Popen[bytes], port: int) -> list[psutil.Process]:
    """The job's Python workers that hold a connection to a server's port: each works on a task that asks it."""
    return [process for process in _processes(job) if process.pid != job.pid and port in _remote_ports(process)]


def kill_worker(worker: psutil.Process) -> bool:
    """Whether it was there to be killed."""
    try:
        worker.send_signal(signal.SIGKILL)
    except psutil.Error:
        return False
    return True


def _processes(job: subprocess.Popen[bytes]) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == job.pid and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def _remote_ports(process: psutil.Process) -> set[int]:
    with suppress(psutil.Error):
        return {connection.raddr.port for connection in process.net_connections("tcp") if connection.raddr}
    return set()

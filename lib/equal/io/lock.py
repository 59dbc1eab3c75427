"""One process at a time on a run_name: a lock file under storage.root, taken over when its owner is dead."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import psutil

from equal.errors import RunLockedError


@contextmanager
def run_lock(root: str, run_name: str) -> Iterator[None]:
    """Hold the lock of `run_name` while the body runs.

    A lock left by a process of this machine that no longer lives is taken over at once. One of another
    machine cannot be checked from here, so it is named and left.

    Raises:
        RunLockedError: another process holds it.
    """
    path = Path(root) / "locks" / f"{run_name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    _take(path, run_name)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _take(path: Path, run_name: str) -> None:
    owner = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "taken_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    try:
        with path.open("x") as file:
            json.dump(owner, file)
        return
    except FileExistsError:
        holder = _read(path)
    if not _dead(holder):
        raise RunLockedError(
            f"run_name: {run_name} is being worked on by process {holder.get('pid')} on {holder.get('host')} "
            f"since {holder.get('taken_at')}; wait for it, choose another run_name, or delete {path} if that "
            "process no longer lives"
        )
    path.unlink(missing_ok=True)
    _take(path, run_name)


def _read(path: Path) -> dict[str, object]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):  # its owner is writing it, or died doing so
        return {}


def _dead(holder: dict[str, object]) -> bool:
    if holder.get("host") != socket.gethostname():
        return False
    try:
        # a process id is used again sooner or later: the start time tells the old owner from a new stranger
        return psutil.Process(int(str(holder["pid"]))).create_time() != holder["started"]
    except psutil.NoSuchProcess:
        return True

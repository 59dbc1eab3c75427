"""One process at a time on a run_name: a lock file under storage.root, taken over when its owner is dead."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

import psutil

from equal.errors import RunLockedError

#: seconds between two signs of life, and without one after which a holder on another machine counts as dead
_BEAT_S, _DEAD_AFTER_S = 20.0, 600.0


@contextmanager
def run_lock(root: str, run_name: str) -> Iterator[None]:
    """Hold the lock of `run_name`, or of the `corpus` of all runs, while the body runs.

    A lock left by a process of this machine that no longer lives is taken over at once; one of another machine
    when its file was not touched for ten minutes, which a living holder does every few seconds.

    Raises:
        RunLockedError: another process holds it.
    """
    path = Path(root) / "locks" / f"{run_name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    _take(path, run_name)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        path.unlink(missing_ok=True)


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(_BEAT_S):
        with suppress(OSError):
            os.utime(path)


def _take(path: Path, run_name: str) -> None:
    holder = _read(path)
    if holder is not None and _dead(path, holder):
        _put_away(path, holder)
    owner = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "taken_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    try:
        with path.open("x") as file:
            json.dump(owner, file)
    except FileExistsError:
        holder = _read(path) or {}
        shared = run_name == "corpus"  # another run_name works on the same one
        raise RunLockedError(
            f"{'storage.root: the corpus' if shared else f'run_name: {run_name}'} is being worked on by process "
            f"{holder.get('pid')} on {holder.get('host')} since {holder.get('taken_at')}; wait for it, choose another "
            f"{'storage.root' if shared else 'run_name'}, or delete {path} if that process no longer lives"
        ) from None
    except OSError:  # a full disk must not leave a lock that nobody holds
        path.unlink(missing_ok=True)
        raise


def _put_away(path: Path, dead: dict[str, object]) -> None:
    """Remove a dead holder's lock, but not the one that another process may just have put in its place."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        path.rename(aside)
        if _read(aside) != dead:
            aside.rename(path)
        aside.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, object] | None:
    """Who holds the lock; nobody when there is none, nothing known when it is being written."""
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}


def _dead(path: Path, holder: dict[str, object]) -> bool:
    if holder.get("host") != socket.gethostname():
        with suppress(FileNotFoundError):
            return time.time() - path.stat().st_mtime > _DEAD_AFTER_S
        return False
    try:
        # a process id is used again sooner or later: the start time tells the old owner from a new stranger
        return psutil.Process(int(str(holder["pid"]))).create_time() != holder["started"]
    except psutil.NoSuchProcess:
        return True

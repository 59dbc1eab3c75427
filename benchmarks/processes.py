"""A command measured as a user sees it: wall time of the whole process and memory of all it starts."""

from __future__ import annotations

import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_EVERY_S = 0.2
_GIB = 1 << 30


@dataclass(frozen=True)
class Measured:
    """Wall seconds, the largest sum of resident memory of the process and its children, and what it printed."""

    seconds: float
    peak_gib: float
    output: str


def measure(command: list[str], log: Path, env: dict[str, str] | None = None) -> Measured:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed; the end of what it printed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=env)
        peak = _watch(process)
        code = process.wait()
        seconds = time.monotonic() - started
    said = log.read_text(errors="replace")
    if code:
        raise RuntimeError(f"{' '.join(command[:4])} ended with {code}: {said[-2000:]}")
    return Measured(seconds, peak() / _GIB, said)


def _watch(process: subprocess.Popen[bytes]):
    """Sample until the process ends; returns a function that gives the peak in bytes."""
    peaks = [0]

    def sample() -> None:
        while process.poll() is None:
            with suppress(psutil.Error):
                root = psutil.Process(process.pid)
                peaks[0] = max(peaks[0], sum(map(_resident, [root, *root.children(recursive=True)])))
            time.sleep(_EVERY_S)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()

    def peak() -> int:
        thread.join()
        return peaks[0]

    return peak


def _resident(process: psutil.Process) -> int:
    """Pages that this process does not share, so that forked workers do not count their parent's twice."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0

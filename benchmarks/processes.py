"""A command measured as a user sees it: wall time of the whole process and memory of all it starts."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from equal.io.memory import peak_memory


@dataclass(frozen=True)
class Measured:
    """Wall seconds, the largest sum of resident memory of the process and its children, and what it printed."""

    seconds: float
    peak_gib: float
    output: str


class Parts:
    """Seconds of the parts of a process, each named when it is done."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def done(self, part: str) -> None:
        """Note what has passed since the part before."""
        now = time.monotonic()
        self.seconds[part], self._last = round(now - self._last, 1), now


def measure(command: list[str], log: Path, env: dict[str, str] | None = None) -> Measured:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed; the end of what it printed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=env)
        with peak_memory(process.pid) as peak:
            code = process.wait()
            seconds = time.monotonic() - started
    said = log.read_text(errors="replace")
    if code:
        raise RuntimeError(f"{' '.join(command[:4])} ended with {code}: {said[-2000:]}")
    return Measured(seconds, peak.gib, said)

"""Memory of a process and of all that it started, at its largest."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

_EVERY_S = 0.5


class Peak:
    """The largest sum seen so far."""

    def __init__(self, pid: int | None) -> None:
        self._root, self._bytes = psutil.Process(pid), 0

    def look(self) -> None:
        """Take the present sum into account."""
        with suppress(psutil.Error):
            self._bytes = max(self._bytes, sum(map(_own, [self._root, *self._root.children(recursive=True)])))

    @property
    def gib(self) -> float:
        """In GiB, to two places."""
        return round(self._bytes / (1 << 30), 2)


@contextmanager
def peak_memory(pid: int | None = None) -> Iterator[Peak]:
    """Watch a process of this machine and those below it, Java and Python workers among them, while the body runs.

    Args:
        pid: the process; this one when None.
    """
    peak, stop = Peak(pid), threading.Event()

    def watch() -> None:
        peak.look()
        while not stop.wait(_EVERY_S):
            peak.look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


def _own(process: psutil.Process) -> int:
    """Its resident pages, of shared ones its share: forked workers do not count their parent's again."""
    with suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0

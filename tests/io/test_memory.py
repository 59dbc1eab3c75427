"""The peak of a process holds what it and its children had at once, and what a child shares counts once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from equal.io.memory import Peak, peak_memory

#: holds 300 MiB, and for every line that it reads has a child that shares them and holds 200 MiB of its own
_PARENT = """
import os, sys, time
parent, shared = os.getpid(), b"x" * (300 << 20)
for _ in sys.stdin:
    if not os.fork():
        held = b"x" * (200 << 20)
        print("holds", flush=True)
        while os.getppid() == parent:
            time.sleep(0.05)
        os._exit(len(held + shared) % 2)
"""


@contextmanager
def _parent() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _wait(peak: Peak, gib: float) -> None:
    give_up = time.monotonic() + 20
    while peak.gib < gib and time.monotonic() < give_up:
        time.sleep(0.05)


def test_what_children_hold_counts_and_what_they_share_does_not_count_again():
    with _parent() as parent:
        with peak_memory(parent.pid) as before:
            _wait(before, 0.3)  # all of the 300 MiB, and the interpreter with them
        with peak_memory(parent.pid) as during:
            for _ in range(2):
                parent.stdin.write("\n")
                parent.stdin.flush()
                parent.stdout.readline()
            _wait(during, before.gib + 0.38)
    assert 0.29 < before.gib < 0.4
    assert 0.38 <= during.gib - before.gib < 0.45


def test_a_process_that_is_gone_has_the_peak_it_had():
    with _parent() as parent, peak_memory(parent.pid) as peak:
        _wait(peak, 0.3)
        parent.kill()
        parent.wait()
    assert peak.gib > 0.29

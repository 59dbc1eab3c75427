"""The peak of a process holds what it and its children had at once, and what a child shares counts once."""

from __future__ import annotations

import os
import time

from equal.io.memory import peak_memory

MIB = 1 << 20


def _child(size: int) -> int:
    """Fork; the child takes so many bytes and waits to be ended."""
    pid = os.fork()
    if not pid:
        held = b"x" * size
        time.sleep(60)
        os._exit(len(held) % 2)
    return pid


def test_what_children_hold_counts_and_what_they_share_does_not_count_again():
    shared = b"x" * (300 * MIB)
    with peak_memory() as before:
        pass
    pids = [_child(200 * MIB) for _ in range(2)]
    try:
        with peak_memory() as during:
            give_up = time.monotonic() + 20
            while during.gib < before.gib + 0.38 and time.monotonic() < give_up:
                time.sleep(0.05)
    finally:
        for pid in pids:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
    assert len(shared) == 300 * MIB
    assert before.gib > 0.29
    assert 0.38 <= during.gib - before.gib < 0.45


def test_a_process_that_is_gone_has_the_peak_it_had():
    pid, give_up = _child(50 * MIB), time.monotonic() + 20
    with peak_memory(pid) as peak:
        while peak.gib < 0.05 and time.monotonic() < give_up:
            time.sleep(0.05)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert peak.gib >= 0.05

"""An iteration asks when the one before has half of its replies, or has ended."""

from __future__ import annotations

import threading

import pytest

from equal.io.turns import Turns


class Asking(threading.Thread):
    """An iteration of ten documents; `end` it, or let it fail."""

    def __init__(self, turns: Turns, number: int) -> None:
        super().__init__(daemon=True)
        self.turns, self.number, self.replies, self.fails = turns, number, 0, False
        self.begun, self.ending = threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        try:
            with self.turns.asking(self.number, 10, lambda: self.replies):
                self.begun.set()
                self.ending.wait(20)
                if self.fails:
                    raise OSError
        except OSError:
            pass

    def end(self) -> None:
        self.ending.set()
        self.join(20)


def test_the_next_asks_when_half_of_the_replies_are_there():
    turns = Turns()
    first = Asking(turns, 3)
    assert first.begun.wait(20)
    second = Asking(turns, 4)
    first.replies = 4
    assert not second.begun.wait(0.3)
    first.replies = 5
    assert second.begun.wait(20)
    first.end()
    second.end()


@pytest.mark.parametrize("fails", [False, True])
def test_it_waits_no_longer_than_until_the_one_before_has_ended_however_that_ended(fails):
    turns = Turns()
    first = Asking(turns, 3)
    assert first.begun.wait(20)
    second = Asking(turns, 4)
    assert not second.begun.wait(0.3)
    first.fails = fails
    first.end()
    assert second.begun.wait(20)
    second.end()
    alone = Asking(turns, 9)
    assert alone.begun.wait(20)
    alone.end()

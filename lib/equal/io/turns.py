"""Who asks when, of iterations that are under way at once.

A server shares itself among two that ask at the same time. Two that began together so end together, and then nobody
asks while both are written and the next two prepared. So each waits until the one before has half of its replies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: seconds between two looks
_LOOK_AGAIN_S = 0.1


class Turns:
    """Of the iterations of one process; each is one more than the one before."""

    def __init__(self) -> None:
        """Nobody asks yet."""
        self._asking: dict[int, tuple[int, Callable[[], int]]] = {}

    @contextmanager
    def asking(self, iteration: int, documents: int, count_replies: Callable[[], int]) -> Iterator[None]:
        """Enter when the iteration before has half of its replies, or has ended; the body asks.

        Args:
            iteration: whose turn it is to be.
            documents: that it asks about.
            count_replies: of them, as far as they have come; those that were known before do not count.
        """
        self._asking[iteration] = documents, count_replies
        try:
            while self._has_few(iteration - 1):
                time.sleep(_LOOK_AGAIN_S)
            yield
        finally:
            del self._asking[iteration]

    def _has_few(self, iteration: int) -> bool:
        documents, count_replies = self._asking.get(iteration, (0, lambda: 0))
        return 2 * count_replies() < documents

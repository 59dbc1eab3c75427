"""The servers of one model: requests are shared out by weight, and one that is away gets none until it answers.

One that is there and only fails would draw the requests of all, as it has the fewest under way:

    three failures in a row  ->  drained: nothing for a second, then one request at a time
                                 that fails: nothing for twice as long;  that is served: as many as ever
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import ClientSession

from equal.io.outage import Outage

#: failures in a row after which a server is drained
_FAILURES = 3
#: seconds without requests, at first and at last
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0


@dataclass(eq=False)
class Server:
    """One of them.

    Attributes:
        url: base of its API.
        weight: its part of the requests beside those of the others.
        outage: whether it is away.
        pending: requests under way to it.
        failures: in a row.
        pause_s: the last one that it was given.
        paused_until: by time.monotonic.
    """

    url: str
    weight: float
    outage: Outage
    pending: int = 0
    failures: int = 0
    pause_s: float = 0.0
    paused_until: float = 0.0

    @contextmanager
    def busy(self) -> Iterator[None]:
        """While a request is under way."""
        self.pending += 1
        try:
            yield
        finally:
            self.pending -= 1

    @property
    def drained(self) -> bool:
        """Whether others are to be asked, if there are any."""
        return self.failures >= _FAILURES and (self.pending > 0 or time.monotonic() < self.paused_until)

    def served(self) -> None:
        """It gave a reply."""
        self.failures, self.pause_s, self.paused_until = 0, 0.0, 0.0

    def failed(self) -> None:
        """It gave none; of those that were under way together, one lengthens the pause."""
        self.failures += 1
        if self.failures >= _FAILURES and (now := time.monotonic()) >= self.paused_until:
            self.pause_s = min(2 * self.pause_s or _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
            self.paused_until = now + self.pause_s


class Servers:
    """Chooses the server of every attempt."""

    def __init__(self, http: ClientSession, weights: Mapping[str, float], restart_wait_s: float) -> None:
        """Know the servers.

        Args:
            http: the connections of all.
            weights: base URL to weight.
            restart_wait_s: how long one that is away is waited for; 0 does not ask whether one is.
        """
        self._wait = restart_wait_s > 0
        self._all = [
            Server(url.rstrip("/"), weight, Outage(http, url.rstrip("/"), restart_wait_s))
            for url, weight in weights.items()
        ]

    def __str__(self) -> str:
        return ", ".join(server.url for server in self._all)

    async def next(self, tried: Container[Server] = ()) -> Server:
        """The one that is there with the fewest requests for its weight; when all are away, the first that is back.

        Args:
            tried: what failed this request before; the others come first, and those that are drained come last.

        Raises:
            TimeoutError: none came back within restart_wait_s.
        """
        while not (there := [server for server in self._all if not server.outage.away]):
            await self._any_back()
        return min(there, key=lambda each: (each.drained, each in tried, (each.pending + 1) / each.weight))

    async def lost(self, server: Server) -> bool:
        """Whether a server that gave no answer is away. The only one is waited for, beside others it is passed over.

        Raises:
            TimeoutError: the only one did not come back within restart_wait_s.
        """
        if not self._wait:
            return False
        return await (server.outage.passed() if len(self._all) == 1 else server.outage.found())

    async def close(self) -> None:
        """Stop waiting for any."""
        for server in self._all:
            await server.outage.close()

    async def _any_back(self) -> None:
        waiting = {asyncio.ensure_future(server.outage.passed()) for server in self._all}
        error: BaseException | None = None
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                errors = [task.exception() for task in done]
                if None in errors:
                    return
                error = errors[0]
        finally:
            for task in waiting:
                task.cancel()
        raise TimeoutError from error

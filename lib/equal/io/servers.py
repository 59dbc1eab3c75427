"""The servers of one model: requests are shared out by weight, and one that is away gets none until it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import ClientSession

from equal.io.outage import Outage


@dataclass(eq=False)
class Server:
    """One of them.

    Attributes:
        url: base of its API.
        weight: its part of the requests beside those of the others.
        outage: whether it is away.
        pending: requests under way to it.
    """

    url: str
    weight: float
    outage: Outage
    pending: int = 0

    @contextmanager
    def busy(self) -> Iterator[None]:
        """While a request is under way."""
        self.pending += 1
        try:
            yield
        finally:
            self.pending -= 1


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

    async def next(self) -> Server:
        """The one that is there with the fewest requests for its weight; when all are away, the first that is back.

        Raises:
            TimeoutError: none came back within restart_wait_s.
        """
        while not (there := [server for server in self._all if not server.outage.away]):
            await self._any_back()
        return min(there, key=lambda server: (server.pending + 1) / server.weight)

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

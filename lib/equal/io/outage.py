"""A server that is away, as the requests of one client see it: one asks for it, all wait for what that one hears."""

from __future__ import annotations

import asyncio
import logging
import time

from aiohttp import ClientError, ClientSession

from equal.io.completions import PERHAPS_AWAY
from equal.io.connections import exchange

#: seconds within which a server that is there answers a question that costs it nothing
_PROBE_S = 10.0
#: seconds between two such questions, at first and at last
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
log = logging.getLogger("equal")


class Outage:
    """Knows whether the server is away, and waits for it; requests are not what it is tried with.

    Attributes:
        away: it was found to be away and has not answered since.
    """

    def __init__(self, http: ClientSession, url: str, restart_wait_s: float) -> None:
        self._http, self._url, self._restart_wait_s = http, url, restart_wait_s
        self._watch: asyncio.Task[bool] | None = None
        self.away = False

    async def passed(self) -> bool:
        """Return at once when the server answers, else when it does so again.

        Returns:
            Whether it was away.

        Raises:
            TimeoutError: it did not come back within restart_wait_s.
        """
        # one request that is cancelled must not take the watch from the others
        return await asyncio.shield(self._watching())

    async def found(self) -> bool:
        """Whether it is away now; if so, it is watched until it is back, or has stayed away too long to be asked."""
        if not self.away and await self._answers():
            return False
        self.away = True
        self._watching()
        return True

    async def close(self) -> None:
        """Stop watching: whoever waited is gone, and the connection it asks by closes."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    def _watching(self) -> asyncio.Task[bool]:
        if self._watch is None or self._watch.done():
            self._watch = asyncio.ensure_future(self._until_it_answers())
            # where others serve, nobody may be waiting for this one
            self._watch.add_done_callback(lambda watch: watch.cancelled() or watch.exception())
        return self._watch

    async def _until_it_answers(self) -> bool:
        if await self._answers():
            self.away = False
            return False
        self.away, started, pause = True, time.monotonic(), _FIRST_PAUSE_S
        where, limit = self._url, self._restart_wait_s
        log.warning("endpoint: no answer from %s; waiting for it, endpoint.restart_wait_s=%g at most", where, limit)
        try:
            async with asyncio.timeout(limit):
                while not await self._answers():
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE_S)
        finally:
            self.away = False
        log.warning("endpoint: %s answers again, after %.0f s", where, time.monotonic() - started)
        return True

    async def _answers(self) -> bool:
        """Anything but what a gateway or a starting server says is an answer, a refused key too."""
        try:
            async with asyncio.timeout(_PROBE_S):
                status, _, _ = await exchange(self._http, "GET", f"{self._url}/models")
                return status not in PERHAPS_AWAY
        except (ClientError, TimeoutError):
            return False

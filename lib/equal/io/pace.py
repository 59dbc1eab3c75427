"""Requests at once of one client: as many as the servers work on and a few that wait there, at most the cap.

    every 2 s:  waiting > a tenth of running  ->  fewer, in proportion, so that a tenth waits
                else, all slots taken         ->  a tenth more
    a 429 or 503              ->  half as many

Every client of a run sees the same queue and takes its own share of what is too many. A server whose metrics cannot be
read is sent as many as the cap allows, or as it takes without a refusal.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Iterable

from aiohttp import ClientError, ClientSession

from equal.io.connections import beside_api, exchange

_EVERY_S = 2.0
#: seconds for an answer
_PATIENCE_S = 10.0
#: share of the running requests that may wait, so that a slot that gets free never does
_QUEUED = 0.1
#: vLLM's gauges, one a model and engine
_GAUGE = re.compile(r"^vllm:num_requests_(running|waiting)(?:\{.*\})? ([0-9.e+]+)$", re.MULTILINE)


class Pace:
    """Slots for requests; `async with` one for as long as a request is under way.

    Attributes:
        limit: slots that there are now.
    """

    def __init__(self, http: ClientSession, urls: Iterable[str], cap: int) -> None:
        """Begin with as many slots as the cap.

        Args:
            http: the connections.
            urls: base of each server's API.
            cap: slots that there are at most.
        """
        self._http, self._urls, self._cap = http, list(urls), cap
        self.limit, self._taken = cap, 0
        self._free = asyncio.Condition()
        self._watch: asyncio.Task[None] | None = None
        self._halve_at = 0.0

    async def __aenter__(self) -> None:
        if self._watch is None:
            self._watch = asyncio.ensure_future(self._follow())
        async with self._free:
            await self._free.wait_for(lambda: self._taken < self.limit)
            self._taken += 1

    async def __aexit__(self, *_: object) -> None:
        self._taken -= 1
        async with self._free:
            self._free.notify()

    def refused(self) -> None:
        """A server has more than it takes; of the many refusals of one moment the first counts."""
        if (now := time.monotonic()) >= self._halve_at:
            self.limit = max(1, self.limit // 2)
            self._halve_at = now + _EVERY_S

    async def close(self) -> None:
        """Follow the servers no longer."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    async def _follow(self) -> None:
        urls = self._urls
        while True:
            told = dict(zip(urls, await asyncio.gather(*map(self._gauges, urls)), strict=True))
            urls = [url for url in urls if told[url] != {}]  # what does not answer now may be back soon
            known = [gauges for gauges in told.values() if gauges]
            running, waiting = (sum(gauges[name] for gauges in known) for name in ("running", "waiting"))
            if time.monotonic() >= self._halve_at:
                self.limit = followed(self.limit, running, waiting, self._cap, full=self._taken >= self.limit)
            async with self._free:
                self._free.notify_all()
            await asyncio.sleep(_EVERY_S)

    async def _gauges(self, url: str) -> dict[str, float] | None:
        """What a server tells, nothing where it has no such gauges; None when it gives no answer."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                status, _, content = await exchange(self._http, "GET", beside_api(url, "metrics"))
        except (ClientError, TimeoutError):
            return None
        if status >= 500:  # a gateway's word while the server is away
            return None
        found: dict[str, float] = {}
        for name, value in _GAUGE.findall((content or b"").decode(errors="replace")):
            found[name] = found.get(name, 0.0) + float(value)
        return found if len(found) == 2 else {}


def followed(limit: int, running: float, waiting: float, cap: int, *, full: bool) -> int:
    """The next limit.

    Args:
        limit: the last one.
        running: requests that the servers work on; likewise waiting.
        cap: never above it.
        full: all slots are taken.

    >>> followed(100, running=16, waiting=84, cap=100, full=True)
    18
    >>> followed(18, running=16, waiting=1, cap=100, full=True)
    20
    """
    if waiting and not running:  # it is starting or stuck, which says nothing of what it can do
        return limit
    if waiting > _QUEUED * running:
        return max(1, min(limit, math.ceil(limit * (1 + _QUEUED) * running / (running + waiting))))
    return min(cap, limit + math.ceil(_QUEUED * limit)) if full else limit

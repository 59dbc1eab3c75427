"""Pay once: a reply is on disk before anything is made of it, and in the table `replies` for good.

    ask -> what the spool holds -> endpoint -> spool

A task that is tried again, or a job that was killed, finds its replies in the spool; the extraction finds
older ones in the table. Either way nothing is asked for twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark import TaskContext

from equal.config import Endpoint
from equal.core.chat import Reply, Request
from equal.errors import RunLockedError
from equal.io.chat_client import ChatClient, ClientFactory
from equal.io.lock import run_lock
from equal.io.spool import ReplySpool

if TYPE_CHECKING:  # as in spool
    from equal.io.tables import Tables

#: seconds, and times what the last look took, after which a client looks again for what others have spooled
_LOOK_AGAIN_S, _LOOK_AGAIN_AFTER = 1.0, 20.0


class PayingClient:
    """Asks the endpoint only for what the spool does not hold; one request in flight for one key."""

    def __init__(self, client: ChatClient, spool: ReplySpool) -> None:
        self._client, self._spool = client, spool
        self._pending: dict[str, asyncio.Task[Reply]] = {}
        self._found: dict[str, Reply] = {}
        self._seen: set[str] = set()
        self._look_at = 0.0
        self._writing = asyncio.Lock()
        self._group: list[tuple[Request, Reply]] = []
        self._written: asyncio.Future[None] | None = None

    async def __aenter__(self) -> PayingClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        with suppress(OSError):  # whoever waits for the group is told
            while self._written is not None:  # what came is kept, also when the task fails
                await asyncio.shield(self._written)
        async with self._writing:
            pass
        await self._client.__aexit__(*exception)

    async def ask(self, request: Request) -> Reply:
        """A reply from the spool, or from the endpoint and then spooled; failures are not kept."""
        if request.key in self._pending:
            return (await self._pending[request.key]).from_store()
        if (stored := self._stored(request.key)) is not None:
            return stored
        task = asyncio.ensure_future(self._pay(request))
        self._pending[request.key] = task
        try:
            return await task
        finally:
            del self._pending[request.key]

    async def count(self, request: Request) -> Reply:
        """The size of a prompt; counting is free."""
        return await self._client.count(request)

    def _stored(self, request_key: str) -> Reply | None:
        started = time.monotonic()
        if request_key not in self._found and started >= self._look_at:
            self._found |= self._spool.read(self._seen)
            ended = time.monotonic()
            self._look_at = ended + max(_LOOK_AGAIN_S, _LOOK_AGAIN_AFTER * (ended - started))
        return self._found.get(request_key)

    async def _pay(self, request: Request) -> Reply:
        reply = await self._client.ask(request)
        if not reply.failure:
            await self._keep(request, reply)
        return reply

    async def _keep(self, request: Request, reply: Reply) -> None:
        """Return when the reply is on disk, in one file with those that came while the last one was written.

        At a thousand replies a second a file each would cost more than everything else that is done to them.
        """
        if self._written is None:
            self._written = asyncio.ensure_future(self._write())
        self._group.append((request, reply))
        await asyncio.shield(self._written)  # the others of the group wait for it, too

    async def _write(self) -> None:
        async with self._writing:
            group, self._group, self._written = self._group, [], None
            # not in the event loop: a disk may be slow, and a shared one is
            self._seen.add(await asyncio.to_thread(self._spool.put, group))
        self._found |= {request.key: reply.from_store() for request, reply in group}


@dataclass(frozen=True)
class PayingClientFactory:
    """Makes a PayingClient in a Python worker; picklable, and its repr shows no key.

    Attributes:
        client: with the requests in flight of all tasks together.
        spool: of the iteration.
        tasks: that run at the same time; as of `client_factory`, like first and step.
    """

    client: ClientFactory
    spool: ReplySpool
    tasks: int
    first: int
    step: int

    def __call__(self) -> PayingClient:
        """A client for the running event loop; close it with `async with`."""
        task = TaskContext.get()
        partition = task.partitionId() if task else 0
        return PayingClient(replace(self.client, in_flight=self.in_flight(partition))(), self.spool)

    def in_flight(self, partition: int) -> int:
        """A task's part of the requests in flight; one at least, and the remainder goes to the first tasks."""
        each, remainder = divmod(self.client.in_flight, self.tasks)
        number = (self.first + partition * self.step) % self.tasks
        return max(1, each + (number < remainder))


def client_factory(
    endpoint: Endpoint, key: str, spool: ReplySpool, *, tasks: int, first: int = 0, step: int = 1
) -> PayingClientFactory:
    """The factory that `extract_pairs` takes.

    Args:
        endpoint: servers, requests in flight over all tasks, timeout, attempts, when to wait and when to give up.
        key: as read by `endpoint.read_key`.
        spool: where replies are kept until they are folded.
        tasks: Spark tasks that run at the same time, among which endpoint.in_flight is shared out.
        first: which of them reads partition 0; each next partition is read by the one `step` further.
        step: 1, or the number of iterations that are read beside each other.
    """
    client = ClientFactory(
        endpoint.servers,
        key,
        endpoint.in_flight,
        endpoint.timeout_s,
        endpoint.max_attempts,
        endpoint.max_failed_share,
        endpoint.restart_wait_s,
        elsewhere=endpoint.elsewhere,
    )
    return PayingClientFactory(client, spool, tasks, first, step)


@contextmanager
def hold_abandoned(folder: str, root: str) -> Iterator[list[str]]:
    """Hold the locks of the runs that have spools and nobody works on: what a killed run paid for serves all others.

    Args:
        folder: holds a folder a run, under the name of the run's lock, in which each iteration has its spool.
        root: storage.root, where the locks are.
    """
    with ExitStack() as held:
        names = []
        for run in sorted(path.name for path in Path(folder).glob("*") if path.is_dir()):
            with suppress(RunLockedError):
                held.enter_context(run_lock(root, run))
                names.append(run)
        yield names


def fold_all(folder: str, tables: Tables) -> None:
    """Fold the spools of one run, one an iteration, while nothing of it is being extracted."""
    for spool in sorted(path for path in Path(folder).glob("*") if path.is_dir()):
        ReplySpool(str(spool)).fold(tables)

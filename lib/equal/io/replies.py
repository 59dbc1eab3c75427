"""Pay once: every reply is on disk the moment it arrives, and in the table `replies` for good.

    executor   ask -> spool (a file a reply, named by its key) -> endpoint
    driver     fold: spooled files -> Delta `replies`, then the files go

A task that is tried again, or a job that was killed, finds its replies in the spool; the extraction finds
older ones in the table. Either way nothing is asked for twice.
"""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from equal.config import Endpoint
from equal.core.chat import Reply, Request
from equal.errors import RunLockedError
from equal.io.chat_client import ChatClient, ClientFactory
from equal.io.lock import run_lock
from equal.io.tables import Tables
from equal.schemas import REPLIES, REQUEST_KEY

#: replies that go to the table in one commit
_FOLD_ROWS = 5000


@dataclass(frozen=True)
class ReplySpool:
    """Replies on their way to the table; `root` must be visible to the driver and to every executor."""

    root: str

    def __post_init__(self) -> None:
        # a task may run in another working directory than the driver, which made this
        object.__setattr__(self, "root", os.path.abspath(self.root))

    def get(self, request_key: str) -> Reply | None:
        """The reply to a request, or None when it is not here."""
        try:
            record = json.loads(self._file(request_key).read_text(encoding="utf-8"))
            return Reply(**record["reply"]).from_store()
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def put(self, request: Request, reply: Reply) -> None:
        """Write a reply whole or not at all; the same key twice is the same file.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        record = {
            "reply": vars(reply),
            "row": {
                "passage_key": request.passage_key,
                "prompt_version": request.prompt_version,
                "model": request.model,
                "parameters": json.dumps({**request.parameters, "schema": request.schema}, sort_keys=True),
                "messages": json.dumps(list(request.messages), ensure_ascii=False),
            },
        }
        unfinished = f"{self._prepared}{request.key}"
        try:
            with open(unfinished, "w", encoding="utf-8") as file:
                file.write(json.dumps(record))
            os.replace(unfinished, self._file(request.key))
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise

    def count(self) -> int:
        """Replies that wait to be folded."""
        return sum(1 for _ in Path(self.root).glob("*.json"))

    def fold(self, tables: Tables) -> int:
        """Move what is spooled into the table `replies`; safe to repeat after a crash at any point.

        Call it on the driver while no extraction runs.

        Returns:
            Rows added.

        Raises:
            TableError: the table could not be written; the spool is unchanged.
        """
        added = 0
        files = iter(sorted(Path(self.root).glob("*.json")))
        while batch := list(islice(files, _FOLD_ROWS)):
            rows = list(_rows(batch))
            keys = tables.rows(REPLIES, rows).select(REQUEST_KEY)
            known = {row[0] for row in tables.read(REPLIES).select(REQUEST_KEY).join(keys, REQUEST_KEY).collect()}
            new = [row for row in rows if row[REQUEST_KEY] not in known]
            if new:
                tables.append(REPLIES, tables.rows(REPLIES, new))
            added += len(new)
            for file in batch:
                file.unlink(missing_ok=True)
        return added

    @cached_property
    def _prepared(self) -> str:
        """How the names of this writer's unfinished files begin, in a folder that is there."""
        Path(self.root).mkdir(parents=True, exist_ok=True)
        return os.path.join(self.root, f".{uuid.uuid4().hex}-")

    def __getstate__(self) -> dict[str, str]:
        return {"root": self.root}  # a writer of its own where it is sent

    def _file(self, request_key: str) -> Path:
        return Path(self.root) / f"{request_key}.json"


class PayingClient:
    """Asks the endpoint only for what the spool does not hold; one request in flight for one key."""

    def __init__(self, client: ChatClient, spool: ReplySpool) -> None:
        self._client, self._spool = client, spool
        self._pending: dict[str, asyncio.Task[Reply]] = {}

    async def __aenter__(self) -> PayingClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._client.__aexit__(*exception)

    async def ask(self, request: Request) -> Reply:
        """A reply from the spool, or from the endpoint and then spooled; failures are not kept."""
        if request.key in self._pending:
            return (await self._pending[request.key]).from_store()
        if (stored := self._spool.get(request.key)) is not None:
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

    async def _pay(self, request: Request) -> Reply:
        reply = await self._client.ask(request)
        if not reply.failure:
            # not in the event loop: a disk may be slow, and a shared one is
            await asyncio.to_thread(self._spool.put, request, reply)
        return reply


@dataclass(frozen=True)
class PayingClientFactory:
    """Makes a PayingClient in a Python worker; picklable, and its repr shows no key."""

    client: ClientFactory
    spool: ReplySpool

    def __call__(self) -> PayingClient:
        """A client for the running event loop; close it with `async with`."""
        return PayingClient(self.client(), self.spool)


def client_factory(endpoint: Endpoint, key: str, spool: ReplySpool, *, tasks: int) -> PayingClientFactory:
    """The factory that `extract_pairs` takes.

    Args:
        endpoint: servers, requests in flight over all tasks, timeout, attempts, when to wait and when to give up.
        key: as read by `endpoint.read_key`.
        spool: where replies are kept until they are folded.
        tasks: Spark tasks that run at the same time, among which endpoint.in_flight is shared out.
    """
    in_flight = max(1, endpoint.in_flight // max(tasks, 1))
    client = ClientFactory(
        endpoint.servers,
        key,
        in_flight,
        endpoint.timeout_s,
        endpoint.max_attempts,
        endpoint.max_failed_share,
        endpoint.restart_wait_s,
        elsewhere=endpoint.elsewhere,
    )
    return PayingClientFactory(client, spool)


def fold_abandoned(folder: str, root: str, tables: Tables) -> None:
    """Fold the spools of runs that nobody works on: what a killed run paid for serves all others.

    Args:
        folder: holds a spool a run, each under the name of the run's lock.
        root: storage.root, where the locks are.
        tables: where the replies go.
    """
    for spool in sorted(path for path in Path(folder).glob("*") if path.is_dir()):
        with suppress(RunLockedError), run_lock(root, spool.name):
            ReplySpool(str(spool)).fold(tables)


def _rows(files: list[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            reply = record["reply"]
            received_at = datetime.fromtimestamp(reply["received_at"], timezone.utc)
        except (ValueError, KeyError, TypeError):  # a power cut may leave an empty file: it is asked for again
            continue
        yield {REQUEST_KEY: file.stem, **record["row"], **reply, "received_at": received_at}

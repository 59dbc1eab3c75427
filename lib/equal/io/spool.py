"""Replies on their way to the table: whole small files that are never changed, as object stores have no append.

    executor   a group of replies that came while the last file was written -> one file of a line each
    driver     fold: spooled files -> Delta `replies`, then the files go

Files are named by chance and not by request, so whoever looks for a reply reads what is there: a task when it begins,
and now and then for what others wrote meanwhile.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equal.core.chat import Reply, Request
from equal.schemas import REPLIES, REQUEST_KEY

if TYPE_CHECKING:  # workers read and write spools, and may have no Delta in Python
    from equal.io.tables import Tables

_SUFFIX = ".jsonl"
#: replies, about, that go to the table in one commit
_FOLD_ROWS = 5000
_FOLDING = threading.Lock()


@dataclass(frozen=True)
class Paid:
    """The bill of replies; a request that two tasks asked at once stands twice on it."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class ReplySpool:
    """A folder of replies: a run's, and in it one of each iteration.

    Attributes:
        root: visible to the driver and to every executor; the name of the folder above it is that of who pays.
    """

    root: str

    def __post_init__(self) -> None:
        # a task may run in another working directory than the driver, which made this
        object.__setattr__(self, "root", os.path.abspath(self.root))

    def put(self, replies: Sequence[tuple[Request, Reply]]) -> str:
        """Write replies to one new file, whole or not at all, and return its name.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        name = f"{uuid.uuid4().hex}-{len(replies)}{_SUFFIX}"
        unfinished = os.path.join(self.root, f".{name}")
        lines = "".join(json.dumps(_record(request, reply)) + "\n" for request, reply in replies)
        try:
            os.makedirs(self.root, exist_ok=True)
            with open(unfinished, "w", encoding="utf-8") as file:
                file.write(lines)
            os.replace(unfinished, os.path.join(self.root, name))
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise
        return name

    def read(self, seen: set[str]) -> dict[str, Reply]:
        """What stands here and in the spools beside this one, by request key.

        Args:
            seen: names of files that are passed over; those that were read are added.
        """
        found: dict[str, Reply] = {}
        for folder in _folders(os.path.dirname(self.root)):
            for name in set(_names(folder)) - seen:
                seen.add(name)
                for reply, row in _records(Path(folder, name)):
                    found[row[REQUEST_KEY]] = reply.from_store()
        return found

    def count(self) -> int:
        """Replies that wait to be folded, by the names of their files."""
        return sum(int(name.removesuffix(_SUFFIX).rpartition("-")[2]) for name in _names(self.root))

    def paid(self) -> Paid:
        """What all that waits to be folded took, also the replies of tasks that failed and were tried again."""
        bill = Paid()
        for name in _names(self.root):
            for reply, _ in _records(Path(self.root, name)):
                bill = Paid(
                    bill.calls + 1,
                    bill.prompt_tokens + reply.prompt_tokens,
                    bill.cached_tokens + reply.cached_tokens,
                    bill.completion_tokens + reply.completion_tokens,
                )
        return bill

    def fold(self, tables: Tables) -> int:
        """Move what is spooled into the table `replies`; safe to repeat after a crash at any point.

        Call it on the driver while nothing is extracted into this spool. Spools are folded one after the other, as two
        may hold the same request.

        Returns:
            Rows added.

        Raises:
            TableError: the table could not be written; what was not folded is still in the spool.
        """
        with _FOLDING:
            return self._fold(tables)

    def _fold(self, tables: Tables) -> int:
        payer = os.path.basename(os.path.dirname(self.root))
        added, files = 0, [Path(self.root, name) for name in sorted(_names(self.root))]
        batch: list[Path] = []
        rows: dict[str, dict[str, Any]] = {}
        for number, file in enumerate(files, start=1):
            batch.append(file)
            # two tasks may have asked the same: the reply that came first is the one that is kept
            for _, row in _records(file):
                kept = rows.setdefault(row[REQUEST_KEY], row)
                rows[row[REQUEST_KEY]] = min(kept, row, key=lambda each: each["received_at"])
            if len(rows) >= _FOLD_ROWS or number == len(files):
                added += _append_new(tables, [{**row, "run_id": payer} for row in rows.values()])
                for done in batch:
                    done.unlink(missing_ok=True)
                batch, rows = [], {}
        return added


def _names(folder: str) -> list[str]:
    """Of the finished files."""
    with suppress(FileNotFoundError):
        return [name for name in os.listdir(folder) if name.endswith(_SUFFIX) and not name.startswith(".")]
    return []


def _folders(parent: str) -> list[str]:
    with suppress(FileNotFoundError):
        return [entry.path for entry in os.scandir(parent) if entry.is_dir()]
    return []


def _append_new(tables: Tables, rows: list[dict[str, Any]]) -> int:
    if not rows:
        return 0
    keys = tables.rows(REPLIES, rows).select(REQUEST_KEY)
    known = {row[0] for row in tables.read(REPLIES).select(REQUEST_KEY).join(keys, REQUEST_KEY).collect()}
    new = [row for row in rows if row[REQUEST_KEY] not in known]
    if new:
        tables.append(REPLIES, tables.rows(REPLIES, new))
    return len(new)


def _record(request: Request, reply: Reply) -> dict[str, Any]:
    return {
        "key": request.key,
        "reply": vars(reply),
        "row": {
            "passage_key": request.passage_key,
            "prompt_version": request.prompt_version,
            "model": request.model,
            "parameters": json.dumps({**request.parameters, "schema": request.schema}, sort_keys=True),
            "messages": json.dumps(list(request.messages), ensure_ascii=False),
        },
    }


def _records(file: Path) -> Iterator[tuple[Reply, dict[str, Any]]]:
    """Replies with their rows of the table; a line that a power cut left unfinished is none, and is asked again."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ValueError):  # folded meanwhile, or no text
        return
    for line in lines:
        try:
            record = json.loads(line)
            reply = Reply(**record["reply"])
            received_at = datetime.fromtimestamp(reply.received_at, timezone.utc)
            row = {REQUEST_KEY: record["key"], **record["row"], **record["reply"], "received_at": received_at}
        except (ValueError, KeyError, TypeError):
            continue
        yield reply, row

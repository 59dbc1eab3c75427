"""What was paid for is never asked again: not in one run, not after a kill, not after the fold."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from chat_server import ChatServer, always, once
from equal.core.chat import Reply, Request
from equal.io.replies import client_factory
from equal.io.spool import ReplySpool
from equal.schemas import REPLIES


def request(text: str = "Tin melts.") -> Request:
    turns = ({"role": "system", "content": "Ask."}, {"role": "user", "content": f"<passage>{text} ünï</passage>"})
    return Request(turns, "test-model", {"max_tokens": 9, "temperature": 0.0}, None, "general/written@1", "k-" + text)


def reply(text: str = "Q: ü?\nA: b") -> Reply:
    return Reply(text, "stop", 12, 3, 4, latency_ms=5.5, attempts=2, received_at=1_700_000_000.25)


def ask(server: ChatServer, spool: ReplySpool, *requests: Request, **changes: object) -> list[Reply]:
    async def all_of_them() -> list[Reply]:
        async with client_factory(server.endpoint(**changes), "", spool, tasks=1)() as client:
            return list(await asyncio.gather(*map(client.ask, requests)))

    return asyncio.run(all_of_them())


@pytest.fixture
def spool(tmp_path: Path) -> ReplySpool:
    return ReplySpool(str(tmp_path / "spool"))


def test_a_reply_comes_back_as_it_was_but_for_being_cached(spool: ReplySpool) -> None:
    assert spool.read(set()) == {}
    name = spool.put([(request(), reply()), (request("b"), reply("c"))])
    assert spool.read(set()) == {request().key: reply().from_store(), request("b").key: reply("c").from_store()}
    assert spool.count() == 2
    assert [p.name for p in Path(spool.root).iterdir()] == [name]


def test_a_reader_reads_what_it_has_not_seen(spool: ReplySpool) -> None:
    seen = {spool.put([(request("a"), reply())])}
    assert spool.read(seen) == {}
    later = spool.put([(request("b"), reply())])
    assert list(spool.read(seen)) == [request("b").key]
    assert later in seen
    assert spool.read(seen) == {}


def test_the_spool_stays_where_the_driver_put_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    made = pickle.dumps(ReplySpool("spool"))
    monkeypatch.chdir("/")
    pickle.loads(made).put([(request(), reply())])
    assert (tmp_path / "spool").is_dir()


def test_a_second_run_sends_nothing(spool: ReplySpool) -> None:
    with ChatServer() as server:
        first = ask(server, spool, request("a"), request("b"))
        assert [r.cached for r in first] == [False, False]
        again = ask(server, spool, request("b"), request("a"), request("c"))
        assert [r.cached for r in again] == [True, True, False]
        assert [r.text for r in again[:2]] == [first[1].text, first[0].text]
        assert len(server.bodies) == 3


def test_the_same_request_twice_at_once_is_sent_once(spool: ReplySpool) -> None:
    with ChatServer() as server:
        server.delay_s = 0.1
        replies = ask(server, spool, *[request()] * 5)
        assert len(server.bodies) == 1
        assert sum(not r.cached for r in replies) == 1
        assert len({r.text for r in replies}) == 1


def test_failures_are_not_kept_and_bad_replies_are(spool: ReplySpool) -> None:
    with ChatServer() as server:
        server.fault = always("bad_request")
        assert ask(server, spool, request())[0].failure == "failed"
        server.fault = always("says_half")
        assert ask(server, spool, request())[0].finish_reason == "length"
        server.fault = once()
        assert ask(server, spool, request())[0].finish_reason == "length"
        assert len(server.bodies) == 2


def test_an_unfinished_or_damaged_file_is_no_reply(spool: ReplySpool) -> None:
    file = Path(spool.root) / spool.put([(request("a"), reply()), (request("b"), reply())])
    whole = file.read_text()
    for damaged in ("", "{", "[]", '{"key": "k", "reply": {"unknown": 1}}', whole[:50]):
        file.write_text(damaged)
        assert spool.read(set()) == {}
    file.write_text(whole[: len(whole) - 20])  # the first line is whole
    assert list(spool.read(set())) == [request("a").key]
    file.write_bytes(b"\xff\xfe" + whole.encode())
    assert spool.read(set()) == {}


def test_replies_that_come_together_share_a_file_and_none_is_given_out_before_it_is_written(
    spool: ReplySpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, written = ReplySpool.put, []

    def slow(self: ReplySpool, group: list[tuple[Request, Reply]]) -> str:
        time.sleep(0.2)
        name = put(self, group)
        written.extend(request.key for request, _ in group)
        return name

    monkeypatch.setattr(ReplySpool, "put", slow)
    requests = [request(f"n{number}") for number in range(40)]

    async def all_of_them(server: ChatServer) -> None:
        async with client_factory(server.endpoint(in_flight=40), "", spool, tasks=1)() as client:

            async def one(asked: Request) -> None:
                await client.ask(asked)
                assert asked.key in written

            await asyncio.gather(*map(one, requests))

    with ChatServer() as server:
        asyncio.run(all_of_them(server))
    assert len(list(Path(spool.root).iterdir())) < 10
    assert set(spool.read(set())) == {asked.key for asked in requests}


def test_a_reply_that_cannot_be_written_is_loud_for_all_that_wait(
    spool: ReplySpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        time.sleep(0.1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ReplySpool, "put", full)

    async def all_of_them(server: ChatServer) -> list[object]:
        async with client_factory(server.endpoint(), "", spool, tasks=1)() as client:
            asked = [client.ask(request(text)) for text in "abcdef"]
            return list(await asyncio.gather(*asked, return_exceptions=True))

    with ChatServer() as server:
        assert {type(each) for each in asyncio.run(all_of_them(server))} == {OSError}


def test_what_had_arrived_is_kept_when_its_task_fails(spool: ReplySpool, monkeypatch: pytest.MonkeyPatch) -> None:
    put = ReplySpool.put

    def slow(self: ReplySpool, group: list[tuple[Request, Reply]]) -> str:
        time.sleep(0.3)
        return put(self, group)

    monkeypatch.setattr(ReplySpool, "put", slow)

    async def fail(server: ChatServer) -> None:
        async with client_factory(server.endpoint(), "", spool, tasks=1)() as client:
            asking = [asyncio.ensure_future(client.ask(request("a")))]
            await asyncio.sleep(0.15)  # its reply is being written, the others wait for that
            asking += [asyncio.ensure_future(client.ask(request(text))) for text in "bc"]
            await asyncio.sleep(0.1)
            raise RuntimeError("the task fails")

    with ChatServer() as server, pytest.raises(RuntimeError, match="the task fails"):
        asyncio.run(fail(server))
    assert set(spool.read(set())) == {request(text).key for text in "abc"}


def test_what_stands_in_the_spool_beside_is_found_and_left_there(tmp_path: Path) -> None:
    one, two = (ReplySpool(str(tmp_path / "run" / number)) for number in "12")
    one.put([(request("a"), reply())])
    assert list(two.read(set())) == [request("a").key]
    assert (one.count(), two.count()) == (1, 0)


def test_a_worker_needs_no_delta() -> None:
    code = "import sys; sys.modules['delta'] = None; import equal.io.replies, equal.transforms.extract"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_task_learns_of_what_others_spooled_while_it_ran(spool: ReplySpool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equal.io.replies._LOOK_AGAIN_S", 0.05)

    async def one_after_the_other(server: ChatServer) -> list[Reply]:
        async with client_factory(server.endpoint(), "", spool, tasks=1)() as client:
            first = await client.ask(request("a"))
            spool.put([(request("b"), reply("of another task"))])
            await asyncio.sleep(0.1)
            return [first, await client.ask(request("b"))]

    with ChatServer() as server:
        first, second = asyncio.run(one_after_the_other(server))
        assert (first.cached, second.cached, second.text) == (False, True, "of another task")
        assert len(server.bodies) == 1


def test_a_full_disk_is_loud_and_leaves_no_rest(spool: ReplySpool, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        spool.put([(request(), reply())])
    assert list(Path(spool.root).iterdir()) == []


def test_fold_moves_replies_into_the_table_once(spool: ReplySpool, tables) -> None:
    assert spool.fold(tables) == 0  # before anything was spooled
    spool.put([(request("a"), reply("a"))])
    spool.put([(request("b"), reply("b")), (request("c"), reply("c"))])
    spool.put([(request("b"), replace(reply("late"), received_at=1_900_000_000.0))])  # by a task that did not know
    assert spool.fold(tables) == 3
    assert list(Path(spool.root).iterdir()) == []
    # a crash between append and unlink leaves files whose rows are there already
    spool.put([(request("a"), reply("a")), (request("d"), reply("d"))])
    (Path(spool.root) / "damaged-1.jsonl").write_text("")
    (Path(spool.root) / ".unfinished").write_text("{")
    assert spool.fold(tables) == 1
    assert [p.name for p in Path(spool.root).iterdir()] == [".unfinished"]
    assert spool.fold(tables) == 0

    rows = {row.text: row for row in tables.read(REPLIES).collect()}
    assert sorted(rows) == ["a", "b", "c", "d"]
    row = rows["b"]
    assert row.request_key == request("b").key
    assert (row.passage_key, row.prompt_version, row.model) == ("k-b", "general/written@1", "test-model")
    assert (row.finish_reason, row.prompt_tokens, row.cached_tokens, row.completion_tokens) == ("stop", 12, 3, 4)
    assert (row.latency_ms, row.attempts) == (5.5, 2)
    assert row.received_at.isoformat() == "2023-11-14T22:13:20.250000"
    assert json.loads(row.messages) == list(request("b").messages)
    assert json.loads(row.parameters) == {"max_tokens": 9, "temperature": 0.0, "schema": None}


def test_the_requests_in_flight_are_shared_out_over_the_tasks_to_the_last_one(spark, spool: ReplySpool) -> None:
    with ChatServer() as server:
        make_client = client_factory(server.endpoint(in_flight=8), "", spool, tasks=3)

    def parts(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        async def part() -> int:
            async with make_client() as client:
                return client._client._slots.limit

        yield from (pd.DataFrame({"part": [asyncio.run(part())] * len(frame)}) for frame in frames)

    rows = spark.range(0, 3, numPartitions=3).mapInPandas(parts, "part int").collect()
    assert sorted(row["part"] for row in rows) == [2, 3, 3]

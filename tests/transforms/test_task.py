"""What one extraction task does with its documents, without Spark: nobody waits for what need not be waited for."""

from __future__ import annotations

import asyncio
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from equal.core.chat import Reply, Request
from equal.core.qa import passage_key
from equal.core.reading import Recipe
from equal.io.prompts import load_prompts
from equal.transforms.extract import _read_batches
from equal.transforms.together import Together

SAID = '{"pairs": [{"question": "What is said about the tin of passage %s?", "answer": "It melts at 232 degrees."}]}'


def documents(count: int) -> list[dict[str, Any]]:
    text = "The tin of passage {} melts at 232 degrees."
    passages = [
        {"passage_index": 0, "passage_key": passage_key(text.format(i)), "sentences": [text.format(i)]}
        for i in range(count)
    ]
    return [
        {"doc_id": str(i), "arm_id": 0, "num_skipped": 0, "passages": [passage], "known": []}
        for i, passage in enumerate(passages)
    ]


class Client:
    """Answers at once and keeps what it was asked."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    async def ask(self, request: Request) -> Reply:
        self.log.append("asked")
        number = str(request.messages[-1]["content"]).partition("passage ")[2].split()[0]
        return Reply(text=SAID % number, finish_reason="stop", attempts=1)

    async def count(self, request: Request) -> Reply:
        raise AssertionError("no allowance has a limit here")


class NoBenchmark:
    def match(self, text: str) -> object:
        return None


def read(todo: list[dict[str, Any]], encoder: Any, log: list[str]) -> list[Any]:
    extract, *_ = load_prompts("general", answer="written", refine=False, structured=True, max_pairs=3)
    recipe = Recipe(extract, None, "m", 0.0, 64, min_answer_similarity=0.1, min_grounded_share=0.3)

    @asynccontextmanager
    async def make_client():
        yield Client(log)

    (readings,) = _read_batches(iter([todo]), recipe, make_client, lambda: encoder, NoBenchmark())
    return readings


def test_the_first_are_asked_while_the_others_are_still_written() -> None:
    log: list[str] = []

    class Logged(list):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[dict[str, Any]]:
            for row in super().__iter__():
                log.append("written")
                yield row

    class Unit:
        def encode(self, texts: list[str]) -> np.ndarray:
            return np.full((len(texts), 4), 0.5, dtype=np.float32)

    readings = read(Logged(documents(50)), Unit(), log)
    assert [document["doc_id"] for document, _ in readings] == [str(i) for i in range(50)]
    assert {reading.status for _, reading in readings} == {"accepted"}
    assert log.index("asked") < 10


def test_texts_of_many_documents_are_encoded_together_and_each_gets_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equal.transforms.together._TEXTS", 64)
    calls: list[int] = []

    class ByLength:
        def encode(self, texts: list[str]) -> np.ndarray:
            calls.append(len(texts))
            time.sleep(0.02)
            angle = np.array([zlib.crc32(text.encode()) % 1000 / 1000 for text in texts])
            return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)

    readings = read(documents(300), ByLength(), [])
    for _, reading in readings:
        (pair,) = reading.pairs
        assert np.array_equal(pair.embedding, ByLength().encode([f"{pair.question}\n{pair.answer}"])[0])
    assert len(calls) - 300 < 60  # the comparison's own are 300
    assert max(calls) < 64 + 3  # a document is not divided


def test_one_call_is_made_at_a_time_and_its_error_ends_the_task() -> None:
    class Failing:
        calls, busy = 0, threading.Lock()

        def encode(self, texts: list[str]) -> np.ndarray:
            assert self.busy.acquire(blocking=False), "two at a time"
            Failing.calls += 1
            time.sleep(0.02)
            self.busy.release()
            if Failing.calls == 2:
                raise ValueError("a broken encoder")
            return np.full((len(texts), 4), 0.5, dtype=np.float32)

    with pytest.raises(ValueError, match="a broken encoder"):
        read(documents(60), Failing(), [])


def test_after_the_end_nothing_is_encoded() -> None:
    calls: list[list[str]] = []

    def encode(texts: list[str]) -> np.ndarray:
        calls.append(texts)
        time.sleep(0.05)
        return np.zeros((len(texts), 2), dtype=np.float32)

    async def main() -> None:
        together = Together(encode)
        waiting = [asyncio.ensure_future(together([str(number)] * 40)) for number in range(9)]
        await waiting[0]
        for each in waiting:
            each.cancel()
        together.close()
        await asyncio.sleep(0.2)

    asyncio.run(main())
    assert len(calls) <= 2  # the second was under way

"""Passages to question-answer pairs: one Spark stage in which every document is read by the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from equal.core.allowance import UNLIMITED, Allowance
from equal.core.chat import UNASKED, Reply, Request
from equal.core.pairs import Pair, Pass, Passage
from equal.core.qa import Prompt
from equal.core.reading import PROPOSED, Encode, Match, Reading, Recipe, read_document
from equal.schemas import ARM_ID, DOC_ID, EXTRACTIONS, ITERATION, QA_PAIRS, REQUEST_KEY, RUN_ID, SCHEMAS
from equal.transforms.together import Together

#: what of a stored reply a reading needs
_REPLY_COLUMNS = ("text", "finish_reason", "prompt_tokens", "cached_tokens", "completion_tokens", "latency_ms")


class Client(Protocol):
    """Answers requests; failures come back as replies, not as exceptions."""

    async def ask(self, request: Request) -> Reply:
        """One request, one reply."""
        ...

    async def count(self, request: Request) -> Reply:
        """A reply without text: the size of the request's prompt as prompt_tokens."""
        ...


class Encoder(Protocol):
    """Texts to unit vectors."""

    def encode(self, texts: list[str]) -> np.ndarray:
        """(n, d) float32 unit rows, each the same in any company."""
        ...


class Index(Protocol):
    """Benchmark lookup."""

    def match(self, text: str) -> object:
        """The benchmark item that a text holds, or None."""
        ...


MakeClient = Callable[[], AbstractAsyncContextManager[Client]]
MakeEncoder = Callable[[], Encoder]


def extract_pairs(
    passages: DataFrame,
    known_replies: DataFrame,
    *,
    extract_prompt: Prompt,
    refine_prompt: Prompt | None,
    model: str,
    temperature: float,
    max_tokens: int,
    min_answer_similarity: float,
    min_grounded_share: float,
    make_client: MakeClient,
    make_encoder: MakeEncoder,
    index: Index,
    run_id: str,
    iteration: int,
    num_partitions: int,
    allowance: Allowance = UNLIMITED,
    refine_model: str = "",
    reason_prompt: Prompt | None = None,
    teacher_model: str = "",
) -> DataFrame:
    """Read every document and return what each pass over it gave.

    The frame is not cached: write it once and read the table, as each evaluation would look every reply up again.

    Args:
        passages: doc_id, arm_id, num_skipped, passages, as `passages.passages` returns them; one row a document.
            Read twice, for their replies and for themselves: cache them.
        known_replies: rows of table `replies`; what stands there is not asked again.
        extract_prompt: as `io.prompts.load_prompts` returns it; its kind says whether answers are quoted.
        refine_prompt: of the second pass; None for no second pass.
        model: the served name.
        temperature: of decoding.
        max_tokens: of a reply.
        min_answer_similarity: quoted: cosine of question and answer under which a question is unanswered.
        min_grounded_share: of an answer's content words that must stand in the passage.
        make_client: picklable; called once a task, inside the event loop in which all of it is asked; gives an
            async context manager with `ask` and `count`, as `io.replies.client_factory` makes it.
        make_encoder: picklable; called once a task, gives an object with `encode(texts) -> (n, d)` unit rows.
        index: picklable; `match(text)` looks a pair up in the benchmarks.
        run_id: of the rows, as is `iteration`.
        num_partitions: tasks; requests in flight are shared out among those that run at the same time.
        allowance: of every single document.
        refine_model: of the second pass; "" is `model`. Likewise teacher_model, of the last pass.
        reason_prompt: of the last pass, that works out answers; None for none.

    Returns:
        Schema EXTRACTIONS: a row a document and pass, one of a document's rows final. On that row stand its
        status and all its pairs, accepted or not, each with its reason. Status is `not_sent` while something was
        not sent, `accepted` when a pair counts, else the commonest reason: void, empty, truncated, not_json,
        wrong_schema, looping, oversized, ungrounded, unanswered, copied_example, copied_prompt, duplicate,
        contaminated, refused, surplus, context_too_short, over_budget or failed. request_keys are by passage_index.
        Tokens and calls are each pass's own and add up over rows; tokens of replies that were read back
        (cached_calls) count too, but not in the paid_ columns.
    """
    rest = (min_answer_similarity, min_grounded_share, refine_model, reason_prompt, teacher_model)
    recipe = Recipe(extract_prompt, refine_prompt, model, temperature, max_tokens, *rest)
    schema = to_arrow_schema(SCHEMAS[EXTRACTIONS])

    def read_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        documents = (batch.to_pylist() for batch in batches)
        for readings in _read_batches(documents, recipe, make_client, make_encoder, index, allowance):
            rows = [row for document, reading in readings for row in _rows(document, reading, run_id, iteration)]
            yield pa.RecordBatch.from_pylist(rows, schema=schema)

    known = known_replies.where(F.col("model").isin(model, refine_model, teacher_model))
    documents = _with_replies(passages, known).repartition(num_partitions).sortWithinPartitions(DOC_ID)
    return documents.mapInArrow(read_partition, SCHEMAS[EXTRACTIONS])


def qa_pairs_of(extractions: DataFrame) -> DataFrame:
    """The accepted pairs of EXTRACTIONS rows, in schema QA_PAIRS."""
    pairs = extractions.where("final").select(RUN_ID, ITERATION, ARM_ID, DOC_ID, F.explode("pairs").alias("pair"))
    accepted = pairs.where("pair.accepted").select("*", "pair.*").drop("pair")
    return accepted.select(*SCHEMAS[QA_PAIRS].fieldNames())


def _with_replies(passages: DataFrame, known: DataFrame) -> DataFrame:
    """A row a document: doc_id, arm_id, num_skipped, passages, known replies to anything about them.

    A few hundred passages' keys travel to the replies: the table grows with the run, and is not shuffled.
    """
    columns = [ARM_ID, "num_skipped", "passages"]
    keys = passages.select(DOC_ID, F.explode(F.array_distinct("passages.passage_key")).alias("passage_key"))
    reply = F.struct(REQUEST_KEY, *_REPLY_COLUMNS)
    found = known.join(F.broadcast(keys), "passage_key").select(DOC_ID, reply.alias("_reply"))
    rows = passages.unionByName(found, allowMissingColumns=True).groupBy(DOC_ID)
    # both aggregates leave nulls out
    of_document = [F.first(name, ignorenulls=True).alias(name) for name in columns]
    return rows.agg(*of_document, F.collect_list("_reply").alias("known"))


def _read_batches(
    batches: Iterator[list[dict[str, Any]]],
    recipe: Recipe,
    make_client: MakeClient,
    make_encoder: MakeEncoder,
    index: Index,
    allowance: Allowance = UNLIMITED,
) -> Iterator[list[tuple[dict[str, Any], Reading]]]:
    """Read a task's documents with one client, so that connections, and what it learns of the server, are kept."""
    stack = AsyncExitStack()

    async def opened() -> Client:
        return await stack.enter_async_context(make_client())

    client: Client | None = None
    with asyncio.Runner() as runner:
        try:
            for documents in batches:
                if client is None:
                    client, encoder = runner.run(opened()), make_encoder()
                yield runner.run(_read_all(documents, recipe, client, encoder, index.match, allowance))
        finally:
            runner.run(stack.aclose())


async def _read_all(
    documents: list[dict[str, Any]],
    recipe: Recipe,
    client: Client,
    encoder: Encoder,
    match: Match,
    allowance: Allowance,
) -> list[tuple[dict[str, Any], Reading]]:
    """Read a batch of documents side by side; the client bounds what is in flight."""
    readings: list[asyncio.Future[tuple[dict[str, Any], Reading]]] = []
    encode = Together(encoder.encode)
    try:
        for row in documents:
            readings.append(asyncio.ensure_future(_read(row, recipe, client, encode, match, allowance)))
            await asyncio.sleep(0)  # the first are asked about while the prompts of the others are written
        return list(await asyncio.gather(*readings))
    finally:  # after an error the others must not go on asking, and paying, for a task that is lost
        for reading in readings:
            reading.cancel()
        encode.close()


async def _read(
    document: dict[str, Any], recipe: Recipe, client: Client, encode: Encode, match: Match, allowance: Allowance
) -> tuple[dict[str, Any], Reading]:
    known = {row[REQUEST_KEY]: Reply(**{c: row[c] for c in _REPLY_COLUMNS}) for row in document["known"]}

    async def ask(request: Request) -> Reply:
        return known[request.key].from_store() if request.key in known else await client.ask(request)

    found = sorted(document["passages"], key=lambda p: p["passage_index"])
    passages = [Passage(p["passage_index"], p["passage_key"], tuple(p["sentences"])) for p in found]
    reading = await read_document(
        passages,
        recipe,
        ask=ask,
        count=client.count,
        encode=encode,
        match=match,
        allowance=allowance,
        num_skipped=document["num_skipped"],
    )
    return document, reading


def _rows(document: Mapping[str, Any], reading: Reading, run_id: str, iteration: int) -> Iterator[dict[str, Any]]:
    """The EXTRACTIONS rows of one document; the last pass is the final one."""
    for number, done in enumerate(reading.passes, start=1):
        final = number == len(reading.passes)
        pairs = reading.pairs if final else []
        accepted = sum(not pair.reason for pair in pairs)
        yield {
            RUN_ID: run_id,
            ITERATION: iteration,
            ARM_ID: document[ARM_ID],
            DOC_ID: document[DOC_ID],
            "pass": done.name,
            "final": final,
            "status": reading.status if final else PROPOSED,
            "prompt_version": done.prompt_version,
            **_spent(done),
            "needed_tokens": reading.need.tokens if final and reading.need else None,
            "needed_money": reading.need.money if final and reading.need else None,
            "passages": len({request.passage_key for request in done.requests}),
            "unserved": reading.unserved if final else None,
            "num_pairs": accepted,
            "num_rejected": len(pairs) - accepted,
            "error": (reading.error if final else "") or None,
            "pairs": [_pair(pair, document[DOC_ID]) for pair in pairs],
        }


def _spent(done: Pass) -> dict[str, Any]:
    asked = [reply for reply in done.replies if reply.failure not in UNASKED]
    paid = [reply for reply in asked if not reply.cached]
    return {
        "calls": len(paid),
        "cached_calls": len(asked) - len(paid),
        "attempts": sum(reply.attempts for reply in done.replies),
        "prompt_tokens": sum(reply.prompt_tokens for reply in done.replies),
        "completion_tokens": sum(reply.completion_tokens for reply in done.replies),
        "paid_prompt_tokens": sum(reply.prompt_tokens for reply in paid),
        "paid_cached_tokens": sum(reply.cached_tokens for reply in paid),
        "paid_completion_tokens": sum(reply.completion_tokens for reply in paid),
        "request_keys": done.keys,
    }


def _pair(pair: Pair, doc_id: str) -> dict[str, Any]:
    return {
        "pair_id": pair.pair_id(doc_id),
        "passage_index": pair.passage.index,
        "accepted": not pair.reason,
        "reason": pair.reason or None,
        "evidence": pair.evidence or None,
        "similarity": pair.similarity,
        "question": pair.question,
        "answer": pair.answer,
        "embedding": None if pair.embedding is None else pair.embedding.tolist(),
    }

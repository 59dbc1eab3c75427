"""The ledger is never below what was paid: replies whose cost row was lost with a stopped process get one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from pyspark.sql import functions as F

from equal.config import RunConfig
from equal.core.costs import inference_flops, money
from equal.io.summary import CORPUS
from equal.io.tables import Tables
from equal.schemas import COSTS, REPLIES

_TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens")


def settle_bills(tables: Tables, config: RunConfig, owners: Sequence[str]) -> None:
    """Enter what runs have paid for and no row of table `costs` tells; such a row has no iteration and no document.

    It is of replies of an iteration that its endpoint's failures ended, of a warm-up that a budget refused, and of
    a process that was killed before the iteration's own row. Call it under the runs' locks, with nothing under way.
    Sums are compared: what two processes asked at once is on both bills and in the table once, and hides as much.

    Args:
        tables: where the replies and the ledger lie.
        config: prices and the model's size.
        owners: run names, or `corpus`.
    """
    replies = tables.read(REPLIES).where(F.col("run_id").isin(list(owners))).groupBy("run_id")
    costs = tables.read(COSTS).where(F.col("run_id").isin(list(owners))).groupBy("run_id")
    paid = {row[0]: row[1:] for row in replies.agg(F.count("*"), *[F.sum(name) for name in _TOKENS]).collect()}
    entered = {row[0]: row[1:] for row in costs.agg(*[F.sum(name) for name in ("calls", *_TOKENS)]).collect()}
    nothing = (0,) * (1 + len(_TOKENS))
    rows = []
    for owner, sums in sorted(paid.items()):
        billed = entered.get(owner, nothing)
        calls, *tokens = (max((due or 0) - (known or 0), 0) for due, known in zip(sums, billed))
        if any((calls, *tokens)):
            rows.append(_row(config, owner, calls, dict(zip(_TOKENS, tokens))))
    if rows:
        tables.append(COSTS, tables.rows(COSTS, rows))


def _row(config: RunConfig, owner: str, calls: int, tokens: dict[str, int]) -> dict[str, object]:
    in_and_out = tokens["prompt_tokens"], tokens["completion_tokens"]
    return {
        "run_id": owner, "stage": "warm_up" if owner == CORPUS else "extract", "documents": 0, "calls": calls,
        "cached_calls": 0, **tokens, "seconds": 0.0,
        "flops": inference_flops(config.endpoint.model_parameters, sum(in_and_out), tokens["cached_tokens"]),
        "money": money(*in_and_out, config.budget.prompt_price, config.budget.completion_price),
        "recorded_at": datetime.now(timezone.utc),
    }  # fmt: skip

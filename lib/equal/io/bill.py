"""The ledger is never below what was paid: replies whose cost row was lost with a stopped process get one."""

from __future__ import annotations

from datetime import datetime, timezone

from pyspark.sql import functions as F

from equal.config import RunConfig
from equal.core.costs import inference_flops, money
from equal.io.summary import CORPUS
from equal.io.tables import Tables
from equal.schemas import COSTS, REPLIES

_TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens")


def settle_bill(tables: Tables, config: RunConfig, owner: str) -> None:
    """Enter what a run has paid for and no row of table `costs` tells; the row has no iteration and no document.

    Such are the replies of an iteration that its endpoint's failures ended, of a warm-up that a budget refused, and of
    a process that was killed before the iteration's own row. Call it under the run's lock, with nothing under way.
    Sums are compared: what two processes asked at once is on both bills and in the table once, and hides as much.

    Args:
        tables: where the replies and the ledger lie.
        config: prices and the model's size.
        owner: the run, or `corpus`.
    """
    own = F.col("run_id") == owner
    replies = tables.read(REPLIES).where(own).agg(F.count("*"), *[F.sum(name) for name in _TOKENS]).first()
    billed = tables.read(COSTS).where(own).agg(*[F.sum(name) for name in ("calls", *_TOKENS)]).first()
    calls, *lacking = (max((paid or 0) - (entered or 0), 0) for paid, entered in zip(replies, billed))
    if not any((calls, *lacking)):
        return
    tokens = dict(zip(_TOKENS, lacking))
    in_and_out = tokens["prompt_tokens"], tokens["completion_tokens"]
    row = {
        "run_id": owner, "stage": "warm_up" if owner == CORPUS else "extract", "documents": 0, "calls": calls,
        "cached_calls": 0, **tokens, "seconds": 0.0,
        "flops": inference_flops(config.endpoint.model_parameters, sum(in_and_out)),
        "money": money(*in_and_out, config.budget.prompt_price, config.budget.completion_price),
        "recorded_at": datetime.now(timezone.utc),
    }  # fmt: skip
    tables.append(COSTS, tables.rows(COSTS, [row]))

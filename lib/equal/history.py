"""A bandit run's committed rows: read back as the loop's state, written one iteration at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from equal.core.allowance import NOTHING, Amount
from equal.core.bandit import ArmState, fold
from equal.errors import TableError
from equal.io.tables import Tables, side_by_side
from equal.schemas import ARM_HISTORY, ASSIGNMENTS, COSTS, EXTRACTIONS, ITERATIONS, QA_PAIRS
from equal.state import Iteration, Pairs, Spent, State, ahead_of_last

_NO_PAIRS = Pairs(np.empty(0, object), np.empty(0, int), np.empty(0, object), np.empty((0, 0), np.float32))


@dataclass(frozen=True)
class Run:
    """Whose rows they are, and what they were made of.

    Attributes:
        run_id: the run_name.
        clustering: whose clusters are the run's arms.
        history_hash: of what its history is a function of, the corpus too; iterations of another one are refused.
        fingerprint: of the configuration; a larger budget changes it and not the history.
    """

    run_id: str
    clustering: str
    history_hash: str
    fingerprint: str


def discard_uncommitted(tables: Tables, run_id: str, first_iteration: int) -> None:
    """Drop the rows of iterations that a killed process began and never committed; their replies are kept.

    So an iteration is written by plain appends, which cost a third of replacing rows that are seldom there. Its
    `extractions` rows come first and go last: without any there are no others.
    """
    where = f"run_id = '{run_id}' AND iteration >= {first_iteration}"
    if tables.read(EXTRACTIONS).where(where).isEmpty():
        return
    others = {QA_PAIRS: where, ARM_HISTORY: where, COSTS: f"{where} AND stage = 'extract'"}
    side_by_side(*[partial(tables.delete, table, condition) for table, condition in others.items()])
    tables.delete(EXTRACTIONS, where)


def open_state(tables: Tables, run: Run, first_iteration: int) -> State:
    """The state after the last committed iteration of a run.

    Args:
        tables: where the history lies.
        run: the run.
        first_iteration: 0 to begin with the warm-up documents, 1 without.

    Raises:
        TableError: the run_name has history of another configuration or another corpus.
    """
    iterations = tables.read(ITERATIONS).where(F.col("run_id") == run.run_id).orderBy("iteration").collect()
    _require_same(run, iterations)
    settle_retries(tables, run.run_id, [row.iteration for row in iterations if not row.documents])
    return _state_after(tables, run, iterations, first_iteration)


def state_ahead(tables: Tables, run: Run, state: State) -> State | None:
    """What the iteration after the last committed one was chosen by, where it began before that one had ended.

    Args:
        tables: where the history lies.
        run: the run.
        state: as `open_state` gives it.

    Returns:
        The state with the rewards of before the last iteration, and all that this one had reserved as spent. None
        where it was waited for: after the warm-up, and after documents that were asked about again.
    """
    iterations = tables.read(ITERATIONS).where(F.col("run_id") == run.run_id).orderBy("iteration").collect()
    if not iterations or iterations[-1].warm_up or not iterations[-1].documents:
        return None
    last, before = iterations[-1], _state_after(tables, run, iterations[:-1], 0)
    return ahead_of_last(state, before, Amount(last.reserved_tokens, last.reserved_money))


def _state_after(tables: Tables, run: Run, iterations: Sequence[Row], first_iteration: int) -> State:
    assignments = tables.read(ASSIGNMENTS).where(F.col("clustering") == run.clustering)
    sizes = assignments.groupBy("cluster_id").agg(F.count("*").alias("size")).orderBy("cluster_id").collect()
    if not iterations:
        arms = {row.cluster_id: _arm(row.cluster_id, row["size"], None) for row in sizes}
        return State(arms, _NO_PAIRS, Spent(), first_iteration, NOTHING)
    committed = (F.col("run_id") == run.run_id) & F.col("iteration").isin([row.iteration for row in iterations])
    known = fold([row.asDict() for row in tables.read(ARM_HISTORY).where(committed).collect()])
    arms = {row.cluster_id: _arm(row.cluster_id, row["size"], known.get(row.cluster_id)) for row in sizes}
    pairs = collect_pairs(tables.read(QA_PAIRS).where(committed))
    read = tables.read(EXTRACTIONS).where(committed)
    need = read.agg(*[F.coalesce(F.max(f"needed_{name}"), F.lit(0)) for name in ("tokens", "money")]).first()
    last = iterations[-1]
    spent = Spent(last.total_documents, last.total_tokens, last.total_money)
    return State(arms, pairs, spent, last.iteration + 1, Amount(need[0], float(need[1])))


def _arm(arm_id: int, size: int, known: ArmState | None) -> ArmState:
    if known is None:
        return ArmState(arm_id, size, 0, 0, 0, None, None)
    return ArmState(arm_id, size, known.taken, known.pulls, known.pairs, known.reward, known.standard_error)


def _require_same(run: Run, iterations: Sequence[Row]) -> None:
    others = sorted({row.history_hash for row in iterations} - {run.history_hash})
    if others:
        raise TableError(
            f"run_name: {run.run_id} has {len(iterations)} iterations under history_hash {others[0]}, this "
            f"configuration and corpus give {run.history_hash}; choose another run_name, or restore the settings to "
            "resume that run"
        )


def collect_pairs(frame: DataFrame) -> Pairs:
    """Accepted pairs on the driver, in order of pair_id; 70,000 pairs of 384 dimensions are 110 MB."""
    return in_order(frame.select("pair_id", "arm_id", "doc_id", "embedding").toPandas().to_dict("records"))


def in_order(rows: Sequence[Mapping[str, Any]]) -> Pairs:
    """Rows of pair_id, arm_id, doc_id and embedding as pairs."""
    if not rows:
        return _NO_PAIRS
    rows = sorted(rows, key=lambda row: row["pair_id"])
    return Pairs(
        np.array([row["pair_id"] for row in rows], object),
        np.array([row["arm_id"] for row in rows], int),
        np.array([row["doc_id"] for row in rows], object),
        np.stack([row["embedding"] for row in rows]).astype(np.float32),
    )


def settle_retries(tables: Tables, run_id: str, again: Sequence[int]) -> None:
    """Of a document that was asked about again, leave the last committed outcome alone as `final`, and its pairs.

    It comes after the commit of the iteration that asked again: a process that is killed between the two leaves two
    outcomes, which the next one settles.

    Args:
        tables: where the history lies.
        run_id: whose.
        again: the iterations that asked about documents again.
    """
    if not again:
        return
    outcomes = tables.read(EXTRACTIONS).where((F.col("run_id") == run_id) & F.col("final"))
    last = outcomes.where(F.col("iteration").isin(list(again))).groupBy("run_id", "doc_id")
    last = last.agg(F.max("iteration").alias("iteration"))
    older = "target.run_id = source.run_id AND target.doc_id = source.doc_id AND target.iteration < source.iteration"
    tables.discard(QA_PAIRS, last, older)
    tables.update(EXTRACTIONS, last, f"{older} AND target.final", {"final": "false"})


@dataclass(frozen=True)
class Step:
    """What is told of one committed iteration.

    Attributes:
        spent: until its end.
        outcomes: documents that it read, by outcome.
        pairs: that it brought.
        rewards: of the arms that it touched.
    """

    number: int
    spent: Spent
    outcomes: Mapping[str, int]
    pairs: int
    rewards: Mapping[int, float | None]


def committed_steps(tables: Tables, run_id: str) -> list[Step]:
    """The committed iterations of a run, in order."""
    own = F.col("run_id") == run_id
    rows = tables.read(EXTRACTIONS).where(own & F.col("final")).groupBy("iteration", "status").count().collect()
    outcomes = {(row.iteration, row.status): row["count"] for row in rows}
    arms = tables.read(ARM_HISTORY).where(own).select("iteration", "arm_id", "reward").collect()
    return [
        Step(
            row.iteration,
            Spent(row.total_documents, row.total_tokens, row.total_money),
            {status: count for (iteration, status), count in outcomes.items() if iteration == row.iteration},
            row.pairs,
            {arm.arm_id: arm.reward for arm in arms if arm.iteration == row.iteration},
        )
        for row in tables.read(ITERATIONS).where(own).orderBy("iteration").collect()
    ]


def record_iteration(
    tables: Tables, run: Run, iteration: Iteration, started_at: datetime, flops: float, *, billed_from: datetime
) -> None:
    """Write an iteration's rows, and its commit mark last; call `discard_uncommitted` before a run's first.

    Args:
        tables: where the history lies.
        run: the run.
        iteration: what is recorded.
        started_at: when it began.
        flops: that it took.
        billed_from: from when on the ledger counts its seconds: not those that it shared with the one before.
    """
    now = datetime.now(timezone.utc)
    extracted, spent = iteration.extracted, iteration.spent
    documents = sum(extracted.documents.values())
    cost = {
        "run_id": run.run_id, "stage": "extract", "iteration": iteration.number, "documents": documents,
        "calls": extracted.calls, "cached_calls": extracted.cached_calls,
        "prompt_tokens": extracted.paid_prompt_tokens, "cached_tokens": extracted.paid_cached_tokens,
        "completion_tokens": extracted.paid_completion_tokens,
        "seconds": (now - billed_from).total_seconds(),
        "flops": flops, "money": extracted.paid_money, "recorded_at": now,
    }  # fmt: skip
    arms = _arm_rows(run, iteration)
    side_by_side(
        lambda: tables.append(ARM_HISTORY, tables.rows(ARM_HISTORY, arms)),
        lambda: tables.append(COSTS, tables.rows(COSTS, [cost])),
    )
    mark = {
        "run_id": run.run_id, "iteration": iteration.number, "warm_up": iteration.warm_up,
        "arms": sorted(iteration.arms), "documents": documents,
        "pairs": len(extracted.pairs.pair_ids) - extracted.replaced, "prompt_tokens": extracted.prompt_tokens,
        "completion_tokens": extracted.completion_tokens, "money": extracted.money,
        "total_documents": spent.documents, "total_tokens": spent.tokens, "total_money": spent.money,
        "reserved_tokens": iteration.reserved.tokens, "reserved_money": iteration.reserved.money,
        "stop_reason": iteration.stop_reason or None, "clustering": run.clustering,
        "history_hash": run.history_hash, "fingerprint": run.fingerprint, "started_at": started_at, "finished_at": now,
    }  # fmt: skip
    tables.append(ITERATIONS, tables.rows(ITERATIONS, [mark]))


def _arm_rows(run: Run, iteration: Iteration) -> list[dict[str, object]]:
    """One row an arm touched; the DS score is the one it was chosen by, null for warm-up, control and first pulls."""
    rows: list[dict[str, object]] = []
    for arm_id, arm in sorted(iteration.arms.items()):
        score = iteration.scores.get(arm_id, math.inf)
        rows.append(
            {
                "run_id": run.run_id, "iteration": iteration.number, "arm_id": arm_id, "pulls": arm.pulls,
                "documents": arm.taken, "pairs": arm.pairs, "reward": arm.reward,
                "standard_error": arm.standard_error, "ds_score": score if math.isfinite(score) else None,
                "converged": iteration.converged[arm_id], "exhausted": arm.taken >= arm.size,
                "fingerprint": run.fingerprint,
            }
        )  # fmt: skip
    return rows

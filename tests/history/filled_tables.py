"""A small history with every table filled and every number consistent: a run of EQUAL and its random control.

Twelve topics are twelve arms. EQUAL drifts to the statistical ones, random reads what comes. One document, one
reply and one error carry markup that must never reach a page unescaped. Iteration 4 of EQUAL was killed before
its commit mark, so its rows are in the tables and count for nothing. Since then the documents were clustered
again, into more clusters; both runs are still of the first clustering.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from datetime import timedelta
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric

from equal import schemas as s
from equal.core.metrics import Z90, mean_and_error
from equal.io.tables import Tables
from filled_rows import DIMENSIONS, HOSTILE, PACKAGES, START, TOPICS, Row, Rows, doc_id, extraction_rows, key, text_of

EQUAL_RUN, RANDOM_RUN = "demo", "demo-random"
FINGERPRINT, HISTORY_HASH = "5f1c0a9be2d47a13", "c8d02f6b19e7a354"
CLUSTERING, LATER_CLUSTERING = "07c1e62a9d3b85f4", "e4b90d51c87a2f36"
NUM_ARMS, DOCS_PER_ARM, LATER_CLUSTERS = 12, 20, 15
ITERATIONS, DOCS_PER_ITERATION = 3, 8
LOST_ITERATION = ITERATIONS + 1


def fill(tables: Tables) -> None:
    """Write both runs into empty tables, and their training losses to MLflow beside them."""
    mlflow_runs = _log_losses(tables.root)
    rng = np.random.default_rng(5)
    rows = defaultdict(list, _corpus_rows(rng))
    paid_for = {doc_id(*pair) for pair in _reading_order(EQUAL_RUN)[0]}
    for run_id in (EQUAL_RUN, RANDOM_RUN):
        _run(tables, run_id, mlflow_runs[run_id], rows, paid_for, rng)
    for row in rows[s.EVALUATIONS]:
        row["mlflow_run_id"] = mlflow_runs[row["run_id"]]
    replies = {row["request_key"]: row for row in rows.pop(s.REPLIES)}
    rows[s.REPLIES] = list(replies.values())
    for table, written in rows.items():
        tables.append(table, tables.rows(table, written))


def _log_losses(root: str) -> dict[str, str]:
    """Twenty falling losses a run; returns the ids of the MLflow runs."""
    client = MlflowClient(f"sqlite:///{Path(root).absolute()}/mlflow.db")
    experiment = client.create_experiment("equal")
    runs = {}
    for run_id, floor in ((EQUAL_RUN, 1.9), (RANDOM_RUN, 2.1)):
        runs[run_id] = client.create_run(experiment, run_name=run_id).info.run_id
        now = int(time.time() * 1000)
        losses = [Metric("loss", floor + 0.9 * 0.8**step, now, step) for step in range(1, 21)]
        client.log_batch(runs[run_id], metrics=losses)
    return runs


def _corpus_rows(rng: np.random.Generator) -> Rows:
    documents, embeddings = [], []
    centroids = rng.normal(size=(NUM_ARMS, DIMENSIONS))
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    for arm in range(NUM_ARMS):
        for number in range(DOCS_PER_ARM - arm):
            text, ident = text_of(arm, number), doc_id(arm, number)
            source = f"{PACKAGES[arm % len(PACKAGES)]}/{TOPICS[arm]}.py"
            documents.append({
                "doc_id": ident, "source_id": f"{source}#f{number}", "source_file": f"part-{number % 3}.jsonl.gz",
                "content_hash": key(text), "num_chars": len(text), "ingested_at": START, "text": text,
            })  # fmt: skip
            embeddings.append({"doc_id": ident, "embedding": [float(v) for v in centroids[arm]]})
    removals = [_removal("ingest", "too_short", n, {"chars": 41}) for n in range(9)]
    removals += [_removal("ingest", "unreadable_line", 9, {"line": 812})]
    removals += [
        _removal("deduplicate", "near_duplicate", n, {"kept": doc_id(1, 0), "jaccard": 0.81}) for n in range(7)
    ]
    removals += [_removal("deduplicate", "exact_duplicate", n, {"kept": doc_id(2, 0), "jaccard": 1.0}) for n in (7, 8)]
    hit = {"benchmark": "held_out", "item_id": "17", "ngram": "what is the variance of a sum of independent variables"}
    removals += [_removal("decontaminate", "contaminated", n, hit) for n in (9, 10)]
    for row in removals:
        if row["stage"] != "ingest":  # what was ingested and fell later is still in documents
            text = f"A copy, dropped by {row['stage']}."
            documents.append({
                "doc_id": row["doc_id"], "source_id": f"copy/{row['doc_id'][:6]}", "source_file": "part-0.jsonl.gz",
                "content_hash": key(text), "num_chars": len(text), "ingested_at": START, "text": text,
            })  # fmt: skip
    # taken back after it had been read
    removals.append(_removal("withdrawn", "withdrawn", 0, {"source_id": "a"}) | {"doc_id": doc_id(0, 0)})
    kept = sum(DOCS_PER_ARM - arm for arm in range(NUM_ARMS))
    stages = [
        ("ingest", kept + 21, kept + 11, {}), ("quality", kept + 11, kept + 11, {}),
        ("deduplicate", kept + 11, kept + 2, {"exact": 2, "near": 7}),
        ("decontaminate", kept + 2, kept, {"contaminated": 2, "spared": 1}),
        ("warm_up", 8, 8, {"documents": 8, "pairs": 12, "mrr_before": 0.61, "mrr_after": 0.74}),
        ("embed", kept, kept, {}), ("cluster", kept, NUM_ARMS, {"k": NUM_ARMS}),
    ]  # fmt: skip
    bills = [_cost("corpus", stage, 0, rows_in) for stage, rows_in, _, _ in stages]
    bills[4] |= {"calls": 8, "prompt_tokens": 4800, "cached_tokens": 3840, "completion_tokens": 200}  # the warm-up
    # of another configuration, which is no part of what was foreseen for this one
    bills += [_cost("corpus", "warm_up", 0, 20) | {"recorded_at": START + timedelta(days=n)} for n in (-1, 1)]
    marks = [_mark("corpus", *stage) for stage in stages]
    return {s.DOCUMENTS: documents, s.EMBEDDINGS: embeddings, s.REMOVALS: removals, s.STAGES: marks, s.COSTS: bills,
            **_clusterings(centroids), **_indexes(hit)}  # fmt: skip


def _clusterings(centroids: np.ndarray) -> Rows:
    """An arm a topic, as the runs know it; and a later one with more clusters, in which every id means another."""
    found: Rows = {s.ASSIGNMENTS: [], s.CENTROIDS: []}
    everything = [(arm, number) for arm in range(NUM_ARMS) for number in range(DOCS_PER_ARM - arm)]
    later = [n * LATER_CLUSTERS // len(everything) for n in reversed(range(len(everything)))]
    for clustering, ids in ((CLUSTERING, [arm for arm, _ in everything]), (LATER_CLUSTERING, later)):
        found[s.ASSIGNMENTS] += [
            {
                "clustering": clustering,
                "doc_id": doc_id(*document),
                "cluster_id": ident,
                "distance": 0.01 * document[1],
            }
            for document, ident in zip(everything, ids)
        ]
        found[s.CENTROIDS] += [
            {"clustering": clustering, "cluster_id": ident, "num_documents": ids.count(ident),
             "fingerprint": FINGERPRINT, "centroid": [float(v) for v in centroids[ident % NUM_ARMS]]}
            for ident in sorted(set(ids))
        ]  # fmt: skip
    return found


def _indexes(hit: Row) -> Rows:
    found = [hit | {"batch": 0, "doc_id": key("decontaminate", "contaminated", n), "position": 0} for n in (9, 10)]
    keys = {"settings": "bands=20", "batch": 0, "bucket": 0, "band_keys": bytes(8), "doc_keys": bytes(8)}
    return {s.BENCHMARK_HITS: found, s.BAND_KEYS: [keys]}


def _removal(stage: str, reason: str, number: int, evidence: Row) -> Row:
    return {"doc_id": key(stage, reason, number), "stage": stage, "reason": reason, "source_file": "part-0.jsonl.gz",
            "evidence": json.dumps(evidence)}  # fmt: skip


def _mark(run_id: str, stage: str, rows_in: int, rows_out: int, details: Row) -> Row:
    return {"run_id": run_id, "stage": stage, "input_hash": key(run_id, stage)[:16], "fingerprint": FINGERPRINT,
            "rows_in": rows_in, "rows_out": rows_out, "seconds": 12.5, "details": json.dumps(details),
            "finished_at": START}  # fmt: skip


def _cost(run_id: str, stage: str, iteration: int, documents: int, **more: object) -> Row:
    zeros = {"calls": 0, "cached_calls": 0, "prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 0,
             "money": 0.0}  # fmt: skip
    return {"run_id": run_id, "stage": stage, "iteration": iteration, "documents": documents, "seconds": 12.5,
            "flops": 3.1e12 * documents, "recorded_at": START, **zeros, **more}  # fmt: skip


def _reading_order(run_id: str) -> list[list[tuple[int, int]]]:
    """Documents (arm, number) of each iteration; the warm-up is shared, EQUAL then keeps to the first five arms."""
    everything = [(arm, number) for arm in range(NUM_ARMS) for number in range(DOCS_PER_ARM - arm)]
    everything.sort(key=lambda pair: (pair != (0, 0), key("order", *pair)))
    warm_up, rest = everything[:DOCS_PER_ITERATION], everything[DOCS_PER_ITERATION:]
    if run_id == EQUAL_RUN:
        rest = [pair for pair in rest if pair[0] < 5]
    return [warm_up] + [rest[i * DOCS_PER_ITERATION : (i + 1) * DOCS_PER_ITERATION] for i in range(LOST_ITERATION)]


def _run(
    tables: Tables, run_id: str, mlflow_run: str, rows: Rows, paid_for: set[str], rng: np.random.Generator
) -> None:
    arms: dict[int, dict[str, int]] = defaultdict(lambda: {"pulls": 0, "documents": 0, "pairs": 0})
    total_documents = total_tokens = total_pairs = 0
    for iteration, documents in enumerate(_reading_order(run_id)):
        if iteration == LOST_ITERATION and run_id == RANDOM_RUN:
            break
        read = [extraction_rows(run_id, iteration, pair, known=doc_id(*pair) in paid_for) for pair in documents]
        paid_for |= {doc_id(*pair) for pair in documents}
        rows[s.EXTRACTIONS] += [row for extraction, _ in read for row in extraction]
        rows[s.REPLIES] += [reply for _, replies in read for reply in replies]
        final = [row for extraction, _ in read for row in extraction if row["final"]]
        rows[s.QA_PAIRS] += [
            {**pair, "run_id": run_id, "iteration": iteration, "arm_id": row["arm_id"], "doc_id": row["doc_id"]}
            for row in final for pair in row["pairs"] if pair["accepted"]
        ]  # fmt: skip
        if iteration == LOST_ITERATION:
            break
        for row in final:
            arms[row["arm_id"]]["documents"] += 1
            arms[row["arm_id"]]["pairs"] += row["num_pairs"]
        touched = sorted({row["arm_id"] for row in final})
        history = [_arm_row(run_id, iteration, arm, arms[arm], rng) for arm in touched]
        rows[s.ARM_HISTORY] += history
        if run_id == EQUAL_RUN and iteration == 0:  # a commit of its own, to travel back to
            tables.append(s.ARM_HISTORY, tables.rows(s.ARM_HISTORY, rows.pop(s.ARM_HISTORY)))
        prompt, completion = 600 * len(read), 25 * len(read)
        total_documents += len(read)
        total_tokens += prompt + completion
        total_pairs += sum(row["num_pairs"] for row in final)
        rows[s.ITERATIONS].append({
            "run_id": run_id, "iteration": iteration, "warm_up": iteration == 0, "arms": touched,
            "documents": len(read), "money": 0.0,
            "pairs": sum(row["num_pairs"] for row in final), "prompt_tokens": prompt, "completion_tokens": completion,
            "total_documents": total_documents, "total_tokens": total_tokens, "total_money": 0.0,
            "reserved_tokens": 0, "reserved_money": 0.0,
            "stop_reason": "documents" if iteration == ITERATIONS else None,
            "clustering": CLUSTERING, "history_hash": HISTORY_HASH, "fingerprint": FINGERPRINT,
            "started_at": START + timedelta(minutes=iteration),
             "finished_at": START + timedelta(minutes=iteration + 1),
        })  # fmt: skip
        paid = sum(row["calls"] for row in final)
        rows[s.COSTS].append(_cost(run_id, "extract", iteration, len(read), calls=paid, cached_calls=len(read) - paid,
                                   prompt_tokens=600 * paid, cached_tokens=480 * paid,
                                   completion_tokens=25 * paid))  # fmt: skip
        rows[s.EVALUATIONS].append(
            _evaluation(run_id, "transport_distance", f"pairs:{iteration}", *_distance(run_id, iteration))
        )
    if run_id == EQUAL_RUN:
        # the calls are foreseen too high, the documents right; no price, so no money
        rows[s.ESTIMATES] = [
            {"run_id": run_id, "stage": stage, "measure": measure, "low": low, "value": value, "high": high,
             "ends_by": "documents", "sample": 8, "estimated_at": START}
            for stage, measure, low, value, high in (
                ("warm_up", "documents", 8, 8, 8),
                ("extract", "documents", total_documents, total_documents, total_documents),
                ("extract", "calls", 900, 1000, 1100), ("extract", "money", 0, 0, 0),
            )
        ]  # fmt: skip
    _finish(run_id, mlflow_run, rows, total_documents, total_pairs)


def _arm_row(run_id: str, iteration: int, arm: int, state: dict[str, int], rng: np.random.Generator) -> Row:
    state["pulls"] += 1
    known = state["pairs"] > 0
    error = 0.2 / max(state["pairs"], 1) ** 0.5
    return {"run_id": run_id, "iteration": iteration, "arm_id": arm, "pulls": state["pulls"],
            "documents": state["documents"], "pairs": state["pairs"],
            "reward": 0.85 - 0.04 * arm + error * rng.normal() / 3 if known else None,
            "standard_error": error if known else None, "converged": True, "exhausted": False,
            "fingerprint": FINGERPRINT,
            "ds_score": 0.9 - 0.04 * arm if iteration and run_id == EQUAL_RUN else None}  # fmt: skip


def _distance(run_id: str, iteration: int) -> tuple[float, float]:
    """(value, half width of the interval): both runs start alike, EQUAL falls faster."""
    start, slope = 0.42, 0.07 if run_id == EQUAL_RUN else 0.01
    return start - slope * iteration, 0.02


def _evaluation(run_id: str, metric: str, model: str, value: float, half: float) -> Row:
    return {"run_id": run_id, "benchmark": "held_out", "model": model, "metric": metric, "value": value,
            "stderr": half / 2, "low": value - half, "high": value + half, "items": 40,
            "mlflow_run_id": None, "fingerprint": FINGERPRINT, "evaluated_at": START}  # fmt: skip


def _items(run_id: str, metric: str, model: str, values: list[float]) -> Row:
    value, error = mean_and_error(values)
    return {**_evaluation(run_id, metric, model, value, Z90 * error), "stderr": error, "item_values": values}


def _finish(run_id: str, mlflow_run: str, rows: Rows, documents: int, pairs: int) -> None:
    """Selection, fine-tuning, evaluation, and the marks of the run's stages."""
    method = "equal" if run_id == EQUAL_RUN else "random"
    own = [p for p in rows[s.QA_PAIRS] if p["run_id"] == run_id and p["iteration"] <= ITERATIONS]
    # the report shows the first one: it is to have the hostile pair
    own.sort(key=lambda pair: (pair["answer"] != HOSTILE, pair["arm_id"], pair["pair_id"]))
    *kept, last = own
    for rank, pair in enumerate(kept, start=1):
        said_again = [{"pair_id": last["pair_id"], "reason": "near", "similarity": 0.99}] if rank == 1 else []
        rows[s.SELECTED_PAIRS].append(
            {**pair, "method": method, "rank": rank, "score": 1 - 0.01 * rank, "round": 0, "duplicates": said_again}
        )
    # what is hard for one is hard for the other: of the difference 0.11 the standard error is 0.1 / sqrt(39)
    tuned, spread = (2.41, 0.3) if run_id == EQUAL_RUN else (2.52, 0.2)
    rows[s.EVALUATIONS] += [
        _evaluation(run_id, "transport_distance", "pairs", *_distance(run_id, ITERATIONS)),
        _items(run_id, "target_loss", "base", [2.71 + 0.3 * (-1) ** i for i in range(40)]),
        _items(run_id, "target_loss", "tuned", [tuned + spread * (-1) ** i for i in range(40)]),
        _items(run_id, "exact_match", "base", [1.0] * 2 + [0.0] * 38),
        _items(run_id, "exact_match", "tuned", [1.0] * 5 + [0.0] * 35),
        _evaluation(run_id, "answer_words", "selected", 17.25, 1.0),
        {**_evaluation(run_id, "mtld", "selected", 61.5, 0.0), "stderr": None, "low": None, "high": None},
    ]
    finetune = {"mlflow_run_id": mlflow_run, "adapter": f"{run_id}/adapter", "final_loss": 1.9,
                "selected_pairs_version": 1}  # fmt: skip
    extract = {"iterations": ITERATIONS, "documents": documents, "stop_reason": "documents", "strategy": method}
    for stage, rows_in, rows_out, details in (
        ("extract", documents, pairs, extract), ("select", pairs, pairs, {}),
        ("finetune", pairs, 0, finetune), ("evaluate", 40, 4, {}),
    ):  # fmt: skip
        rows[s.STAGES].append(_mark(run_id, stage, rows_in, rows_out, details))
        if stage != "extract":
            rows[s.COSTS].append(_cost(run_id, stage, 0, rows_in))

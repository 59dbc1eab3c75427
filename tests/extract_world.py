"""Sixty documents in three arms on real Delta, and what of a run's tables must not depend on how it went."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from equal.config import RunConfig, load
from equal.schemas import ARM_HISTORY, COSTS, EXTRACTIONS, ITERATIONS, QA_PAIRS, REPLIES

JOB = Path(__file__).resolve().parent.parent / "jobs" / "extract.py"
IN_FLIGHT, BUDGET = 4, 18
KEY = "sk-seen-by-the-server-alone"
TOPICS = (
    "The variance of a random sample measures the spread of its values around the mean",
    "A router forwards packets between networks by looking at the address in each header",
    "Bread dough rises because yeast turns sugar into carbon dioxide in a warm kitchen",
)
GUIDE = {"id": "g", "question": "What does the variance of a random sample measure?", "answer": "The spread."}
EXAM = {
    "id": "e",
    "question": "Two dice are thrown at once; how likely is it that both of them show six?",
    "answer": "1/36",
}
#: when and by how much time a row was written does not count, nor what was paid in vain
COMPARED = {
    ARM_HISTORY: "iteration, arm_id, pulls, documents, pairs, reward, standard_error, ds_score, converged, exhausted",
    QA_PAIRS: "iteration, pair_id, arm_id, doc_id, passage_index, question, answer, embedding",
    ITERATIONS: "iteration, arms, documents, pairs, total_documents, total_tokens, stop_reason",
    COSTS: "iteration, stage, documents, calls",
    EXTRACTIONS: "iteration, arm_id, doc_id, status, num_pairs, prompt_tokens, completion_tokens",
}


def stored(config: RunConfig, table: str) -> list[dict[str, Any]]:
    """All rows of a table, without Spark, which takes a second for a few of them."""
    rows: list[dict[str, Any]] = DeltaTable(f"{config.storage.root}/tables/{table}").to_pyarrow_table().to_pylist()
    return rows


def contents(config: RunConfig) -> dict[str, list[str]]:
    found = {}
    for name, columns in COMPARED.items():
        rows = [row for row in stored(config, name) if row["run_id"] == "r" and row["iteration"] is not None]
        for row in rows:
            # a reply that is known costs nothing, and was asked for all the same
            row["calls"] = (row.get("calls") or 0) + (row.get("cached_calls") or 0)
        found[name] = sorted(repr([row.get(column) for column in columns.split(", ")]) for row in rows)
    return found


def settings_file(config: RunConfig, path: Path) -> Path:
    """Write what differs from base.yml, for a job in a process of its own; JSON is YAML."""
    base, mine = asdict(load()), asdict(config)
    changed = {
        name: value if not isinstance(value, dict) else {k: v for k, v in value.items() if v != base[name][k]}
        for name, value in mine.items()
        if value != base[name]
    }
    path.write_text(json.dumps(changed))
    return path


def unbilled(config: RunConfig) -> dict[str, tuple[int, ...]]:
    """By run, calls and tokens of its replies that no row of the ledger tells, or that it tells too often."""
    tokens = ("prompt_tokens", "cached_tokens", "completion_tokens")
    open_: Counter[tuple[str, str]] = Counter()
    for row in stored(config, REPLIES):
        open_.update({(row["run_id"], "calls"): 1} | {(row["run_id"], name): row[name] for name in tokens})
    for row in stored(config, COSTS):
        open_.subtract({(row["run_id"], name): row[name] or 0 for name in ("calls", *tokens)})
    runs = {run for (run, _), value in open_.items() if value}
    return {run: tuple(open_[run, name] for name in ("calls", *tokens)) for run in runs}


def paid(config: RunConfig) -> int:
    return len(stored(config, REPLIES))


def key_in(root: Path, printed: str) -> list[str]:
    """Where the key stands: among what a job printed, in files below root, in rows of tables, which are compressed.

    Spark's event log has to be among the files: its UI shows what stands there.
    """
    files = [file for file in root.rglob("*") if file.is_file()]
    assert any(b"SparkListenerJobStart" in file.read_bytes() for file in files)
    found = ["printed"] if KEY in printed else []
    found += [str(file) for file in files if KEY.encode() in file.read_bytes()]
    rows = {log.parent: DeltaTable(log.parent).to_pyarrow_table().to_pylist() for log in root.rglob("_delta_log")}
    return found + [str(folder) for folder, held in rows.items() if KEY in repr(held)]

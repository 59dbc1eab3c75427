"""The real thing, small: 40 documents through every job against a real vLLM server on this machine."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable

from equal.core.chat import Request
from equal.core.ngrams import words
from equal.core.qa import clean
from equal.io.chat_client import ClientFactory
from equal.io.prompt_size import largest_size
from equal.io.tables import Tables
from equal.jobs.extract import main as extract
from equal.jobs.history import read_queries
from equal.jobs.pipeline import main as pipeline
from equal.jobs.report import main as report
from equal.schemas import SCHEMAS

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "demo"))

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(2400)]  # beside another process of tests
BUDGET, CONTROL_BUDGET = 18, 11  # three arms of two documents may take a third


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A served model, a corpus of 40 documents, and the arguments that point the jobs at them."""
    from corpus import write_corpus
    from model import convert
    from reference import write_reference
    from server import serve

    root = tmp_path_factory.mktemp("lane")
    model_dir = convert()
    with serve(model_dir, root / "vllm.log") as server:
        write_corpus(40, root / "source", packages=["scipy", "networkx"])
        write_reference(root / "reference")
        server.wait_ready(deadline_s=900)
        settings = {
            "storage.root": str(root / "storage"),
            "documents.path": str(root / "source"),
            "reference.guide": str(root / "reference" / "guide.jsonl"),
            "reference.held_out": str(root / "reference" / "held_out.jsonl"),
            "endpoint.url": server.url,
            "endpoint.model": server.model,
            "finetune.base_model": str(model_dir),
            "warm_up.fraction": "0.2",
            "cluster.k": "3",
            "bandit.docs_per_pull": "2",
            "bandit.arms_per_iteration": "3",
            "budget.documents": str(BUDGET),
            "finetune.epochs": "1",
            "evaluate.max_items": "4",
        }
        yield {**settings, "key": server.key}


def arguments(lane: dict[str, str], *extra: str) -> list[str]:
    settings = [f"{key}={value}" for key, value in lane.items() if key != "key"] + list(extra)
    return [
        "--config",
        str(ROOT / "conf" / "demo.yml"),
        *(part for setting in settings for part in ("--set", setting)),
    ]


class Said(logging.Handler):
    """What the jobs log."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record) + "\n"


@pytest.fixture(scope="module")
def said(lane: dict[str, str], spark) -> Iterator[Said]:
    """The jobs run in the session of the tests, for which no process has to start; tests/extract has processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQUAL_ENDPOINT_KEY", lane["key"])
        handler = Said()
        patch.setattr(logging.getLogger("equal"), "handlers", [handler])
        yield handler


def rows(lane: dict[str, str], table: str) -> list[dict[str, object]]:
    return DeltaTable(f"{lane['storage.root']}/tables/{table}").to_pyarrow_table().to_pylist()


def versions(lane: dict[str, str], table: str) -> int:
    return DeltaTable(f"{lane['storage.root']}/tables/{table}").version()


@pytest.fixture(scope="module")
def finished(lane: dict[str, str], said: Said) -> dict[str, str]:
    """The whole pipeline, the key in the environment."""
    pipeline(arguments(lane, "run_name=equal"))
    assert "pipeline: all 11 stages finished" in said.text
    return lane


def test_the_budget_is_met_and_every_document_has_one_outcome(finished):
    final = [row for row in rows(finished, "extractions") if row["run_id"] == "equal" and row["final"]]
    assert len(final) == len({row["doc_id"] for row in final}) == BUDGET
    assert all(row["status"] for row in final)
    last = max((row for row in rows(finished, "iterations") if row["run_id"] == "equal"), key=lambda r: r["iteration"])
    assert last["total_documents"] == BUDGET
    assert last["stop_reason"] == "documents"


def test_the_servers_count_of_a_prompt_is_what_it_bills(finished):
    paid = rows(finished, "replies")[:8]
    requests = [Request(tuple(json.loads(row["messages"])), row["model"], {}) for row in paid]

    async def counts() -> list[int]:
        async with ClientFactory({finished["endpoint.url"]: 1.0}, finished["key"], 4, 60.0, 3, 1.0, 0.0)() as client:
            return [(await client.count(request)).prompt_tokens for request in requests]

    assert asyncio.run(counts()) == [row["prompt_tokens"] for row in paid]
    # where a server does not count, the bound of the bytes is above
    assert all(largest_size(request.messages) >= row["prompt_tokens"] for request, row in zip(requests, paid))


def test_the_ledger_holds_what_the_prefix_cache_saved(finished):
    # every prompt begins with the same instructions and examples
    paid = [row for row in rows(finished, "costs") if row["calls"]]
    assert 0 < sum(row["cached_tokens"] for row in paid) < sum(row["prompt_tokens"] for row in paid)


def test_accepted_pairs_are_quoted_from_their_document(finished):
    texts = {row["doc_id"]: "".join(row["text"].split()) for row in rows(finished, "documents")}
    pairs = [row for row in rows(finished, "qa_pairs") if row["run_id"] == "equal"]
    assert pairs, "a real model asks at least one question about 15 documents"
    for pair in pairs:
        assert "".join(pair["answer"].split()) in texts[pair["doc_id"]]
        assert pair["question"].strip()


def test_the_adapter_is_trained_evaluated_and_tracked(finished):
    adapter = Path(finished["storage.root"]) / "equal" / "adapter"
    assert (adapter / "adapter_model.safetensors").is_file()
    metrics = {(row["model"], row["metric"]): row["value"] for row in rows(finished, "evaluations")}
    assert 0 < metrics["base", "target_loss"] < 20
    assert 0 < metrics["tuned", "target_loss"] < 20
    selected = [
        f"{row['question']} {row['answer']}" for row in rows(finished, "selected_pairs") if row["run_id"] == "equal"
    ]
    read = metrics["selected", "question_words"] + metrics["selected", "answer_words"]
    assert read * len(selected) == pytest.approx(sum(len(words(text)) for text in selected))
    assert 0 < metrics["selected", "type_token_ratio"] <= 1
    assert Path(finished["storage.root"], "mlflow.db").is_file()


def test_the_questions_of_the_history_are_answered_by_what_real_jobs_wrote(finished, spark):
    """Where every table is made by hand, a query and a job may disagree on what a column holds."""
    Tables(spark, finished["storage.root"]).register_all()
    answers = {query.name: spark.sql(query.sql).collect() for query in read_queries()}
    # nothing was withdrawn, the endpoint did not fail
    assert {name for name, found in answers.items() if not found} <= {
        "made_of_withdrawn_documents", "failures", "pairs_that_said_it_again", "unread_documents_of_the_best_arms"
    }  # fmt: skip
    documents = {row["doc_id"]: row for row in rows(finished, "documents")}
    replies = {row["request_key"]: row["text"] for row in rows(finished, "replies")}
    lineage = [row.asDict() for row in answers["lineage_of_a_pair"]]
    assert lineage
    for row in lineage:
        assert [name for name, value in row.items() if value is None] == []
        assert row["source_id"] == documents[row["doc_id"]]["source_id"]
        assert row["reply"] == replies[row["request_key"]]
        assert row["question"] in [clean(question) for question in json.loads(row["reply"])["questions"]]
    (again,) = answers["cost_of_a_rerun"]
    assert (again.documents_to_ask, again.calls_to_pay, again.tokens_to_pay) == (0, 0, 0)
    assert again.tokens_saved > 0
    touched = [row for row in answers["documents_of_a_prompt_version"] if row.run_id == "equal"]
    assert len(touched) == BUDGET


def test_a_second_run_changes_nothing_and_asks_nothing(finished, said):
    said.text = ""
    before = {table: versions(finished, table) for table in SCHEMAS}
    pipeline(arguments(finished, "run_name=equal"))
    assert said.text.count("nothing to do") == 10
    assert "ingest: no new files" in said.text
    assert {table: versions(finished, table) for table in SCHEMAS} == before


def test_the_control_reads_random_documents_and_pays_for_no_reply_twice(finished, said):
    before = rows(finished, "replies")
    extract(arguments(finished, "run_name=random", "bandit.strategy=random", f"budget.documents={CONTROL_BUDGET}"))
    final = [row for row in rows(finished, "extractions") if row["run_id"] == "random" and row["final"]]
    after = rows(finished, "replies")
    assert len(final) == CONTROL_BUDGET
    assert len({row["request_key"] for row in after}) == len(after)
    paid = sum(row["calls"] for row in rows(finished, "extractions") if row["run_id"] == "random")
    assert len(after) - len(before) == paid


def test_the_key_is_in_no_file_no_table_and_no_line_that_was_written(finished, said):
    key = finished["key"]
    report(arguments(finished, "run_name=equal"))
    assert Path(finished["storage.root"], "report.html").is_file()
    assert said.text
    assert key not in said.text
    root = Path(finished["storage.root"])
    assert [path for path in root.rglob("*") if path.is_file() and key.encode() in path.read_bytes()] == []
    # columns are compressed on disk
    assert [table for table in SCHEMAS if key in repr(rows(finished, table))] == []


def test_the_export_is_one_conversation_a_line(finished):
    lines = (Path(finished["storage.root"]) / "equal" / "selected.jsonl").read_text().splitlines()
    assert lines
    for line in lines:
        record = json.loads(line)
        assert (record["prompt"][-1]["role"], record["completion"][0]["role"]) == ("user", "assistant")

"""The prepared corpus, its server, and the run that nothing stopped."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from chat_server import ChatServer
from equal.config import RunConfig, load
from equal.io.stage import run_stage
from equal.jobs.pipeline import ARMS, CORPUS, RUN
from extract_world import BUDGET, EXAM, GUIDE, IN_FLIGHT, TOPICS, contents


@pytest.fixture(scope="package")
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


def _heal(server: ChatServer) -> None:
    server.fault, server.delay_s = lambda body: "", 0.05
    server.bodies.clear()


@pytest.fixture(autouse=True)
def healthy(server: ChatServer) -> None:
    _heal(server)


@pytest.fixture(scope="package")
def prepared(tmp_path_factory: pytest.TempPathFactory, spark, empty_root: Path, server: ChatServer) -> RunConfig:
    """Sixty documents in three arms, six of them read by the warm-up; a copy, an exam's and a broken line are out."""
    torch.set_num_threads(os.cpu_count() or 1)  # as in a fresh process: the tuned encoder's last bits depend on it
    root = tmp_path_factory.mktemp("prepared")
    shutil.copytree(empty_root, root / "store")
    (root / "in").mkdir()
    lines = [
        {"id": f"d{i}", "text": f"{TOPICS[i % 3]}, as page {i} says. It was printed {i} years ago in town {i * 7}."}
        for i in range(60)
    ]
    lines.append(lines[0] | {"id": "copy"})
    lines.append({"id": "planted", "text": f"An exam asks this of all who took part. {EXAM['question']} It is easy."})
    (root / "in" / "docs.jsonl").write_text("\n".join([*map(json.dumps, lines), "{broken"]))
    (root / "guide.jsonl").write_text(json.dumps(GUIDE))
    (root / "exam.jsonl").write_text(json.dumps(EXAM))
    config = load(
        overrides=[
            f"storage.root={root}/store", f"documents.path={root}/in", "documents.min_chars=20",
            "deduplicate.threshold=1.0", f"reference.guide={root}/guide.jsonl",
            f"reference.held_out={root}/exam.jsonl", "spark.partitions=2",
            f"decontaminate.benchmarks={{exam: {root}/exam.jsonl}}",
            "encoder.max_tokens=64", "warm_up.fraction=0.1", "cluster.k=3", "run_name=r",
            f"endpoint.url={server.url}", f"endpoint.model={server.model}", f"endpoint.in_flight={IN_FLIGHT}",
            "endpoint.max_attempts=2", "extraction.answer=quoted", "extraction.refine=false",
            "extraction.min_answer_similarity=0.0", "bandit.docs_per_pull=2", "bandit.arms_per_iteration=3",
            f"budget.documents={BUDGET}", "budget.fraction=0", "transport.bootstrap=4",
        ]
    )  # fmt: skip
    for stage, body in (CORPUS | ARMS).items():
        run_stage(config, stage, body)
    return config


def _copy(config: RunConfig, root: Path) -> RunConfig:
    shutil.copytree(config.storage.root, root)
    return replace(config, storage=replace(config.storage, root=str(root)))


@pytest.fixture
def config(prepared: RunConfig, tmp_path: Path) -> RunConfig:
    """The prepared corpus in a place of this test's own, nothing paid for but the warm-up."""
    return _copy(prepared, tmp_path / "store")


@dataclass(frozen=True)
class Unbroken:
    """A run that nothing stopped; its tables are not to be written.

    Attributes:
        config: of the run.
        contents: of its tables.
        calls: that it took.
    """

    config: RunConfig
    contents: dict[str, list]
    calls: int


@pytest.fixture(scope="package")
def unbroken(prepared: RunConfig, server: ChatServer, spark, tmp_path_factory) -> Unbroken:
    """From the prepared corpus to the end of its budget."""
    config = _copy(prepared, tmp_path_factory.mktemp("unbroken") / "store")
    _heal(server)  # this comes before `healthy`, and after whatever the test before did
    run_stage(config, "extract", RUN["extract"])
    return Unbroken(config, contents(config), len(server.bodies))


@pytest.fixture
def finished(unbroken: Unbroken, tmp_path: Path) -> RunConfig:
    """The unbroken run in a place of this test's own."""
    return _copy(unbroken.config, tmp_path / "store")

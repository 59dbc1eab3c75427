"""How much of an extraction is not spent waiting for the model? One table.

The job `extract` on local Spark and Delta: 1,000 arms, 50 of them with 10 documents each an iteration, against a
server on the loopback interface that answers 100 documents a second (benchmarks/loopback.py), with iterations one
after the other and with two at a time. `share` is that of the seconds which the server would not have needed for these
documents, by the slope of documents over time at the commits in the middle of the run; `whole` is from its first
second to its last, where nothing is under way beside what begins and ends. A short run before the two warms up.

By part, what an iteration takes in seconds; those of a pipelined run pass beside each other:

    choose     the next arms
    read       until what the documents gave is known, of which
      prepare    to the first request: Spark finds the documents, cuts passages, waits for its turn, looks up replies
      wait       from there to the last reply; `embed`, the encoder's own seconds, mostly passes meanwhile
      finish     from there on: the last embeddings, rows written and read back
    reward     the transport cost of the arms
    keep       pairs and replies to their tables
    commit     rows of the arms and the commit mark

Documents are short and give one short pair, none like another, whose embedding is the real encoder's, on the same
cores. Arms have the same number of documents, so that an iteration is of the same size throughout.

    python benchmarks/overhead.py
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from loopback import serve
from pyspark.sql import Window
from pyspark.sql import functions as F
from results import write

from equal import loop, run
from equal.config import RunConfig, load
from equal.core.chat import Reply, Request
from equal.extraction import Extraction
from equal.io.session import open_session
from equal.io.stage import run_stage
from equal.io.tables import Tables
from equal.jobs.pipeline import ARMS, CORPUS, RUN
from equal.schemas import ASSIGNMENTS, CLUSTER_ID, DOC_ID, EXTRACTIONS, ITERATIONS

ARMS_IN_ALL, ARMS_AT_ONCE, DOCS_PER_PULL, DOCS_A_SECOND, SLOTS = 1000, 50, 10, 100, 64
#: iterations at either end that are left out of `share`
ENDS = 3


@dataclass(frozen=True)
class Noted:
    """Makes a client or an encoder in a worker that says in files when it was used.

    Attributes:
        make: of the real one.
        file: a line a use: seconds from, seconds to.
    """

    make: Callable[[], Any]
    file: str

    def __call__(self) -> Any:
        """The real one, noted."""
        made, noted = self.make(), self

        class Client:
            async def __aenter__(self) -> Client:
                await made.__aenter__()
                return self

            async def __aexit__(self, *exception: object) -> None:
                await made.__aexit__(*exception)

            async def ask(self, request: Request) -> Reply:
                with noted.use():
                    return await made.ask(request)

            async def count(self, request: Request) -> Reply:
                return await made.count(request)

        class Encoder:
            def encode(self, texts: list[str]) -> np.ndarray:
                with noted.use():
                    return made.encode(texts)

        return Client() if hasattr(made, "ask") else Encoder()

    @contextmanager
    def use(self) -> Iterator[None]:
        """Note one use."""
        started = time.time()
        yield
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(f"{started} {time.time()}\n")


def prepared(root: Path, url: str, num_docs: int) -> RunConfig:
    """A corpus in a thousand equal arms; no warm-up, so that every iteration is of the same size."""
    (root / "in").mkdir(parents=True, exist_ok=True)
    rng = random.Random(5)
    words = ["".join(rng.choices("abcdefghiklmnoprstuvw", k=6)) for _ in range(3000)]
    with (root / "in" / "docs.jsonl").open("w") as file:
        for number in range(num_docs):
            topic = " ".join(rng.choices(words, k=12))
            file.write(json.dumps({"id": str(number), "text": f"Sentence 0 speaks of tin. {topic}, page {number}."}))
            file.write("\n")
    guide = {"id": "g", "question": "What does the passage speak of?", "answer": "Of tin."}
    (root / "guide.jsonl").write_text(json.dumps(guide))
    config = load(
        overrides=[
            f"storage.root={root}/store", f"documents.path={root}/in", "documents.min_chars=20",
            "quality.min_words=0", "deduplicate.threshold=1.0", f"reference.guide={root}/guide.jsonl",
            "decontaminate.benchmarks={}",
            "spark.partitions=2", "warm_up.enabled=false", f"cluster.k={ARMS_IN_ALL}", "cluster.max_iterations=1",
            "cluster.max_sweep_share=1.0", "run_name=r", f"endpoint.url={url}", "endpoint.model=loopback",
            "extraction.answer=written", "extraction.refine=false", f"bandit.docs_per_pull={DOCS_PER_PULL}",
            "bandit.strategy=equal", f"bandit.arms_per_iteration={ARMS_AT_ONCE}",
            "budget.fraction=0", "budget.documents=100000",
        ]
    )  # fmt: skip
    tables = Tables(open_session(partitions=2, with_models=True), config.storage.root)
    for stage, body in (CORPUS | ARMS).items():
        run_stage(config, stage, body)
    clusters = tables.read(ASSIGNMENTS).withColumn("place", F.row_number().over(Window.orderBy(DOC_ID)) - 1)
    tables.replace(ASSIGNMENTS, clusters.withColumn(CLUSTER_ID, F.col("place") % ARMS_IN_ALL))
    return config


@contextmanager
def timed(seconds: defaultdict[str, float], folder: Path) -> Iterator[dict[int, tuple[float, float]]]:
    """Add up what the parts on the driver take while the body runs; yields when each iteration was read."""
    read: dict[int, tuple[float, float]] = {}

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timing(*args: Any, **kwargs: Any) -> Any:
            started = time.time()
            try:
                return call(*args, **kwargs)
            finally:
                seconds[name] += time.time() - started
                if name == "read":
                    read[args[1]] = started, time.time()

        return timing

    make_client, make_encoder = Extraction.make_client, vars(Extraction)["make_encoder"].func

    def client(reading: Extraction, iteration: int, *sharing: Any) -> Noted:
        return Noted(make_client(reading, iteration, *sharing), str(folder / f"asked-{iteration}"))

    parts = {"choose": (loop, "next_flight"), "reward": (Extraction, "score"), "read": (Extraction, "read")}
    parts |= {"keep": (Extraction, "keep"), "commit": (run, "record_iteration")}
    with ExitStack() as stack:
        for name, (owner, attribute) in parts.items():
            stack.enter_context(mock.patch.object(owner, attribute, watched(name, getattr(owner, attribute))))
        stack.enter_context(mock.patch.object(Extraction, "make_client", client))
        encoder = property(lambda reading: Noted(make_encoder(reading), str(folder / "encoded")))
        stack.enter_context(mock.patch.object(Extraction, "make_encoder", encoder))
        yield read


def uses(file: Path) -> np.ndarray:
    """(n, 2) seconds of what a worker noted."""
    return np.loadtxt(file, ndmin=2)


def measure(config: RunConfig, folder: Path, depth: int, iterations: int) -> dict[str, Any]:
    """A run of so many iterations in a copy of the corpus."""
    shutil.copytree(config.storage.root, folder / "store")
    own = replace(
        config,
        storage=replace(config.storage, root=str(folder / "store")),
        bandit=replace(config.bandit, pipeline_depth=depth),
        endpoint=replace(config.endpoint, in_flight=SLOTS * depth),
        budget=replace(config.budget, documents=iterations * ARMS_AT_ONCE * DOCS_PER_PULL),
    )
    seconds: defaultdict[str, float] = defaultdict(float)
    # a few iterations do not pay for a sweep of all arms, which a run would have to
    with timed(seconds, folder) as read, mock.patch.object(run, "require_affordable"):
        run_stage(own, "extract", RUN["extract"])
    for number, (began, ended) in read.items():
        asked = uses(folder / f"asked-{number}")
        seconds["prepare"] += asked[:, 0].min() - began
        seconds["wait"] += np.ptp(asked)
        seconds["finish"] += ended - asked[:, 1].max()
    seconds["embed"] = float(np.diff(uses(folder / "encoded")).sum())
    tables = Tables(open_session(partitions=2), str(folder / "store"))
    made = tables.read(ITERATIONS).orderBy("iteration").collect()
    statuses = tables.read(EXTRACTIONS).where(F.col("final")).groupBy("status").count().collect()

    def share(rate: float) -> float:
        return round(1 - rate / DOCS_A_SECOND, 4)

    middle = made[min(ENDS, len(made) // 2 - 1) : max(len(made) - ENDS, len(made) // 2 + 1)]
    moments = [(row.finished_at - made[0].started_at).total_seconds() for row in middle]
    documents_per_s = float(np.polyfit(moments, [row.total_documents for row in middle], 1)[0])
    order = ("choose", "read", "prepare", "wait", "embed", "finish", "reward", "keep", "commit")
    return {
        "share": share(documents_per_s),
        "whole": share(made[-1].total_documents / (made[-1].finished_at - made[0].started_at).total_seconds()),
        "documents_per_s": round(documents_per_s, 1),
        "documents_an_iteration": made[-1].total_documents / len(made),
        "seconds_an_iteration": {part: round(float(seconds[part]) / len(made), 3) for part in order},
        "iterations": len(made),
        "outcomes": {row.status: row["count"] for row in statuses},
    }


def main() -> None:
    """Both runs, one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, default=12_000)
    parser.add_argument("--iterations", type=int, default=16, help="of a run")
    args = parser.parse_args()
    os.environ["EQUAL_ENDPOINT_KEY"] = ""
    runs = {}
    with tempfile.TemporaryDirectory() as folder, serve(SLOTS / DOCS_A_SECOND, SLOTS, pairs=1) as (url, _):
        config = prepared(Path(folder) / "corpus", url, args.docs)
        measure(config, Path(folder) / "first", 1, 2)
        for depth in (1, 2):
            runs[depth] = measure(config, Path(folder) / f"depth{depth}", depth, args.iterations)
    for depth, figures in runs.items():
        parts = ", ".join(f"{part} {spent:.2f}" for part, spent in figures["seconds_an_iteration"].items())
        shares = f"share {figures['share']:.3f}   whole {figures['whole']:.3f}"
        print(f"{depth} at a time   {shares}   {figures['documents_per_s']} documents/s   {parts}")
    write(
        "overhead",
        {"share": runs[2]["share"], "seconds": runs[2]["seconds_an_iteration"], "pipelined": runs[2], "one": runs[1]},
    )


if __name__ == "__main__":
    main()

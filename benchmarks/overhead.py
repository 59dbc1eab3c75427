"""How much of an extraction is not spent waiting for the model? One table.

The job `extract` on local Spark and Delta: 1,000 arms, 50 of them with 10 documents each an iteration, against a
server on the loopback interface that answers 100 documents a second (benchmarks/loopback.py), with iterations one
after the other and with two at a time. From the beginning of the first iteration to the end of the last, the share
of the seconds that the server would not have needed for these documents; and where a run's seconds go by part, of
which those of a pipelined run pass beside each other. A short run before the two warms the session up. Documents are
short and give one pair, whose embedding is the real encoder's, on the same cores.

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
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from loopback import serve
from pyspark.sql import functions as F
from results import write

from equal import loop, run
from equal.config import RunConfig, load
from equal.extraction import Extraction
from equal.io.session import open_session
from equal.io.stage import run_stage
from equal.io.tables import Tables
from equal.jobs.pipeline import ARMS, CORPUS, RUN
from equal.schemas import EXTRACTIONS, ITERATIONS

ARMS_IN_ALL, ARMS_AT_ONCE, DOCS_PER_PULL, DOCS_A_SECOND, SLOTS = 1000, 50, 10, 100, 64
#: parts of an iteration on the driver: name -> what is timed
PARTS: dict[str, tuple[Any, str]] = {
    "choose": (loop, "next_flight"),
    "read": (Extraction, "read"),
    "reward": (Extraction, "score"),
    "commit": (run, "record_iteration"),
}


def prepared(root: Path, url: str, num_docs: int) -> RunConfig:
    """A corpus in a thousand arms; no warm-up, so that every iteration is of the same size."""
    (root / "in").mkdir(parents=True)
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
            "spark.partitions=2", "encoder.max_tokens=32", "warm_up.enabled=false", f"cluster.k={ARMS_IN_ALL}",
            "cluster.max_sweep_share=1.0", "run_name=r", f"endpoint.url={url}", "endpoint.model=loopback",
            "extraction.answer=written", "extraction.refine=false", f"bandit.docs_per_pull={DOCS_PER_PULL}",
            f"bandit.arms_per_iteration={ARMS_AT_ONCE}", "budget.fraction=0", "budget.documents=100000",
        ]
    )  # fmt: skip
    for stage, body in (CORPUS | ARMS).items():
        run_stage(config, stage, body)
    return config


@contextmanager
def timed(seconds: Counter[str]) -> Iterator[None]:
    """Add up what the parts take while the body runs."""

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timing(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                seconds[name] += time.perf_counter() - started

        return timing

    with ExitStack() as stack:
        for name, (owner, attribute) in PARTS.items():
            stack.enter_context(mock.patch.object(owner, attribute, watched(name, getattr(owner, attribute))))
        yield


def measure(config: RunConfig, folder: Path, depth: int, iterations: int) -> dict[str, Any]:
    """A run of so many iterations in a copy of the corpus."""
    shutil.copytree(config.storage.root, folder)
    own = replace(
        config,
        storage=replace(config.storage, root=str(folder)),
        bandit=replace(config.bandit, pipeline_depth=depth),
        endpoint=replace(config.endpoint, in_flight=SLOTS * depth),
        budget=replace(config.budget, documents=iterations * ARMS_AT_ONCE * DOCS_PER_PULL),
    )
    seconds: Counter[str] = Counter()
    # a few iterations do not pay for a sweep of all arms, which a run would have to
    with timed(seconds), mock.patch.object(run, "require_affordable"):
        run_stage(own, "extract", RUN["extract"])
    tables = Tables(open_session(partitions=2), str(folder))
    made = tables.read(ITERATIONS).orderBy("iteration").collect()
    statuses = tables.read(EXTRACTIONS).where(F.col("final")).groupBy("status").count().collect()
    # nothing is under way at either end
    took, documents = (made[-1].finished_at - made[0].started_at).total_seconds(), made[-1].total_documents
    return {
        "share": round(1 - documents / DOCS_A_SECOND / took, 4),
        "documents_per_s": round(documents / took, 1),
        "seconds_an_iteration": {part: round(spent / len(made), 3) for part, spent in seconds.items()},
        "iterations": len(made),
        "outcomes": {row.status: row["count"] for row in statuses},
    }


def main() -> None:
    """Both runs, one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, default=12_000)
    parser.add_argument("--iterations", type=int, default=8, help="of a run")
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
        print(f"{depth} at a time   share {figures['share']:.3f}   {figures['documents_per_s']} documents/s   {parts}")
    write(
        "overhead",
        {"share": runs[2]["share"], "seconds": runs[2]["seconds_an_iteration"], "pipelined": runs[2], "one": runs[1]},
    )


if __name__ == "__main__":
    main()

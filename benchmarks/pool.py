"""Make the real pools that benchmarks/replay.py replays: extract a superset of documents once, in full.

12,000 documents, a third each of math, code and general, by hash, go through the project's own jobs with a server:
`bandit.strategy=random` with `budget.fraction=1` reads all of them. Resumable: a second call goes on where the first
one ended, and no reply is asked for twice. Then each pool is written to build/pools, for each reference set:

    balanced       all of it
    needle_math    code and general, and 240 documents of math; likewise needle_code

A reference set is split by hash, 40 items to guide and 200 held out, and was decontaminated from the documents. A pair
counts as relevant if its document is of the reference set's kind. Two documents a second take about two hours.

    python benchmarks/pool.py --data DIR [--docs 12000] [--out build/superset]
    python benchmarks/replay.py --pool needle_math --reference gsm8k
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from mixed_pool import KINDS, ROOT, rank, write_pool, write_reference
from pools import FOLDER, NUM_GUIDE, NUM_HELD_OUT
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from equal.config import RunConfig, load
from equal.core.items import Item
from equal.history import collect_pairs
from equal.io.marks import Marks
from equal.io.references import read_items
from equal.io.session import open_session
from equal.io.stage import exit_on_error, run_stage
from equal.io.summary import committed
from equal.io.tables import Tables
from equal.jobs.pipeline import ARMS, CORPUS, RUN
from equal.schemas import ASSIGNMENTS, DOC_ID, DOCUMENTS, EMBEDDINGS, QA_PAIRS
from equal.state import Pairs
from equal.training.encoder import EncoderFactory
from model import convert
from server import MODEL_NAME, serve

#: reference set -> its file under refs/, and the kind of documents that should help
REFERENCES = {
    "gsm8k": ("gsm8k_test", "math"),
    "svamp": ("svamp", "math"),
    "aqua": ("aqua_test", "math"),
    "mbpp": ("mbpp_test", "code"),
    "humaneval": ("humaneval", "code"),
    "mmlu": ("mmlu_test", "general"),
}
#: needle pool -> the kind that is rare in it
NEEDLES = {"needle_math": "math", "needle_code": "code"}
#: as in all that docs/study.md tells; the elbow alone takes 256, whose sweep is a third of a needle pool
NUM_ARMS = 64
#: documents of the rare kind, of every document of the superset: 240 of 12,000
NEEDLE_SHARE = 0.02


def main() -> None:
    """Extract what is not yet extracted, and write the pools."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with docs/KIND/*.jsonl.gz and refs/")
    parser.add_argument("--docs", type=int, default=12_000)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "superset")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    with exit_on_error("pool"):
        if not (out / "reference").exists():
            write_pool(arguments.data, out / "source", arguments.docs)
            write_reference(arguments.data, out / "reference")
        model_dir = convert()
        config = pool_config(out, arguments.data, model_dir)
        with serve(model_dir, out / "vllm.log") as server:
            os.environ["EQUAL_ENDPOINT_KEY"] = server.key
            config = replace(config, endpoint=replace(config.endpoint, url=server.url))
            for stage, body in CORPUS.items():
                run_stage(config, stage, body)
            server.wait_ready()
            for stage, body in (*ARMS.items(), ("extract", RUN["extract"])):
                run_stage(config, stage, body)
        write_pools(config, arguments.data)


def pool_config(out: Path, data: Path, model_dir: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Of the run that reads all of the pool."""
    benchmarks = {name: str(data / "refs" / f"{file}.jsonl.gz") for name, (file, _) in REFERENCES.items()}
    return load(
        ROOT / "conf" / "demo.yml",
        [
            "run_name=superset",
            "bandit.strategy=random",
            "bandit.docs_per_pull=10",
            "bandit.arms_per_iteration=120",
            "budget.documents=0",
            "budget.fraction=1",
            f"storage.root={out}",
            f"documents.path={out / 'source'}",
            f"reference.guide={out / 'reference' / 'guide.jsonl'}",
            "reference.held_out=",
            f"decontaminate.benchmarks={benchmarks}",
            f"endpoint.model={MODEL_NAME}",
            f"finetune.base_model={model_dir}",
            f"cluster.k={NUM_ARMS}",
            *overrides,
        ],
    )


def write_pools(config: RunConfig, data: Path) -> None:
    """Read the tables of the whole extraction, and write one file a pool and reference set."""
    spark = open_session(config.spark.partitions)
    tables, settings = Tables(spark, config.storage.root, config.storage.schema), config.encoder
    marks = Marks.read(tables, config)
    clustering = marks.of("cluster")["input_hash"]
    assigned = tables.read(ASSIGNMENTS).where(F.col("clustering") == clustering).select(DOC_ID, "cluster_id")
    sources = tables.read(DOCUMENTS).select(DOC_ID, "source_id", "source_file")
    documents = _on_driver(sources.join(assigned, DOC_ID).join(tables.read(EMBEDDINGS), DOC_ID))
    pairs = collect_pairs(committed(tables, QA_PAIRS, config.run_name))
    folder = os.path.join(config.storage.root, "encoders", marks.of("warm_up")["input_hash"])
    encoder = EncoderFactory(folder, settings.dtype, settings.max_tokens, settings.batch_size)()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (_, kind) in REFERENCES.items():
        items = reference_items(data, name)
        reference = encoder.encode([item.text for item in items[: NUM_GUIDE + NUM_HELD_OUT]])
        for pool in ("balanced", *NEEDLES):
            arrays = _pool(documents, pairs, NEEDLES.get(pool), kind)
            np.savez(
                FOLDER / f"{pool}-{name}.npz", guide=reference[:NUM_GUIDE], held_out=reference[NUM_GUIDE:], **arrays
            )
            print(f"{pool}-{name}: {len(arrays['documents'])} documents, {len(arrays['pairs'])} pairs")


def reference_items(data: Path, name: str) -> list[Item]:
    """A reference set by hash: the first NUM_GUIDE guide, those after them are held out."""
    items = read_items(str(data / "refs" / f"{REFERENCES[name][0]}.jsonl.gz"), name)
    return sorted(items, key=lambda item: rank(item.item_id))


def _on_driver(frame: DataFrame) -> dict[str, np.ndarray]:
    rows = frame.toPandas().sort_values("source_id", key=lambda ids: ids.map(rank))
    kinds = [next(kind for kind in KINDS if f"{kind}.jsonl" in source) for source in rows["source_file"]]
    return {
        "ids": rows[DOC_ID].to_numpy(),
        "kinds": np.array(kinds),
        "arms": rows["cluster_id"].to_numpy(),
        "documents": np.stack(rows["embedding"].to_numpy()).astype(np.float32),
    }


def _pool(documents: dict[str, np.ndarray], pairs: Pairs, needle: str | None, kind: str) -> dict[str, np.ndarray]:
    """The arrays of `pools.Pool` but the reference, and pair_ids; of a rare kind only the first documents by hash."""
    rare = documents["kinds"] == needle
    kept = ~rare | (np.cumsum(rare) <= round(NEEDLE_SHARE * len(rare)))
    row_of = {doc_id: row for row, doc_id in enumerate(documents["ids"][kept])}
    of = np.array([row_of.get(doc_id, -1) for doc_id in pairs.doc_ids])
    order = np.argsort(of, kind="stable")[(of < 0).sum() :]
    arms = np.unique(documents["arms"][kept], return_inverse=True)[1]
    relevant = documents["kinds"][kept][of[order]] == kind
    vectors = documents["documents"][kept]
    return {
        "documents": vectors, "arms": arms, "pairs": pairs.embeddings[order], "pair_documents": of[order],
        "relevant": relevant, "pair_ids": pairs.pair_ids[order].astype(str),
    }  # fmt: skip


if __name__ == "__main__":
    main()

"""Which way of asking gives pairs worth having? The same documents read in every way, then pairs read without names.

Documents of three kinds go through the project's own extraction with a real server, once for each variant: answers
written or quoted, refined or not, by the prompts of their kind or by the general ones. `read` counts what that took
and writes pairs of all variants, mixed, to build/variants/sheet.jsonl, as passage, question and answer alone. Whoever
reads it writes a verdict a line, by the rubric of docs/reading.md, to build/variants/verdicts.csv, and `score` puts
verdicts and variants together. Resumable: no reply is asked for twice.

    python benchmarks/variants.py read --data DIR [--docs 120]     # DIR with docs/KIND/*.jsonl.gz
    python benchmarks/variants.py score

Figures in benchmarks/results/variants.json and docs/study/variants.csv; verdicts, without the texts, which are not
ours, in docs/study/reading.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from mixed_pool import KINDS, rank, write_pool, write_reference
from pool import pool_config
from pyspark.sql import functions as F
from results import read, write
from scipy.stats import binomtest

from equal.config import RunConfig
from equal.core.allowance import UNLIMITED
from equal.extraction import Extraction
from equal.io.marks import Marks
from equal.io.session import open_session
from equal.io.stage import Job, exit_on_error, run_stage
from equal.io.tables import Tables
from equal.jobs.pipeline import CORPUS
from equal.schemas import DOC_ID, DOCUMENTS, EXTRACTIONS, QA_PAIRS, REMOVALS
from equal.transforms.documents import kept_documents
from equal.transforms.passages import passages
from model import convert
from server import serve

ROOT = Path(__file__).resolve().parent.parent
OUT, STUDY = ROOT / "build" / "variants", ROOT / "docs" / "study"
#: pairs of each variant that are read, over all kinds
NUM_READ = 100
VERDICTS = ("answerable", "correct", "self_contained")


@dataclass(frozen=True)
class Variant:
    """A way of asking.

    Attributes:
        answer: written or quoted.
        refine: whether a second pass mends the pairs.
        prompts: `own`, those of the document's kind, or `general`.
    """

    answer: str
    refine: bool
    prompts: str

    @property
    def name(self) -> str:
        """As the tables have it."""
        return f"{self.answer}{', refined' if self.refine else ''}{', general prompts' * (self.prompts == 'general')}"


VARIANTS = [Variant(answer, refine, "own") for answer in ("quoted", "written") for refine in (False, True)]
VARIANTS += [Variant(answer, False, "general") for answer in ("quoted", "written")]


def main() -> None:
    """Read with every variant, or score what was read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    reading = steps.add_parser("read")
    reading.add_argument("--data", type=Path, required=True, help="folder with docs/KIND/*.jsonl.gz and refs/")
    reading.add_argument("--docs", type=int, default=120, help="of all three kinds together")
    steps.add_parser("score")
    arguments = parser.parse_args()
    with exit_on_error("variants"):
        if arguments.step == "read":
            read_all(arguments.data, arguments.docs)
        else:
            score()


def read_all(data: Path, num_docs: int) -> None:
    """Extract with every variant; write what it took, and the sheet."""
    if not (OUT / "source").exists():
        write_pool(data, OUT / "source", num_docs)
        write_reference(data, OUT / "reference")
    model_dir = convert()
    config = pool_config(OUT, data, model_dir)
    taken: dict[str, dict[str, Any]] = {}
    with serve(model_dir, OUT / "vllm.log") as server:
        os.environ["EQUAL_ENDPOINT_KEY"] = server.key
        config = replace(config, endpoint=replace(config.endpoint, url=server.url))
        for stage, body in CORPUS.items():
            run_stage(config, stage, body)
        server.wait_ready()
        for variant in VARIANTS:
            taken[variant.name] = read_with(config, variant)
            print(variant.name, taken[variant.name], flush=True)
    write("variants", {**read("variants"), "taken": taken})
    write_sheet(config)


def how(config: RunConfig, variant: Variant, kind: str) -> RunConfig:
    """The configuration of a variant for documents of a kind."""
    domain = kind if variant.prompts == "own" else "general"
    most = 512 if variant.answer == "written" or variant.refine else config.extraction.max_tokens
    changed = replace(config.extraction, answer=variant.answer, refine=variant.refine, domain=domain, max_tokens=most)
    return replace(config, extraction=changed)


def run_name(variant: Variant, kind: str) -> str:
    """Under which a variant's rows stand."""
    return f"{variant.name}, {kind}"


def read_with(config: RunConfig, variant: Variant) -> dict[str, Any]:
    """Read all documents; what it took and gave."""
    spark = open_session(config.spark.partitions, with_models=True)
    tables = Tables(spark, config.storage.root)
    documents = kept_documents(tables.read(DOCUMENTS), tables.read(REMOVALS))
    began = time.monotonic()
    for kind in KINDS:
        mine = how(config, variant, kind)
        marks = Marks.read(tables, mine)
        job = Job(mine, spark, tables, "warm_up", marks.expected_hash("warm_up"), marks)
        reading = Extraction(job, run_name(variant, kind), config.encoder.model)
        reading.recover(0)
        of_kind = documents.where(F.col("source_file").contains(f"{kind}.jsonl"))
        reading.read(0, of_kind.select(DOC_ID, F.lit(None).cast("int").alias("arm_id")), UNLIMITED, 1.0)
        reading.keep(0)
    seconds = time.monotonic() - began
    runs = [run_name(variant, kind) for kind in KINDS]
    rows = tables.read(EXTRACTIONS).where(F.col("run_id").isin(runs)).toPandas()
    pairs = [pair for found in rows["pairs"] for pair in found]
    return {
        "documents": int(rows["final"].sum()),
        "calls": int(rows["calls"].sum() + rows["cached_calls"].sum()),
        "prompt_tokens": int(rows["prompt_tokens"].sum()),
        "completion_tokens": int(rows["completion_tokens"].sum()),
        "seconds": round(seconds, 1),
        "accepted": sum(pair["accepted"] for pair in pairs),
        "rejected": dict(Counter(pair["reason"] for pair in pairs if not pair["accepted"]).most_common()),
        "outcomes": dict(Counter(rows[rows["final"]]["status"]).most_common()),
    }


def write_sheet(config: RunConfig) -> None:
    """Pairs of every variant in the order of a hash that tells nothing, without what they are of; and the key."""
    spark = open_session(config.spark.partitions)
    tables, settings = Tables(spark, config.storage.root), config.extraction
    cut = passages(
        tables.read(DOCUMENTS).select(DOC_ID, F.lit(None).cast("int").alias("arm_id"), "text"),
        passage_chars=settings.passage_chars, max_passages=settings.max_passages,
    ).toPandas()  # fmt: skip
    texts = {
        (row[DOC_ID], found["passage_index"]): "".join(found["sentences"])
        for _, row in cut.iterrows()
        for found in row["passages"]
    }
    pairs, entries = tables.read(QA_PAIRS).drop("embedding").toPandas(), []
    for variant in VARIANTS:
        for place, kind in enumerate(KINDS):
            found = pairs[pairs["run_id"] == run_name(variant, kind)].to_dict("records")
            share = NUM_READ // len(KINDS) + (place < NUM_READ % len(KINDS))
            for pair in sorted(found, key=lambda pair: rank(pair["pair_id"]))[:share]:
                entries.append({"variant": variant.name, "kind": kind, **pair})
    entries.sort(key=lambda entry: rank(f"{entry['pair_id']}{entry['variant']}"))
    with (OUT / "sheet.jsonl").open("w", encoding="utf-8") as sheet:
        for number, entry in enumerate(entries):
            shown = {"number": number, "passage": texts[entry[DOC_ID], entry["passage_index"]]}
            sheet.write(json.dumps({**shown, "question": entry["question"], "answer": entry["answer"]}) + "\n")
    key = pd.DataFrame(entries)[["variant", "kind", DOC_ID, "pair_id"]].rename_axis("number")
    key.to_csv(OUT / "key.csv")
    print(f"{len(entries)} pairs in {OUT / 'sheet.jsonl'}; read them by docs/reading.md, then run `score`")


def score() -> None:
    """Shares of what holds, with 90 % intervals (Wilson), by variant; keep verdicts without texts."""
    key = pd.read_csv(OUT / "key.csv", index_col="number")
    verdicts = pd.read_csv(OUT / "verdicts.csv", index_col="number")
    joined = key.join(verdicts, how="inner")
    joined["all"] = joined[list(VERDICTS)].all(axis=1).astype(int)
    joined.to_csv(STUDY / "reading.csv")
    parts = [*joined.groupby(["variant", "kind"])]
    parts += [((name, "all"), of_variant) for name, of_variant in joined.groupby("variant")]
    rows = []
    for (variant, kind), part in parts:
        for verdict in (*VERDICTS, "all"):
            count = int(part[verdict].sum())
            found = binomtest(count, len(part)).proportion_ci(0.9, method="wilson")
            interval = {"share": count / len(part), "low": found.low, "high": found.high}
            named = {"variant": variant, "kind": kind, "verdict": verdict, "pairs": len(part)}
            rows.append({**named, **{name: round(value, 3) for name, value in interval.items()}})
    table = pd.DataFrame(rows)
    table.to_csv(STUDY / "variants.csv", index=False)
    whole = table[table["kind"] == "all"]
    write("variants", {**read("variants"), "shares": whole.to_dict("records")})
    print(whole.pivot_table(index="variant", columns="verdict", values="share").to_string())


if __name__ == "__main__":
    main()

"""Send a pool's requests to a machine that nobody can reach, as a file, and take the replies into the store.

    python benchmarks/offline.py wanted requests.jsonl.gz --data DIR      # all that a whole extraction asks first
    python benchmarks/answer.py requests.jsonl.gz replies.jsonl.gz --model DIR       # there
    python benchmarks/offline.py keep requests.jsonl.gz replies.jsonl.gz --data DIR
    python benchmarks/pool.py --data DIR     # finds them in the store, and asks a server only for what is not there

Replies come into the table by the way on which those of a killed run do: a spool, which is folded. `wanted` runs the
corpus stages first. With `--set extraction.answer=written --docs 1000` it writes a variant's, of some documents.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

from mixed_pool import ROOT, write_pool, write_reference
from pool import pool_config
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from equal.config import RunConfig
from equal.core.chat import Reply, Request
from equal.core.pairs import Passage
from equal.core.reading import Recipe
from equal.io.prompts import load_prompts
from equal.io.session import open_session
from equal.io.spool import ReplySpool
from equal.io.stage import run_stage
from equal.io.tables import Tables
from equal.jobs.pipeline import CORPUS
from equal.schemas import ARM_ID, DOC_ID, DOCUMENTS, REMOVALS
from equal.transforms.passages import passages
from equal.transforms.sampling import hash_order
from model import convert


def recipe_of(config: RunConfig) -> Recipe:
    """What the extract job asks by."""
    settings = config.extraction
    prompts = load_prompts(
        settings.domain, answer=settings.answer, refine=False, structured=settings.structured,
        max_pairs=settings.max_pairs,
    )  # fmt: skip
    return Recipe(
        prompts[0], None, config.endpoint.model, settings.temperature, settings.max_tokens,
        settings.min_answer_similarity, settings.min_grounded_share,
    )  # fmt: skip


def read_passages(spark: SparkSession, config: RunConfig, num_docs: int | None) -> DataFrame:
    """The passages of the documents that stay, or of the first of them by hash."""
    tables, settings = Tables(spark, config.storage.root, config.storage.schema), config.extraction
    kept = tables.read(DOCUMENTS).join(tables.read(REMOVALS), DOC_ID, "left_anti")
    kept = kept.select(DOC_ID, F.lit(0).alias(ARM_ID), "text").orderBy(hash_order(config.seed))
    chosen = kept.limit(num_docs) if num_docs else kept
    return passages(chosen, passage_chars=settings.passage_chars, max_passages=settings.max_passages)


def requests_of(frame: DataFrame, recipe: Recipe) -> list[Request]:
    """One request a passage, each key once."""
    found: dict[str, Request] = {}
    for row in frame.select("passages").toLocalIterator():
        for each in row["passages"]:
            passage = Passage(each["passage_index"], each["passage_key"], tuple(each["sentences"]))
            request = recipe.request(recipe.extract, passage)
            found[request.key] = request
    return list(found.values())


def wanted(config: RunConfig, data: Path, file: Path, num_docs: int | None) -> None:
    """Write all requests of a whole extraction."""
    root = Path(config.storage.root)
    if not (root / "reference").exists():
        write_pool(data, root / "source", 12_000)
        write_reference(data, root / "reference")
    for stage, body in CORPUS.items():
        run_stage(config, stage, body)
    requests = requests_of(read_passages(open_session(config.spark.partitions), config, num_docs), recipe_of(config))
    with gzip.open(file, "wt", encoding="utf-8") as out:
        for request in requests:
            fields = {name: getattr(request, name) for name in Request.__dataclass_fields__}
            out.write(json.dumps({"key": request.key, **fields}) + "\n")
    print(f"{file}: {len(requests):,} requests")


def keep(config: RunConfig, requests_file: Path, replies_file: Path) -> None:
    """Fold replies into the table `replies`; one that is there already stays."""
    with gzip.open(requests_file, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    requests = {row.pop("key"): Request(**{**row, "messages": tuple(row["messages"])}) for row in rows}
    if strange := [key for key, request in requests.items() if request.key != key]:
        raise SystemExit(f"{requests_file}: {len(strange)} requests have another key than their content gives")
    with gzip.open(replies_file, "rt", encoding="utf-8") as file:
        replies = [json.loads(line) for line in file]
    spool = ReplySpool(str(Path(config.storage.root) / "spool" / "offline" / "0"))
    spool.put([(requests[reply.pop("key")], Reply(**reply, attempts=1)) for reply in replies])
    tables = Tables(open_session(config.spark.partitions), config.storage.root, config.storage.schema)
    print(f"{spool.fold(tables):,} of {len(replies):,} replies were new")


def main() -> None:
    """Write requests, or keep replies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["wanted", "keep"])
    parser.add_argument("files", type=Path, nargs="+", help="requests, and to keep them the replies")
    parser.add_argument("--data", type=Path, required=True, help="folder with docs/KIND/*.jsonl.gz and refs/")
    parser.add_argument("--docs", type=int, help="the first by hash; all, if not given")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "superset")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="other settings than pool.py's")
    arguments = parser.parse_args()
    config = pool_config(arguments.out.resolve(), arguments.data, convert(), arguments.set)
    if arguments.what == "wanted":
        wanted(config, arguments.data, arguments.files[0], arguments.docs)
    else:
        keep(config, *arguments.files)


if __name__ == "__main__":
    main()

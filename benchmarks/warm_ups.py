"""What does a warm-up of which size buy, and is it needed at all? One table.

Documents as of benchmarks/pool.py, a third each of math, code and general, go through the corpus stages and a warm-up
of 300 with the demo's real server. 60 of them are held out; the encoder is tuned anew on the first 24 to 240 of the
others, as the jobs would read them, and with other settings on 120. Of 12,000 documents 24 are 0.2 %, the default, and
120 the paper's 1 %. Each encoder embeds all documents and the 40 guide items of two needle pools, and is asked

    rank       of held-out documents' own pairs among the pairs of all held-out documents (mean reciprocal rank),
               and Eq. 3 over them, which tells encoders apart where all ranks are 1
    relevant   share of the rare kind, 3 % of a needle pool, among the first 1, 2 and 5 % by similarity to the guide:
               what `bandit.strategy=similarity` reads, and what `warm_start` begins with
    same       share of triples in which a document lies closer to one of its own source than to one of another,
               which says whether the encoder forgot what it knew

The sample is kept in OUT and not asked for twice.

    python benchmarks/warm_ups.py --data DIR [--docs 12000] [--out build/warm_ups]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from mixed_pool import KINDS, ROOT, rank, write_pool, write_reference
from pool import NEEDLE_SHARE, NEEDLES, pool_config, reference_items
from pools import NUM_GUIDE
from pyspark.sql import functions as F
from results import write

from equal.config import RunConfig
from equal.io.marks import Marks
from equal.io.session import open_session
from equal.io.stage import exit_on_error, run_stage
from equal.io.tables import Tables
from equal.jobs.pipeline import ARMS, CORPUS
from equal.schemas import DOC_ID, DOCUMENTS, QA_PAIRS, REMOVALS
from equal.training.contrastive import info_nce, mean_reciprocal_rank, tune_encoder
from equal.training.encoder import Encoder, best_dtype, load_encoder, resolve_model
from equal.transforms.documents import kept_documents
from equal.transforms.sampling import hash_order
from model import convert
from server import serve

SAMPLE, HELD_OUT = 300, 60
#: the reference set asked of each needle pool
ASKED = {"needle_math": "gsm8k", "needle_code": "mbpp"}
FIRST = (0.01, 0.02, 0.05)
NUM_TRIPLES = 20_000
#: the corpus stages take a few documents away
_ENOUGH = 1.05


@dataclass(frozen=True)
class Setting:
    """A warm-up: documents read, and what differs from the defaults."""

    documents: int
    temperature: float = 0.02
    hard_negatives: int = 0
    epochs: int = 2

    def __str__(self) -> str:
        changed = [f"{name} {getattr(self, name):g}" for name in ("temperature", "hard_negatives", "epochs")
                   if getattr(self, name) != getattr(Setting, name)]  # fmt: skip
        return ", ".join([str(self.documents or "none"), *changed])


SETTINGS = (
    *map(Setting, (0, 24, 60, 120, 240)),
    Setting(120, temperature=0.05),
    Setting(120, temperature=0.2),
    Setting(120, hard_negatives=2),
    Setting(120, epochs=6),
)


@dataclass(frozen=True)
class Corpus:
    """Kept documents in the order in which the jobs sample them, and the pairs of the first ones by document."""

    ids: list[str]
    texts: list[str]
    kinds: np.ndarray
    sources: np.ndarray
    pairs: dict[str, list[str]]
    by_rank: np.ndarray


def main() -> None:
    """Read the sample where it is not yet read, then one line a setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with docs/KIND/*.jsonl.gz and refs/")
    parser.add_argument("--docs", type=int, default=12_000)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "warm_ups")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    with exit_on_error("warm_ups"):
        config, calls = _sampled(out, arguments.data, arguments.docs)
        corpus = _corpus(config)
        guides = {
            pool: [item.text for item in reference_items(arguments.data, name)[:NUM_GUIDE]]
            for pool, name in ASKED.items()
        }
        rows: dict[str, dict[str, object]] = {}
        print(f"{'warm-up':24}{'pairs':>7}{'tuning s':>9}{'rank':>7}{'Eq. 3':>7}{'same':>7}", end="")
        print("".join(f"{f'{pool} {share:.0%}':>16}" for pool in ASKED for share in FIRST))
        for setting in SETTINGS:
            row = rows[str(setting)] = _measure(setting, corpus, config, guides, out / "encoder")
            print(_line(str(setting), row), flush=True)
    write("warm_ups", {"documents": len(corpus.ids), "sample": calls, "settings": rows})


def _sampled(out: Path, data: Path, num_docs: int) -> tuple[RunConfig, dict[str, object]]:
    """The corpus and a warm-up of SAMPLE, or a few more, through the jobs, and what reading took."""
    if not (out / "reference").exists():
        write_pool(data, out / "source", num_docs)
        write_reference(data, out / "reference")
    model_dir = convert()
    config = pool_config(out, data, model_dir, [f"warm_up.fraction={_ENOUGH * SAMPLE / num_docs}", "warm_up.epochs=1"])
    with serve(model_dir, out / "vllm.log") as server:
        os.environ["EQUAL_ENDPOINT_KEY"] = server.key
        asked = replace(config, endpoint=replace(config.endpoint, url=server.url))
        for stage, body in CORPUS.items():
            run_stage(asked, stage, body)
        server.wait_ready()
        run_stage(asked, "warm_up", ARMS["warm_up"])
    tables = Tables(open_session(config.spark.partitions), config.storage.root, config.storage.schema)
    spent = ("calls", "prompt_tokens", "completion_tokens", "seconds")
    ledger = tables.read("costs").where("stage = 'warm_up'")
    cost = ledger.agg(*(F.sum(name).alias(name) for name in spent), F.max("documents").alias("documents")).first()
    return config, {} if cost is None else cost.asDict()


def _corpus(config: RunConfig) -> Corpus:
    tables = Tables(open_session(config.spark.partitions), config.storage.root, config.storage.schema)
    run_id = json.loads(Marks.read(tables, config).of("warm_up")["details"])["run_id"]
    kept = kept_documents(tables.read(DOCUMENTS), tables.read(REMOVALS))
    frame = kept.orderBy(hash_order(config.seed), DOC_ID).select(DOC_ID, "source_id", "source_file", "text").toPandas()
    pairs: dict[str, list[str]] = {}
    for row in tables.read(QA_PAIRS).where(F.col("run_id") == run_id).orderBy("pair_id").collect():
        pairs.setdefault(row.doc_id, []).append(f"{row.question}\n{row.answer}")
    kinds = [next(kind for kind in KINDS if f"{kind}.jsonl" in file) for file in frame["source_file"]]
    ranked = np.argsort([rank(source_id) for source_id in frame["source_id"]])
    sources = frame["source_id"].str.rsplit("-", n=1).str[0]
    return Corpus(list(frame[DOC_ID]), list(frame["text"]), np.array(kinds), sources.to_numpy(), pairs, ranked)


def _measure(
    setting: Setting, corpus: Corpus, config: RunConfig, guides: dict[str, list[str]], folder: Path
) -> dict[str, object]:
    """Tune, embed, look."""
    train = [(doc, text, pair) for doc, text in zip(corpus.ids[: setting.documents], corpus.texts)
             for pair in corpus.pairs.get(doc, ())]  # fmt: skip
    model, seconds = resolve_model(config.encoder.model, "encoder.model"), 0.0
    if setting.documents:
        started = time.perf_counter()
        tune_encoder(
            train, model=model, output_dir=str(folder), temperature=setting.temperature, epochs=setting.epochs,
            learning_rate=config.warm_up.learning_rate, batch_size=config.warm_up.batch_size,
            max_tokens=config.warm_up.max_tokens, hard_negatives=setting.hard_negatives, held_out_share=0.0,
            seed=config.seed,
        )  # fmt: skip
        seconds, model = time.perf_counter() - started, str(folder)
    encoder = load_encoder(model, best_dtype("auto"), config.encoder.max_tokens, config.encoder.batch_size)
    vectors = encoder.encode(corpus.texts)
    reciprocal, loss = _alignment(encoder, vectors, corpus, range(SAMPLE - HELD_OUT, SAMPLE))
    relevant = {
        pool: _relevant(vectors, corpus, NEEDLES[pool], encoder.encode(texts)) for pool, texts in guides.items()
    }
    return {
        "documents": setting.documents, "pairs": len(train), "tuning_seconds": seconds, "rank": reciprocal,
        "loss": loss, "same_source": _same_source(vectors, corpus.sources), "relevant": relevant,
    }  # fmt: skip


def _alignment(encoder: Encoder, vectors: np.ndarray, corpus: Corpus, held_out: range) -> tuple[float, float]:
    """Rank and Eq. 3 (at the default temperature, whatever was tuned with) of held-out documents' pairs."""
    rows = [row for row in held_out if corpus.ids[row] in corpus.pairs]
    own = np.array([corpus.ids[row] for row in rows for _ in corpus.pairs[corpus.ids[row]]])
    pairs = encoder.encode([pair for row in rows for pair in corpus.pairs[corpus.ids[row]]])
    ids = np.array([corpus.ids[row] for row in rows])
    documents = vectors[[row for row in rows for _ in corpus.pairs[corpus.ids[row]]]]
    loss = info_nce(torch.from_numpy(documents), torch.from_numpy(pairs), own, own, Setting.temperature)
    return mean_reciprocal_rank(vectors[rows], pairs, ids, own), float(loss)


def _relevant(vectors: np.ndarray, corpus: Corpus, rare: str, guide: np.ndarray) -> list[float]:
    """Share of the rare kind among the most similar, at each of FIRST."""
    is_rare = (corpus.kinds == rare)[corpus.by_rank]
    kept = corpus.by_rank[~is_rare | (np.cumsum(is_rare) <= round(NEEDLE_SHARE * len(is_rare)))]
    order = kept[np.argsort(-(vectors[kept] @ guide.mean(axis=0)), kind="stable")]
    return [float((corpus.kinds[order[: round(share * len(order))]] == rare).mean()) for share in FIRST]


def _same_source(vectors: np.ndarray, sources: np.ndarray) -> float:
    """Over random triples of a document, one of its source and one of another."""
    draw = np.random.default_rng(0)
    one, same, other = (draw.integers(0, len(vectors), 40 * NUM_TRIPLES) for _ in range(3))
    fits = (sources[one] == sources[same]) & (one != same) & (sources[one] != sources[other])
    one, same, other = (rows[fits][:NUM_TRIPLES] for rows in (one, same, other))
    nearer = (vectors[one] * vectors[same]).sum(axis=1) > (vectors[one] * vectors[other]).sum(axis=1)
    return float(nearer.mean())


def _line(name: str, row: dict[str, object]) -> str:
    shares: Sequence[float] = [share for pool in ASKED for share in row["relevant"][pool]]  # type: ignore[index]
    figures = f"{row['pairs']:>7}{row['tuning_seconds']:>9.0f}{row['rank']:>7.3f}"
    return f"{name:24}{figures}{row['loss']:>7.3f}{row['same_source']:>7.3f}" + "".join(f"{s:>16.3f}" for s in shares)


if __name__ == "__main__":
    main()

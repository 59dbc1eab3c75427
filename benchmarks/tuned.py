"""Does a better choice train a better model? Target loss after fine-tuning on what each strategy chose of a real pool.

Of what a strategy read for 5 % of a pool, the 200 pairs nearest to the guide (replay_loop.py, one rule for all) go
through the product's LoRA fine-tuning; the held-out items judge, item by item. `choose` needs the pools and tables of
benchmarks/pool.py; `train` nothing but the file that it wrote, so that it runs wherever an accelerator is.

    python benchmarks/tuned.py choose build/tuning.json.gz --data DIR [--pool needle_math-gsm8k]
    python benchmarks/tuned.py train build/tuning.json.gz build/losses.jsonl --model DIR --processes 4
    python benchmarks/tuned.py table build/losses.jsonl
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
from collections.abc import Iterable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

#: share of the pool that is paid for; the pairs trained on are those of `replay_loop.Replay.best`
AT = 0.05
SETTINGS: dict[str, Any] = {
    "method": "lora", "epochs": 3.0, "learning_rate": 2.0e-4, "batch_size": 16, "micro_batch_size": 16,
    "max_tokens": 256, "lora_rank": 8, "lora_alpha": 16,
}  # fmt: skip
BASE = "base"

Job = dict[str, Any]


def choose(data: Path, pools: Iterable[str], strategies: Iterable[str], seeds: int, tables: Path) -> dict[str, Any]:
    """Sets of pairs by pool, strategy and seed, and each pool's held-out items."""
    from deltalake import DeltaTable
    from pool import reference_items
    from pools import FOLDER, NUM_GUIDE, NUM_HELD_OUT, load
    from replay import STRATEGIES
    from replay_loop import Replay

    rows = DeltaTable(str(tables / "qa_pairs")).to_pyarrow_table(columns=["pair_id", "question", "answer"]).to_pylist()
    texts = {row["pair_id"]: (row["question"], row["answer"]) for row in rows}
    items: dict[str, list[tuple[str, str, str]]] = {}
    jobs: list[Job] = []
    for seed in range(seeds):
        for pool in pools:
            found = reference_items(data, pool.rpartition("-")[2])[NUM_GUIDE : NUM_GUIDE + NUM_HELD_OUT]
            items[pool] = [(item.item_id, item.question, item.answer) for item in found]
            ids = np.load(FOLDER / f"{pool}.npz")["pair_ids"]
            replay = Replay(load(pool, seed), seed)
            for strategy in strategies:
                read = replay.read(STRATEGIES[strategy], round(AT * replay.num_docs))
                examples = sorted(texts[ids[row]] for row in replay.best(read))
                jobs.append({"pool": pool, "strategy": strategy, "seed": seed, "examples": examples})
    return {"items": items, "jobs": jobs}


def tune(job: Job, items: list[tuple[str, str, str]], model: str) -> Job:
    """The mean loss over all answer tokens of the held-out items, and each item's own, after one fine-tuning."""
    from equal.core.items import Item
    from equal.training.evaluate import answer_nll, load_answer_model
    from equal.training.sft import train

    with tempfile.TemporaryDirectory() as folder:
        adapter = None
        if job["strategy"] != BASE:
            adapter = f"{folder}/adapter"
            examples = [tuple(example) for example in job["examples"]]
            train(examples, base_model=model, output_dir=adapter, seed=job["seed"], **SETTINGS)
        scores = answer_nll(load_answer_model(model, adapter), [Item(*item) for item in items], batch_size=32)
    kept = {name: job[name] for name in ("pool", "strategy", "seed")}
    loss = sum(score.sum_nll for score in scores) / sum(score.num_tokens for score in scores)
    return {
        **kept,
        "loss": loss,
        "sums": [score.sum_nll for score in scores],
        "tokens": [s.num_tokens for s in scores],
    }


def _tune(arguments: tuple[Job, list[tuple[str, str, str]], str]) -> Job:
    return tune(*arguments)


def train_all(chosen: dict[str, Any], losses: Path, model: str, processes: int) -> None:
    """Work through all that `losses` does not hold yet; a line each as it is done."""
    lines = losses.read_text().splitlines() if losses.exists() else []
    done = {(row["pool"], row["strategy"], row["seed"]) for row in map(json.loads, lines)}
    base = [{"pool": pool, "strategy": BASE, "seed": 0} for pool in chosen["items"]]
    todo = [job for job in base + chosen["jobs"] if (job["pool"], job["strategy"], job["seed"]) not in done]
    work = [(job, chosen["items"][job["pool"]], model) for job in todo]
    with get_context("spawn").Pool(processes) as pool, losses.open("a") as file:
        for number, row in enumerate(pool.imap_unordered(_tune, work), start=1):
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(
                f"{number} of {len(work)}: {row['pool']} {row['strategy']} {row['seed']} {row['loss']:.4f}", flush=True
            )


def table(losses: Path) -> None:
    """Loss by pool and strategy, and its paired difference to random's with the standard error over items."""
    rows = [json.loads(line) for line in losses.read_text().splitlines()]
    for pool in dict.fromkeys(row["pool"] for row in rows):
        of = {(row["strategy"], row["seed"]): row for row in rows if row["pool"] == pool}
        print(f"\n{pool:24}{'loss':>8}{'spread':>8}{'to random':>11}{'error':>8}")
        for strategy in dict.fromkeys(name for name, _ in of):
            seeds = sorted(seed for name, seed in of if name == strategy)
            values = [of[strategy, seed]["loss"] for seed in seeds]
            line = f"{strategy:24}{statistics.mean(values):8.4f}{statistics.pstdev(values):8.4f}"
            if strategy not in (BASE, "random"):
                paired = [s for s in seeds if ("random", s) in of]
                nll = [np.array(of[strategy, s]["sums"]) - np.array(of["random", s]["sums"]) for s in paired]
                tokens = np.array(of[strategy, seeds[0]]["tokens"])
                difference, weight = np.mean(nll, axis=0), tokens.mean()
                mean = difference.sum() / tokens.sum()
                error = np.std(difference - mean * tokens, ddof=1) / weight / np.sqrt(len(tokens))
                line += f"{mean:11.4f}{error:8.4f}"
            print(line)


def main() -> None:
    """Choose, train or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["choose", "train", "table"])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, help="folder with refs/")
    parser.add_argument("--tables", type=Path, default=Path("build/superset/tables"))
    parser.add_argument("--pool", nargs="+", default=["needle_math-gsm8k", "needle_code-mbpp", "balanced-gsm8k"])
    parser.add_argument("--strategy", nargs="+", default=["random", "similarity", "equal", "warm_start_0.2%"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default=".cache/models/smollm2-135m-instruct")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    first = arguments.files[0]
    if arguments.what == "choose":
        chosen = choose(arguments.data, arguments.pool, arguments.strategy, arguments.seeds, arguments.tables)
        with gzip.open(first, "wt") as file:
            json.dump(chosen, file)
    elif arguments.what == "train":
        with gzip.open(first, "rt") as file:
            chosen = json.load(file)
        train_all(chosen, arguments.files[1], arguments.model, arguments.processes)
    else:
        table(first)


if __name__ == "__main__":
    main()

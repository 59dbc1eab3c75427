"""What a reward that needs no embedding would see: the loss of a real pool's pairs under a model tuned on the guide.

The small model is fine-tuned on the 40 items that guide, and then reads every pair of the pool: the mean negative
log-likelihood of its answer, in nats a token, is what `equal_perplexity` of benchmarks/replay.py has in the place of
the transport cost (the paper's Perplexity-MAB). An arm whose pairs such a model expects is one to read on in.

    python benchmarks/perplexities.py --data DIR --pool needle_math-gsm8k needle_code-mbpp
    OMP_NUM_THREADS=1 python benchmarks/replay.py --pool needle_math --reference gsm8k --strategy equal_perplexity
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from deltalake import DeltaTable
from pool import reference_items
from pools import FOLDER, LOSSES, NUM_GUIDE
from tuned import SETTINGS

from equal.core.items import Item
from equal.training.evaluate import answer_nll, load_answer_model
from equal.training.sft import train

ROOT = Path(__file__).resolve().parent.parent


def losses(pairs: list[Item], guide: list[Item], model: str) -> np.ndarray:
    """(n,) nats an answer token of each pair under the model tuned on the guide; NaN where no token was counted."""
    with tempfile.TemporaryDirectory() as folder:
        examples = [(item.question, item.answer) for item in guide]
        train(examples, base_model=model, output_dir=folder, seed=0, **SETTINGS)
        scores = answer_nll(load_answer_model(model, folder), pairs, batch_size=32)
    return np.array([score.sum_nll / score.num_tokens if score.num_tokens else np.nan for score in scores])


def main() -> None:
    """Score what is not yet scored, a file a pool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with refs/")
    parser.add_argument("--pool", nargs="+", default=["needle_math-gsm8k", "needle_code-mbpp"])
    parser.add_argument("--tables", type=Path, default=ROOT / "build" / "superset" / "tables")
    parser.add_argument("--model", default=str(ROOT / ".cache" / "models" / "smollm2-135m-instruct"))
    args = parser.parse_args()
    table = DeltaTable(args.tables / "qa_pairs").to_pandas(columns=["pair_id", "question", "answer"])
    texts = table.drop_duplicates("pair_id").set_index("pair_id")
    for pool in args.pool:
        file = FOLDER / f"{pool}{LOSSES}"
        if file.exists():
            print(f"{pool}: already scored, {file}")
            continue
        chosen = texts.loc[np.load(FOLDER / f"{pool}.npz")["pair_ids"]]
        pairs = [Item(str(n), q, a) for n, (q, a) in enumerate(zip(chosen["question"], chosen["answer"]))]
        found = losses(pairs, reference_items(args.data, pool.rpartition("-")[2])[:NUM_GUIDE], args.model)
        np.save(file, found)
        print(f"{pool}: {len(found)} pairs, {np.nanmean(found):.3f} nats a token, {np.isnan(found).sum()} without one")


if __name__ == "__main__":
    main()

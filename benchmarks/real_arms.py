"""Which transport estimate, of which embedding of a pair, ranks the arms of a real pool best?

`balanced` of benchmarks/pool.py: 64 arms of real documents, whose true order is their share of pairs from documents of
the reference set's kind. So many pairs of each arm are drawn, the 40 items that guide make the reward, and Kendall's
tau-b of reward and share is printed and kept, mean over draws.

    estimate    those of benchmarks/estimators.py, on question and answer by the tuned encoder, as the product's are
    embedding   plain transport on the question, the answer, or both, by the tuned encoder and by the one it began as

    python benchmarks/real_arms.py --data DIR      # DIR as for benchmarks/pool.py; a quarter of an hour

Figures in benchmarks/results/real_arms.json and docs/study/real_arms.csv.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from deltalake import DeltaTable
from estimators import ESTIMATORS, Cost
from pool import REFERENCES, reference_items
from pools import FOLDER, NUM_GUIDE
from results import write
from scipy.stats import kendalltau
from tqdm import tqdm

from equal.config import load as load_config
from equal.core.items import Item
from equal.core.transport import reward
from equal.training.encoder import EncoderFactory

ROOT = Path(__file__).resolve().parent.parent
SUPERSET, CSV = ROOT / "build" / "superset", ROOT / "docs" / "study" / "real_arms.csv"
SIZES = (5, 10, 20, 50, 100)
#: what of a pair and of a reference item is embedded
PARTS: dict[str, Callable[[Item], str]] = {
    "both": lambda item: item.text, "question": lambda item: item.question, "answer": lambda item: item.answer,
}  # fmt: skip
Row = dict[str, str | float]


def taus(arms: list[np.ndarray], shares: np.ndarray, guide: np.ndarray, cost: Cost, draws: int) -> Row:
    """Number of pairs -> tau, mean over draws; arms are (n, d) unit vectors, each with as many pairs or all it has."""
    found: Row = {}
    for size in SIZES:
        values = []
        for seed in range(draws):
            rng = np.random.default_rng(seed)
            few = [x[rng.permutation(len(x))[:size]] for x in arms]
            values.append(kendalltau([reward(cost(x, guide)) for x in few], shares)[0])
        found[str(size)] = float(np.mean(values))
    return found


def encoders() -> dict[str, EncoderFactory]:
    """The one that the pool was made with, tuned on pairs of 1 % of the superset, and the one that it began as."""
    settings = load_config(ROOT / "conf" / "demo.yml").encoder
    how = settings.dtype, settings.max_tokens, settings.batch_size
    tuned = next((SUPERSET / "encoders").iterdir())
    return {"tuned": EncoderFactory(str(tuned), *how), "not tuned": EncoderFactory(settings.model, *how)}


def main() -> None:
    """Embed what is not yet embedded, measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with refs/")
    parser.add_argument("--reference", nargs="+", choices=list(REFERENCES), default=["gsm8k", "mbpp"])
    parser.add_argument("--draws", type=int, default=5)
    args = parser.parse_args()
    table = DeltaTable(SUPERSET / "tables" / "qa_pairs").to_pandas(columns=["pair_id", "question", "answer"])
    texts = table.drop_duplicates("pair_id").set_index("pair_id")
    with np.load(FOLDER / f"balanced-{args.reference[0]}.npz") as pool:  # documents and pairs are those of all
        chosen = texts.loc[pool["pair_ids"]]
        arms = pool["arms"][pool["pair_documents"]]
    pairs = [Item("", question, answer) for question, answer in zip(chosen["question"], chosen["answer"])]
    rows: list[Row] = []
    for name, factory in encoders().items():
        encoder = factory()
        for part, text in PARTS.items():
            vectors = encoder.encode([text(pair) for pair in tqdm(pairs, desc=f"{part}, {name}")])
            of_arm = [vectors[arms == arm] for arm in range(arms.max() + 1)]
            for reference in args.reference:
                with np.load(FOLDER / f"balanced-{reference}.npz") as pool:
                    shares = np.bincount(arms, pool["relevant"]) / np.bincount(arms)
                guide = encoder.encode([text(item) for item in reference_items(args.data, reference)[:NUM_GUIDE]])
                costs = ESTIMATORS if (name, part) == ("tuned", "both") else {"plain": ESTIMATORS["plain"]}
                for estimate, cost in costs.items():
                    found = taus(of_arm, shares, guide, cost, args.draws)
                    rows.append({
                        "reference": reference, "estimate": estimate, "embedding": part, "encoder": name, **found
                    })  # fmt: skip
                    print(rows[-1], flush=True)
    frame = pd.DataFrame(rows).sort_values("reference", kind="stable")
    frame.to_csv(CSV, index=False, float_format="%.4g")
    print(frame.to_string(index=False, float_format="{:.3f}".format))
    write("real_arms", {"tau": frame.round(4).to_dict("records")})


if __name__ == "__main__":
    main()

"""How many reference items guide well enough (EQUAL, App. P), and what a mixture of two sets finds (App. M)?

Real pools of benchmarks/pool.py, replayed with other guides; the items held out stay the same 200.

    size     so many items of the pool's own reference set guide. `ratio`: documents until the 200 best pairs, chosen
             by these items alone, are as near to the held-out items as those of random's 40 % with 40 items, over
             random's documents then
    mixture  40 items of two sets guide, in shares, on the pool `balanced`. `first` and `second`: cost between the 200
             best pairs of 5 % of the pool and the held-out items of either set; `code`: their share that is of code

    OMP_NUM_THREADS=1 python benchmarks/references.py --data DIR      # DIR as for benchmarks/pool.py

Figures in benchmarks/results/references.json and docs/study/references.csv, mixtures.csv.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from multiprocessing import Pool as Processes
from pathlib import Path

import numpy as np
import pandas as pd
from pool import reference_items
from pools import NUM_GUIDE, NUM_HELD_OUT, Pool, load
from replay import AT, DEFAULT, DOCS, STRATEGIES
from replay_loop import LARGEST_SHARE, RANDOM_SHARE, Replay
from results import write
from tqdm import tqdm

from equal.config import load as load_config
from equal.training.encoder import EncoderFactory

ROOT = Path(__file__).resolve().parent.parent
SIZES = (3, 5, 10, 20, 40, 100, 300, 1000)
#: of gsm8k beside mbpp
SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)
POOLS = (("needle_math", "gsm8k"), ("needle_code", "mbpp"), ("balanced", "gsm8k"))
COMPARED = ("similarity", "equal_2_a_pull", DEFAULT)
Row = dict[str, str | float]


def size_row(job: tuple[str, int, np.ndarray]) -> list[Row]:
    """All strategies under a guide; the control has the pool's own."""
    name, seed, guide = job
    pool = load(name, seed)
    control = Replay(pool, seed)
    read = control.read(STRATEGIES["random"], round(RANDOM_SHARE * control.num_docs))
    wanted = control.quality(read)
    random = control.documents_to(wanted, read)
    replay = Replay(replace(pool, guide=guide), seed)
    rows: list[Row] = []
    for strategy in COMPARED:
        chosen = replay.read(STRATEGIES[strategy], round(LARGEST_SHARE * replay.num_docs))
        found = replay.documents_to(wanted, chosen)
        rows.append({
            "pool": name, "items": len(guide), "strategy": strategy,
            "ratio": min(found, len(chosen)) / random, "given_up": float(not np.isfinite(found)),
            "distance": replay.distance(chosen[: round(AT * replay.num_docs)]),
        })  # fmt: skip
    return rows


def mixture_row(job: tuple[float, int, np.ndarray, np.ndarray]) -> list[Row]:
    """All strategies under a mixed guide, on the pool of all documents."""
    share, seed, guide, second = job
    pool = load("balanced-gsm8k", seed)
    replay = Replay(replace(pool, guide=guide), seed)
    other = Replay(replace(pool, guide=guide, held_out=second), seed)
    code = load("balanced-mbpp", seed).relevant
    rows: list[Row] = []
    for strategy in ("random", *COMPARED):
        read = replay.read(STRATEGIES[strategy], round(AT * replay.num_docs))
        rows.append({
            "share_of_first": share, "strategy": strategy,
            "first": replay.quality(read), "second": other.quality(read),
            "code": float(code[replay.best(read)].mean()),
        })  # fmt: skip
    return rows


def guides(data: Path, name: str, encoder: EncoderFactory, pool: Pool) -> np.ndarray:
    """(n, d) items that may guide, those of the pool first; none is held out.

    Raises:
        SystemExit: the encoder is not the one that the pool was made with.
    """
    items = reference_items(data, name)
    items = items[:NUM_GUIDE] + items[NUM_GUIDE + NUM_HELD_OUT :]
    vectors = encoder().encode([item.text for item in items[: max(SIZES)]])
    if not np.allclose(vectors[:NUM_GUIDE], pool.guide, atol=0.02):
        raise SystemExit("--encoder: the pools in build/pools were made with another; see build/superset/encoders")
    return np.vstack([pool.guide, vectors[NUM_GUIDE:]])


def main() -> None:
    """Run both, print and keep the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with refs/")
    parser.add_argument(
        "--encoder", type=Path, help="folder of the encoder; the only one of build/superset by default"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    folder = args.encoder or next((ROOT / "build" / "superset" / "encoders").iterdir())
    settings = load_config(ROOT / "conf" / "demo.yml").encoder
    encoder = EncoderFactory(str(folder), settings.dtype, settings.max_tokens, settings.batch_size)
    known = {name: guides(args.data, name, encoder, load(f"balanced-{name}", 0)) for name in ("gsm8k", "mbpp")}
    seeds = range(args.seeds)
    sizes = [
        (f"{pool}-{name}", seed, known[name][:size])
        for pool, name in POOLS for size in SIZES if size <= len(known[name]) for seed in seeds
    ]  # fmt: skip
    counts = [round(share * NUM_GUIDE) for share in SHARES]
    second = load("balanced-mbpp", 0).held_out
    mixtures = [
        (share, seed, np.vstack([known["gsm8k"][:count], known["mbpp"][: NUM_GUIDE - count]]), second)
        for share, count in zip(SHARES, counts) for seed in seeds
    ]  # fmt: skip
    with Processes(args.processes) as processes:
        by_size = [row for rows in tqdm(processes.imap(size_row, sizes), total=len(sizes)) for row in rows]
        mixed = [row for rows in tqdm(processes.imap(mixture_row, mixtures), total=len(mixtures)) for row in rows]
    keep(pd.DataFrame(by_size), pd.DataFrame(mixed))


def keep(by_size: pd.DataFrame, mixed: pd.DataFrame) -> None:
    """Print and write means over seeds."""
    grouped = by_size.groupby(["pool", "items", "strategy"], sort=False)
    tables = {
        "references": grouped.mean().assign(ratio_spread=grouped["ratio"].std(ddof=0), seeds=grouped.size()),
        "mixtures": mixed.groupby(["share_of_first", "strategy"], sort=False).mean(),
    }
    DOCS.mkdir(exist_ok=True)
    for name, table in tables.items():
        table.to_csv(DOCS / f"{name}.csv", float_format="%.4g")
        print(table.to_string(float_format="{:.3f}".format))
    write("references", {name: table.reset_index().round(4).to_dict("records") for name, table in tables.items()})


if __name__ == "__main__":
    main()

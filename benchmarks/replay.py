"""Which strategy finds the right documents with the fewest paid for? The product's loop over pools of known pairs.

Every strategy runs `equal.loop.run_bandit` with the product's choice and reward; extracting a document is looking it
up. The warm-up and the first sweep count as documents paid for. What is printed and kept, mean over seeds:

    distance    debiased transport distance to the held-out reference of everything extracted, at 1 to 20 % of the pool
    ratio       documents until the 200 best pairs (by one rule for all strategies) are as near to the held-out
                reference as those of random's 40 % of the pool, over random's documents; beside it over the oracle's;
                at 20 % of the pool a strategy that is not there yet is given up, and counts as that
    regret      relevant pairs missed at 5 % of the pool, as a share of what draining the truly best arms finds;
                below 0: found more
    relevant    share of the documents read that lie in arms of which a fifth of the pairs or more is relevant, at 5 %

    OMP_NUM_THREADS=1 python benchmarks/replay.py --pool planted planted_weak planted_decoys --seeds 5
    OMP_NUM_THREADS=1 python benchmarks/replay.py --pool needle_math --reference gsm8k --strategy similarity equal

Figures in benchmarks/results/replay.json and docs/study/replay.csv, by pool and strategy; a call replaces its own.
A killed call goes on where it stood: what is measured lies in build/replay, to be deleted when the loop has changed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from multiprocessing import Pool as Processes
from pathlib import Path
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
from pools import SIGNAL, load
from replay_loop import LARGEST_SHARE, RANDOM_SHARE, Replay, Setup
from results import FOLDER, write
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
DOCS, MEASURED = ROOT / "docs" / "study", ROOT / "build" / "replay"
#: shares of the pool at which everything extracted is measured
BUDGETS = (0.01, 0.02, 0.05, 0.1, 0.2)
#: of regret and relevant share
AT = 0.05
#: what a user gets who sets nothing
DEFAULT = "warm_start_0.2%"
STRATEGIES = {
    "random": Setup("random", warm_up=0),
    "oracle": Setup("similarity", warm_up=0, order="oracle"),
    "similarity": Setup("similarity", warm_up=0, order="mean"),
    "similarity_top": Setup("similarity", warm_up=0, order="top"),
    "similarity_max": Setup("similarity", warm_up=0, order="max"),
    "clusters": Setup("similarity", warm_up=0, order="clusters"),
    "equal": Setup("equal"),
    "equal_2_a_pull": Setup("equal", docs_per_pull=2),
    "equal_no_warm_up": Setup("equal", warm_up=0),
    "equal_no_mab": Setup("equal", reward="first"),
    "equal_no_ds": Setup("equal", reward="cosine"),
    "equal_no_union": Setup("equal", reward="batches"),
    "equal_perplexity": Setup("equal", reward="perplexity"),
    "equal_variance": Setup("equal", exploration="variance", alpha=1.0),
    "equal_thompson": Setup("equal", exploration="thompson"),
    "equal_stratified": Setup("equal", order="stratified"),
    "equal_density": Setup("equal", order="density"),
    "equal_diverse": Setup("equal", order="diverse"),
    "equal_delayed": Setup("equal", pipeline_depth=2),
    "warm_start": Setup("warm_start", order="mean"),
    "warm_start_variance": Setup("warm_start", order="mean", exploration="variance", alpha=1.0),
    "warm_start_thompson": Setup("warm_start", order="mean", exploration="thompson"),
    "warm_start_5_a_pull": Setup("warm_start", order="mean", exploration="variance", alpha=1.0, docs_per_pull=5),
    "warm_start_0.2%": Setup("warm_start", order="mean", exploration="variance", alpha=1.0, warm_up=0.002),
    "warm_start_hash": Setup("warm_start", exploration="variance", alpha=1.0),
}
#: of a real pool the reference set whose figures stand under the pool's own name; others stand under pool-reference
MAIN_REFERENCE = {"balanced": "gsm8k", "needle_math": "gsm8k", "needle_code": "mbpp"}
#: in the plot
SHOWN = ("random", "similarity", "equal", "equal_2_a_pull", DEFAULT, "oracle")
Figures = dict[str, float]


def run(job: tuple[str, int, tuple[str, ...]]) -> dict[str, Figures]:
    """All measures of some strategies on one pool under one seed; what an earlier call measured is read back.

    `documents` is not yet a ratio.
    """
    pool, seed, names = job
    files = {name: MEASURED / f"{pool}-{seed}-{name}-{_short_hash(repr(STRATEGIES[name]))}.json" for name in names}
    if missing := [name for name, file in files.items() if not file.exists()]:
        MEASURED.mkdir(parents=True, exist_ok=True)
        replay = Replay(load(pool, seed), seed)
        control = replay.read(STRATEGIES["random"], round(RANDOM_SHARE * replay.num_docs))
        wanted = replay.quality(control)
        for name in missing:
            read = replay.read(STRATEGIES[name], round(LARGEST_SHARE * replay.num_docs))
            figures = measures(replay, control if name == "random" else read, wanted)
            files[name].write_text(json.dumps(figures))
    return {name: json.loads(file.read_text()) for name, file in files.items()}


def _short_hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def measures(replay: Replay, read: np.ndarray, wanted: float) -> Figures:
    """Those of the documents that one strategy read; `wanted` is the quality to be reached."""
    found = replay.documents_to(wanted, read)
    at = read[: round(AT * replay.num_docs)]
    return {
        **{f"distance_{share:g}": replay.distance(read[: round(share * replay.num_docs)]) for share in BUDGETS},
        "documents": min(found, float(len(read))),
        "given_up": float(not np.isfinite(found)),
        "regret": replay.regret(at),
        "relevant": replay.in_relevant_arms(at),
        "arms": float(len(np.unique(replay.pool.arms[at]))),
    }


def summary(measured: dict[str, list[Figures]], known: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """Strategy -> means over seeds, with the standard deviation where a seed's own value is of interest."""
    documents = {name: [f["documents"] for f in runs] for name, runs in measured.items()}
    table = dict(known)
    for name, runs in measured.items():
        mean = {key: float(np.mean([f[key] for f in runs])) for key in runs[0]}
        spread = {key: float(np.std([f[key] for f in runs])) for key in runs[0]}
        ratios = {
            f"documents_ratio_to_{peer}": float(np.mean(np.divide(documents[name], documents[peer])))
            for peer in ("random", "oracle")
        }
        table[name] = {
            "distance": {f"{b:g}": mean[f"distance_{b:g}"] for b in BUDGETS},
            "distance_spread": {f"{b:g}": spread[f"distance_{b:g}"] for b in BUDGETS},
            "documents": mean["documents"],
            "documents_spread": spread["documents"],
            "given_up": mean["given_up"],
            **ratios,
            "regret": mean["regret"],
            "regret_spread": spread["regret"],
            "relevant_share": mean["relevant"],
            "arms_read": mean["arms"],
            "seeds": len(runs),
        }
    return table


def print_table(pool: str, table: dict[str, dict[str, object]]) -> list[list[object]]:
    """Print a pool's table; its rows for the CSV file."""
    budgets = [f"{b:g}" for b in BUDGETS]
    columns = ("documents", "documents_ratio_to_random", "documents_ratio_to_oracle", "regret", "relevant_share")
    heads = ("documents", "/random", "/oracle", "regret", "relevant")
    print(f"\n{pool:22}" + "".join(f"{float(b):>8.0%}" for b in budgets) + "".join(f"{head:>10}" for head in heads))
    rows: list[list[object]] = []
    for name, figures in table.items():
        at = [[cast(dict[str, float], figures[key])[b] for b in budgets] for key in ("distance", "distance_spread")]
        values = [cast(float, figures[column]) for column in columns]
        cells = [f"{distance:.3f}" for distance in at[0]]
        last = [f"{'>' if figures['given_up'] else ''}{values[0]:,.0f}", *(f"{value:.3f}" for value in values[1:])]
        print(f"{name:22}" + "".join(f"{cell:>8}" for cell in cells) + "".join(f"{cell:>10}" for cell in last))
        rows.append([pool, name, *(f"{number:.4g}" for number in (*at[0], *at[1], *values))])
    return rows


def plot(tables: dict[str, dict[str, dict[str, object]]]) -> None:
    """Distance against documents paid for, a panel a pool; the bars are standard deviations over seeds."""
    plt.rcParams["svg.fonttype"] = "none"
    lines = -(-len(tables) // 3)
    figure, panels = plt.subplots(lines, 3, figsize=(13.5, 3.8 * lines), squeeze=False)
    for axes in panels.flat[len(tables) :]:
        axes.remove()
    legend: dict[str, Any] = {}
    for axes, (pool, table) in zip(panels.flat, tables.items()):
        for number, name in ((n, name) for n, name in enumerate(SHOWN) if name in table):
            distance, spread = (cast(dict[str, float], table[name][key]) for key in ("distance", "distance_spread"))
            shares = [100 * b for b in BUDGETS]
            drawn = axes.errorbar(
                shares, [*distance.values()], [*spread.values()], color=f"C{number}", marker="o", capsize=2
            )
            legend[name] = drawn
        axes.set(title=pool, xlabel="documents paid for, % of the pool", xscale="log", xticks=shares)
        axes.set_xticks(shares, [f"{share:g}" for share in shares])
        axes.minorticks_off()
    panels[0][0].set_ylabel("distance of all pairs to the held-out reference")
    known = [name for name in SHOWN if name in legend]  # not every pool was read by all of them
    figure.legend([legend[name] for name in known], known, loc="lower center", ncols=len(known))
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(DOCS / "replay.svg", metadata={"Date": None})


def main() -> None:
    """Run what was asked for, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", nargs="+", default=list(SIGNAL))
    parser.add_argument(
        "--reference", choices=["gsm8k", "svamp", "aqua", "mbpp", "humaneval", "mmlu"], help="of a real pool"
    )
    usual = [name for name, setup in STRATEGIES.items() if setup.reward != "perplexity"]  # needs perplexities.py
    parser.add_argument("--strategy", nargs="+", choices=list(STRATEGIES), default=usual)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    names = list(dict.fromkeys(["random", "oracle", *arguments.strategy]))
    pool_names = [pool if pool in SIGNAL else f"{pool}-{arguments.reference}" for pool in arguments.pool]
    jobs = [(pool, seed, tuple(names)) for seed in range(arguments.seeds) for pool in pool_names]
    with Processes(arguments.processes) as processes:
        found = tqdm(processes.imap(run, jobs), total=len(jobs), unit="pool")
        figures = {job[:2]: by_name for job, by_name in zip(jobs, found)}
    kept = FOLDER / "replay.json"
    pools = {k: v for k, v in json.loads(kept.read_text()).items() if k != "commit"} if kept.exists() else {}
    for name, full_name in zip(arguments.pool, pool_names):
        pool = full_name if name not in SIGNAL and arguments.reference != MAIN_REFERENCE[name] else name
        measured = {each: [figures[full_name, seed][each] for seed in range(arguments.seeds)] for each in names}
        known = pools.get(pool, {}).get("strategies", {})
        pools[pool] = {"reference": full_name, "strategies": summary(measured, known)}
    DOCS.mkdir(exist_ok=True)
    with (DOCS / "replay.csv").open("w", newline="") as file:
        header = [*(f"distance_{b:g}" for b in BUDGETS), *(f"spread_{b:g}" for b in BUDGETS)]
        lines = csv.writer(file)
        lines.writerow(
            ["pool", "strategy", *header, "documents", "to_random", "to_oracle", "regret", "relevant_share"]
        )
        lines.writerows(row for pool, entry in pools.items() for row in print_table(pool, entry["strategies"]))
    plot({pool: entry["strategies"] for pool, entry in pools.items() if pool in (*SIGNAL, *MAIN_REFERENCE)})
    write("replay", {pool: {**entry, "default": DEFAULT} for pool, entry in pools.items()})


if __name__ == "__main__":
    main()

"""Pools to replay strategies on: every document's pairs are known beforehand, so a choice costs nothing.

`planted` is made here, in three regimes that differ in what a document's embedding tells of its pairs:

    planted         it shows the content of the pairs clearly (0.8 of it, beside topic and noise)
    planted_weak    hardly (0.1): relevant documents look like the others of their cluster
    planted_decoys  clearly, but for every relevant cluster five others look the same and give other pairs

Real pools are files in build/pools, which benchmarks/pool.py makes from a whole extraction.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent.parent / "build" / "pools"
#: end of the name of a real pool's file of losses, which benchmarks/perplexities.py makes
LOSSES = ".losses.npy"
NUM_DOCS, NUM_ARMS, DIM = 100_000, 1_000, 128
NUM_GUIDE, NUM_HELD_OUT = 40, 200
#: arms by share of relevant documents: how many, from, to
SHARES = ((30, 0.3, 0.9), (120, 0.02, 0.2), (850, 0.0, 0.004))
#: modes of the target, as kinds of question in a benchmark
NUM_MODES = 8
#: of documents by number of pairs 0 to 3, as the demo's small model gives them
YIELDS = (0.3, 0.35, 0.25, 0.1)
SIGNAL = {"planted": 0.8, "planted_weak": 0.1, "planted_decoys": 0.8}
#: clusters that look like relevant ones
NUM_DECOYS = 150
#: pairs of a relevant document that are of the target
PURITY = 0.8


@dataclass(frozen=True)
class Pool:
    """Documents, and the pairs that reading them gives.

    Attributes:
        documents: (n, d) unit vectors.
        arms: (n,) arm of each document.
        pairs: (p, d) unit vectors.
        pair_documents: (p,) row of each pair's document, rising.
        relevant: (p,) whether a pair is of the target; for measures alone.
        guide: (m, d) reference items that strategies see.
        held_out: (h, d) reference items that they are measured on.
        losses: (p,) of each pair under a model tuned on the guide, in nats a token; None where nobody measured them.
    """

    documents: np.ndarray
    arms: np.ndarray
    pairs: np.ndarray
    pair_documents: np.ndarray
    relevant: np.ndarray
    guide: np.ndarray
    held_out: np.ndarray
    losses: np.ndarray | None = None


def load(name: str, seed: int) -> Pool:
    """A planted pool of this seed, or the real one of this name from build/pools, such as needle_math-gsm8k.

    Raises:
        SystemExit: there is no such file.
    """
    if name in SIGNAL:
        return planted(seed, SIGNAL[name], decoys=name == "planted_decoys")
    path = FOLDER / f"{name}.npz"
    if not path.exists():
        raise SystemExit(f"--pool: {name} is neither one of {', '.join(SIGNAL)} nor in {path}; run benchmarks/pool.py")
    losses = path.with_name(name + LOSSES)
    known = {"losses": np.load(losses)} if losses.exists() else {}
    with np.load(path) as arrays:
        return Pool(**{key: arrays[key] for key in Pool.__annotations__ if key in arrays}, **known)


def planted(seed: int, signal: float, *, decoys: bool) -> Pool:
    """Make a pool.

    Args:
        seed: of everything.
        signal: how much a document's vector holds of its content; the rest is its cluster's topic and noise.
        decoys: five times as many clusters as are relevant look like them and give other pairs.
    """
    rng = np.random.default_rng(seed)
    common = unit(rng.normal(size=(1, DIM)))
    modes = unit(common + unit(rng.normal(size=(1, DIM))) + 0.8 * unit(rng.normal(size=(NUM_MODES, DIM))))
    topics = unit(common + 1.2 * unit(rng.normal(size=(NUM_ARMS, DIM))))
    arms = np.sort(rng.choice(NUM_ARMS, NUM_DOCS, p=rng.dirichlet(np.full(NUM_ARMS, 4.0))))
    share = rng.permutation(np.concatenate([rng.uniform(low, high, count) for count, low, high in SHARES]))
    relevant = rng.random(NUM_DOCS) < share[arms]
    looks = relevant.copy()
    if decoys:
        false = rng.choice(np.flatnonzero(share <= SHARES[-1][2]), NUM_DECOYS, replace=False)
        alike = dict(zip(false, rng.uniform(*SHARES[0][1:], len(false))))
        looks |= rng.random(NUM_DOCS) < np.array([alike.get(arm, 0.0) for arm in range(NUM_ARMS)])[arms]
    kind = rng.integers(NUM_MODES, size=NUM_DOCS)
    other = around(topics[arms], 0.8, rng)
    content = np.where(looks[:, None], around(modes[kind], 0.8, rng), other)
    noise = unit(rng.normal(size=(NUM_DOCS, DIM)))
    documents = unit(signal * content + (1 - signal) * topics[arms] + 0.6 * noise)
    of = np.repeat(np.arange(NUM_DOCS), rng.choice(len(YIELDS), NUM_DOCS, p=YIELDS))
    good = relevant[of] & (rng.random(len(of)) < PURITY)
    # content of a document that only looks relevant is not what its pairs are about
    pairs = around(np.where(good[:, None], around(modes[kind], 0.8, rng)[of], other[of]), 0.4, rng)
    reference = around(modes[rng.integers(NUM_MODES, size=NUM_GUIDE + NUM_HELD_OUT)], 0.9, rng)
    rows = [rows.astype(np.float32) for rows in (documents, pairs, reference)]
    return Pool(rows[0], arms, rows[1], of, good, rows[2][:NUM_GUIDE], rows[2][NUM_GUIDE:])


def around(centres: np.ndarray, spread: float, rng: np.random.Generator) -> np.ndarray:
    """A unit vector at about this distance from each centre."""
    away = unit(rng.normal(size=centres.shape)) * rng.uniform(0.7, 1.3, (len(centres), 1))
    return unit(centres + spread * away)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

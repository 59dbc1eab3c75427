"""What the truth says of the removals of a side of dedup.py: planted pairs found, partners by plain Python sets."""

from __future__ import annotations

import json
import os
import random
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pyarrow.parquet as pq
from passages import Plant, shingle_set

#: removals of a peer for which a partner is sought among all passages
SAMPLE, _SEED = 3_000, 17

Shingles = set[tuple[str, ...]]


def passages_of(source: Path) -> dict[str, str]:
    """Id and text of all passages."""
    table = pq.read_table(sorted(source.glob("*.parquet")))
    return dict(zip(table["id"].to_pylist(), table["text"].to_pylist()))


def evidence_of(out: Path) -> dict[str, tuple[str, float]]:
    """Our removals: for which passage each went, and the Jaccard that it says."""
    table = pq.read_table(out / "removals", columns=["doc_id", "evidence"])
    said = map(json.loads, table["evidence"].to_pylist())
    return {name: (row["kept"], row["jaccard"]) for name, row in zip(table["doc_id"].to_pylist(), said)}


def recall(plants: list[Plant], component: dict[str, str], least: float) -> float:
    """Share of the planted pairs at this Jaccard or above whose passages are in one component."""
    wanted = [plant for plant in plants if plant.jaccard >= least]
    joined = [component.get(p.source, p.source) == component.get(p.copy, p.copy) for p in wanted]
    return sum(joined) / len(wanted)


def recall_at_most(plants: list[Plant], removed: set[str], least: float) -> float:
    """The same of a side that does not say why a passage went: one of the two did, for whatever reason."""
    wanted = [plant for plant in plants if plant.jaccard >= least]
    return sum(plant.source in removed or plant.copy in removed for plant in wanted) / len(wanted)


def unproved(texts: dict[str, str], evidence: dict[str, tuple[str, float]], threshold: float) -> set[str]:
    """Removals that plain sets do not bear out.

    A removal must say its Jaccard to what was kept, which stays, and steps at the threshold must lead there within
    the component.
    """
    components = defaultdict(set)
    for name, (kept, _) in evidence.items():
        components[kept].add(name)
    wrong = {name for name, (kept, _) in evidence.items() if kept in evidence}
    for kept, left in components.items():
        sets = {name: _shingles(texts[name]) for name in (kept, *left)}
        wrong |= {name for name in left if abs(_jaccard(sets[name], sets[kept]) - evidence[name][1]) > 1e-6}
        reached = [kept]
        while reached and left:
            own = sets[reached.pop()]
            near = {name for name in left if _jaccard(own, sets[name]) >= threshold}
            reached += near
            left -= near
        wrong |= left
    return wrong


def share_with_partner(source: Path, texts: dict[str, str], removed: set[str], threshold: float) -> float:
    """Share of a sample of the removals that have a partner at the threshold among all other passages."""
    if not removed:
        return 1.0
    sample = random.Random(_SEED).sample(sorted(removed), min(SAMPLE, len(removed)))
    sizes, owners = {}, defaultdict(list)
    for name in sample:
        own = _shingles(texts[name])
        sizes[name] = len(own)
        for shingle in own:
            owners[shingle].append(name)
    search = partial(_partnered, owners=dict(owners), sizes=sizes, threshold=threshold)
    with ProcessPoolExecutor(os.cpu_count(), get_context("fork")) as pool:
        found = set().union(*pool.map(search, sorted(source.glob("*.parquet"))))
    return len(found) / len(sample)


def _partnered(
    file: Path, owners: dict[tuple[str, ...], list[str]], sizes: dict[str, int], threshold: float
) -> set[str]:
    """Those of the sample that have a partner in a file: by the shingles that each passage shares with them."""
    found = set()
    for row in pq.read_table(file).to_pylist():
        own = _shingles(row["text"])
        shared = Counter(name for shingle in own & owners.keys() for name in owners[shingle])
        shared.pop(row["id"], None)
        found |= {name for name, n in shared.items() if n / (len(own) + sizes[name] - n) >= threshold}
    return found


def _shingles(text: str) -> Shingles:
    """A text without words is like its copies alone."""
    return shingle_set(text) or {(text,)}


def _jaccard(left: Shingles, right: Shingles) -> float:
    common = len(left & right)
    return common / (len(left) + len(right) - common)

"""A corpus with a known truth: passages cut from real documents, near duplicates planted at known Jaccard.

Every document of the data folder is cut into passages of 108 words; when more are asked for than that gives, it is
cut again half a passage further on. A planted pair is a passage and a changed copy whose word 5-gram sets have a
Jaccard similarity that is counted here with plain Python sets, one planted for every step from 0.5 to 1.0.

    python benchmarks/passages.py --data ../shared/data/docs --count 100000 --out build/passages
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from equal.core.ngrams import words

WORDS, SHINGLE, SHARDS = 108, 5, 8
#: starts of the cuts, in words: passages of two cuts share at most half their words, far below any threshold
STARTS = (0, 54)
STEPS = tuple(round(0.5 + 0.05 * step, 2) for step in range(11))
PLANTS_A_STEP = 2_000
_SEED = 17


@dataclass(frozen=True)
class Plant:
    """A planted pair: ids of the passage and of its changed copy, and their exact Jaccard."""

    source: str
    copy: str
    jaccard: float


def cut(folder: Path, count: int) -> Iterator[str]:
    """At most `count` passages, in a fixed order."""
    left = count
    for start in STARTS:
        for file in sorted(folder.rglob("*.jsonl.gz")):
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                for line in lines:
                    tokens = json.loads(line)["text"].split(" ")[start:]
                    for at in range(0, len(tokens), WORDS):
                        if left == 0:
                            return
                        if part := tokens[at : at + WORDS]:
                            yield " ".join(part)
                            left -= 1


def shingle_set(text: str) -> set[tuple[str, ...]]:
    """Word 5-grams by the n-gram rule, without any of the code under test but that rule."""
    found = words(text)
    return {tuple(found[i : i + SHINGLE]) for i in range(max(len(found) - SHINGLE + 1, 1))} if found else set()


def jaccard(left: str, right: str) -> float:
    """Of two texts, by plain sets."""
    a, b = shingle_set(left), shingle_set(right)
    return len(a & b) / len(a | b) if a | b else 0.0


def changed(text: str, target: float, rng: random.Random) -> str:
    """A copy of which one end is other words, as many as bring the Jaccard near `target`; 1.0 only wraps the lines."""
    if target == 1.0:
        return text.replace(" ", "\n")
    tokens = text.split(" ")
    shingles = len(tokens) - SHINGLE + 1
    shared = round(2 * shingles * target / (1 + target))
    kept = shared + SHINGLE - 1
    fresh = [f"w{rng.randrange(10**8)}x" for _ in range(len(tokens) - kept)]
    return " ".join(tokens[:kept] + fresh if rng.random() < 0.5 else fresh + tokens[len(tokens) - kept :])


def make(folder: Path, count: int, out: Path) -> None:
    """Write `count` passages, plants among them, as JSON lines and Parquet in the same order, and the truth."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = random.Random(_SEED)
    per_step = min(PLANTS_A_STEP, count // 50)
    texts = list(cut(folder, count - per_step * len(STEPS)))
    if len(texts) + per_step * len(STEPS) < count:
        raise ValueError(f"--count: {count}, allowed: at most {len(texts) + per_step * len(STEPS)} of {folder}")
    ids = [f"p{i:07d}" for i in range(len(texts))]
    long = [i for i, text in enumerate(texts) if len(text.split(" ")) >= 100]
    plants = []
    for number, source in enumerate(rng.sample(long, per_step * len(STEPS))):
        copy = changed(texts[source], STEPS[number % len(STEPS)], rng)
        plants.append(Plant(ids[source], f"c{number:07d}", jaccard(texts[source], copy)))
        ids.append(plants[-1].copy)
        texts.append(copy)
    order = list(range(len(texts)))
    rng.shuffle(order)
    out.mkdir(parents=True, exist_ok=True)
    for shard in range(SHARDS):
        part = order[shard::SHARDS]
        table = pa.table({"id": [ids[i] for i in part], "text": [texts[i] for i in part]})
        pq.write_table(table, out / f"part-{shard}.parquet", row_group_size=20_000)
        with (out / f"part-{shard}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"id": ids[i], "text": texts[i]}, ensure_ascii=False) + "\n" for i in part)
    (out / "plants.json").write_text(json.dumps([[p.source, p.copy, p.jaccard] for p in plants]))


def read_plants(folder: Path) -> list[Plant]:
    """The truth of a corpus that `make` wrote."""
    return [Plant(*row) for row in json.loads((folder / "plants.json").read_text())]


def ensure(data: Path, count: int, build: Path) -> Path:
    """The folder of the corpus of this size, made when it is not there."""
    out = build / f"passages-{count}-of-{WORDS}"
    if not (out / "plants.json").exists():
        make(data, count, out)
    return out


def main() -> None:
    """Make a corpus and say what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of .jsonl.gz files with a field text")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("build"))
    arguments = parser.parse_args()
    out = ensure(arguments.data, arguments.count, arguments.out)
    plants = read_plants(out)
    print(f"{out}: {arguments.count:,} passages, {len(plants):,} planted pairs")


if __name__ == "__main__":
    main()

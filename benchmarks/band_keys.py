"""Texts to LSH band keys on one core: ours beside rensa and datasketch, on the same passages. One table.

The first half of near deduplication, without reading, shuffling or verification: words, 5-word shingles, 112 hash
functions, 14 bands of 8. A peer runs in a virtual environment of its own under build/peers, in its natural way:
text.split(), shingles joined by spaces, its own hashes. It stops at the signature; ours folds that into bands too.

    python benchmarks/band_keys.py --data ../shared/data/docs
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from equal.core.minhash import Permutations
from equal.core.texts import Texts

PEERS = Path(__file__).resolve().parent.parent / "build" / "peers"
WORDS, NUM_PASSAGES, REPEATS = 120, 20_000, 5
#: what a peer's own Python runs: passages on stdin, seconds of each repeat on stdout
PEER = """
import json, sys, time
texts, repeats = json.load(sys.stdin)
{imports}
for _ in range(repeats):
    started = time.perf_counter()
    for text in texts:
        tokens = text.split()
        shingles = [" ".join(tokens[i : i + 5]) for i in range(max(len(tokens) - 4, 1))]
        {body}
    print(time.perf_counter() - started, flush=True)
"""
CODE = {
    "rensa==0.5.0": (
        "from rensa import RMinHash",
        "m = RMinHash(num_perm=112, seed=17); m.update(shingles); m.digest()",
    ),
    "datasketch==1.6.5": (
        "from datasketch import MinHash",
        "m = MinHash(num_perm=112, seed=17); m.update_batch([s.encode() for s in shingles]); m.digest()",
    ),
}


def passages(folder: Path) -> list[str]:
    """Passages of 120 words, an equal number from every file."""
    files = sorted(folder.rglob("*.jsonl.gz"))
    found: list[str] = []
    for file in files:
        own: list[str] = []
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                tokens = json.loads(line)["text"].split(" ")
                own += [" ".join(tokens[i : i + WORDS]) for i in range(0, len(tokens), WORDS)]
                if len(own) >= NUM_PASSAGES // len(files):
                    break
        found += own[: NUM_PASSAGES // len(files)]
    return found


def ours(texts: list[str]) -> list[float]:
    """Seconds of each repeat, from bytes as Arrow holds them to keys."""
    encoded = [text.encode() for text in texts]
    permutations = Permutations.seeded(bands=14, rows=8, seed=17)
    seconds = []
    for _ in range(REPEATS + 1):  # the first compiles
        started = time.perf_counter()
        permutations.band_keys(Texts.of_utf8(encoded).readable(), 5)
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def peer(package: str, texts: list[str], repeats: int) -> list[float]:
    """The same of a peer; its environment is made if it is not there."""
    python = PEERS / package.split("==")[0] / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parent.parent)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", package], check=True)
    imports, body = CODE[package]
    done = subprocess.run(
        [str(python), "-c", PEER.format(imports=imports, body=body)],
        input=json.dumps([texts, repeats]), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [float(line) for line in done.stdout.split()]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of .jsonl.gz files with a field text")
    texts = passages(parser.parse_args().data)
    rows = {"ours": ours(texts), **{name: peer(name, texts, REPEATS) for name in CODE}}
    print(f"{len(texts):,} passages of {sum(map(len, texts)) / len(texts):.0f} characters")
    print(f"{'':20}{'passages/s':>12}{'spread':>20}{'ours is':>10}")
    base = statistics.median(rows["ours"])
    for name, seconds in rows.items():
        spread = f"{len(texts) / max(seconds):,.0f} to {len(texts) / min(seconds):,.0f}"
        times = f"{statistics.median(seconds) / base:.1f} x"
        print(f"{name:20}{len(texts) / statistics.median(seconds):>12,.0f}{spread:>20}{times:>10}")


if __name__ == "__main__":
    main()

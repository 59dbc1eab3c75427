"""The peers of dedup.py: each in a virtual environment of its own, as its own examples use it, near threshold 0.7.

A peer reads `IN/*.jsonl` (id, text) and writes the passages that it keeps to `OUT/*.jsonl`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BUILD = Path(__file__).resolve().parent.parent / "build"
#: name -> (packages, script)
PEERS: dict[str, tuple[list[str], str]] = {
    "rensa": (
        ["rensa==0.5.0", "orjson"],
        """
import sys, pathlib, orjson
from rensa import RMinHash, RMinHashLSH
source, out = map(pathlib.Path, sys.argv[1:])
lsh = RMinHashLSH(threshold=0.7, num_perm=128, num_bands=16)
with (out / "kept.jsonl").open("wb") as kept:
    number = 0
    for file in sorted(source.glob("*.jsonl")):
        for line in file.open("rb"):
            tokens = orjson.loads(line)["text"].split()
            sketch = RMinHash(num_perm=128, seed=17)
            sketch.update([" ".join(tokens[i : i + 5]) for i in range(max(len(tokens) - 4, 1))])
            if not lsh.query(sketch):
                lsh.insert(number, sketch)
                kept.write(line)
            number += 1
""",
    ),
    "datasketch": (
        ["datasketch==1.6.5", "orjson"],
        """
import sys, pathlib, orjson
from datasketch import MinHash, MinHashLSH
source, out = map(pathlib.Path, sys.argv[1:])
lsh = MinHashLSH(threshold=0.7, num_perm=128)
with (out / "kept.jsonl").open("wb") as kept:
    number = 0
    for file in sorted(source.glob("*.jsonl")):
        for line in file.open("rb"):
            tokens = orjson.loads(line)["text"].split()
            sketch = MinHash(num_perm=128, seed=17)
            sketch.update_batch([" ".join(tokens[i : i + 5]).encode() for i in range(max(len(tokens) - 4, 1))])
            if not lsh.query(sketch):
                lsh.insert(number, sketch)
                kept.write(line)
            number += 1
""",
    ),
    "text-dedup": (
        ["text-dedup==0.4.0", "orjson"],
        """
import sys, pathlib, orjson
from datasets import load_from_disk
from text_dedup.minhash import main
source, out = map(pathlib.Path, sys.argv[1:])
if __name__ == "__main__":
    options = {
        "path": "json", "data_files": str(source / "*.jsonl"), "split": "train", "column": "text",
        "cache_dir": str(out / "cache"), "output": str(out / "arrow"), "ngram": "5", "threshold": "0.7",
        "num_perm": "128", "hash_func": "xxh3", "num_proc": "2", "batch_size": "10000", "use_auth_token": "false",
    }
    main([part for name, value in options.items() for part in ("--" + name, value)], standalone_mode=False)
    with (out / "kept.jsonl").open("wb") as kept:  # it leaves Arrow files
        for batch in load_from_disk(str(out / "arrow")).iter(batch_size=10000):
            for pair in zip(batch["id"], batch["text"]):
                kept.write(orjson.dumps(dict(zip(("id", "text"), pair))) + bytes([10]))
""",
    ),
    "datatrove": (
        ["datatrove[io,processing]==0.10.0", "orjson", "spacy"],
        """
import sys, pathlib
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.hashing import HashConfig

if __name__ == "__main__":
    source, out = sys.argv[1:]
    config = MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8, n_grams=5)
    reader = lambda: JsonlReader(source, glob_pattern="*.jsonl", compression=None)
    work = out + "/work"
    stages = [
        ([reader(), MinhashDedupSignature(work + "/signatures", config=config)], 2),
        ([MinhashDedupBuckets(work + "/signatures", work + "/buckets", config=config)], 14),
        ([MinhashDedupCluster(work + "/buckets", work + "/remove", config=config)], 1),
        ([reader(), MinhashDedupFilter(work + "/remove"), JsonlWriter(out, compression=None)], 2),
    ]
    for number, (pipeline, tasks) in enumerate(stages):
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=2, logging_dir=f"{work}/log{number}").run()
""",
    ),
}


def python_of(name: str) -> Path:
    """The interpreter of a peer, its environment made when it is not there."""
    home = BUILD / "peers" / name
    python, packages = home / "bin" / "python", PEERS[name][0]
    installed = home / "installed"  # written last: without it an installation that failed would count
    if not installed.exists() or installed.read_text() != str(packages):
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
        installed.write_text(str(packages))
    return python


def command(name: str, source: Path, out: Path) -> list[str]:
    """What runs a peer; its script is written beside its output."""
    out.mkdir(parents=True, exist_ok=True)
    script = out / "peer.py"
    script.write_text(PEERS[name][1])
    return [str(python_of(name)), str(script), str(source), str(out)]

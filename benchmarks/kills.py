"""What does a run repeat that is killed again and again, and does it end in the same tables? One table.

The job `extract` in processes of its own, over real HTTP and Delta: once undisturbed, once with kill -9 at random
moments (a random number of calls, then up to three seconds, so that commits are met, too). Every second kill takes
the driver with its JVM and all workers, and the job is started again; the others take one Python worker, and Spark or
a new start goes on. Repeated is at most what was in flight, so the ratio depends on that: two requests at once here,
for 20 kills in 2,000 calls. A model that is asked more at once repeats more for a kill.

    python benchmarks/kills.py
    python benchmarks/kills.py --kills 3 --calls 300
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path

import psutil
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from results import write

from equal.config import RunConfig, load
from equal.io.stage import run_stage
from equal.jobs.pipeline import ARMS, CORPUS

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from chat_server import ChatServer
from extract_world import GUIDE, TOPICS, settings_file

IN_FLIGHT, LATENCY_S, ITERATIONS, NUM_ARMS, ARMS_AT_ONCE = 2, 0.02, 12, 6, 2
#: what must not depend on how often a run was killed
COMPARED = {
    "extractions": ["iteration", "arm_id", "doc_id", "pass", "final", "status", "num_pairs", "prompt_tokens"],
    "qa_pairs": ["pair_id", "iteration", "arm_id", "doc_id", "question", "answer", "embedding"],
    "arm_history": ["iteration", "arm_id", "pulls", "documents", "pairs", "reward", "standard_error", "ds_score"],
    "iterations": ["iteration", "arms", "documents", "pairs", "total_documents", "total_tokens", "stop_reason"],
    "selected_pairs": ["pair_id", "rank", "score"],
}


def prepared(root: Path, server: ChatServer, calls: int, depth: int) -> RunConfig:
    """A corpus in clusters; no warm-up, so that every call is one of the run's."""
    (root / "in").mkdir(parents=True)
    lines = [
        {
            "id": f"d{i}",
            "text": f"{TOPICS[i % len(TOPICS)]}, as page {i} says. It was printed {i} years ago in town {i * 7}.",
        }
        for i in range(calls + calls // 10)
    ]
    (root / "in" / "docs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (root / "guide.jsonl").write_text(json.dumps(GUIDE))
    config = load(
        overrides=[
            f"storage.root={root}/store", f"documents.path={root}/in", "documents.min_chars=20",
            "deduplicate.threshold=1.0", f"reference.guide={root}/guide.jsonl", "decontaminate.benchmarks={}",
            "spark.partitions=2", "encoder.max_tokens=64", "warm_up.enabled=false", f"cluster.k={NUM_ARMS}",
            "cluster.max_sweep_share=1.0", "run_name=r",
            f"endpoint.url={server.url}", f"endpoint.model={server.model}",
            f"endpoint.in_flight={IN_FLIGHT}", "extraction.answer=quoted", "extraction.refine=false",
            "extraction.min_answer_similarity=0.0", f"bandit.docs_per_pull={-(-calls // ITERATIONS // ARMS_AT_ONCE)}",
            f"bandit.arms_per_iteration={ARMS_AT_ONCE}", f"budget.documents={calls}", "budget.fraction=0",
            "transport.bootstrap=4", f"bandit.pipeline_depth={depth}",
        ]
    )  # fmt: skip
    for stage, body in (CORPUS | ARMS).items():
        run_stage(config, stage, body)
    if session := SparkSession.getActiveSession():
        session.stop()
    return config


class Runs:
    """Starts the jobs of one copy of the corpus."""

    def __init__(self, config: RunConfig, root: Path) -> None:
        shutil.copytree(config.storage.root, root / "store")
        self.root = root / "store"
        config = replace(config, storage=replace(config.storage, root=str(self.root)))
        self._settings, self._log = settings_file(config, root / "job.json"), (root / "job.log").open("wb")

    def start(self, job: str = "extract") -> subprocess.Popen[bytes]:
        """A job in a process group of its own; a task that dies is tried again, as on a cluster."""
        return subprocess.Popen(
            [sys.executable, str(ROOT / "jobs" / f"{job}.py"), "--config", str(self._settings)],
            stdout=self._log, stderr=self._log, start_new_session=True,
            env={**os.environ, "SPARK_MASTER": "local[2,4]"},
        )  # fmt: skip

    def finish(self, job: str = "extract") -> None:
        """Start a job until it ends well, as often as a user would."""
        for _ in range(5):
            if not self.start(job).wait():
                return
        raise RuntimeError(f"{job} does not end; see {self._log.name}")

    def tables(self) -> dict[str, list[str]]:
        """What is compared."""
        return {
            name: sorted(
                repr(row)
                for row in DeltaTable(str(self.root / "tables" / name)).to_pyarrow_table(columns=columns).to_pylist()
            )
            for name, columns in COMPARED.items()
        }


def kill_one(kind: str, process: subprocess.Popen[bytes], rng: random.Random) -> bool:
    """Whether there was something to kill."""
    if kind == "driver":
        if process.poll() is not None:
            return False
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    try:
        found = [
            child for child in psutil.Process(process.pid).children(recursive=True) if "daemon" in _command(child)
        ]
        workers = [child for child in found if not child.children()]  # the daemon itself has them as children
        rng.choice(workers).kill()
    except (psutil.Error, IndexError):
        return False
    return True


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def disturbed(runs: Runs, server: ChatServer, kills: int, calls: int, seed: int) -> Counter[str]:
    """Kill, start again, and at last let it end."""
    rng, met, give_up = random.Random(seed), Counter[str](), time.monotonic() + 3600
    after = sorted(rng.randrange(1, int(calls * 0.97)) for _ in range(kills))
    process = runs.start()
    for number, wanted in enumerate(after):
        kind = "worker" if number % 2 else "driver"
        done = False
        while not done and time.monotonic() < give_up:
            if process.poll() == 0:  # it came to its end before this kill
                break
            if process.poll() is not None:
                process = runs.start()
            if len(server.bodies) >= wanted:
                time.sleep(rng.uniform(0, 3))
                done = kill_one(kind, process, rng)
            time.sleep(0.02)
        met[kind] += done
    process.wait()
    runs.finish()
    return met


def main() -> None:
    """Both runs, and what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--depth", type=int, default=2, help="bandit.pipeline_depth")
    args = parser.parse_args()
    ThreadingHTTPServer.handle_error = lambda *_: None  # clients that break off, which is what is tested
    os.environ["EQUAL_ENDPOINT_KEY"] = ""
    with tempfile.TemporaryDirectory() as folder, ChatServer() as server:
        config = prepared(Path(folder) / "corpus", server, args.calls, args.depth)
        server.delay_s = LATENCY_S
        clean, killed = (Runs(config, Path(folder) / name) for name in ("clean", "killed"))
        clean.finish()
        undisturbed = len(server.bodies)
        server.bodies.clear()
        met = disturbed(killed, server, args.kills, args.calls, args.seed)
        for runs in (clean, killed):
            runs.finish("select_pairs")
        after = killed.tables()
        equal = {name: rows == after[name] for name, rows in clean.tables().items()}
        ratio = len(server.bodies) / undisturbed
    print(f"{'kills':24}{sum(met.values()):>8}   {dict(met)}")
    print(f"{'calls, undisturbed':24}{undisturbed:>8}\n{'calls, killed':24}{len(server.bodies):>8}   {ratio:.4f}")
    print(f"{'tables':24}{', '.join(f'{name} {same}' for name, same in equal.items())}")
    figures = {"kills": sum(met.values()), "worst_calls_ratio": round(ratio, 4), "tables_equal": all(equal.values())}
    write("kills", {**figures, "calls": undisturbed, "in_flight": IN_FLIGHT, "pipeline_depth": args.depth, **met})


if __name__ == "__main__":
    main()

"""What does a run repeat that is killed again and again, and does it end in the same tables? One table.

The job `extract` in processes of its own, over real HTTP and Delta: once undisturbed, once with kill -9 at random
moments. Every second kill takes the driver with its JVM, its Python daemon and all workers, and the job is started
again; the others take one Python worker that has a request open, and Spark goes on. After each kill at least one more
call is waited for, then a random number of calls; of either kind every second kill falls while a request is open, and
the others up to three seconds later, so that commits are met, too. A job that ends for any other reason is counted,
and the benchmark then fails.

Repeated is at most what was in flight, so the ratio depends on that: two requests at once here, for 20 kills in 2,000
calls. A model that is asked more at once repeats more for a kill.

The encoder is a tiny one with random weights: what is tested is replies and commits, and of an embedding only that it
is the same again.

    python benchmarks/kills.py
    python benchmarks/kills.py --kills 4 --calls 400
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from deltalake import DeltaTable
from results import write

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import conftest  # noqa: F401  what it sets for the tests' Java is right here, too: processes that live for seconds
from chat_server import ChatServer
from equal.config import RunConfig, load
from equal.io.session import open_session
from equal.io.stage import run_stage
from equal.jobs.pipeline import ARMS, CORPUS, RUN
from extract_world import GUIDE, TOPICS, settings_file
from killing import kill_all, kill_worker, start, workers_asking
from tiny_encoder import make_tiny_encoder

IN_FLIGHT, LATENCY_S, ITERATIONS, NUM_ARMS, ARMS_AT_ONCE, LATER_S = 2, 0.02, 12, 6, 2, 3.0
#: of the calls, within which all kills fall: the run must not end before them
WITHIN = 0.9
#: what must not depend on how often a run was killed
COMPARED = {
    "extractions": ["iteration", "arm_id", "doc_id", "pass", "final", "status", "num_pairs", "prompt_tokens"],
    "qa_pairs": ["pair_id", "iteration", "arm_id", "doc_id", "question", "answer", "embedding"],
    "arm_history": ["iteration", "arm_id", "pulls", "documents", "pairs", "reward", "standard_error", "ds_score"],
    "iterations": ["iteration", "arms", "documents", "pairs", "total_documents", "total_tokens", "stop_reason"],
    "selected_pairs": ["pair_id", "rank", "score"],
}


def prepared(server: ChatServer, calls: int, depth: int) -> RunConfig:
    """A corpus in clusters, kept in build/ for the next time; no warm-up, so that every call is one of the run's."""
    texts = [
        f"{TOPICS[i % len(TOPICS)]}, as page {i} says. It was printed {i} years ago in town {i * 7}."
        for i in range(calls + calls // 10)
    ]
    settings = [
        "documents.min_chars=20", "deduplicate.threshold=1.0", "decontaminate.benchmarks={}", "spark.partitions=2",
        "encoder.max_tokens=64", "warm_up.enabled=false", f"cluster.k={NUM_ARMS}", "cluster.max_sweep_share=1.0",
        "run_name=r", f"endpoint.model={server.model}", f"endpoint.in_flight={IN_FLIGHT}", "extraction.answer=quoted",
        "extraction.refine=false", "extraction.min_answer_similarity=-1.0", "transport.bootstrap=4",
        f"bandit.docs_per_pull={-(-calls // ITERATIONS // ARMS_AT_ONCE)}", f"bandit.arms_per_iteration={ARMS_AT_ONCE}",
        f"bandit.pipeline_depth={depth}", f"budget.documents={calls}", "budget.fraction=0",
    ]  # fmt: skip
    made_of = [*settings, *texts, (ROOT / "lib" / "equal" / "schemas.py").read_text()]
    root = ROOT / "build" / "kills" / hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]
    paths = [
        f"storage.root={root}/store", f"documents.path={root}/in", f"reference.guide={root}/guide.jsonl",
        f"encoder.model={root}/encoder", f"endpoint.url={server.url}",
    ]  # fmt: skip
    if not (root / "done").exists():
        shutil.rmtree(root, ignore_errors=True)
        (root / "in").mkdir(parents=True)
        lines = [json.dumps({"id": f"d{i}", "text": text}) for i, text in enumerate(texts)]
        (root / "in" / "docs.jsonl").write_text("\n".join(lines))
        (root / "guide.jsonl").write_text(json.dumps(GUIDE))
        make_tiny_encoder(str(root / "encoder"), texts[: len(TOPICS)])
        config = load(overrides=settings + paths)
        for stage, body in (CORPUS | ARMS).items():
            run_stage(config, stage, body)
        open_session(1).stop()  # it would take memory and time from the runs
        (root / "done").touch()
    return load(overrides=settings + paths)


class Runs:
    """Starts the jobs of one copy of the corpus."""

    def __init__(self, config: RunConfig, root: Path) -> None:
        shutil.copytree(config.storage.root, root / "store")
        self.root = root / "store"
        self.config = replace(config, storage=replace(config.storage, root=str(self.root)))
        self._settings, self._log = settings_file(self.config, root / "job.json"), (root / "job.log").open("wb")

    def start(self) -> subprocess.Popen[bytes]:
        """The job; a task that dies is tried again, as on a cluster."""
        command = [sys.executable, str(ROOT / "jobs" / "extract.py"), "--config", str(self._settings)]
        return start(command, self._log, SPARK_MASTER="local[2,4]", SPARK_DRIVER_MEMORY="1g")

    def log(self) -> str:
        """The end of what the jobs said."""
        return Path(self._log.name).read_text(errors="replace")[-3000:]

    def tables(self) -> dict[str, list[str]]:
        """What is compared."""
        return {
            name: sorted(
                repr(row)
                for row in DeltaTable(str(self.root / "tables" / name)).to_pyarrow_table(columns=columns).to_pylist()
            )
            for name, columns in COMPARED.items()
        }


@dataclass
class Kill:
    """One kill: what it took, when, and what was asked again between it and the next.

    Attributes:
        calls: that had come to the server.
        open_requests: that it was working on.
    """

    kind: str
    later: bool
    calls: int
    open_requests: int
    repeated: int = 0


def kill_one(kind: str, later: bool, job: subprocess.Popen[bytes], server: ChatServer, rng: random.Random) -> bool:
    """Whether it could be done now."""
    if kind == "driver":
        if later or server._in_flight:
            kill_all(job)
            return True
        return False
    workers = workers_asking(job, server.port)
    return bool(workers) and (later or server._in_flight > 0) and kill_worker(rng.choice(workers))


def disturbed(runs: Runs, server: ChatServer, num_kills: int, calls: int, seed: int) -> tuple[list[Kill], int]:
    """Kill, start again, and at last let it end; the kills, and how often the job ended badly by itself."""
    rng, kills, died, give_up = random.Random(seed), list[Kill](), 0, time.monotonic() + 3600
    job = runs.start()
    for number in range(num_kills):
        kind, later = ("driver", "worker")[number % 2], number // 2 % 2 == 1
        came, left = len(server.bodies), num_kills - number
        # so drawn one after the other, they are as random moments put in order
        wanted = came + max(1, round((WITHIN * calls - came) * (1 - rng.random() ** (1 / left))))
        ready_at = 0.0
        while True:
            assert time.monotonic() < give_up, runs.log()
            if (status := job.poll()) is not None:
                assert status, f"the run ended after {len(kills)} of {num_kills} kills"
                died, job = died + 1, runs.start()
            if len(server.bodies) >= wanted:
                ready_at = ready_at or time.monotonic() + later * rng.uniform(0, LATER_S)
                if time.monotonic() >= ready_at:
                    kill = Kill(kind, later, len(server.bodies), server._in_flight)
                    if kill_one(kind, later, job, server, rng):
                        break
            time.sleep(0.005)
        kills.append(kill)
        print(f"{number + 1:>3} {kind:8}{'later' if later else 'at once':8}{kill.calls:>6} calls, "
              f"{kill.open_requests} open", flush=True)  # fmt: skip
        if kind == "driver":
            job = runs.start()
    while job.wait():
        assert time.monotonic() < give_up, runs.log()
        died, job = died + 1, runs.start()
    return kills, died


def count_repeats(kills: list[Kill], asked: list[str]) -> None:
    """Write to every kill how many calls after it, and before the next, had come before."""
    seen: set[str] = set()
    for number, call in enumerate(asked):
        if call in seen:
            next(kill for kill in reversed(kills) if kill.calls <= number).repeated += 1
        seen.add(call)


def main() -> None:
    """Both runs, and what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--depth", type=int, default=2, help="bandit.pipeline_depth")
    args = parser.parse_args()
    os.environ["EQUAL_ENDPOINT_KEY"], started = "", time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ChatServer() as server:
        config = prepared(server, args.calls, args.depth)
        server.delay_s = LATENCY_S
        clean, killed = (Runs(config, Path(folder) / name) for name in ("clean", "killed"))
        assert clean.start().wait() == 0, clean.log()
        undisturbed = len(server.bodies)
        print(f"{undisturbed} calls, undisturbed, after {time.monotonic() - started:.0f} s", flush=True)
        server.bodies.clear()
        kills, died = disturbed(killed, server, args.kills, args.calls, args.seed)
        count_repeats(kills, [json.dumps(body["messages"]) for body in server.bodies])
        for runs in (clean, killed):
            run_stage(runs.config, "select", RUN["select"])
        after = killed.tables()
        equal = {name: rows == after[name] for name, rows in clean.tables().items()}
        called = len(server.bodies)
    report(kills, died, undisturbed, called, equal)
    figures = {
        "kills": len(kills), "worst_calls_ratio": round(called / undisturbed, 4), "tables_equal": all(equal.values()),
        "calls": undisturbed, "repeated": sum(kill.repeated for kill in kills), "died_otherwise": died,
        "open_requests": sum(kill.open_requests for kill in kills), "in_flight": IN_FLIGHT,
        "pipeline_depth": args.depth, "seconds": round(time.monotonic() - started),
        **{kind: sum(kill.kind == kind for kill in kills) for kind in ("driver", "worker")},
    }  # fmt: skip
    write("kills", figures)
    if died or len(kills) < args.kills or not all(equal.values()):
        sys.exit("the run ended badly by itself, or its tables differ; see above")


def report(kills: list[Kill], died: int, undisturbed: int, called: int, equal: dict[str, bool]) -> None:
    """Print the table."""
    print(f"\n{'killed':8}{'moment':9}{'calls':>6}{'open':>6}{'repeated':>10}")
    for kill in kills:
        moment = "later" if kill.later else "at once"
        print(f"{kill.kind:8}{moment:9}{kill.calls:>6}{kill.open_requests:>6}{kill.repeated:>10}")
    print(f"\n{'ended badly by itself':24}{died:>8}\n{'calls, undisturbed':24}{undisturbed:>8}")
    print(f"{'calls, killed':24}{called:>8}   {called / undisturbed:.4f}")
    print(f"{'tables':24}{', '.join(f'{name} {same}' for name, same in equal.items())}")


if __name__ == "__main__":
    main()

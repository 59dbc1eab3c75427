"""Does every document get one outcome, and none twice, from a server that does everything wrong? One table.

The job `extract` on local Spark and Delta over 2,000 documents in two passes and four iterations, over real HTTP. Of
the requests 30 % meet a fault, drawn from all that tests/chat_server.py knows. A refused key and an unknown model come
once each, as either stops the run: it is run again, as a user would after the remedy. Once the server goes away and
comes back. It is counted as a user would, from the files that went in to the tables that came out: a document is
accounted for when it has exactly one final row in `extractions`; the statuses of these rows must add up to what
`iterations` and `costs` say was read, their pairs to the rows of `qa_pairs`, and no pair may stand there twice.

Calls are HTTP requests that came to the server, over all runs; attempts are those that the committed rows tell of,
closed doors too. What was answered, even with a model's bad words, and yet asked again, was paid for twice.

The encoder is a tiny one with random weights: nothing is asked of a vector here but that it is the text's own.

    python benchmarks/faults.py
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from results import write

from equal.config import RunConfig, load
from equal.core.checks import same_question
from equal.errors import EndpointError
from equal.io.stage import run_stage
from equal.jobs.pipeline import ARMS, CORPUS, RUN

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from chat_server import FAULTS, ChatServer, passage_of
from extract_world import GUIDE
from tiny_encoder import make_tiny_encoder

SHARE, IN_FLIGHT, AWAY_S, NUM_ARMS, ARMS_AT_ONCE = 0.3, 32, 2.0, 8, 2
#: these stop a run: document -> fault, once
STOPS = {"0500": "unauthorised", "0800": "unknown_model"}
KINDS = sorted(set(FAULTS) - set(STOPS.values()))
NOUNS = ("tin", "lead", "gold", "iron", "zinc", "neon", "argon", "xenon", "boron", "carbon", "sulphur", "cobalt")


class Misfortune:
    """Which request meets which fault: a hash of its passage, its pass and how often it came."""

    def __init__(self, seed: int) -> None:
        self.seed, self.met, self.paid = seed, Counter[str](), Counter[str]()
        self._seen, self._lock = Counter[str](), threading.Lock()

    def __call__(self, body: dict[str, Any]) -> str:
        """The fault of this request; "" for none."""
        about = f"{passage_of(body)}|{len(body['messages'])}|{'<drafts>' in body['messages'][-1]['content']}"
        with self._lock:
            self._seen[about] += 1
            stop = next((doc_id for doc_id in STOPS if f"Document {doc_id} " in about), "")
            if stop and not self.met[STOPS[stop]]:
                fault = STOPS[stop]
            else:
                draw = hashlib.blake2b(f"{self.seed}|{about}|{self._seen[about]}".encode(), digest_size=8).digest()
                number = int.from_bytes(draw, "big")
                fault = KINDS[number % len(KINDS)] if (number >> 20) % 1000 < 1000 * SHARE else ""
            self.met[fault] += 1
            self.paid[about] += fault in ("", "huge") or fault.startswith("says")
            return fault


def text_of(number: int) -> str:
    """Four sentences, every second document twice as long and so in two passages."""
    name = NOUNS[number % len(NOUNS)]
    return " ".join(
        f"Document {number:04} tells in part {part} how {name} melts slowly in a furnace. "
        f"Its density depends on the purity that the refinery reached for {name} last year. "
        "Impurities settle at the bottom of the crucible while it cools. "
        "The yield is weighed on the next morning."
        for part in range(1 + number % 2)
    )


def prepared(root: Path, server: ChatServer, count: int) -> RunConfig:
    """The documents in arms; no warm-up, so that all are the run's."""
    texts = [text_of(number) for number in range(count)]
    (root / "in").mkdir(parents=True)
    lines = [json.dumps({"id": f"{number:04}", "text": text}) for number, text in enumerate(texts)]
    (root / "in" / "docs.jsonl").write_text("\n".join(lines))
    (root / "guide.jsonl").write_text(json.dumps(GUIDE))
    make_tiny_encoder(str(root / "encoder"), texts[: len(NOUNS)])
    config = load(
        overrides=[
            f"storage.root={root}/store", f"documents.path={root}/in", f"reference.guide={root}/guide.jsonl",
            f"encoder.model={root}/encoder", "encoder.max_tokens=64", "documents.min_chars=20",
            "deduplicate.threshold=1.0", "decontaminate.benchmarks={}", "spark.partitions=2",
            "warm_up.enabled=false", f"cluster.k={NUM_ARMS}", "cluster.max_sweep_share=1.0", "run_name=r",
            f"endpoint.url={server.url}", f"endpoint.model={server.model}", f"endpoint.in_flight={IN_FLIGHT}",
            "endpoint.timeout_s=3", "endpoint.max_attempts=5", "endpoint.restart_wait_s=60", "extraction.refine=true",
            "extraction.max_tokens=64", "extraction.max_pairs=2", "extraction.passage_chars=300",
            "extraction.min_answer_similarity=-1.0", f"bandit.docs_per_pull={-(-count // NUM_ARMS)}",
            f"bandit.arms_per_iteration={ARMS_AT_ONCE}", "budget.fraction=0", f"budget.documents={count}",
        ]
    )  # fmt: skip
    for stage, body in (CORPUS | ARMS).items():
        run_stage(config, stage, body)
    return config


def until_it_ends(config: RunConfig) -> int:
    """Run until a run is not stopped; returns how many it took."""
    for number in range(1, 10):
        try:
            run_stage(config, "extract", RUN["extract"])
        except EndpointError as error:
            print(f"run {number}: {error}", flush=True)
        else:
            return number
    raise RuntimeError("nine runs were stopped")


def restart(first: ChatServer, after: int, second: list[ChatServer]) -> None:
    """End the server once it was asked `after` times; another takes its port a little later."""
    while len(first.bodies) < after:
        time.sleep(0.01)
    first.__exit__()
    time.sleep(AWAY_S)
    second.append(ChatServer(port=first.port))
    second[0].fault = first.fault
    second[0].__enter__()


def counted(root: Path) -> dict[str, Any]:
    """What the tables say of the files that went in."""

    def rows(table: str, *columns: str) -> list[dict[str, Any]]:
        found = DeltaTable(str(root / "store" / "tables" / table)).to_pyarrow_table(columns=list(columns)).to_pylist()
        return [row for row in found if row.get("run_id", "r") == "r"]

    sources = {row["doc_id"]: row["source_id"] for row in rows("documents", "doc_id", "source_id")}
    final = [row for row in rows("extractions", "run_id", "doc_id", "final", "status", "num_pairs") if row["final"]]
    outcomes = Counter(sources[row["doc_id"]] for row in final)
    given = [json.loads(line)["id"] for line in (root / "in" / "docs.jsonl").read_text().splitlines()]
    statuses = Counter(row["status"] for row in final)
    pairs = rows("qa_pairs", "run_id", "pair_id", "doc_id", "question", "answer")
    told = sum(row["documents"] for row in rows("iterations", "run_id", "documents"))
    billed = sum(
        row["documents"] for row in rows("costs", "run_id", "stage", "documents") if row["stage"] == "extract"
    )
    assert sum(statuses.values()) == told == billed, (statuses, told, billed)
    assert sum(row["num_pairs"] for row in final) == len(pairs)
    ids = {pair["pair_id"] for pair in pairs}
    said = {(pair["doc_id"], same_question(pair["question"])) for pair in pairs}
    attempts = sum(row["attempts"] for row in rows("extractions", "run_id", "attempts"))
    return {
        "documents": len(given), "accounted": sum(outcomes[source] == 1 for source in given),
        "duplicate_pairs": 2 * len(pairs) - len(ids) - len(said), "pairs": len(pairs), "attempts": attempts,
        "statuses": dict(statuses.most_common()),
    }  # fmt: skip


def main() -> None:
    """Run until a run is not stopped, then count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=17)
    arguments = parser.parse_args()
    os.environ["EQUAL_ENDPOINT_KEY"] = ""
    first, second = ChatServer(), list[ChatServer]()
    with tempfile.TemporaryDirectory() as folder, first:
        config = prepared(Path(folder), first, arguments.documents)
        first.fault, started = Misfortune(arguments.seed), time.monotonic()
        watch = threading.Thread(target=restart, args=(first, arguments.documents, second), daemon=True)
        watch.start()
        runs = until_it_ends(config)
        watch.join(timeout=60)
        second[0].__exit__()
        figures = counted(Path(folder))
        seconds = round(time.monotonic() - started)
    figures |= {
        "runs": runs, "calls": len(first.bodies) + len(second[0].bodies), "seconds": seconds,
        "paid_twice": sum(times - 1 for times in first.fault.paid.values() if times),
        "faults": sum(count for fault, count in first.fault.met.items() if fault),
        "kinds": sum(1 for fault, count in first.fault.met.items() if fault and count),
    }  # fmt: skip
    statuses = {f"  {status}": count for status, count in figures["statuses"].items()}
    for name, value in {**figures, **statuses}.items():
        if name != "statuses":
            print(f"{name:24}{value:>10,}")
    write("faults", figures)


if __name__ == "__main__":
    main()

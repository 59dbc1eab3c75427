"""Does every document get one outcome, and none twice, from a server that does everything wrong? One table.

2,000 documents in two passes over real HTTP, through the client, the spool and the reading of an extraction task, but
without Spark: one task's worth, as `transforms.extract` runs it. Of the requests 30 % meet a fault, drawn from all
that tests/chat_server.py knows. A refused key and an unknown model come once each, as either stops the run: it is run
again, as a user would after the remedy. Once the server goes away and comes back. Calls are HTTP requests that came
to it, over all runs; attempts are those that the client counted, closed doors too. What was answered, even with a
model's bad words, and yet asked again, was paid for twice.

    python benchmarks/faults.py
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from results import write

from equal.core.chat import NOT_SENT
from equal.core.ngrams import words
from equal.core.qa import passage_key
from equal.core.reading import Recipe
from equal.io.prompts import load_prompts
from equal.io.replies import client_factory
from equal.io.spool import ReplySpool
from equal.transforms.extract import _read_batches, _rows

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from chat_server import FAULTS, ChatServer, passage_of

SHARE, IN_FLIGHT, BATCH, AWAY_S = 0.3, 32, 1000, 2.0
#: these stop a run: document -> fault, once
STOPS = {"0500": "unauthorised", "0800": "unknown_model"}
KINDS = sorted(set(FAULTS) - set(STOPS.values()))
NOUNS = ("tin", "lead", "gold", "iron", "zinc", "neon", "argon", "xenon", "boron", "carbon", "sulphur", "cobalt")


class BagOfWords:
    """Texts with common words have a common direction."""

    def encode(self, texts: list[str]) -> np.ndarray:
        """(n, 64) unit rows."""
        rows = np.zeros((len(texts), 64), dtype=np.float32)
        for row, text in zip(rows, texts):
            for word in words(text):
                row[zlib.crc32(word.encode()) % 64] += 1
            row /= max(float(np.linalg.norm(row)), 1e-9)
        return rows


class NoBenchmark:
    """Nothing is contaminated."""

    def match(self, text: str) -> object:
        """No benchmark item."""
        return None


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


def document(number: int) -> dict[str, Any]:
    """Four sentences, every second document twice as long and so in two passages."""
    name = NOUNS[number % len(NOUNS)]
    passages = []
    for part in range(1 + number % 2):
        sentences = [
            f"Document {number:04} tells in part {part} how {name} melts slowly in a furnace. ",
            f"Its density depends on the purity that the refinery reached for {name} last year. ",
            "Impurities settle at the bottom of the crucible while it cools. ",
            "The yield is weighed on the next morning.",
        ]
        key = passage_key("".join(sentences))
        passages.append({"passage_index": part, "passage_key": key, "sentences": sentences})
    return {"doc_id": f"{number:04}", "arm_id": number % 32, "num_skipped": 0, "passages": passages, "known": []}


def read(documents: list[dict[str, Any]], server: ChatServer, spool: ReplySpool) -> list[dict[str, Any]]:
    """The rows that an extraction task makes of them."""
    extract, refine = load_prompts("general", answer="written", refine=True, structured=True, max_pairs=2)
    recipe = Recipe(extract, refine, server.model, 0.0, 64, min_answer_similarity=0.1, min_grounded_share=0.3)
    endpoint = server.endpoint(in_flight=IN_FLIGHT, timeout_s=3.0, max_attempts=5, restart_wait_s=60.0)
    batches = (documents[start : start + BATCH] for start in range(0, len(documents), BATCH))
    make_client = client_factory(endpoint, "", spool, tasks=1)
    done = _read_batches(batches, recipe, make_client, BagOfWords, NoBenchmark())
    return [row for readings in done for doc, reading in readings for row in _rows(doc, reading, "faults", 1)]


def restart(first: ChatServer, after: int, second: list[ChatServer]) -> None:
    """End the server once it was asked `after` times; another takes its port a little later."""
    while len(first.bodies) < after:
        time.sleep(0.01)
    first.__exit__()
    time.sleep(AWAY_S)
    second.append(ChatServer(port=first.port))
    second[0].fault = first.fault
    second[0].__enter__()


def main() -> None:
    """Run until a run is not stopped, then count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=17)
    arguments = parser.parse_args()
    documents = [document(number) for number in range(arguments.documents)]
    first, second, started = ChatServer(), [], time.monotonic()
    first.fault = Misfortune(arguments.seed)
    ThreadingHTTPServer.handle_error = lambda *_: None  # clients that break off, which is what is tested
    allowed, runs, attempts = first.endpoint().max_failed_share, 0, 0
    with tempfile.TemporaryDirectory() as folder, first:
        watch = threading.Thread(target=restart, args=(first, arguments.documents, second), daemon=True)
        watch.start()
        while True:
            rows = read(documents, first, ReplySpool(f"{folder}/spool"))
            runs, attempts = runs + 1, attempts + sum(row["attempts"] for row in rows)
            final = [row for row in rows if row["final"]]
            failed = sum(row["status"] in ("failed", "context_too_short") for row in final)
            unsent = any(row["status"] == NOT_SENT for row in final)  # such an iteration is not committed
            if not unsent and failed <= allowed * len(documents):
                break
        watch.join(timeout=60)
        second[0].__exit__()
    outcomes = Counter(row["doc_id"] for row in final)
    statuses = Counter(row["status"] for row in final)
    pair_ids = [pair["pair_id"] for row in final for pair in row["pairs"] if pair["accepted"]]
    accounted = sum(outcomes[doc["doc_id"]] == 1 for doc in documents)
    assert sum(statuses.values()) == len(final) == sum(outcomes.values())
    calls = len(first.bodies) + len(second[0].bodies)
    faults = sum(count for fault, count in first.fault.met.items() if fault)
    figures = {
        "documents": len(documents), "accounted": accounted, "duplicate_pairs": len(pair_ids) - len(set(pair_ids)),
        "pairs": len(pair_ids), "runs": runs, "calls": calls, "attempts": attempts,
        "paid_twice": sum(times - 1 for times in first.fault.paid.values() if times), "faults": faults,
        "kinds": sum(1 for fault, count in first.fault.met.items() if fault and count),
    }  # fmt: skip
    for name, value in {**figures, **{f"  {status}": count for status, count in statuses.most_common()}}.items():
        print(f"{name:24}{value:>10,}")
    write("faults", {**figures, "statuses": dict(statuses), "seconds": round(time.monotonic() - started)})


if __name__ == "__main__":
    main()

"""Is a budget ever exceeded? Two hundred simulated runs with random sizes, prices, budgets and faults.

Each is the product's own bandit, document reading and paying client, without Spark, against a server on the loopback
interface that draws the length of every prompt and reply, fails, breaks off and sometimes cannot count a prompt.
The overspend is judged by two books: the tokens of the replies that the server delivered whole, and the sums that the
run itself records. In about half of the runs two iterations are under way at once, which share what is left. One
table, figures in benchmarks/results/budgets.json.

    python benchmarks/budgets.py [--runs 200]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import threading
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from results import write

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from chat_server import ChatServer
from equal.core.allowance import Allowance, Amount
from equal.core.bandit import ArmState, Pull
from equal.core.costs import money
from equal.core.reading import Reading, Recipe
from equal.core.transport import Estimate
from equal.io.chat_client import ClientFactory
from equal.io.prompts import load_prompts
from equal.io.replies import PayingClientFactory
from equal.io.spool import ReplySpool
from equal.loop import run_bandit
from equal.state import Extracted, Limits, Pairs, Policy, Scored, Spent, State
from equal.transforms.extract import _read_batches

BUDGETS = ("documents", "tokens", "money")
FAULTS = ("unavailable", "busy", "reset", "cut_body", "bad_request", "says_prose", "says_half")
NO_PAIRS = Pairs(np.empty(0, object), np.empty(0, int), np.empty(0, object), np.empty((0, 2), np.float32))


class Encoder:
    """Every text points the same way: what is paid does not depend on it."""

    def encode(self, texts: list[str]) -> np.ndarray:
        """(n, 2) unit rows."""
        return np.tile(np.array([1.0, 0.0], np.float32), (len(texts), 1))


class NoBenchmark:
    """Nothing is contaminated."""

    def match(self, text: str) -> object:
        """No benchmark item."""
        return None


@dataclass
class Run:
    """One simulated run: what it may spend, what it is made of, and the server's book."""

    number: int
    max_tokens: int = 0
    limits: Limits = field(default_factory=lambda: Limits(0, 0, 0.0))
    served: np.ndarray = field(default_factory=lambda: np.zeros(2, int))
    lock: threading.Lock = field(default_factory=threading.Lock)
    outcomes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        draw = self.draw = random.Random(self.number)
        self.max_tokens = draw.randint(16, 400)
        self.fault_share = draw.choice([0.0, 0.0, 0.1, 0.3])
        self.sizes = [draw.randint(3, 12) for _ in range(draw.randint(1, 4))]
        self.tokenizes = draw.random() < 0.9
        self.count_faults = draw.choices(["unavailable", "html"], k=draw.randint(0, 3))
        passes = {name: draw.random() < 0.5 for name in ("refine", "reason")}
        extract, refine, last = load_prompts("general", answer="written", structured=True, max_pairs=3, **passes)
        self.recipe = Recipe(extract, refine, "test-model", 0.0, self.max_tokens, 0.0, 0.0, reason=last)
        self.passages = draw.randint(1, 3)
        prices = draw.uniform(0.05, 3), draw.uniform(0.05, 9)
        chosen = draw.choice([("tokens",), ("money",), ("tokens", "money"), BUDGETS])
        documents = draw.uniform(0.5, 1.5) * sum(self.sizes)
        tokens = int(documents * self.passages * draw.uniform(60, 700)) + 1
        self.limits = Limits(
            max(1, int(documents)) if "documents" in chosen else 0,
            tokens if "tokens" in chosen else 0,
            money(tokens // 2, tokens // 2, *prices) if "money" in chosen else 0.0,
            *prices,
            Amount(600 * self.passages, money(300 * self.passages, 300 * self.passages, *prices)),
        )
        self.depth = draw.randint(1, 2)

    def size(self, body: dict[str, Any]) -> int:
        """Tokens of a prompt, drawn by its words."""
        seed = zlib.crc32(json.dumps(body["messages"]).encode())
        return random.Random(seed + self.number).randint(1, 900)

    def fault(self, body: dict[str, Any]) -> str:
        """One of the faults, at random; another attempt may have another."""
        return self.draw.choice(FAULTS) if self.draw.random() < self.fault_share else ""

    def length(self, body: dict[str, Any], said: str) -> int:
        """Tokens of a reply: as long as it may be now and then; it goes out, so it is entered."""
        tokens = self.max_tokens if self.draw.random() < 0.2 else self.draw.randint(1, self.max_tokens)
        with self.lock:
            self.served += np.array([self.size(body), tokens])
        return tokens


def read(run: Run, arms: dict[int, list[str]], pulls: list[Pull], share: Allowance, client: Any) -> Extracted:
    """What `equal.extraction` does with Spark: read the documents of the pulls, add up what they took."""
    in_order = sorted((doc, arm) for arm, docs in arms.items() for doc in docs)
    wanted: list[tuple[str, int]] = []
    for pull in pulls:
        of_arm = in_order if pull.arm_id is None else [(doc, pull.arm_id) for doc in arms[pull.arm_id]]
        wanted += of_arm[pull.start : pull.stop]
    rows = [_document(run, doc, arm) for doc, arm in wanted]
    (readings,) = _read_batches(iter([rows]), run.recipe, client, Encoder, NoBenchmark(), share)
    return _totals(run, [(row["arm_id"], reading) for row, reading in readings], share)


def _document(run: Run, doc: str, arm: int) -> dict[str, Any]:
    texts = [f"Part {i} of document {doc} tells of the metal {doc}-{i} and of its use." for i in range(run.passages)]
    passages = [{"passage_index": i, "passage_key": f"{doc}-{i}", "sentences": [t]} for i, t in enumerate(texts)]
    return {"doc_id": doc, "arm_id": arm, "num_skipped": 0, "passages": passages, "known": []}


def _totals(run: Run, readings: list[tuple[int, Reading]], share: Allowance) -> Extracted:
    replies = [reply for _, reading in readings for done in reading.passes for reply in done.replies]
    prompt, completion = (sum(getattr(r, f"{kind}_tokens") for r in replies) for kind in ("prompt", "completion"))
    need = Amount()
    for _, reading in readings:
        need = need.or_more(reading.need)
    outcomes = Counter(reading.status for _, reading in readings)
    with run.lock:  # two iterations may end at once
        run.outcomes += outcomes
    return Extracted(
        dict(Counter(arm for arm, _ in readings)), NO_PAIRS, dict(outcomes), prompt_tokens=prompt,
        completion_tokens=completion, money=share.cost(prompt, completion).money, need=need,
    )  # fmt: skip


def simulate(run: Run, server: ChatServer, spool: Path) -> tuple[Spent, str]:
    """The bandit of `equal.run`, to the end of a budget."""
    server.fault, server.size, server.length = run.fault, run.size, run.length
    server.tokenizes, server.count_faults = run.tokenizes, list(run.count_faults)
    arms = {arm: [f"{rank:03d}x{arm}" for rank in range(size)] for arm, size in enumerate(run.sizes)}
    chat = ClientFactory({server.url: 1.0}, "", 16, 20.0, 2, max_failed_share=1.0, restart_wait_s=0.0, max_wait_s=0.01)

    def extract(iteration: int, pulls: list[Pull], share: Allowance) -> Extracted:
        client = PayingClientFactory(chat, ReplySpool(str(spool / str(iteration))), tasks=1, first=0, step=1)
        return read(run, arms, pulls, share, client)

    unread = {arm: ArmState(arm, size, 0, 0, 0, None, None) for arm, size in enumerate(run.sizes)}
    ended, reason = run_bandit(
        State(unread, NO_PAIRS, Spent(), 0),
        policy=Policy("equal", 2, 4, "paper", 0.0, warm_up_documents=5, pipeline_depth=run.depth),
        limits=run.limits,
        extract=extract,
        score=lambda pairs: Scored(Estimate(0.5, True, len(pairs.pair_ids), 1, flops=0.0), None),
        record=lambda iteration: None,
    )
    return ended.spent, reason


def overspend(run: Run, spent: Spent) -> dict[str, float]:
    """The largest excess over any budget, by the server's book or the run's own, as a share of that budget."""
    prices = run.limits.prompt_price, run.limits.completion_price
    prompt, completion = map(int, run.served)
    served = Spent(spent.documents, prompt + completion, money(prompt, completion, *prices))
    limits = [(name, getattr(run.limits, name)) for name in BUDGETS if getattr(run.limits, name)]
    books = {"server": served, "recorded": spent}
    return {name: max(getattr(book, of) / limit - 1 for of, limit in limits) for name, book in books.items()}


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    count = parser.parse_args().runs
    worst = {"server": 0.0, "recorded": 0.0}
    used: dict[str, list[float]] = {}
    requests, pipelined, outcomes = 0, 0, Counter[str]()
    with ChatServer() as server, tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            run = Run(number)
            spent, reason = simulate(run, server, Path(folder) / str(number))
            for book, excess in overspend(run, spent).items():
                worst[book] = max(worst[book], excess)
            limit = getattr(run.limits, reason, 0)
            used.setdefault(reason, []).append(getattr(spent, reason) / limit if limit else 1.0)
            outcomes += run.outcomes
            pipelined += run.depth == 2
        requests = len(server.bodies)
    print(f"{'ended by':12}{'runs':>6}{'of that budget used, median':>30}{'least':>8}")
    for reason, shares in sorted(used.items()):
        shown = f"{statistics.median(shares):>30.1%}{min(shares):>8.1%}" if reason in BUDGETS else ""
        print(f"{reason:12}{len(shares):>6}{shown}")
    figures = {"runs": count, "overspend": max(worst.values()), "pipelined": pipelined, "requests": requests}
    ended_by = {reason: len(shares) for reason, shares in used.items()}
    write("budgets", {**figures, "outcomes": dict(outcomes), "ended_by": ended_by})


if __name__ == "__main__":
    main()

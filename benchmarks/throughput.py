"""How much of what a bare HTTP client gets out of a server do extraction tasks get? One table.

Requests a second of the product's client, with all that it does to a document (prompt, key, retries, spool, parsing,
checks, as `transforms.extract` runs it, but without Spark and with an encoder that costs nothing), and of aiohttp,
with which the product speaks and vLLM's own benchmark does, sending the same bodies, as many at once, and reading the
replies as JSON. Of either one process has all requests in flight, or two have half of them each, as two Spark tasks
do; they take turns. `loopback_ratio` and `real_ratio` are two tasks beside the better of the bare ones,
`..._one_task_ratio` is one task beside one bare client.

The server is benchmarks/loopback.py, 64 requests at once, once of 50 ms a request and once of 500; the share of a
processor that it used is kept, as it must not be what is measured. With --real it is the demo's vLLM server instead.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --real
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
from loopback import serve
from results import FOLDER, write

from equal.config import load
from equal.core.pairs import Passage
from equal.core.qa import passage_key
from equal.core.reading import Recipe
from equal.io.chat_client import _body
from equal.io.prompts import load_prompts
from equal.io.replies import client_factory
from equal.io.spool import ReplySpool
from equal.transforms.extract import _read_batches

#: of the fast server, whose 1,280 requests a second are about what one process can send, and of one at a GPU's pace
LATENCIES_S, SLOTS = {"loopback": 0.05, "loopback_500_ms": 0.5}, 64


class NoEncoder:
    """Unit vectors at no cost."""

    def encode(self, texts: list[str]) -> np.ndarray:
        """(n, 8) unit rows."""
        return np.full((len(texts), 8), 8**-0.5, dtype=np.float32)


class NoBenchmark:
    """Nothing is contaminated."""

    def match(self, text: str) -> object:
        """No benchmark item."""
        return None


def documents(count: int, salt: str) -> list[dict[str, Any]]:
    """Documents of one passage of about 1,500 characters; another salt makes other documents."""
    found = []
    for number in range(count):
        sentences = [
            f"Sentence {n} of the passage {salt}-{number} speaks of tin, which melts at 232 degrees and is soft. "
            for n in range(16)
        ]
        passage = {"passage_index": 0, "passage_key": passage_key("".join(sentences)), "sentences": sentences}
        found.append({"doc_id": f"{number}", "arm_id": 0, "num_skipped": 0, "passages": [passage], "known": []})
    return found


def product(
    todo: list[dict[str, Any]], recipe: Recipe, url: str, key: str, in_flight: int, spool: str
) -> tuple[float, float]:
    """When an extraction task began and when it ended."""
    endpoint = load(overrides=[f"endpoint.url={url}", f"endpoint.in_flight={in_flight}"]).endpoint
    make_client = client_factory(endpoint, key, ReplySpool(spool), tasks=1)
    started = time.perf_counter()
    (readings,) = _read_batches(iter([todo]), recipe, make_client, NoEncoder, NoBenchmark())
    ended = time.perf_counter()
    assert not [reply for _, reading in readings for reply in reading.passes[0].replies if reply.failure]
    return started, ended


def bare(
    todo: list[dict[str, Any]], recipe: Recipe, url: str, key: str, in_flight: int, spool: str
) -> tuple[float, float]:
    """As `product`, of aiohttp alone: bodies made before, as many workers as requests at once, one session."""
    passages = [Passage(0, p["passage_key"], tuple(p["sentences"])) for doc in todo for p in doc["passages"]]
    bodies = [_body(recipe.request(recipe.extract, passage)) for passage in passages]

    async def ask(http: aiohttp.ClientSession, left: Iterator[dict[str, Any]]) -> None:
        for body in left:
            async with http.post(f"{url}/chat/completions", json=body) as response:
                assert (await response.json())["choices"][0]["message"]["content"]

    async def ask_all() -> tuple[float, float]:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as http:
            started, left = time.perf_counter(), iter(bodies)
            await asyncio.gather(*[ask(http, left) for _ in range(in_flight)])
            return started, time.perf_counter()

    return asyncio.run(ask_all())


#: name: (client, in so many processes)
CLIENTS: dict[str, tuple[Callable[..., tuple[float, float]], int]] = {
    "one_task": (product, 1),
    "two_tasks": (product, 2),
    "bare": (bare, 1),
    "two_bare": (bare, 2),
}


def rate(pool: ProcessPoolExecutor, name: str, todo: list[dict[str, Any]], in_flight: int, *how: Any) -> float:
    """Requests a second from when the first process begins until the last one ends."""
    client, count = CLIENTS[name]
    with tempfile.TemporaryDirectory() as folder:  # one spool, as of an iteration's tasks
        parts = [pool.submit(client, todo[n::count], *how, in_flight // count, f"{folder}/1") for n in range(count)]
        started, ended = zip(*[part.result() for part in parts])
    return len(todo) / (max(ended) - min(started))


def measure(url: str, model: str, key: str, args: argparse.Namespace, max_tokens: int) -> dict[str, list[float]]:
    """Requests a second of each, in turns of rising and falling order."""
    extract, *_ = load_prompts("general", answer="written", refine=False, structured=True, max_pairs=3)
    recipe = Recipe(extract, None, model, 0.0, max_tokens, min_answer_similarity=0.1, min_grounded_share=0.3)
    rates: dict[str, list[float]] = {name: [] for name in CLIENTS}
    # forked, as Spark's daemon makes its workers: what is imported here is there
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        for name in CLIENTS:  # connections, the server's first requests
            rate(pool, name, documents(args.in_flight, f"first-{name}"), args.in_flight, recipe, url, key)
        for turn in range(args.repeats):
            for name in sorted(CLIENTS, reverse=bool(turn % 2)):
                todo = documents(args.requests, f"{turn}-{name}" if args.real else f"{turn}")
                rates[name].append(rate(pool, name, todo, args.in_flight, recipe, url, key))
    return rates


def real(args: argparse.Namespace) -> dict[str, list[float]]:
    """Against the demo's server; short replies, as the small model is slow."""
    root = Path(__file__).resolve().parent.parent
    sys.path.insert(0, str(root / "demo"))
    import server as demo

    model_dir = root / ".cache" / "models" / demo.MODEL_NAME
    with demo.serve(model_dir, root / "build" / "throughput.log") as running:
        running.wait_ready()
        return measure(running.url, running.model, running.key, args, max_tokens=16)


def compared(name: str, rates: dict[str, list[float]], args: argparse.Namespace) -> dict[str, Any]:
    """The figures of one server; prints them."""
    middle = {client: statistics.median(values) for client, values in rates.items()}
    figures: dict[str, Any] = {
        f"{name}_ratio": round(middle["two_tasks"] / max(middle["bare"], middle["two_bare"]), 4),
        f"{name}_one_task_ratio": round(middle["one_task"] / middle["bare"], 4),
        f"{name}_in_flight": args.in_flight,
    }
    for client, values in rates.items():
        print(f"{name} {client:10}{middle[client]:>10.1f} requests/s   ({min(values):.1f} to {max(values):.1f})")
        figures[f"{name}_{client}"] = {"median": round(middle[client], 1), "all": [round(v, 1) for v in values]}
    print(f"{name} ratio {figures[f'{name}_ratio']}, one task {figures[f'{name}_one_task_ratio']}")
    return figures


def main() -> None:
    """Measure, print and keep the table; the figures of the other server are kept as they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="the demo's vLLM server")
    parser.add_argument("--requests", type=int, help="a repeat")
    parser.add_argument("--repeats", type=int, help="of either client")
    parser.add_argument("--in-flight", type=int, help="requests at once")
    args = parser.parse_args()
    args.requests = args.requests or (72 if args.real else 2048)
    args.repeats = args.repeats or (3 if args.real else 7)
    args.in_flight = args.in_flight or (24 if args.real else 64)
    kept = FOLDER / "throughput.json"
    before = json.loads(kept.read_text()) if kept.exists() else {}
    figures = {name: value for name, value in before.items() if name.startswith("real") != args.real}
    if args.real:
        figures |= compared("real", real(args), args)
    else:
        requests = args.requests
        for name, latency_s in LATENCIES_S.items():
            args.requests = requests if latency_s < 0.1 else requests // 4
            with serve(latency_s, SLOTS) as (url, pid):
                started, process = time.perf_counter(), psutil.Process(pid)
                figures |= compared(name, measure(url, "loopback", "", args, max_tokens=256), args)
                busy = sum(process.cpu_times()[:2]) / (time.perf_counter() - started)
            figures[f"{name}_server_busy"] = round(busy, 3)
    write("throughput", figures)


if __name__ == "__main__":
    main()

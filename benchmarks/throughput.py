"""How much of what a bare HTTP client gets out of a server does an extraction task get? One table.

Requests a second of one task's client, with all that it does to a document (prompt, key, retries, spool, parsing,
checks, as `transforms.extract` runs it, but without Spark and with an encoder that costs nothing), and of httpx's
asynchronous client that sends the same bodies, as many at once, and reads the replies as JSON: with a client for each
connection, and with one for all. They take turns; the ratio is to the faster of the two. The server is
benchmarks/loopback.py: 50 ms a request, 64 at once; the share of a processor that it used is kept, as it must not be
what is measured. With --real it is the demo's vLLM server instead.

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
from pathlib import Path
from typing import Any

import httpx
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
from equal.io.replies import ReplySpool, client_factory
from equal.transforms.extract import _read_batches

LATENCY_S, SLOTS = 0.05, 64


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


def product(todo: list[dict[str, Any]], recipe: Recipe, url: str, key: str, in_flight: int) -> float:
    """Requests a second of an extraction task."""
    endpoint = load(overrides=[f"endpoint.url={url}", f"endpoint.in_flight={in_flight}"]).endpoint
    with tempfile.TemporaryDirectory() as folder:
        make_client = client_factory(endpoint, key, ReplySpool(folder), tasks=1)
        started = time.perf_counter()
        (readings,) = _read_batches(iter([todo]), recipe, make_client, NoEncoder, NoBenchmark())
        seconds = time.perf_counter() - started
    assert not [reply for _, reading in readings for reply in reading.passes[0].replies if reply.failure]
    return len(todo) / seconds


def pooled(todo: list[dict[str, Any]], recipe: Recipe, url: str, key: str, in_flight: int) -> float:
    """Requests a second of httpx alone, as one writes it: a client with a pool of connections."""
    return _httpx_alone(todo, recipe, url, key, clients=1, connections=in_flight)


def bare(todo: list[dict[str, Any]], recipe: Recipe, url: str, key: str, in_flight: int) -> float:
    """Requests a second of httpx alone, a client for each connection: its pool looks at all for every request."""
    return _httpx_alone(todo, recipe, url, key, clients=in_flight, connections=1)


def _httpx_alone(
    todo: list[dict[str, Any]], recipe: Recipe, url: str, key: str, *, clients: int, connections: int
) -> float:
    passages = [Passage(0, p["passage_key"], tuple(p["sentences"])) for doc in todo for p in doc["passages"]]
    bodies = [_body(recipe.request(recipe.extract, passage)) for passage in passages]

    async def ask_all() -> float:
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        verify = httpx.create_ssl_context()
        opened = [
            httpx.AsyncClient(base_url=url, limits=limits, timeout=120.0, headers=headers, verify=verify)
            for _ in range(clients)
        ]
        idle = opened * connections

        async def ask(slots: asyncio.Semaphore, body: dict[str, Any]) -> str:
            async with slots:
                client = idle.pop()
                response = await client.post("/chat/completions", json=body)
                idle.append(client)
                return str(response.json()["choices"][0]["message"]["content"])

        started, slots = time.perf_counter(), asyncio.Semaphore(len(idle))
        await asyncio.gather(*[ask(slots, body) for body in bodies])
        seconds = time.perf_counter() - started
        for client in opened:
            await client.aclose()
        return seconds

    return len(bodies) / asyncio.run(ask_all())


def measure(url: str, model: str, key: str, args: argparse.Namespace, max_tokens: int) -> dict[str, list[float]]:
    """Requests a second of each, in turns of rising and falling order."""
    extract, _ = load_prompts("general", answer="written", refine=False, structured=True, max_pairs=3)
    recipe = Recipe(extract, None, model, 0.0, max_tokens, min_answer_similarity=0.1, min_grounded_share=0.3)
    clients = {"equal": product, "bare": bare, "pooled": pooled}
    rates: dict[str, list[float]] = {name: [] for name in clients}
    for client in clients.values():  # imports, connections, the server's first requests
        client(documents(2 * args.in_flight, f"first-{client.__name__}"), recipe, url, key, args.in_flight)
    for turn in range(args.repeats):
        for name in sorted(clients, reverse=bool(turn % 2)):
            todo = documents(args.requests, f"{turn}-{name}" if args.real else f"{turn}")
            rates[name].append(clients[name](todo, recipe, url, key, args.in_flight))
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


def main() -> None:
    """Measure, print and keep the table; the figures of the other server are kept as they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="the demo's vLLM server")
    parser.add_argument("--requests", type=int, help="a repeat")
    parser.add_argument("--repeats", type=int, help="of either client")
    parser.add_argument("--in-flight", type=int, help="requests at once")
    args = parser.parse_args()
    args.requests = args.requests or (72 if args.real else 2000)
    args.repeats = args.repeats or (3 if args.real else 7)
    args.in_flight = args.in_flight or (24 if args.real else 64)
    name = "real" if args.real else "loopback"
    figures: dict[str, Any] = {}
    if args.real:
        rates = real(args)
    else:
        with serve(LATENCY_S, SLOTS) as (url, pid):
            started, process = time.perf_counter(), psutil.Process(pid)
            rates = measure(url, "loopback", "", args, max_tokens=256)
            busy = sum(process.cpu_times()[:2]) / (time.perf_counter() - started)
        figures["loopback_server_busy"] = round(busy, 3)
    middle = {client: statistics.median(values) for client, values in rates.items()}
    for client, values in rates.items():
        print(f"{client:8}{middle[client]:>10.1f} requests/s   ({min(values):.1f} to {max(values):.1f})")
        figures[f"{name}_{client}"] = {"median": round(middle[client], 1), "all": [round(v, 1) for v in values]}
    figures[f"{name}_ratio"] = round(middle["equal"] / max(middle["bare"], middle["pooled"]), 4)
    figures[f"{name}_in_flight"] = args.in_flight
    kept = FOLDER / "throughput.json"
    before = json.loads(kept.read_text()) if kept.exists() else {}
    write("throughput", {**before, **figures})


if __name__ == "__main__":
    main()

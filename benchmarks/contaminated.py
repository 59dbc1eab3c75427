"""A corpus with a known truth: passages of real documents in which benchmark items were planted, in eight ways."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from passages import SHARDS, cut

from equal.core.items import Item
from equal.core.ngrams import words

NGRAM, SHORT, PER_KIND = 10, 3, 300
_NUMBER = re.compile(r"\d+")


def rewrapped(question: str) -> str:
    """Line breaks and runs of blanks where single blanks were."""
    return "".join("\n   " if c == " " and i % 3 == 0 else c for i, c in enumerate(question))


def marked_up(question: str) -> str:
    """Every fourth word in tags."""
    tokens = question.split(" ")
    return " ".join(f"<em class='x'>{t}</em>" if i % 4 == 0 else t for i, t in enumerate(tokens))


#: how an item may stand in a document
KINDS: dict[str, Callable[[str], str]] = {
    "verbatim": lambda q: q,
    "re-wrapped": rewrapped,
    "case": str.upper,
    "punctuation": lambda q: re.sub(r"[.;:!?]|,(?!\d)", " - ", q),  # 1,250 is one word, 1 - 250 are two others
    "markup": marked_up,
    "one word in ten": lambda q: " ".join("zebra" if i % 10 == 9 else t for i, t in enumerate(q.split(" "))),
    "numbers changed": lambda q: _NUMBER.sub(lambda m: str(int(m[0]) + 7), q),
    "short": lambda q: q,
}
#: kinds in which what was changed decides, and whether those count that hold a run of an item or those that do not
MATCHES = {"one word in ten": True, "numbers changed": False}


def runs(text: str) -> set[str]:
    """Every run of words of an item that counts, by the rule as it is written down."""
    found = words(text)
    size = min(NGRAM, len(found))
    return {" ".join(found[i : i + size]) for i in range(len(found) - size + 1)} if size >= SHORT else set()


def matches(text: str, known: set[str]) -> bool:
    """Whether a finished passage holds a run of the items: every window of every length that a run may have."""
    found = words(text)
    return any(
        " ".join(found[i : i + size]) in known
        for size in range(SHORT, NGRAM + 1)
        for i in range(len(found) - size + 1)
    )


def suits(kind: str, item: Item) -> bool:
    """Whether an item can show what this kind is about."""
    count = len(words(item.question))
    if kind == "short":
        return SHORT <= count < NGRAM
    if kind == "numbers changed":
        return count >= NGRAM and bool(_NUMBER.search(item.question))
    return count >= 2 * NGRAM


def plant(texts: list[str], items: list[Item]) -> dict[str, list[int]]:
    """Put items into passages; returns which, by kind.

    Of an item whose numbers or words were changed, another run may be left, or be in the passage that took it in. So
    the finished passage decides: with changed numbers only those without a run count, with a word in ten changed only
    those with one. In all other kinds the item is there, and every plant counts.
    """
    rng = random.Random(17)
    known = {run for item in items for text in (item.question, item.text) for run in runs(text)}
    places = iter(rng.sample(range(len(texts)), len(texts)))
    planted: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for kind, change in KINDS.items():
        for item in rng.sample(items, len(items)):
            if len(planted[kind]) == PER_KIND:
                break
            changed = change(item.question)
            if not suits(kind, item) or (kind in MATCHES and matches(changed, known) != MATCHES[kind]):
                continue
            place = next(places)
            half = texts[place].split(" ")
            middle = len(half) // 2
            finished = " ".join([*half[:middle], changed, *half[middle:]])
            if kind in MATCHES and matches(finished, known) != MATCHES[kind]:
                continue
            texts[place] = finished
            planted[kind].append(place)
    return planted


def make(data: Path, count: int, out: Path, items: list[Item]) -> dict[str, list[str]]:
    """Write the corpus in both formats; returns the planted passages' ids by kind."""
    texts = list(cut(data / "docs", count))
    planted = {kind: [f"p{place:07d}" for place in places] for kind, places in plant(texts, items).items()}
    out.mkdir(parents=True, exist_ok=True)
    for shard in range(SHARDS):
        ids = [f"p{i:07d}" for i in range(shard, count, SHARDS)]
        pq.write_table(pa.table({"id": ids, "text": texts[shard::SHARDS]}), out / f"part-{shard}.parquet")
        with (out / f"part-{shard}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"id": i, "text": t}) + "\n" for i, t in zip(ids, texts[shard::SHARDS]))
    with (out / "items.json").open("w", encoding="utf-8") as file:  # not .jsonl: that would be a part
        file.writelines(
            json.dumps({"id": f"{n}", "question": i.question, "answer": i.answer}) + "\n" for n, i in enumerate(items)
        )
    return planted

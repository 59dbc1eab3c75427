"""The demo's reference set: its answers are right and its halves do not overlap."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "demo" / "reference.jsonl").read_text(encoding="utf-8").splitlines()
]
COMPUTABLE = [row for row in ROWS if "check" in row]
#: what decontamination and the reference's own overlap check compare, conf/base.yml
NGRAM_WORDS = 10


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _ngrams(text: str) -> set[tuple[str, ...]]:
    words = _words(text)
    return {tuple(words[i : i + NGRAM_WORDS]) for i in range(len(words) - NGRAM_WORDS + 1)}


def test_set_is_large_and_balanced():
    assert len(ROWS) >= 80
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    assert len(COMPUTABLE) >= 50
    by_topic = Counter((row["topic"], row["split"]) for row in ROWS)
    topics = {row["topic"] for row in ROWS}
    assert len(topics) >= 10
    for topic in topics:
        assert by_topic[topic, "guide"] == by_topic[topic, "held_out"] >= 4
    assert {row["split"] for row in ROWS} == {"guide", "held_out"}


@pytest.mark.parametrize("row", COMPUTABLE, ids=lambda row: row["id"])
def test_computed_answer_is_the_stated_one(row):
    names = {"np": np, "math": math, "stats": stats, "distance": distance}
    computed = float(eval(row["check"], names))
    stated = row["value"]
    decimals = len(stated.partition(".")[2])
    assert computed == pytest.approx(float(stated), abs=0.5 * 10**-decimals * (decimals > 0) + 1e-9)


@pytest.mark.parametrize("row", COMPUTABLE, ids=lambda row: row["id"])
def test_stated_value_ends_the_answer(row):
    assert re.findall(r"-?\d+(?:\.\d+)?", row["answer"])[-1] == row["value"]


@pytest.mark.parametrize("row", [row for row in ROWS if "check" not in row], ids=lambda row: row["id"])
def test_explanations_hold_no_number_to_check(row):
    assert not re.search(r"\d", row["answer"])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_every_item_reads_as_one(row):
    assert row["question"].endswith("?")
    assert row["answer"].endswith(".")
    assert 1 <= len(re.findall(r"[.:](?:\s|$)", row["answer"])) <= 4
    # shorter questions could hide from the n-gram rule that keeps held-out items out of the corpus
    assert len(_words(row["question"])) >= NGRAM_WORDS


def test_halves_share_no_ngram():
    grams = {
        split: set().union(*(_ngrams(f"{r['question']} {r['answer']}") for r in ROWS if r["split"] == split))
        for split in ("guide", "held_out")
    }
    assert len(grams["guide"]) > 400
    assert not grams["guide"] & grams["held_out"]

"""Does the reply parser ever raise, or accept a pair that breaks its schema? A million mutated replies.

Hypothesis draws how replies of all three kinds, as JSON and as plain text, are mutated: cut, spliced, repeated, with
characters and whole JSON values put in or exchanged. What is parsed and passes the checks of a pair is held against
the prompt's schema by rules of this file's own. One table, a row a kind; figures in benchmarks/results/parser.json.

    python benchmarks/reply_parser.py
    python benchmarks/reply_parser.py --cases 20000
"""

from __future__ import annotations

import argparse
import json
import random
import time
import unicodedata
from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from results import write
from tqdm import tqdm

from equal.core.checks import reject_answer, reject_question
from equal.core.qa import QA, Prompt
from equal.io.prompts import load_prompts

PASSAGE = (
    "The sample variance divides the sum of squared deviations by n - 1, which makes it unbiased. A box has 12 eggs."
)
FINISHED = ("stop", "stop", "stop", "length", "oversized", "")
#: what a reply may suddenly hold
SHARDS = (
    *("{", "}", "[", "]", '"', "\\", "\\ud800", "\x00", "\r\n", "```json\n", "null", "1e999", "NaN", "-1", "true"),
    *("Q: ", "A: ", "Q2: ", "VOID", '{"pairs": ', '"question": ', '"answer": ', '"number": ', "[" * 2000),
    *("\ud83d", "９", "x" * 5000),
)
ASKED = "What is asked here?"
VALUES: list[Any] = [
    *(None, True, 0, -1, 10**30, 1.5, "", " ", "\x07", "\ud800", "x" * 5000, [], {}, [[]], {"question": "?"})
]


def prompts() -> dict[str, Prompt]:
    """Every kind of prompt that the product has, as JSON and as plain text."""
    found: dict[str, Prompt] = {}
    for structured in (True, False):
        how = "json" if structured else "plain"
        for answer in ("written", "quoted"):
            passes = load_prompts("math", answer=answer, refine=True, structured=structured, max_pairs=3, reason=True)
            found |= {f"{prompt.kind} {how}": prompt for prompt in passes if prompt}
    return found


def mutated(prompt: Prompt, seed: int, strokes: int) -> str:
    """A reply of this prompt, changed `strokes` times."""
    rng = random.Random(seed)
    text = rng.choice([m["content"] for m in prompt.messages(PASSAGE) if m["role"] == "assistant"])
    if prompt.structured and rng.random() < 0.5:
        text = json.dumps(changed(json.loads(text), rng), ensure_ascii=rng.random() < 0.5)
    for _ in range(strokes):
        i, j = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        text = rng.choice(
            [
                text[:i], text[i:], text[:i] + text[j:], text[:i] + rng.choice(SHARDS) + text[i:],
                text[:i] + rng.choice(SHARDS) + text[j:], text + text[i:j], text[:j] + text[i:j] * 3 + text[j:],
                text[:i] + chr(rng.randint(0, 0x10FFFF)) + text[i:],
            ]
        )[:20_000]  # fmt: skip
    return text


def changed(value: object, rng: random.Random) -> object:
    """A JSON value with one of its parts lost, doubled or exchanged."""
    if rng.random() < 0.2 or not value or not isinstance(value, (dict, list)):
        return rng.choice(VALUES)
    if isinstance(value, list):
        i = rng.randrange(len(value))
        return rng.choice([value[:i], value * 3, [*value[:i], changed(value[i], rng), *value[i + 1 :]]])
    key = rng.choice(list(value))
    kept = {name: part for name, part in value.items() if name != key}
    return rng.choice([kept, {**kept, key + "s": value[key]}, {**kept, key: changed(value[key], rng)}])


def is_valid(prompt: Prompt, pair: QA) -> bool:
    """Whether a pair is one that the schema allows and a table can hold."""
    texts = [pair.question] if prompt.kind == "quoted" else [pair.question, pair.answer]
    limits = [prompt.question_chars, prompt.answer_chars]
    return (
        all(isinstance(text, str) and text.strip() and len(text) <= limit for text, limit in zip(texts, limits))
        and len(pair.question) >= 8
        and type(pair.number) is int
        and not any(unicodedata.category(c) == "Cs" or (c < " " and c not in "\n\t") for c in "".join(texts))
    )


def accepted(prompt: Prompt, reply: str, finish_reason: str) -> tuple[list[QA], str]:
    """The pairs that pass, and what became of the reply."""
    parsed = prompt.parse(reply, finish_reason)
    # the last pass leaves the question as it was
    pairs = [replace(pair, question=ASKED) if prompt.kind == "reason" else pair for pair in parsed.pairs]
    kept = [pair for pair in pairs if reject_question(pair.question, []) is None]
    if prompt.kind != "quoted":  # a quoted answer is lifted from the passage later
        kept = [p for p in kept if not reject_answer(p, PASSAGE, min_grounded_share=0.0, match=lambda _: None)]
    return kept, parsed.rejection or ("pairs" if kept else "no pair")


def attack(name: str, prompt: Prompt, cases: int) -> Counter[str]:
    """Outcomes of `cases` mutated replies; `exception` and `invalid` are the two that must not be."""
    outcomes: Counter[str] = Counter()
    bar = tqdm(total=cases, desc=name, unit="reply", leave=False, mininterval=5.0)

    @settings(
        max_examples=cases, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.integers(0, 2**63), st.integers(0, 8), st.sampled_from(FINISHED))
    def one(seed: int, strokes: int, finish_reason: str) -> None:
        bar.update()
        outcomes["cases"] += 1
        try:
            pairs, outcome = accepted(prompt, mutated(prompt, seed, strokes), finish_reason)
        except Exception as error:
            tqdm.write(f"{name}, seed {seed}, {strokes} strokes, {finish_reason}: {error!r}")
            outcomes["exception"] += 1
            return
        outcomes[outcome] += 1
        wrong = [pair for pair in pairs if not is_valid(prompt, pair)]
        outcomes["invalid"] += len(wrong)
        for pair in wrong:
            tqdm.write(f"{name}, seed {seed}, {strokes} strokes: accepted {pair!r}")

    one()
    bar.close()
    return outcomes


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1_000_000, help="mutated replies in all")
    wanted = parser.parse_args().cases
    started, kinds = time.monotonic(), prompts()
    rows = {name: attack(name, prompt, -(-wanted // len(kinds))) for name, prompt in kinds.items()}
    shown = ["cases", "exception", "invalid", "pairs", "no pair", "empty", "truncated", "looping", "oversized"]
    shown += ["not_json", "wrong_schema"]
    print(f"{'':15}" + "".join(f"{name:>13}" for name in shown))
    for name, outcomes in rows.items():
        print(f"{name:15}" + "".join(f"{outcomes[column]:>13,}" for column in shown))
    total = sum(rows.values(), Counter())
    figures = {"cases": total["cases"], "exceptions": total["exception"], "accepted_invalid": total["invalid"]}
    write("parser", {**figures, "seconds": round(time.monotonic() - started)})


if __name__ == "__main__":
    main()

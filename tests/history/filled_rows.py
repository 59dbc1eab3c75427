"""One document of the filled history: its text, its extraction, its reply and its pairs."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timezone

Row = dict[str, object]
Rows = dict[str, list[Row]]

#: changes the title in a browser if it is not escaped
HOSTILE = "<script>document.title=1</script><img src=x onerror=document.title=2> A hostile line & a median."
DIMENSIONS = 8
TOPICS = (
    "median", "variance", "regression", "eigenvalue", "sampling", "integral", "tensor", "graph", "query", "figure",
    "parser", "session",
)  # fmt: skip
PACKAGES = ("scipy/stats", "numpy/linalg", "pandas/core", "networkx/algorithms", "sqlalchemy/orm", "matplotlib/axes")
_STATUSES = ("accepted", "accepted", "accepted", "accepted", "void", "truncated", "unanswered", "failed")
START = datetime(2026, 11, 20, 9, 0, tzinfo=timezone.utc)


def key(*parts: object) -> str:
    """A 128-bit id, as in the tables."""
    return hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def text_of(arm: int, number: int) -> str:
    """The text of one document; the first of arm 0 is the hostile one."""
    topic = TOPICS[arm]
    lines = [
        f"Compute the {topic} of an array along the given axis.",
        f"The {topic} number {number} is taken over all values that are not missing.",
        f"When the {topic} is computed from n values, its error falls with the square root of n.",
        "Parameters\n----------\na : array_like\n    The values, of shape (n, d).",
    ]
    return "\n".join([HOSTILE, *lines] if (arm, number) == (0, 0) else lines)


def doc_id(arm: int, number: int) -> str:
    return key("document", arm, number)


def extraction_rows(
    run_id: str, iteration: int, document: tuple[int, int], *, known: bool
) -> tuple[list[Row], list[Row]]:
    """The rows of one document: one pass, final; no reply when the request failed."""
    ident, text = doc_id(*document), text_of(*document)
    status = "accepted" if document == (0, 0) else _STATUSES[int(key("status", ident)[:6], 16) % len(_STATUSES)]
    request = key("request", ident)
    lines = text.split("\n")
    pairs = [
        _pair(ident, line, status == "accepted") for line in lines[: 2 if status in ("accepted", "unanswered") else 0]
    ]
    accepted = [pair for pair in pairs if pair["accepted"]]
    answered = status != "failed"
    row = {
        "run_id": run_id, "iteration": iteration, "arm_id": document[0], "doc_id": ident, "pass": "extract",
        "final": True, "status": status, "prompt_version": "general-3fa1", "calls": int(not known),
        "cached_calls": int(known), "attempts": 1 if answered else 5,
        "prompt_tokens": 600, "completion_tokens": 25,
        "paid_prompt_tokens": 0 if known else 600, "paid_cached_tokens": 0 if known else 480,
        "paid_completion_tokens": 0 if known else 25,
        "needed_tokens": None, "needed_money": None, "passages": 1, "unserved": int(not answered),
        "num_pairs": len(accepted), "num_rejected": len(pairs) - len(accepted),
        "request_keys": [request], "pairs": pairs,
        "error": None if answered else f"HTTP 503 {HOSTILE}",
    }  # fmt: skip
    reply = {
        "request_key": request, "passage_key": key("passage", ident), "prompt_version": "general-3fa1",
        "model": "smollm2-135m-instruct", "finish_reason": "length" if status == "truncated" else "stop",
        "prompt_tokens": 600, "cached_tokens": 480, "completion_tokens": 25, "latency_ms": 430.0, "attempts": 1,
        "received_at": START, "parameters": json.dumps({"temperature": 0.0, "max_tokens": 256}),
        "messages": json.dumps(_messages(text)),
        "text": json.dumps({"questions": [pair["question"] for pair in pairs]}),
    }  # fmt: skip
    return [row], [reply] if answered else []


def _messages(text: str) -> list[Row]:
    turn = f"<passage>\n{text}\n</passage>"
    return [{"role": "system", "content": "Write questions."}, {"role": "user", "content": turn}]


def _pair(ident: str, line: str, accepted: bool) -> Row:
    question = f"What is said of this: {line[:60]}?"
    return {"pair_id": key(ident, 0, question, line), "passage_index": 0, "accepted": accepted, "similarity": 0.7,
            "reason": None if accepted else "unanswered", "question": question, "answer": line,
            "embedding": [1.0] + [0.0] * (DIMENSIONS - 1)}  # fmt: skip

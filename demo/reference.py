"""The demo's reference set, split in two: items that guide selection and items held out for evaluation."""

from __future__ import annotations

import json
from pathlib import Path

SOURCE = Path(__file__).with_name("reference.jsonl")
SPLITS = ("guide", "held_out")


def read_split(split: str) -> list[dict[str, str]]:
    """The items of one half, each {id, question, answer}."""
    rows = [json.loads(line) for line in SOURCE.read_text(encoding="utf-8").splitlines()]
    return [{key: row[key] for key in ("id", "question", "answer")} for row in rows if row["split"] == split]


def write_reference(output_dir: Path) -> None:
    """Write guide.jsonl and held_out.jsonl, the files that reference.guide and reference.held_out name."""
    output_dir.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in read_split(split)]
        (output_dir / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")

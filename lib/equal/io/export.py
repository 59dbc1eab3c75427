"""Selected pairs as a file that a trainer reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from equal.core.conversation import conversation
from equal.errors import TableError

#: where a pair comes from, kept beside the conversation
LINEAGE = ("pair_id", "doc_id", "arm_id", "run_id", "method", "rank", "score")


def write_conversations(path: str, pairs: Iterable[Mapping[str, Any]]) -> int:
    """Write pairs as JSON lines with `prompt` and `completion` turns and their lineage; whole or not at all.

    Args:
        path: the file; its folder is made.
        pairs: question, answer and the columns of LINEAGE.

    Returns:
        Lines written.

    Raises:
        TableError: the file cannot be written.
    """
    target, lines = Path(path), 0
    unfinished = target.with_name(target.name + ".unfinished")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("w", encoding="utf-8") as out:
            for pair in pairs:
                record = conversation(pair["question"], pair["answer"]) | {name: pair[name] for name in LINEAGE}
                out.write(json.dumps(record, ensure_ascii=False) + "\n")
                lines += 1
        unfinished.replace(target)
    except OSError as error:
        raise TableError(f"select.export: {target} cannot be written ({error.strerror}); free or change it") from error
    return lines

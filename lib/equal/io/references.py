"""Reference sets and benchmarks: JSON lines with a question, an answer and, if there is one, an id."""

from __future__ import annotations

import gzip
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from equal.config import RunConfig
from equal.core.contamination import BenchmarkIndex
from equal.core.items import Item
from equal.errors import InputError

#: items named in one message, and characters of a malformed line
_SHOWN = 5
_SHOWN_CHARS = 60


def read_items(path: str, field: str) -> list[Item]:
    """Read one file of items, plain or gzip.

    Args:
        path: the file; each line holds `question` and `answer`, and may hold `id` (otherwise the line number).
        field: the setting that names the file, for messages, such as `reference.guide`.

    Raises:
        InputError: the file is missing, empty, not UTF-8, or has a malformed line, which is named.
    """
    if not path:
        raise InputError(f"{field}: is empty; give the path of a JSON-lines file with question and answer")
    if not Path(path).is_file():
        raise InputError(f"{field}: is {path!r}, no such file; give a JSON-lines file with question and answer")
    try:
        with _open(path) as lines:
            numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{field}: {path} is not UTF-8 ({error.reason}); convert it to UTF-8") from error
    except (OSError, EOFError) as error:
        raise InputError(f"{field}: {path} cannot be read ({error}); check that the file is whole") from error
    if not numbered:
        raise InputError(f"{field}: {path} has no items; it needs one JSON object a line with question and answer")
    items = [_parse(line, f"{field}: {path} line {number}", number) for number, line in numbered]
    seen: set[str] = set()
    for item in items:
        if item.item_id in seen:
            raise InputError(f"{field}: {path} has id {item.item_id!r} twice; ids must be unique, rename one")
        seen.add(item.item_id)
    return items


def read_judges(config: RunConfig) -> dict[str, list[Item]]:
    """Read what no document and no pair may hold: `decontaminate.benchmarks`, and `reference.held_out` with them.

    Raises:
        InputError: a file is missing, empty or malformed.
    """
    fields = {name: f"decontaminate.benchmarks.{name}" for name in config.decontaminate.benchmarks}
    return {name: read_items(path, fields.get(name, "reference.held_out")) for name, path in config.judges.items()}


def require_disjoint(
    guide: Sequence[Item], judges: Mapping[str, Sequence[Item]], *, ngram_words: int, short_words: int
) -> None:
    """Refuse a guiding set that shares an item with what the result is judged by.

    Raises:
        InputError: names the items of `reference.guide` that occur in one of the judging sets.
    """
    index = BenchmarkIndex.build(judges, ngram_words=ngram_words, short_words=short_words)
    shared = [(item, hit) for item in guide if (hit := index.match(item.text)) is not None]
    if not shared:
        return
    named = "; ".join(
        f"{item.item_id} shares {hit.ngram!r} with {hit.item_id} of {hit.benchmark}" for item, hit in shared[:_SHOWN]
    )
    more = f"; and {len(shared) - _SHOWN} more" if len(shared) > _SHOWN else ""
    raise InputError(
        f"reference.guide: {len(shared)} of {len(guide)} items occur in what the result is judged by: {named}{more}. "
        "Remove or reword them in reference.guide"
    )


def load_judges(config: RunConfig) -> dict[str, list[Item]]:
    """As `read_judges`, after checking that what guides selection does not overlap them.

    Raises:
        InputError: a file is missing, empty or malformed, or `reference.guide` overlaps a judging set.
    """
    rule, judges = config.decontaminate, read_judges(config)
    if config.reference.guide:
        guide = read_items(config.reference.guide, "reference.guide")
        require_disjoint(guide, judges, ngram_words=rule.ngram_words, short_words=rule.short_words)
    return judges


def require_complete(config: RunConfig) -> None:
    """Check, before the first stage of a whole pipeline, what its last ones need.

    Raises:
        InputError: names every setting that is empty, or the first reference file that is wrong.
    """
    needed = {
        "documents.path": (config.documents.path, "the folder of the input files"),
        "reference.guide": (config.reference.guide, "a JSON-lines file of the questions that guide selection"),
        "reference.held_out": (config.reference.held_out, "a JSON-lines file of the questions that judge the result"),
        "endpoint.model": (config.endpoint.model, "a model as the server's /v1/models lists it"),
        "finetune.base_model": (config.finetune.base_model, "a model directory or name"),
    }
    empty = [f"{name}: is empty; give {what}" for name, (value, what) in needed.items() if not value]
    if empty:
        raise InputError("\n  ".join(empty))
    load_judges(config)


def write_spared(path: str, spared: Sequence[Mapping[str, Any]]) -> None:
    """Write the n-grams that a run spares, most common first: `ngram`, `key`, `documents`, `benchmark`, `item_id`."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps(list(spared), indent=1, ensure_ascii=False), encoding="utf-8")
    partial.replace(target)


def read_spared(path: str) -> frozenset[int]:
    """The keys of the n-grams that `write_spared` wrote, for `BenchmarkIndex.build`."""
    return frozenset(entry["key"] for entry in json.loads(Path(path).read_text(encoding="utf-8")))


def _open(path: str) -> Any:
    opener = gzip.open if path.endswith(".gz") else open
    return opener(path, "rt", encoding="utf-8-sig")


def _parse(line: str, where: str, number: int) -> Item:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where} is not JSON ({error.msg}): {_shown(line)}; write one JSON object there or remove the line"
        ) from error
    if not isinstance(record, dict):
        raise InputError(
            f"{where} is a JSON {type(record).__name__}, {_shown(line)}, expected an object; "
            "write one with question and answer there or remove the line"
        )
    question, answer = _text(record, "question", where), _text(record, "answer", where)
    if not question.strip():
        raise InputError(f"{where}: question is blank; fill it or remove the line")
    return Item(str(record.get("id", number)), question, answer)


def _text(record: dict[str, Any], key: str, where: str) -> str:
    if key not in record:
        raise InputError(
            f"{where} has no {key!r}; fields present: {', '.join(record) or 'none'}; "
            f"add {key!r}, rename the field that holds it, or remove the line"
        )
    if not isinstance(record[key], str):
        raise InputError(
            f"{where}: {key} is {record[key]!r} ({type(record[key]).__name__}), expected text; "
            "put it in quotes or remove the line"
        )
    return str(record[key])


def _shown(line: str) -> str:
    return repr(textwrap.shorten(line, _SHOWN_CHARS, placeholder="..."))

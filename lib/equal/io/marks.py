"""What a stage's output is a function of, and the marks that say for which input it is finished.

A mark holds a hash of the stage's settings and of its input's mark, back to the documents: change a setting and
that stage and all after it are out of date.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pyspark.sql import functions as F

from equal.config import RunConfig
from equal.core.qa import Prompt
from equal.errors import TableError
from equal.io.prompts import load_prompts
from equal.io.tables import Tables
from equal.schemas import DOCUMENTS, STAGES

#: what decides which documents a run reads and what it makes of them; the budget only says when it ends
CHOICE = ("bandit", "transport", "extraction", "endpoint")
#: stage -> (the stage whose output it reads, the config sections its result depends on)
UPSTREAM: dict[str, tuple[str, tuple[str, ...]]] = {
    "ingest": ("", ("documents",)),
    "deduplicate": ("ingest", ("deduplicate",)),
    "decontaminate": ("deduplicate", ("decontaminate",)),
    "warm_up": ("decontaminate", ("encoder", "warm_up", "extraction", "endpoint")),
    "embed": ("warm_up", ("encoder",)),
    "cluster": ("embed", ("cluster",)),
    "extract": ("cluster", (*CHOICE, "budget")),
    "select": ("extract", ("select",)),
    "finetune": ("select", ("finetune",)),
    "evaluate": ("finetune", ("evaluate",)),
}
#: the model reads documents here
READING_STAGES = frozenset({"warm_up", "extract"})
#: from here on a result belongs to a run_name; before, to the corpus
RUN_STAGES = frozenset({"extract", "select", "finetune", "evaluate"})


def require_upstream(tables: Tables, config: RunConfig, stage: str) -> None:
    """Refuse to build on what another configuration made.

    Raises:
        TableError: names the first stage before this one that is missing or out of date.
    """
    earlier: list[str] = []
    while stage := UPSTREAM[stage][0]:
        earlier.append(stage)
    for name in reversed(earlier):
        mark(tables, config, name)
        if not finished(tables, config, name):
            sections = ", ".join(UPSTREAM[name][1])
            raise TableError(
                f"stage {name}: its output under storage.root={config.storage.root} was made with other settings "
                f"({sections}) or other input than this configuration gives; run its job with this configuration, "
                "restore the settings, or choose another storage.root"
            )


def expected_hash(tables: Tables, config: RunConfig, stage: str) -> str:
    """What the output of `stage` is a function of: its settings and its input, back to the documents."""
    return _hash(tables, config, stage, UPSTREAM[stage][1])


def history_hash(tables: Tables, config: RunConfig) -> str:
    """What a run's history is a function of; without the budget, so that a finished run can be extended."""
    return _hash(tables, config, "extract", CHOICE)


def _hash(tables: Tables, config: RunConfig, stage: str, sections: tuple[str, ...]) -> str:
    before = UPSTREAM[stage][0]
    parts = [config.fingerprint(*sections)]
    if before:
        parts.append(mark(tables, config, before)["input_hash"])
    if before == "ingest":  # a refresh that brought nothing leaves the corpus, and so the hash, as it was
        parts.append(_corpus_hash(tables))
    parts += [_file_hash(path) for path in _files(config).get(stage, ())]
    if stage in READING_STAGES:
        parts += [prompt.version for prompt in _prompts(config) if prompt]
    return hashlib.blake2b("|".join(parts).encode(), digest_size=8).hexdigest()


def _prompts(config: RunConfig) -> tuple[Prompt, Prompt | None]:
    how = config.extraction
    return load_prompts(
        how.domain, answer=how.answer, refine=how.refine, structured=how.structured, max_pairs=how.max_pairs
    )


def _corpus_hash(tables: Tables) -> str:
    ids = tables.read(DOCUMENTS).agg(F.count("*"), F.bit_xor(F.xxhash64("doc_id"))).first()
    return "/".join(str(value) for value in ids)


def _files(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """The files whose content decides a stage's result."""
    reference = config.reference
    return {
        "decontaminate": tuple(path for _, path in sorted(config.decontaminate.benchmarks.items())),
        "extract": (reference.guide,),
        "evaluate": (reference.held_out,),
    }


def _file_hash(path: str) -> str:
    """Of the content; a missing file is reported by the stage that reads it, with its setting's name."""
    file = Path(path)
    return hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest() if file.is_file() else "absent"


def mark(tables: Tables, config: RunConfig, stage: str) -> dict[str, str]:
    """The newest completion mark of a stage.

    Raises:
        TableError: the stage has not finished.
    """
    marks = _marks(tables, owner(config, stage), stage)
    if not marks:
        raise TableError(
            f"stage {stage}: has not finished under storage.root={config.storage.root}; "
            "run its job with the same --config first"
        )
    return marks[-1]


def finished(tables: Tables, config: RunConfig, stage: str) -> bool:
    """Whether a stage has nothing left to do for its present input and configuration."""
    try:
        return mark(tables, config, stage)["input_hash"] == expected_hash(tables, config, stage)
    except TableError:
        return False


def _marks(tables: Tables, run_id: str, stage: str) -> list[dict[str, str]]:
    rows = tables.read(STAGES).where((F.col("run_id") == run_id) & (F.col("stage") == stage))
    return [row.asDict() for row in rows.orderBy("finished_at").collect()]


def owner(config: RunConfig, stage: str) -> str:
    """Whose output it is: the run's, or `corpus` for what all runs share."""
    return config.run_name if stage in RUN_STAGES else "corpus"

"""What a stage's output is a function of, and the marks that say for which input it is finished.

A mark holds a hash of the stage's settings and of its input's mark, back to the documents: change a setting and
that stage and all after it are out of date.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyspark.sql import functions as F

from equal.config import RunConfig
from equal.core.qa import Prompt
from equal.errors import TableError
from equal.io.prompts import load_prompts
from equal.io.tables import Tables
from equal.schemas import DOCUMENTS, REMOVALS, STAGES, WITHDRAWN

#: what decides which documents a run reads and what it makes of them; the budget only says when it ends
CHOICE = ("bandit", "transport", "extraction", "endpoint")
#: stage -> (the stage whose output it reads, the config sections its result depends on)
UPSTREAM: dict[str, tuple[str, tuple[str, ...]]] = {
    "ingest": ("", ("documents",)),
    "quality": ("ingest", ("quality",)),
    "deduplicate": ("quality", ("deduplicate",)),
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
#: Python workers hold the encoder here
MODEL_STAGES = READING_STAGES | {"embed"}
#: from here on a result belongs to a run_name; before, to the corpus
RUN_STAGES = frozenset({"extract", "select", "finetune", "evaluate"})
#: stages that work on the pairs of a finished extraction -> the first stage whose result they use; that documents
#: came or were withdrawn since then does not put it out of date for them
_ON_PAIRS = {"select": "extract", "finetune": "extract", "evaluate": "warm_up"}


@dataclass(frozen=True)
class Marks:
    """The newest completion mark of every stage of a configuration, as they stood at one moment.

    They are read in one query, what ingest left of the documents with them: one for each stage and each question took
    longer than the small stages themselves, and to look through the documents each time longer still.

    Attributes:
        config: whose stages.
        rows: the marks by stage.
        corpus_hash: of the ids of the documents and of those withdrawn, the input of all that follows ingest.
        withdrawn_hash: of the ids of those withdrawn alone, whose pairs are not selected.
        batch: the newest load of documents; -1 without any.
    """

    config: RunConfig
    rows: Mapping[str, Mapping[str, str]]
    corpus_hash: str
    withdrawn_hash: str
    batch: int

    @classmethod
    def read(cls, tables: Tables, config: RunConfig) -> Marks:
        """Read them; one small query."""
        found = sorted((row.asDict() for row in tables.read(STAGES).collect()), key=lambda row: row["finished_at"])
        rows = {row["stage"]: row for row in found if row["run_id"] == owner(config, row["stage"])}
        corpus = json.loads(rows["ingest"]["details"]).get("corpus") if "ingest" in rows else None
        if corpus is None:  # as for a mark of the time when it did not say what the documents are
            rows.pop("ingest", None)
            return cls(config, rows, "", "", -1)
        return cls(config, rows, corpus["hash"], corpus["withdrawn"], corpus["batch"])

    def of(self, stage: str) -> Mapping[str, str]:
        """The newest mark of a stage.

        Raises:
            TableError: the stage has not finished.
        """
        if stage not in self.rows:
            raise TableError(
                f"stage {stage}: has not finished under storage.root={self.config.storage.root}; "
                "run its job with the same --config first"
            )
        return self.rows[stage]

    def finished(self, stage: str) -> bool:
        """Whether a stage has nothing left to do for its present input and configuration."""
        try:
            return self.of(stage)["input_hash"] == self.expected_hash(stage)
        except TableError:
            return False

    def require_upstream(self, stage: str) -> None:
        """Refuse to build on what another configuration made.

        Raises:
            TableError: names the first stage before this one that is missing or out of date.
        """
        first, earlier = _ON_PAIRS.get(stage), list[str]()
        while stage != first and (stage := UPSTREAM[stage][0]):
            earlier.append(stage)
        for name in reversed(earlier):
            self.of(name)
            if self.made_otherwise(name) if name == first else not self.finished(name):
                sections = ", ".join(UPSTREAM[name][1])
                raise TableError(
                    f"stage {name}: its output under storage.root={self.config.storage.root} was made with other "
                    f"settings ({sections}) or other input than this configuration gives; run its job with this "
                    "configuration, restore the settings, or choose another storage.root"
                )

    def judged_until(self, stage: str) -> int:
        """The newest load whose documents the stage has judged with these settings; -1 for none."""
        return -1 if stage not in self.rows or self.made_otherwise(stage) else int(self.rows[stage]["batch"])

    def made_otherwise(self, stage: str) -> bool:
        """Whether the stage has finished, but with other settings than these."""
        return stage in self.rows and self.rows[stage]["settings_hash"] != self.settings_hash(stage)

    def settings_hash(self, stage: str) -> str:
        """Of the settings and files of a stage and of all before it, whatever the documents are."""
        before = UPSTREAM[stage][0]
        parts = self._settings(stage, UPSTREAM[stage][1]) + ([self.settings_hash(before)] if before else [])
        return hashlib.blake2b("|".join(parts).encode(), digest_size=8).hexdigest()

    def expected_hash(self, stage: str) -> str:
        """What the output of `stage` is a function of: its settings and its input, back to the documents."""
        return self._hash(stage, UPSTREAM[stage][1])

    def history_hash(self) -> str:
        """What a run's history is a function of; without the budget, so that a finished run can be extended."""
        return self._hash("extract", CHOICE)

    def _hash(self, stage: str, sections: tuple[str, ...]) -> str:
        before = UPSTREAM[stage][0]
        parts = self._settings(stage, sections)
        if before:
            parts.append(self.of(before)["input_hash"])
        if before == "ingest":  # a refresh that brought nothing leaves the corpus, and so the hash, as it was
            parts.append(self.corpus_hash)
        if stage == "select":
            parts.append(self.withdrawn_hash)
        return hashlib.blake2b("|".join(parts).encode(), digest_size=8).hexdigest()

    def _settings(self, stage: str, sections: tuple[str, ...]) -> list[str]:
        files = [_file_hash(path) for path in _files(self.config).get(stage, ())]
        prompts = [prompt.version for prompt in _prompts(self.config) if prompt] if stage in READING_STAGES else []
        return [self.config.fingerprint(*sections), *files, *prompts]


def corpus_facts(tables: Tables) -> dict[str, Any]:
    """What ingest keeps in its mark, as `corpus`: hashes of the documents and of those withdrawn; the newest load."""
    ids = (F.count("*"), F.bit_xor(F.xxhash64("doc_id")))
    *came, batch = tables.read(DOCUMENTS).agg(*ids, F.max("batch")).first()
    gone = tables.read(REMOVALS).where(f"stage = '{WITHDRAWN}'").agg(*ids).first()
    corpus, withdrawn = ("/".join(map(str, found)) for found in ([*came, *gone], gone))
    return {
        "documents": came[0],
        "corpus": {"hash": corpus, "withdrawn": withdrawn, "batch": -1 if batch is None else int(batch)},
    }


def _prompts(config: RunConfig) -> tuple[Prompt | None, ...]:
    how = config.extraction
    passes = {"refine": how.refine, "reason": how.reason}
    return load_prompts(how.domain, answer=how.answer, structured=how.structured, max_pairs=how.max_pairs, **passes)


def _files(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """The files whose content decides a stage's result."""
    reference = config.reference
    return {
        "decontaminate": tuple(path for _, path in sorted(config.judges.items())),
        "extract": (reference.guide,),
        "evaluate": (reference.held_out,),
    }


def _file_hash(path: str) -> str:
    """Of the content; a missing file is reported by the stage that reads it, with its setting's name."""
    file = Path(path)
    return hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest() if file.is_file() else "absent"


def owner(config: RunConfig, stage: str) -> str:
    """Whose output it is: the run's, or `corpus` for what all runs share."""
    return config.run_name if stage in RUN_STAGES else "corpus"

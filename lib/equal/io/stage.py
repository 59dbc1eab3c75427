"""What every job shares: arguments, session, tables, the finished mark, the log line and the cost row."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from equal.config import RunConfig, parse_arguments
from equal.errors import EqualError, TableError
from equal.io.progress import task_progress
from equal.io.session import open_session
from equal.io.tables import Tables
from equal.schemas import COSTS, DOCUMENTS, STAGES

log = logging.getLogger("equal")

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
#: they show replies, not tasks
READING_STAGES = frozenset({"warm_up", "extract"})
#: from here on a result belongs to a run_name; before, to the corpus
RUN_STAGES = frozenset({"extract", "select", "finetune", "evaluate"})


@dataclass
class Outcome:
    """What a stage reports when it is done; `calls` to `flops` go to the cost ledger."""

    rows_in: int
    rows_out: int
    details: dict[str, object] = field(default_factory=dict)
    calls: int = 0
    cached_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    flops: float = 0.0
    money: float = 0.0
    #: nothing new was found: mark and ledger stay those of the time when the stage had work
    unchanged: bool = False


@dataclass(frozen=True)
class Job:
    """What a stage body works with."""

    config: RunConfig
    spark: SparkSession
    tables: Tables
    stage: str
    input_hash: str

    def path(self, *parts: str) -> str:
        """A path under storage.root."""
        return "/".join([self.config.storage.root.rstrip("/"), *parts])

    def upstream_hash(self, stage: str) -> str:
        """The input_hash under which `stage` finished; names its artefacts, such as the tuned encoder."""
        return mark(self.tables, self.config, stage)["input_hash"]

    def details(self, stage: str) -> dict[str, object]:
        """What `stage` reported about itself when it finished."""
        return dict(json.loads(mark(self.tables, self.config, stage)["details"]))


Body = Callable[[Job], Outcome]


def main(stage: str, body: Body, argv: Sequence[str] | None, description: str | None) -> None:
    """Entry point of a job."""
    with exit_on_error(stage):
        run_stage(parse_arguments(argv, description), stage, body)


@contextmanager
def exit_on_error(name: str) -> Iterator[None]:
    """Log to stderr, and turn an EqualError into one message and exit status 2."""
    if not log.handlers:  # the root logger belongs to whoever imported a library that configures it first
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        log.addHandler(handler)
        log.propagate = False
    log.setLevel(logging.INFO)
    try:
        yield
    except EqualError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)


def run_stage(config: RunConfig, stage: str, body: Body) -> None:
    """Run a stage unless its mark says it is finished for this input and configuration.

    Raises:
        TableError: an earlier stage has not run, or the run_name belongs to another configuration.
    """
    spark = open_session(config.spark.partitions)
    tables = Tables(spark, config.storage.root, config.storage.schema)
    input_hash = expected_hash(tables, config, stage)
    if stage != "ingest" and finished(tables, config, stage):
        log.info("%s: already finished for this input and configuration, nothing to do", stage)
        return
    started = time.monotonic()
    with nullcontext() if stage in READING_STAGES else task_progress(spark, stage):
        outcome = body(Job(config, spark, tables, stage, input_hash))
    seconds = time.monotonic() - started
    if not (outcome.unchanged and finished(tables, config, stage)):
        _record(tables, config, stage, input_hash, outcome, seconds)
    log.info(
        "%s: %s rows in, %s rows out, %.1f s%s",
        stage,
        f"{outcome.rows_in:,}",
        f"{outcome.rows_out:,}",
        seconds,
        "".join(f", {k} {v}" for k, v in outcome.details.items() if isinstance(v, (int, float, str))),
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
    return hashlib.blake2b("|".join(parts).encode(), digest_size=8).hexdigest()


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
    marks = _marks(tables, _owner(config, stage), stage)
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


def _owner(config: RunConfig, stage: str) -> str:
    return config.run_name if stage in RUN_STAGES else "corpus"


def _record(tables: Tables, config: RunConfig, stage: str, input_hash: str, outcome: Outcome, seconds: float) -> None:
    now = datetime.now(timezone.utc)
    run_id = _owner(config, stage)
    if stage != "extract":  # the bandit writes its own rows, one an iteration
        cost = {
            "run_id": run_id,
            "stage": stage,
            "iteration": 0,
            "documents": outcome.rows_in,
            "calls": outcome.calls,
            "cached_calls": outcome.cached_calls,
            "prompt_tokens": outcome.prompt_tokens,
            "completion_tokens": outcome.completion_tokens,
            "seconds": seconds,
            "flops": outcome.flops,
            "money": outcome.money,
            "recorded_at": now,
        }
        tables.replace(COSTS, tables.rows(COSTS, [cost]), f"run_id = '{run_id}' AND stage = '{stage}'")
    row = {
        "run_id": run_id,
        "stage": stage,
        "input_hash": input_hash,
        "fingerprint": config.fingerprint(),
        "rows_in": outcome.rows_in,
        "rows_out": outcome.rows_out,
        "seconds": seconds,
        "details": json.dumps(outcome.details, sort_keys=True, default=str),
        "finished_at": now,
    }
    tables.append(STAGES, tables.rows(STAGES, [row]))

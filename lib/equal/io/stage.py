"""What every job shares: arguments, session, tables, the finished mark, the log line and the cost row."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from equal.config import RunConfig, parse_arguments
from equal.errors import EqualError
from equal.io.lock import run_lock
from equal.io.marks import MODEL_STAGES, READING_STAGES, Marks, owner
from equal.io.progress import task_progress
from equal.io.session import open_session
from equal.io.tables import Tables
from equal.schemas import COSTS, DOC_ID, DOCUMENTS, REASON, REMOVALS, STAGE, STAGES, WITHDRAWN

log = logging.getLogger("equal")


@dataclass
class Outcome:
    """What a stage reports when it is done; `calls` to `flops` go to the cost ledger."""

    rows_in: int
    rows_out: int
    details: dict[str, object] = field(default_factory=dict)
    calls: int = 0
    cached_calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    flops: float = 0.0
    money: float = 0.0
    #: for the ledger, where a stage works on fewer documents than came in
    documents: int | None = None
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
    marks: Marks

    def path(self, *parts: str) -> str:
        """A path under storage.root, absolute: executors have another working directory."""
        return os.path.join(os.path.abspath(self.config.storage.root), *parts)

    @property
    def owner(self) -> str:
        """Whose rows the stage writes, and who may write at a time: the run, or `corpus` for all runs."""
        return owner(self.config, self.stage)

    def upstream_hash(self, stage: str) -> str:
        """The input_hash under which `stage` finished; names its artefacts, such as the tuned encoder."""
        return self.marks.of(stage)["input_hash"]

    @property
    def judged_until(self) -> int:
        """The newest load that this stage has judged with these settings; -1 when it judges all documents now."""
        return self.marks.judged_until(self.stage)

    def new_documents(self) -> DataFrame:
        """The documents of the loads since then."""
        return self.tables.read(DOCUMENTS).where(F.col("batch") > self.judged_until)

    def num_documents(self, *stages: str) -> int:
        """How many documents none of these stages removed; a look at what they removed, not at a million documents."""
        removed = self.tables.read(REMOVALS).where(F.col(STAGE).isin(*stages)).select(DOC_ID).distinct()
        return self.tables.read(DOCUMENTS).count() - removed.count()

    def earlier_removals(self) -> DataFrame:
        """What this stage removed with these settings before; empty when it judges all documents now."""
        return self.tables.read(REMOVALS).where((F.col(STAGE) == self.stage) & F.lit(self.judged_until >= 0))

    def replace(self, table: str, frame: DataFrame, where: str | None = None) -> None:
        """Replace rows of the stage's result, those that match `where`, all when None.

        Raises:
            TableError: the table could not be written; it is unchanged.
        """
        self.overwrite()
        self.tables.replace(table, frame, where)

    def reopen(self) -> None:
        """Say that the stage changes what it had finished: until it has ended, what comes after it refuses to run."""
        if self.stage in self.marks.rows:
            self.tables.delete(STAGES, f"run_id = '{self.owner}' AND stage = '{self.stage}'")

    def overwrite(self) -> None:
        """Say that from now on the result of other settings is gone, in case this stage is killed half-way.

        Their mark would else stand over what this stage wrote. Before this call a stage may refuse and lose nothing.
        """
        if self.marks.made_otherwise(self.stage):
            self.reopen()

    def details(self, stage: str) -> dict[str, object]:
        """What `stage` reported about itself when it finished."""
        return dict(json.loads(self.marks.of(stage)["details"]))


Body = Callable[[Job], Outcome]


def main(stage: str, body: Body, argv: Sequence[str] | None, description: str | None) -> None:
    """Entry point of a job."""
    with exit_on_error(stage):
        run_stage(parse_arguments(argv, description), stage, body)


@contextmanager
def exit_on_error(name: str) -> Iterator[None]:
    """Log to stderr, and turn an EqualError or a full disk into one message and exit status 2."""
    if not log.handlers:  # the root logger belongs to whoever imported a library that configures it first
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        log.addHandler(handler)
        log.propagate = False
    log.setLevel(logging.INFO)
    # what libraries tell those who program with them, in the middle of a job's own lines
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="mlflow")
    try:
        yield
    except EqualError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if not _says_full_disk(error):
            raise
        where = getattr(error, "filename", None) or "storage.root"
        print(f"{name}: no space left on the device of {where}; free some or move it, run it again", file=sys.stderr)
        sys.exit(2)


def _says_full_disk(error: BaseException | None) -> bool:
    """Whether it is, or came of, a full disk: libraries that write weights or to SQLite have errors of their own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(error) for words in ("No space left on device", "database or disk is full")):
            return True
        error = error.__cause__ or error.__context__
    return False


def replace_removals(job: Job, removals: DataFrame, judged: DataFrame | None = None) -> dict[str, int]:
    """Make `removals` all that this stage removed; returns how many documents for each reason.

    Args:
        job: whose stage.
        removals: rows of the table.
        judged: doc_id of the documents looked at, where they are not all: what was removed among others stays.

    Raises:
        TableError: the table could not be written; it is unchanged.
    """
    if judged is not None:
        gone = job.tables.read(REMOVALS).where(F.col(STAGE) == WITHDRAWN)
        looked_at = judged.select(DOC_ID).union(gone.select(DOC_ID))
        removals = removals.unionByName(job.earlier_removals().join(looked_at, DOC_ID, "left_anti"))
    job.replace(REMOVALS, removals, f"stage = '{job.stage}'")
    written = job.tables.read(REMOVALS).where(F.col(STAGE) == job.stage).groupBy(REASON).count().collect()
    return {row[REASON]: row["count"] for row in written}


def run_stage(config: RunConfig, stage: str, body: Body, *, even_finished: bool = False) -> None:
    """Run a stage unless its mark says it is finished for this input and configuration.

    Args:
        config: of the run.
        stage: its name.
        body: what it does.
        even_finished: whatever its mark says.

    Raises:
        TableError: an earlier stage has not run with this configuration, or the run_name belongs to another one.
        RunLockedError: another process works on the run, or, before `extract`, on the corpus.
    """
    spark = open_session(config.spark.partitions, with_models=stage in MODEL_STAGES)
    tables = Tables(spark, config.storage.root, config.storage.schema)
    with run_lock(config.storage.root, owner(config, stage)):  # before the marks, which a holder may be changing
        marks = Marks.read(tables, config)
        marks.require_upstream(stage)
        if stage != "ingest" and not even_finished and marks.finished(stage):
            log.info("%s: already finished for this input and configuration, nothing to do", stage)
            return
        started = time.monotonic()
        job = Job(config, spark, tables, stage, marks.expected_hash(stage), marks)
        with nullcontext() if stage in READING_STAGES else task_progress(spark, stage):
            outcome = body(job)
        seconds = time.monotonic() - started
        if not (outcome.unchanged and marks.finished(stage)):
            _record(job, outcome, seconds)
    log.info(
        "%s: %s rows in, %s rows out, %.1f s%s",
        stage,
        f"{outcome.rows_in:,}",
        f"{outcome.rows_out:,}",
        seconds,
        "".join(
            f", {name} {value:.4g}" if isinstance(value, float) else f", {name} {value}"
            for name, value in outcome.details.items()
            if isinstance(value, (int, float, str))
        ),
    )


def _record(job: Job, outcome: Outcome, seconds: float) -> None:
    tables, stage, run_id = job.tables, job.stage, job.owner
    now = datetime.now(timezone.utc)
    if stage != "extract":  # the bandit writes its own rows, one an iteration
        cost = {
            "run_id": run_id,
            "stage": stage,
            "iteration": 0,
            "documents": outcome.rows_in if outcome.documents is None else outcome.documents,
            "calls": outcome.calls,
            "cached_calls": outcome.cached_calls,
            "prompt_tokens": outcome.prompt_tokens,
            "cached_tokens": outcome.cached_tokens,
            "completion_tokens": outcome.completion_tokens,
            "seconds": seconds,
            "flops": outcome.flops,
            "money": outcome.money,
            "recorded_at": now,
        }
        tables.append(COSTS, tables.rows(COSTS, [cost]))  # what an earlier execution paid was paid
    row = {
        "run_id": run_id,
        "stage": stage,
        "input_hash": job.input_hash,
        "settings_hash": job.marks.settings_hash(stage),
        "batch": job.marks.batch,
        "fingerprint": job.config.fingerprint(),
        "rows_in": outcome.rows_in,
        "rows_out": outcome.rows_out,
        "seconds": seconds,
        "details": json.dumps(outcome.details, sort_keys=True, default=str),
        "finished_at": now,
    }
    tables.append(STAGES, tables.rows(STAGES, [row]))

"""Documents that their source has taken back: files of source ids, each of which counts once.

A file takes back what was ingested before it was first read, so that a corrected document may come under the same
source id: the file and the new text are put in place, ingest runs, the old text is withdrawn and the new one is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.utils import StreamingQueryException

from equal.errors import InputError, TableError
from equal.io.tables import Tables, failure_cause
from equal.schemas import (
    DOC_ID,
    DOCUMENTS,
    EVIDENCE,
    REASON,
    REMOVALS,
    RUN_ID,
    SELECTED_PAIRS,
    SOURCE_FILE,
    SOURCE_ID,
    STAGE,
    WITHDRAWN,
)

log = logging.getLogger("equal")


def withdraw(tables: Tables, path: str, *, before: Callable[[], None]) -> int:
    """Write a removal for every document that a new file of `path` names, exactly once.

    Args:
        tables: where to write; the stream's checkpoint lies beside them.
        path: a file or folder of JSON lines with `id`, the source's own id.
        before: called before removals are written.

    Returns:
        How many documents were withdrawn now.

    Raises:
        InputError: the path is missing or a line has no id.
        TableError: the write failed; the next run goes on.
    """
    spark = tables.spark
    try:
        lines = _ids(_with_file(spark.read.option("recursiveFileLookup", "true").text(path)))
        bad = lines.where(F.col(SOURCE_ID).isNull()).select("value", SOURCE_FILE).first()
    except (PySparkException, Py4JJavaError) as error:
        raise InputError(f"documents.withdrawn: {path} cannot be read ({failure_cause(error)}); correct it") from error
    if bad:
        raise InputError(
            f"documents.withdrawn: {bad[1]} has the line {bad[0][:80]!r}, which gives no id; "
            'expected lines such as {"id": "a17"}'
        )
    already = _withdrawn(tables).count()
    checkpoint = Path(tables.root).absolute() / "checkpoints" / "withdrawn"

    def write(batch: DataFrame, batch_id: int) -> None:
        # a replay after a crash finds its own rows there
        named = _ids(batch).groupBy(SOURCE_ID).agg(F.min(SOURCE_FILE).alias("named_in"))
        documents = tables.read(DOCUMENTS)
        found = documents.join(named, SOURCE_ID).join(_withdrawn(tables), DOC_ID, "left_anti")
        unknown = named.join(documents, SOURCE_ID, "left_anti").agg(F.count("*"), F.min(SOURCE_ID)).first()
        if unknown[0]:
            log.warning("ingest: %d withdrawn ids name no document, such as %s", *unknown)
        evidence = F.to_json(F.struct(SOURCE_ID, "named_in")).alias(EVIDENCE)
        stage, reason = (F.lit(WITHDRAWN).alias(name) for name in (STAGE, REASON))
        before()
        tables.append(REMOVALS, found.select(DOC_ID, stage, reason, SOURCE_FILE, evidence))

    stream = spark.readStream.option("recursiveFileLookup", "true").option("maxFileAge", "36500d").text(path)
    writer = _with_file(stream).writeStream.foreachBatch(write).option("checkpointLocation", str(checkpoint))
    try:
        writer.trigger(availableNow=True).start().awaitTermination()
    except StreamingQueryException as error:
        raise TableError(f"ingest: documents.withdrawn: {failure_cause(error)}; run the job again") from error
    _warn_of_selected(tables)
    return _withdrawn(tables).count() - already


def _with_file(lines: DataFrame) -> DataFrame:
    return lines.select("value", F.col("_metadata.file_path").alias(SOURCE_FILE))


def _ids(lines: DataFrame) -> DataFrame:
    """value, source_file, source_id of the lines that are not blank."""
    return lines.where(F.trim("value") != "").withColumn(SOURCE_ID, F.get_json_object("value", "$.id"))


def _withdrawn(tables: Tables) -> DataFrame:
    return tables.read(REMOVALS).where(F.col(STAGE) == WITHDRAWN).select(DOC_ID)


def _warn_of_selected(tables: Tables) -> None:
    """Name the runs whose selected pairs, and so whose exports and models, hold what was taken back by now."""
    held = tables.read(SELECTED_PAIRS).join(_withdrawn(tables), DOC_ID, "left_semi").groupBy(RUN_ID).count()
    for run_id, count in sorted(held.collect()):
        log.warning(
            "ingest: %d selected pairs of run %s are of documents withdrawn by now; run jobs/select_pairs.py with its "
            "configuration to take them out of selected_pairs and the export, then finetune and evaluate",
            count, run_id,
        )  # fmt: skip

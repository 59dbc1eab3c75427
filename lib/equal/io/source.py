"""The folder of input files: checked before anything is written, then read as a stream, each file once.

A file counts as read by its path: one that is overwritten in place is not read again.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming import DataStreamReader
from pyspark.sql.types import StructType
from pyspark.sql.utils import StreamingQueryException

from equal.config import Documents
from equal.errors import EqualError, InputError, TableError
from equal.io.session import on_databricks
from equal.io.tables import Tables, failure_cause
from equal.schemas import DOC_ID, DOCUMENTS, REMOVALS, SOURCE_FILE, STAGE, WITHDRAWN

log = logging.getLogger("equal")

#: records looked at to learn which fields there are
_PROBED_RECORDS = 1000
#: Spark's format of each of ours
_SPARK_FORMATS = {"jsonl": "text", "text": "text", "parquet": "parquet"}
#: without it the stream passes over files a week older than the newest one it has seen
_MAX_FILE_AGE = "36500d"
#: what Java says of a compressed file that ends early or is damaged, without naming it
_DAMAGED = re.compile(r"end of input stream|EOFException|ZipException|gzip|zlib|invalid (block|stored|distance|code)")

Prepare = Callable[[DataFrame, DataFrame], DataFrame]
Split = Callable[[DataFrame, int], tuple[DataFrame, DataFrame]]


def check_source(spark: SparkSession, documents: Documents) -> StructType:
    """Look at the input before anything is written.

    Returns:
        The schema in which the stream reads.

    Raises:
        InputError: the path is missing or holds no data, or a field is not there; the fields present are listed.
    """
    path = documents.path
    if not path:
        raise InputError("documents.path: is empty; give the folder of the input files")
    try:
        files = _read(spark, "binaryFile", path).select("path", "length").where("length > 0")
        if files.isEmpty():
            raise InputError(f"documents.path: {path} holds no files with data; put {documents.format} files there")
        schema = _read(spark, _SPARK_FORMATS[documents.format], path).schema
        present = [] if documents.format == "text" else _fields(spark, documents, schema)
    except (PySparkException, Py4JJavaError) as error:
        _require_whole_files(spark, path, error)
        raise InputError(
            f"documents.path: {path} cannot be read as {documents.format} ({failure_cause(error)}); check the path, "
            "documents.format and that the files are whole"
        ) from error
    if documents.format == "text":
        return schema
    for name, field in (("text_field", documents.text_field), ("id_field", documents.id_field)):
        if field not in present and (field or name == "text_field"):
            remedy = " or empty, for ids by text alone" if name == "id_field" else ""
            raise InputError(
                f"documents.{name}: {field!r} is not in {path}; fields present: {', '.join(present)}; "
                f"set documents.{name} to one of them{remedy}"
            )
    return schema


def read_new_files(
    tables: Tables,
    documents: Documents,
    *,
    loader: str,
    schema: StructType,
    fingerprint: str,
    prepare: Prepare,
    split: Split,
    before: Callable[[], None],
) -> int:
    """Bring each file that was not read before into `documents` and `removals`, exactly once.

    Args:
        tables: where to write; the stream's checkpoint lies beside them.
        documents: settings of the source.
        loader: `files` (Spark) or `auto_loader` (Databricks).
        schema: from `check_source`.
        fingerprint: of the settings that shape a document.
        prepare: (raw batch, doc_id of the documents so far and whether each was withdrawn) to cleaned records.
        split: cleaned records and the number of their batch to (documents, removals).
        before: called before documents are written, when all of their files have been read.

    Returns:
        Batches read; 0 when there were no new files.

    Raises:
        TableError: the documents were made with other settings, or a write failed.
        InputError: a compressed file is damaged.
    """
    checkpoint = _checkpoint(tables, fingerprint)
    batches: list[int] = []
    failures: list[Exception] = []

    def write(batch: DataFrame, batch_id: int) -> None:
        cleaned = prepare(batch, _known(tables)).persist()
        try:
            _write_batch(tables, checkpoint, batch_id, split(cleaned, batch_id), before)
            batches.append(batch_id)
        except Exception as error:
            failures.append(error)
            raise
        finally:
            cleaned.unpersist()

    stream = _stream(tables.spark, documents, loader, schema, checkpoint)
    writer = stream.writeStream.foreachBatch(write).option("checkpointLocation", str(checkpoint))
    try:
        writer.trigger(availableNow=True).start().awaitTermination()
    except StreamingQueryException as error:
        _require_whole_files(tables.spark, documents.path, failures[0] if failures else error)
        if failures and isinstance(failures[0], EqualError):
            raise failures[0] from error
        raise TableError(f"ingest: {_first_line(failures[0] if failures else error)}; run the job again") from error
    if not batches:
        log.info("ingest: no new files in %s, nothing changed", documents.path)
    return len(batches)


def _known(tables: Tables) -> DataFrame:
    """doc_id of every document, and whether its source has taken it back."""
    gone = tables.read(REMOVALS).where(F.col(STAGE) == WITHDRAWN).select(DOC_ID, F.lit(True).alias("gone"))
    known = tables.read(DOCUMENTS).select(DOC_ID).join(gone, DOC_ID, "left")
    return known.select(DOC_ID, F.coalesce("gone", F.lit(False)).alias(WITHDRAWN))


def _require_whole_files(spark: SparkSession, path: str, error: Exception) -> None:
    """Name the damaged file that Spark failed of.

    Raises:
        InputError: the first compressed file that cannot be read to its end.
    """
    if not _DAMAGED.search(str(error)):
        return
    compressed = _read(spark, "binaryFile", path).where("path LIKE '%.gz'").select("path").orderBy("path")
    for row in compressed.toLocalIterator():
        try:
            spark.read.text(row.path).count()
        except (PySparkException, Py4JJavaError) as failure:
            raise InputError(
                f"documents.path: {row.path} is cut off or damaged ({failure_cause(failure)}); put a whole copy in "
                "its place or remove it, and run the job again"
            ) from error


def _write_batch(
    tables: Tables, checkpoint: Path, batch_id: int, frames: tuple[DataFrame, DataFrame], before: Callable[[], None]
) -> None:
    """Write a batch so that its replay after a crash writes nothing twice.

    Removals go first: a replay that found its own documents already there would call them repeated.
    """
    new_documents, new_removals = frames
    stream_id = json.loads((checkpoint / "metadata").read_text(encoding="utf-8"))["id"]
    for table, frame in ((REMOVALS, new_removals), (DOCUMENTS, new_documents)):
        # Delta skips a version it has seen; the session is the stream's own, so no other write is touched
        frame.sparkSession.conf.set("spark.databricks.delta.write.txnAppId", f"{table}:{stream_id}")
        frame.sparkSession.conf.set("spark.databricks.delta.write.txnVersion", str(batch_id))
        if table == DOCUMENTS:
            before()
        tables.append(table, frame)


def _stream(spark: SparkSession, documents: Documents, loader: str, schema: StructType, checkpoint: Path) -> DataFrame:
    spark_format = _SPARK_FORMATS[documents.format]
    if loader == "auto_loader" and not on_databricks():
        raise InputError("spark.loader: is 'auto_loader', which only Databricks has; set spark.loader=files")
    reader: DataStreamReader = spark.readStream.schema(schema).option("recursiveFileLookup", "true")
    reader = reader.option("wholetext", str(documents.format == "text").lower())
    if loader == "auto_loader":
        reader = reader.format("cloudFiles").option("cloudFiles.format", spark_format)
        reader = reader.option("cloudFiles.schemaLocation", str(checkpoint / "schema"))
        reader = reader.option("cloudFiles.maxFilesPerTrigger", documents.max_files_per_trigger)
    else:
        reader = reader.format(spark_format).option("maxFilesPerTrigger", documents.max_files_per_trigger)
        reader = reader.option("maxFileAge", _MAX_FILE_AGE)
    return reader.load(documents.path).select("*", F.col("_metadata.file_path").alias(SOURCE_FILE))


def _checkpoint(tables: Tables, fingerprint: str) -> Path:
    """The stream's checkpoint; one for each fingerprint, and only one fingerprint in a storage root."""
    folder = Path(tables.root).absolute() / "checkpoints" / "ingest"
    for other in sorted(folder.glob("*/metadata")):
        if other.parent.name != fingerprint:
            raise TableError(
                f"documents: was made with other settings of section documents (fingerprint {other.parent.name}, "
                f"now {fingerprint}); restore them, or give another storage.root"
            )
    return folder / fingerprint


def _fields(spark: SparkSession, documents: Documents, schema: StructType) -> list[str]:
    if documents.format == "parquet":
        return list(schema.fieldNames())
    lines = _read(spark, "text", documents.path).where(F.trim("value") != "").limit(_PROBED_RECORDS)
    rows = lines.select(F.expr("json_object_keys(regexp_replace(value, '^\ufeff', ''))").alias("keys")).collect()
    present = sorted({key for row in rows for key in row["keys"] or []})
    if not present:
        raise InputError(
            f"documents.format: is jsonl, but none of the first {len(rows)} lines of {documents.path} is a JSON "
            "object with fields; allowed: jsonl, parquet, text; set documents.format to what the files are"
        )
    return present


def _read(spark: SparkSession, spark_format: str, path: str) -> DataFrame:
    return spark.read.format(spark_format).option("recursiveFileLookup", "true").load(path)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]

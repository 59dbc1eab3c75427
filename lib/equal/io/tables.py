"""The one door to Delta tables: names, reads, idempotent writes.

Tables lie by path under storage.root/tables, or in `storage.schema` of a catalog. Either way they are
registered in the session when they are first named, so that SQL says `arm_history` and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from equal.errors import TableError
from equal.schemas import SCHEMAS

#: creating a table waits for several small Spark jobs
_CREATE_THREADS = 4


class Tables:
    """Reads and writes the tables of one storage root or catalog schema."""

    def __init__(self, spark: SparkSession, root: str, schema: str = "") -> None:
        """Create the tables that are absent.

        Args:
            spark: a session with Delta.
            root: storage.root; tables go under root/tables when `schema` is empty.
            schema: `catalog.schema` of managed tables, or empty.
        """
        self.spark, self.root, self.schema = spark, str(root), schema
        self._database = (
            schema or f"equal_{hashlib.blake2b(os.path.abspath(self.root).encode(), digest_size=5).hexdigest()}"
        )
        # the folder stays empty; without it Spark would make one in the working directory
        folder = self.path("").replace("\\", "\\\\").replace("'", "\\'")
        spark.sql(f"CREATE SCHEMA IF NOT EXISTS {self._database}" + ("" if schema else f" LOCATION '{folder}'"))
        self._registered = {row.tableName for row in spark.sql(f"SHOW TABLES IN {self._database}").collect()}
        self._register([name for name in SCHEMAS if schema or not Path(self.path(name), "_delta_log").is_dir()])
        spark.sql(f"USE {self._database}")

    def name(self, table: str) -> str:
        """The full name of a table in SQL."""
        self._register([table])  # to register a table that is there takes long, and a stage names a few of them
        return f"{self._database}.{table}"

    def register_all(self) -> None:
        """For SQL that is not written by this class, and may name any table."""
        self._register(list(SCHEMAS))

    def path(self, table: str) -> str:
        """Where a table lies when it is kept by path."""
        return str(Path(self.root).absolute() / "tables" / table)

    def read(self, table: str, version: int | None = None) -> DataFrame:
        """The table as a frame, at a version if one is given."""
        suffix = "" if version is None else f" VERSION AS OF {int(version)}"
        return self.spark.sql(f"SELECT * FROM {self.name(table)}{suffix}")

    def version(self, table: str) -> int:
        """The newest Delta version of a table."""
        return int(DeltaTable.forName(self.spark, self.name(table)).history(1).select("version").first()[0])

    def append(self, table: str, frame: DataFrame) -> None:
        """Add rows.

        Raises:
            TableError: the write failed (disk full, schema mismatch); the table is unchanged.
        """
        with _failing(table):
            self._typed(table, frame).writeTo(self.name(table)).append()

    def replace(self, table: str, frame: DataFrame, where: str | None = None) -> None:
        """Replace the rows that match `where` (all when None) in one atomic commit; a rerun changes nothing.

        Raises:
            TableError: the write failed; the table is unchanged.
        """
        writer = self._typed(table, frame).write.format("delta").mode("overwrite")
        if where is not None:
            writer = writer.option("replaceWhere", where)
        with _failing(table):
            writer.saveAsTable(self.name(table))

    def delete(self, table: str, where: str) -> None:
        """Remove the rows that match `where`; nothing is committed when there are none.

        Raises:
            TableError: the write failed; the table is unchanged.
        """
        with _failing(table):
            DeltaTable.forName(self.spark, self.name(table)).delete(where)

    def update(self, table: str, source: DataFrame, where: str, values: dict[str, str]) -> None:
        """Set columns of the rows, `target`, that match one of `source` by the condition `where`, to SQL expressions.

        Raises:
            TableError: the write failed; the table is unchanged.
        """
        with _failing(table):
            target = DeltaTable.forName(self.spark, self.name(table)).alias("target")
            target.merge(source.alias("source"), where).whenMatchedUpdate(set=values).execute()

    def discard(self, table: str, source: DataFrame, where: str) -> None:
        """Remove the rows, `target`, that match one of `source` by the condition `where`.

        Raises:
            TableError: the write failed; the table is unchanged.
        """
        with _failing(table):
            target = DeltaTable.forName(self.spark, self.name(table)).alias("target")
            target.merge(source.alias("source"), where).whenMatchedDelete().execute()

    def rows(self, table: str, rows: list[dict[str, object]]) -> DataFrame:
        """A frame of driver-side rows in the table's schema; absent columns are null."""
        columns = SCHEMAS[table].fieldNames()
        # by Arrow: a list of tuples would go through Python workers, which takes longer than the commit
        data = pd.DataFrame([[row.get(c) for c in columns] for row in rows], columns=columns, dtype=object)
        return self.spark.createDataFrame(data, SCHEMAS[table])

    def _register(self, names: list[str]) -> None:
        missing = [name for name in names if name not in self._registered]
        if missing:
            with ThreadPoolExecutor(_CREATE_THREADS) as pool:
                list(pool.map(self._create, missing))
            self._registered.update(missing)

    def _create(self, name: str) -> None:
        builder = (
            DeltaTable.createIfNotExists(self.spark).tableName(f"{self._database}.{name}").addColumns(SCHEMAS[name])
        )
        if not self.schema:
            builder = builder.location(self.path(name))
        with _failing(name):
            builder.execute()

    def _typed(self, table: str, frame: DataFrame) -> DataFrame:
        schema = SCHEMAS[table]
        return frame.select(*[F.col(c).cast(schema[c].dataType).alias(c) for c in schema.fieldNames()])


def require_tables(root: str, schema: str) -> None:
    """Check that there are tables to read, before a job that only reads makes empty ones.

    Raises:
        TableError: the root holds none.
    """
    if not schema and not (Path(root) / "tables").is_dir():
        raise TableError(f"storage.root: {root} holds no tables; correct it, or run jobs/ingest.py there first")


@contextmanager
def _failing(table: str) -> Iterator[None]:
    """Turn what Spark throws at a write into one line."""
    try:
        yield
    except (Py4JJavaError, PySparkException) as error:
        raise TableError(f"table {table}: {failure_cause(error)}; nothing was committed, run the job again") from error


def side_by_side(*writes: Callable[[], object]) -> None:
    """Commit to several tables at once: a small commit mostly waits for single-threaded work of the driver.

    Raises:
        TableError: of the first that failed, when all have ended.
    """
    with ThreadPoolExecutor(len(writes)) as pool:
        running = [pool.submit(write) for write in writes]
    for write in running:
        write.result()


def failure_cause(error: Exception) -> str:
    """What Spark failed of, in one line: a full disk, a file that cannot be read, or the innermost cause."""
    text = str(error)
    if "No space left" in text:
        return "no space left on the device that holds storage.root; free some or move storage.root"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by:")]
    unread = re.search(r"while reading file (\S+)", text)
    where = f"{unread[1].rstrip('.')} cannot be read: " if unread else ""
    return where + (causes[-1] if causes else lines[0])[:500]

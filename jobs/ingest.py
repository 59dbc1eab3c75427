"""Bring new files into the table documents; what cannot be used becomes a row of removals with its reason.

Reads documents.path (JSON lines, Parquet or text files, plain or gzip) as a stream that takes each file once.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from equal.io.source import check_source, read_new_files
from equal.io.stage import Job, Outcome
from equal.io.stage import main as run_main
from equal.schemas import DOCUMENTS, REMOVALS, STAGE
from equal.settings import fingerprint
from equal.transforms.documents import clean_records, parse_records, split_records


def ingest(job: Job) -> Outcome:
    """Check the source, then read, clean and write its new files batch by batch."""
    settings = job.config.documents
    schema = check_source(job.spark, settings)

    def prepare(raw: DataFrame, known: DataFrame) -> DataFrame:
        records = parse_records(
            raw, file_format=settings.format, id_field=settings.id_field, text_field=settings.text_field
        )
        return clean_records(
            records,
            known,
            min_chars=settings.min_chars,
            max_chars=settings.max_chars,
            markup_patterns=settings.markup_patterns,
        )

    batches = read_new_files(
        job.tables,
        settings,
        loader=job.config.spark.loader,
        schema=schema,
        fingerprint=fingerprint(settings),
        prepare=prepare,
        split=split_records,
    )
    num_documents = job.tables.read(DOCUMENTS).count()
    num_removed = job.tables.read(REMOVALS).where(F.col(STAGE) == job.stage).count()
    details = {"batches": batches, "removed": num_removed}
    return Outcome(num_documents + num_removed, num_documents, details, unchanged=not batches)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_main("ingest", ingest, argv, __doc__)


if __name__ == "__main__":
    main()

"""Bring new files into the table documents; what cannot be used or was taken back becomes a row of removals.

Reads documents.path (JSON lines, Parquet or text files, plain or gzip) as a stream that takes each file once.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from equal.io.marks import corpus_facts
from equal.io.source import check_source, read_new_files
from equal.io.stage import Job, Outcome
from equal.io.stage import main as run_main
from equal.io.withdrawals import withdraw
from equal.schemas import REMOVALS, STAGE
from equal.settings import fingerprint
from equal.transforms.documents import clean_records, parse_records, split_records


def ingest(job: Job) -> Outcome:
    """Check the source, then read, clean and write its new files batch by batch."""
    how = job.config.documents
    schema = check_source(job.spark, how)
    withdrawn = withdraw(job.tables, how.withdrawn, before=job.reopen) if how.withdrawn else 0

    def prepare(raw: DataFrame, known: DataFrame) -> DataFrame:
        records = parse_records(raw, file_format=how.format, id_field=how.id_field, text_field=how.text_field)
        return clean_records(
            records, known, min_chars=how.min_chars, max_chars=how.max_chars, markup_patterns=how.markup_patterns
        )

    batches = read_new_files(
        job.tables,
        how,
        loader=job.config.spark.loader,
        schema=schema,
        fingerprint=fingerprint(how),
        prepare=prepare,
        split=split_records,
        before=job.reopen,
    )
    facts = corpus_facts(job.tables)
    num_documents = facts["documents"]
    num_removed = job.tables.read(REMOVALS).where(F.col(STAGE) == job.stage).count()
    details = {"batches": batches, "removed": num_removed, "withdrawn": withdrawn, "corpus": facts["corpus"]}
    return Outcome(num_documents + num_removed, num_documents, details, unchanged=not batches and not withdrawn)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_main("ingest", ingest, argv, __doc__)


if __name__ == "__main__":
    main()

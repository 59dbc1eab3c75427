"""What a later load of documents costs: only itself. The indexes of earlier loads, and what must be looked at again.

A document's band keys and its benchmark n-grams depend on its text alone, so they are kept by load; a stage that has
judged the loads up to one (`Job.judged_until`) adds those after it. What a killed job left of them is replaced.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from equal.core.contamination import BenchmarkIndex
from equal.core.minhash import Permutations
from equal.errors import TableError
from equal.io.stage import Job
from equal.schemas import BAND_KEYS, BENCHMARK_HITS, DOC_ID, REMOVALS, STAGE
from equal.transforms.band_index import near_new
from equal.transforms.decontaminate import find_hits
from equal.transforms.dedup import band_keys, find_groups, overtaken, settled_components


def update_band_keys(job: Job, documents: DataFrame, permutations: Permutations) -> None:
    """Add the band keys of the new ones among the documents to the index.

    Raises:
        TableError: the index was written with other settings.
    """
    how, since = job.config.deduplicate, job.judged_until
    settings = f"shingle_words={how.shingle_words}, bands={how.bands}, rows={how.rows}, seed={job.config.seed}"
    others = job.tables.read(BAND_KEYS).where(F.col("settings") != settings).select("settings").first()
    if others:
        raise TableError(
            f"deduplicate: the index in table {BAND_KEYS} was written with {others.settings}, this configuration has "
            f"{settings}; restore them, choose another storage.root, or empty the table to have it built anew"
        )
    new = documents.where(F.col("batch") > since)
    keys = band_keys(new, shingle_words=how.shingle_words, permutations=permutations)
    rows = keys.withColumns({"settings": F.lit(settings), "batch": F.lit(job.marks.batch)})
    job.replace(BAND_KEYS, rows, f"batch > {since}")


@dataclass(frozen=True)
class Compared:
    """What deduplication looks at.

    Attributes:
        groups: doc_key, group of the documents to compare.
        judged: doc_id of those among the earlier findings that are found anew or fall; None where all are.
    """

    groups: DataFrame
    judged: DataFrame | None


def compare(job: Job, *earlier_stages: str) -> Compared:
    """Which documents to compare: the new ones, those they share a band with, and what their components hold.

    Args:
        job: the stage, whose index is up to date.
        earlier_stages: what these removed takes no part.
    """
    since, earlier = job.judged_until, job.earlier_removals()
    index = job.tables.read(BAND_KEYS).withColumn("fresh", F.col("batch") > since)
    gone = job.tables.read(REMOVALS).where(F.col(STAGE).isin(*earlier_stages)).select(DOC_ID)
    settled, reopened = settled_components(earlier, gone)
    if since < 0:
        return Compared(find_groups(index, settled, reopened, job.config.spark.partitions), None)
    reopened = reopened.localCheckpoint()  # asked for three times
    index = near_new(index, reopened)
    groups = find_groups(index, settled, reopened, job.config.spark.partitions)
    return Compared(groups, overtaken(earlier, gone, groups, reopened))


def update_hits(job: Job, documents: DataFrame, index: BenchmarkIndex) -> DataFrame:
    """Look for benchmark n-grams in the new ones among the documents; returns the hits of all of them."""
    since = job.judged_until
    found = find_hits(documents.where(F.col("batch") > since), index).withColumn("batch", F.lit(job.marks.batch))
    job.replace(BENCHMARK_HITS, found, f"batch > {since}")
    return job.tables.read(BENCHMARK_HITS)

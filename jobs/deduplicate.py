"""Find exact and near duplicates among the documents and write them to removals, with what was kept instead.

Near means that the word shingles of two texts overlap by deduplicate.threshold (exact Jaccard similarity).
"""

from __future__ import annotations

from collections.abc import Sequence

from equal.io.stage import Job, Outcome, replace_removals
from equal.io.stage import main as run_main
from equal.schemas import DOCUMENTS, REMOVALS
from equal.transforms.dedup import EXACT_DUPLICATE, NEAR_DUPLICATE, find_duplicates
from equal.transforms.documents import kept_documents


def deduplicate(job: Job) -> Outcome:
    """Replace this stage's removals by those of the present documents."""
    settings = job.config.deduplicate
    documents = kept_documents(job.tables.read(DOCUMENTS), job.tables.read(REMOVALS), "quality")
    removals = find_duplicates(
        documents,
        shingle_words=settings.shingle_words,
        bands=settings.bands,
        rows=settings.rows,
        threshold=settings.threshold,
        seed=job.config.seed,
        num_partitions=job.config.spark.partitions,
    )
    counts = replace_removals(job, removals)
    num_documents = documents.count()
    details = {"exact": counts.get(EXACT_DUPLICATE, 0), "near": counts.get(NEAR_DUPLICATE, 0)}
    return Outcome(num_documents, num_documents - sum(counts.values()), dict(details))


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_main("deduplicate", deduplicate, argv, __doc__)


if __name__ == "__main__":
    main()

"""Find exact and near duplicates among the documents and write them to removals, with what was kept instead.

Near means that the word shingles of two texts overlap by deduplicate.threshold (exact Jaccard similarity). What came
since the last time is compared with the index of what was there; who is kept may change with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from equal.core.minhash import Permutations
from equal.io.stage import Job, Outcome, replace_removals
from equal.io.stage import main as run_main
from equal.refresh import compare, update_band_keys
from equal.schemas import DOCUMENTS, REMOVALS, WITHDRAWN
from equal.transforms.dedup import EXACT_DUPLICATE, NEAR_DUPLICATE, find_duplicates
from equal.transforms.documents import kept_documents


def deduplicate(job: Job) -> Outcome:
    """Bring the index of band keys up to date, and replace what was found of every component that changed."""
    settings = job.config.deduplicate
    permutations = Permutations.seeded(bands=settings.bands, rows=settings.rows, seed=job.config.seed)
    documents = kept_documents(job.tables.read(DOCUMENTS), job.tables.read(REMOVALS), WITHDRAWN, "quality")
    update_band_keys(job, documents, permutations)
    compared = compare(job, WITHDRAWN, "quality")
    removals = find_duplicates(
        documents,
        compared.groups,
        shingle_words=settings.shingle_words,
        permutations=permutations,
        threshold=settings.threshold,
        num_partitions=job.config.spark.partitions,
    )
    counts = replace_removals(job, removals, compared.judged)
    num_documents = job.num_documents(WITHDRAWN, "quality")
    details = {"exact": counts.get(EXACT_DUPLICATE, 0), "near": counts.get(NEAR_DUPLICATE, 0)}
    return Outcome(num_documents, num_documents - sum(counts.values()), dict(details))


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_main("deduplicate", deduplicate, argv, __doc__)


if __name__ == "__main__":
    main()

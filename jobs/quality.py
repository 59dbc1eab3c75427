"""Turn down documents that no question is worth asking of, and write them to removals with what was measured.

Too few words, mostly symbols, the same lines or phrases over and over, another language, a blocked source. It comes
before deduplication, so that no unfit text is the one that is kept of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import functions as F

from equal.core.quality import QualityLimits
from equal.io.stage import Job, Outcome
from equal.io.stage import main as run_main
from equal.schemas import DOCUMENTS, REASON, REMOVALS, STAGE
from equal.transforms.quality import find_unfit


def quality(job: Job) -> Outcome:
    """Replace this stage's removals by those of the present documents."""
    settings = job.config.quality
    documents = job.tables.read(DOCUMENTS)
    limits = QualityLimits(
        settings.min_words, settings.max_symbol_share, settings.max_repeated_lines, settings.max_repeated_runs
    )
    unfit = find_unfit(documents, limits, languages=settings.languages, blocked_sources=settings.blocked_sources)
    job.tables.replace(REMOVALS, unfit, f"stage = '{job.stage}'")
    written = job.tables.read(REMOVALS).where(F.col(STAGE) == job.stage).groupBy(REASON).count().collect()
    counts = {row[REASON]: row["count"] for row in written}
    num_documents = documents.count()
    return Outcome(num_documents, num_documents - sum(counts.values()), dict(counts))


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_main("quality", quality, argv, __doc__)


if __name__ == "__main__":
    main()

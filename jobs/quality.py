"""Turn down documents that no question is worth asking of, and write them to removals with what was measured.

Too few words, mostly symbols, the same lines or phrases over and over, another language, a blocked source. It comes
before deduplication, so that no unfit text is the one that is kept of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

from equal.core.quality import QualityLimits
from equal.io.stage import Job, Outcome, replace_removals
from equal.io.stage import main as run_main
from equal.schemas import DOCUMENTS
from equal.transforms.quality import find_unfit


def quality(job: Job) -> Outcome:
    """Replace this stage's removals by those of the present documents."""
    settings = job.config.quality
    documents = job.tables.read(DOCUMENTS)
    limits = QualityLimits(
        settings.min_words, settings.max_symbol_share, settings.max_repeated_lines, settings.max_repeated_runs
    )
    unfit = find_unfit(documents, limits, languages=settings.languages, blocked_sources=settings.blocked_sources)
    counts = replace_removals(job, unfit)
    num_documents = documents.count()
    return Outcome(num_documents, num_documents - sum(counts.values()), dict(counts))


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_main("quality", quality, argv, __doc__)


if __name__ == "__main__":
    main()

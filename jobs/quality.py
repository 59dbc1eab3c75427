"""Turn down documents that no question is worth asking of, and write them to removals with what was measured.

Too few words, mostly symbols, the same lines or phrases over and over, another language, a blocked source. It comes
before deduplication, so that no unfit text is the one that is kept of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

from equal.core.quality import QualityLimits
from equal.io.stage import Job, Outcome, replace_removals
from equal.io.stage import main as run_main
from equal.schemas import REMOVALS, WITHDRAWN
from equal.transforms.documents import kept_documents
from equal.transforms.quality import find_unfit


def quality(job: Job) -> Outcome:
    """Judge the documents that are new; what was removed before stays removed."""
    settings = job.config.quality
    new = kept_documents(job.new_documents(), job.tables.read(REMOVALS), WITHDRAWN)
    limits = QualityLimits(
        settings.min_words, settings.max_symbol_share, settings.max_repeated_lines, settings.max_repeated_runs
    )
    unfit = find_unfit(new, limits, languages=settings.languages, blocked_sources=settings.blocked_sources)
    counts = replace_removals(job, unfit, judged=new)
    num_documents = job.num_documents(WITHDRAWN)
    return Outcome(num_documents, num_documents - sum(counts.values()), dict(counts))


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_main("quality", quality, argv, __doc__)


if __name__ == "__main__":
    main()

"""Find documents that hold an item of a benchmark and write them to removals, with the item and the shared words.

Before that the reference sets are checked: what guides selection may not be what the result is judged by.
"""

from __future__ import annotations

from collections.abc import Sequence

from equal.core.contamination import BenchmarkIndex
from equal.io.references import load_judges, write_spared
from equal.io.stage import Job, Outcome, log, replace_removals
from equal.io.stage import main as run_main
from equal.refresh import update_hits
from equal.schemas import DOCUMENTS, REMOVALS, WITHDRAWN
from equal.transforms.decontaminate import count_by_benchmark, find_contaminated, spared_ngrams
from equal.transforms.documents import kept_documents


def decontaminate(job: Job) -> Outcome:
    """Replace this stage's removals by those of the documents that deduplication kept."""
    settings = job.config.decontaminate
    judges = load_judges(job.config)
    index = BenchmarkIndex.build(judges, ngram_words=settings.ngram_words, short_words=settings.short_words)
    documents, removals = job.tables.read(DOCUMENTS), job.tables.read(REMOVALS)
    # duplicates too: another text of their group may be the one that is taken back one day
    hits = update_hits(job, kept_documents(documents, removals, "quality"), index)
    gone = (WITHDRAWN, "quality", "deduplicate")
    num_documents, hits = job.num_documents(*gone), kept_documents(hits, removals, *gone).persist()
    spared = spared_ngrams(hits, num_documents, max_document_share=settings.max_document_share).persist()
    rows = [row.asDict() for row in spared.collect()]
    write_spared(job.path("decontaminate", f"{job.input_hash}.json"), rows)
    num_removed = sum(replace_removals(job, find_contaminated(hits, spared)).values())
    met = {row.benchmark: row.asDict(recursive=True) for row in count_by_benchmark(hits, spared).collect()}
    for name, items in judges.items():
        found = met.setdefault(name, {"benchmark": name, "documents": 0, "items": 0, "spared": 0, "frequent": []})
        counts = (found["items"], len(items), found["documents"], found["spared"])
        log.info("decontaminate: %s: %d of %d items in %d documents, %d n-grams spared", name, *counts)
    hits.unpersist()
    spared.unpersist()
    details = {
        "contaminated": num_removed,
        "spared": len(rows),
        "benchmark_items": sum(map(len, judges.values())),
        "unmatchable": len(index.unmatchable),
        "unmatchable_items": list(index.unmatchable[:100]),
        "benchmarks": met,
    }
    return Outcome(num_documents, num_documents - num_removed, details)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_main("decontaminate", decontaminate, argv, __doc__)


if __name__ == "__main__":
    main()

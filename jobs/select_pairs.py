"""Select the pairs to train on into table selected_pairs, and export them as chat-format JSON lines.

Pairs of documents that their source has withdrawn since they were read are left out. A withdrawal that comes later
puts this stage and those after it out of date, so that running it again takes them out.

The stage is `select`; a file of that name would hide the standard library's module from every job beside it,
since Python and spark-submit put a script's folder first on the path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from equal.history import collect_pairs
from equal.io.export import write_conversations
from equal.io.stage import Job, Outcome
from equal.io.stage import main as run_main
from equal.io.summary import committed
from equal.schemas import ARM_HISTORY, QA_PAIRS, REMOVALS, SELECTED_PAIRS, WITHDRAWN
from equal.selection.rows import select_pairs
from equal.transforms.documents import kept_documents


def select(job: Job) -> Outcome:
    """Read the run's committed pairs and rewards, rank them, write and export those that are kept."""
    config = job.config
    read = committed(job.tables, QA_PAIRS, config.run_name)
    there = kept_documents(read, job.tables.read(REMOVALS), WITHDRAWN)
    pairs = [row.asDict() for row in there.drop("embedding").collect()]
    history = committed(job.tables, ARM_HISTORY, config.run_name).collect()
    vectors, num_read = collect_pairs(there), read.count()
    selected = select_pairs(
        pairs,
        [row.asDict() for row in history],
        dict(zip(vectors.pair_ids, vectors.embeddings)),
        strategy=config.bandit.strategy,
        max_pairs=config.select.max_pairs,
        max_similarity=config.select.max_similarity,
        seed=config.seed,
    )
    duplicates = Counter(found["reason"] for row in selected for found in row["duplicates"])
    job.replace(SELECTED_PAIRS, job.tables.rows(SELECTED_PAIRS, selected), f"run_id = '{config.run_name}'")
    path = job.path(config.run_name, config.select.export)
    details = {**duplicates, "of_withdrawn_documents": num_read - len(pairs), "export": path}
    return Outcome(num_read, write_conversations(path, selected), details)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job from the command line."""
    run_main("select", select, argv, __doc__)


if __name__ == "__main__":
    main()

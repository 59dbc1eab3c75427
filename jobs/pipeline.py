"""All stages in order: raw documents to a fine-tuned, evaluated adapter. Finished stages are passed over."""

from __future__ import annotations

from collections.abc import Sequence

from equal.config import parse_arguments
from equal.io.references import require_complete
from equal.io.session import open_session
from equal.io.stage import exit_on_error, log, run_stage
from equal.jobs.cluster import cluster
from equal.jobs.decontaminate import decontaminate
from equal.jobs.deduplicate import deduplicate
from equal.jobs.embed import embed
from equal.jobs.evaluate import evaluate
from equal.jobs.finetune import finetune
from equal.jobs.ingest import ingest
from equal.jobs.quality import quality
from equal.jobs.select_pairs import select
from equal.jobs.warm_up import warm_up
from equal.run import run_to_budget

#: corpus stages need no endpoint; from warm_up on documents are read by the model
CORPUS = {"ingest": ingest, "quality": quality, "deduplicate": deduplicate, "decontaminate": decontaminate}
ARMS = {"warm_up": warm_up, "embed": embed, "cluster": cluster}
RUN = {"extract": run_to_budget, "select": select, "finetune": finetune, "evaluate": evaluate}
STAGES = {**CORPUS, **ARMS, **RUN}


def main(argv: Sequence[str] | None = None) -> None:
    """Run every stage; the first error ends the pipeline and names its stage."""
    with exit_on_error("pipeline"):
        config = parse_arguments(argv, __doc__)
        require_complete(config)
        open_session(config.spark.partitions, with_models=True)
        for name, body in STAGES.items():
            run_stage(config, name, body)
    log.info("pipeline: all %d stages finished", len(STAGES))


if __name__ == "__main__":
    main()

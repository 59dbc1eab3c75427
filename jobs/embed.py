"""Embed the kept documents with the tuned encoder into table embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from equal.core.costs import inference_flops
from equal.io.stage import Job, Outcome
from equal.io.stage import main as run_main
from equal.schemas import DOCUMENTS, EMBEDDINGS, REMOVALS
from equal.training.encoder import EncoderFactory
from equal.transforms.documents import kept_documents
from equal.transforms.embed import embed as embed_documents


def embed(job: Job) -> Outcome:
    """Read documents, embed those that were kept, write embeddings."""
    settings = job.config.encoder
    folder = job.path("encoders", job.upstream_hash("warm_up"))
    make_encoder = EncoderFactory(folder, settings.dtype, settings.max_tokens, settings.batch_size)
    documents = kept_documents(job.tables.read(DOCUMENTS), job.tables.read(REMOVALS))
    job.replace(EMBEDDINGS, embed_documents(documents, make_encoder, job.config.spark.partitions))
    rows = job.tables.read(EMBEDDINGS).count()
    # an upper bound: what a shorter text took less is not counted
    flops = inference_flops(make_encoder().num_parameters, settings.max_tokens * rows)
    return Outcome(documents.count(), rows, {"encoder": folder, "dim": make_encoder().dim}, flops=flops)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job from the command line."""
    run_main("embed", embed, argv, __doc__)


if __name__ == "__main__":
    main()

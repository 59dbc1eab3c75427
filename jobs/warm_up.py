"""Let the model read a uniform sample, and tune the encoder until documents lie close to their own pairs (Eq. 3)."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import functions as F

from equal.core.costs import inference_flops, training_flops
from equal.extraction import Extraction
from equal.io.stage import Job, Outcome
from equal.io.stage import main as run_main
from equal.io.tracking import log_warm_up
from equal.schemas import DOC_ID, DOCUMENTS, QA_PAIRS, REMOVALS, WARM_UP_ITERATION
from equal.training.contrastive import tune_encoder
from equal.transforms.documents import kept_documents
from equal.transforms.sampling import first_documents


def warm_up(job: Job) -> Outcome:
    """Sample, extract, tune; the encoder is saved under the stage's input hash, tuned or not."""
    config, settings = job.config, job.config.warm_up
    encoder_dir = job.path("encoders", job.input_hash)
    documents = kept_documents(job.tables.read(DOCUMENTS), job.tables.read(REMOVALS)).select(DOC_ID, "text")
    num_docs = documents.count()
    wanted = round(settings.fraction * num_docs) * settings.enabled
    sample = first_documents(documents, seed=config.seed, start=0, stop=wanted)
    run_id = f"warm_up-{job.input_hash}"
    reading = Extraction(job, run_id, config.encoder.model)
    extracted = reading.read(WARM_UP_ITERATION, sample.select(DOC_ID, F.lit(None).cast("int").alias("arm_id")))
    pairs = job.tables.read(QA_PAIRS).where(F.col("run_id") == run_id)
    rows = pairs.join(documents, DOC_ID).orderBy("pair_id").select(DOC_ID, "text", "question", "answer").collect()
    alignment = tune_encoder(
        [(row[0], row[1], f"{row[2]}\n{row[3]}") for row in rows],
        model=config.encoder.model,
        output_dir=encoder_dir,
        temperature=settings.temperature,
        learning_rate=settings.learning_rate,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        max_tokens=settings.max_tokens,
        hard_negatives=settings.hard_negatives,
        held_out_share=settings.held_out_share,
        seed=config.seed,
    )
    details = {
        "documents": wanted, "pairs": len(rows), "mrr_before": alignment.mrr_before,
        "mrr_after": alignment.mrr_after, "note": alignment.note, "run_id": run_id,
    }  # fmt: skip
    log_warm_up(config, details, alignment.losses)
    tokens = extracted.prompt_tokens + extracted.completion_tokens
    flops = inference_flops(config.endpoint.model_parameters, tokens)
    flops += training_flops(alignment.num_parameters, alignment.num_tokens)
    return Outcome(
        num_docs, len(rows), details, extracted.calls, extracted.cached_calls, extracted.prompt_tokens,
        extracted.completion_tokens, flops, extracted.money,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job from the command line."""
    run_main("warm_up", warm_up, argv, __doc__)


if __name__ == "__main__":
    main()

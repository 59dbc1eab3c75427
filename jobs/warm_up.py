"""Let the model read a uniform sample, and tune the encoder until documents lie close to their own pairs (Eq. 3)."""

from __future__ import annotations

from collections.abc import Sequence

from equal.core.costs import inference_flops, training_flops
from equal.io.stage import Job, Outcome
from equal.io.stage import main as run_main
from equal.io.tracking import log_warm_up
from equal.run import read_sample
from equal.training.contrastive import tune_encoder


def warm_up(job: Job) -> Outcome:
    """Sample, extract, tune; the encoder is saved under the stage's input hash, tuned or not."""
    config, settings = job.config, job.config.warm_up
    run_id = f"warm_up-{job.input_hash}"
    sample = read_sample(job, run_id)
    alignment = tune_encoder(
        sample.pairs,
        model=config.encoder.model,
        output_dir=job.path("encoders", job.input_hash),
        temperature=settings.temperature,
        learning_rate=settings.learning_rate,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        max_tokens=settings.max_tokens,
        hard_negatives=settings.hard_negatives,
        held_out_share=settings.held_out_share,
        seed=config.seed,
    )
    details = {"documents": sample.num_read, "pairs": len(sample.pairs), "run_id": run_id}
    details |= {name: getattr(alignment, name) for name in ("mrr_before", "mrr_after", "loss_before", "loss_after")}
    details |= {"note": alignment.note} if alignment.note else {}
    log_warm_up(config, details, alignment.losses)
    paid = {
        name: sum(getattr(part, f"paid_{name}") for part in sample.parts)
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "money")
    }
    tokens = paid["prompt_tokens"] + paid["completion_tokens"]
    flops = inference_flops(config.endpoint.model_parameters, tokens, paid["cached_tokens"])
    flops += training_flops(alignment.num_parameters, alignment.num_tokens)
    calls = {name: sum(getattr(part, name) for part in sample.parts) for name in ("calls", "cached_calls")}
    return Outcome(
        sample.num_docs, len(sample.pairs), details, flops=flops, documents=sample.num_read, **calls, **paid
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job from the command line."""
    run_main("warm_up", warm_up, argv, __doc__)


if __name__ == "__main__":
    main()

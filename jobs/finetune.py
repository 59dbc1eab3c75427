"""Fine-tune the base model on the selected pairs, with LoRA or in full, tracked in MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from equal.core.costs import lora_training_flops, training_flops
from equal.io.stage import Job, Outcome
from equal.io.stage import main as run_main
from equal.io.tracking import log_folder, log_metric, log_table, tracked
from equal.schemas import SELECTED_PAIRS
from equal.training.sft import train


def finetune(job: Job) -> Outcome:
    """Read selected_pairs, train, save the adapter; parameters, loss curve, data and adapter go to MLflow."""
    config, settings = job.config, job.config.finetune
    where = f"run_id = '{config.run_name}'"
    rows = job.tables.read(SELECTED_PAIRS).where(where).orderBy("rank").select("question", "answer").collect()
    output_dir = job.path(config.run_name, "adapter")
    with tracked(config, f"finetune {config.run_name}", {"stage": "finetune"}) as mlflow_run_id:
        version = log_table(job.tables, SELECTED_PAIRS, where, "training")
        result = train(
            [(row.question, row.answer) for row in rows],
            base_model=settings.base_model,
            output_dir=output_dir,
            method=settings.method,
            epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            batch_size=settings.batch_size,
            micro_batch_size=settings.micro_batch_size,
            max_tokens=settings.max_tokens,
            lora_rank=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            seed=config.seed,
            on_step=lambda step, loss: log_metric("loss", loss, step),
            on_trained=job.overwrite,
        )
        log_folder(output_dir, "adapter")
    sizes = (result.num_parameters, result.num_trained, result.num_tokens)
    flops = {"lora": lora_training_flops(*sizes), "full": training_flops(sizes[0], sizes[2])}[settings.method]
    final_loss = fmean(loss for _, loss in result.losses[-5:])  # the last step, the smallest, says little by itself
    details = {
        "mlflow_run_id": mlflow_run_id, "adapter": output_dir, "final_loss": final_loss,
        "selected_pairs_version": version, "truncated": result.num_truncated, "dropped": result.num_dropped,
    }  # fmt: skip
    return Outcome(len(rows), len(rows) - result.num_dropped, details, flops=flops)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job from the command line."""
    run_main("finetune", finetune, argv, __doc__)


if __name__ == "__main__":
    main()

"""Judge a run on reference items held out from selection: base against tuned model, and the pairs' distance."""

from __future__ import annotations

from collections.abc import Sequence

from equal.errors import InputError
from equal.io.references import read_items
from equal.io.stage import Job, Outcome
from equal.io.stage import main as run_main
from equal.io.tracking import add_metrics
from equal.judgement import base_key, describe_pairs, judge_model, judge_pairs, known_base
from equal.schemas import EVALUATIONS
from equal.training.evaluate import load_answer_model


def evaluate(job: Job) -> Outcome:
    """Read the held-out items, measure, write evaluations and the same numbers to the fine-tuning's MLflow run."""
    config = job.config
    items = read_items(config.reference.held_out, "reference.held_out")
    items = [item for item in items if item.answer.strip()][: config.evaluate.max_items or len(items)]
    if not items:
        raise InputError(f"reference.held_out: no item of {config.reference.held_out} has an answer; add some")
    base_model, tuned = config.finetune.base_model, job.details("finetune")
    mlflow_run_id = str(tuned["mlflow_run_id"])
    rows, flops = judge_pairs(job, items)
    rows = rows + describe_pairs(job)
    key = base_key(job, items)
    known = known_base(job, key)  # every run compared has the same base
    models = {"tuned": str(tuned["adapter"])} | ({} if known else {"base": None})
    for name, tuned_dir in models.items():
        measured, used = judge_model(job, load_answer_model(base_model, tuned_dir), name, items)
        rows, flops = rows + measured, flops + used
    rows = [{**row, "mlflow_run_id": mlflow_run_id} for row in [*known, *rows]]
    where = f"run_id = '{config.run_name}'"
    job.replace(EVALUATIONS, job.tables.rows(EVALUATIONS, rows), where)
    metrics = {f"{row['model']}.{row['metric']}".replace(":", "."): float(str(row["value"])) for row in rows}
    add_metrics(config, mlflow_run_id, metrics)
    of_the_end = {name: value for name, value in metrics.items() if name.count(".") == 1}  # the others: a row each
    return Outcome(len(items), len(rows), {**of_the_end, "base": {"key": key}}, flops=flops)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job from the command line."""
    run_main("evaluate", evaluate, argv, __doc__)


if __name__ == "__main__":
    main()

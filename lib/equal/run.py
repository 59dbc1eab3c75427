"""One bandit run on Spark and Delta: opens its state, hands the loop its effects, commits each iteration."""

from __future__ import annotations

from datetime import datetime, timezone

from equal.config import RunConfig
from equal.core.bandit import Pull
from equal.core.costs import inference_flops
from equal.extraction import Extraction
from equal.history import open_state, record_iteration
from equal.io.progress import BudgetProgress
from equal.io.stage import Job, Outcome, history_hash
from equal.loop import Extracted, Iteration, Limits, Policy, State, run_bandit
from equal.schemas import ASSIGNMENTS
from equal.transforms.sampling import pulled_documents


def run_to_budget(job: Job) -> Outcome:
    """Start or resume the run named by `run_name` and pull arms until a budget is reached.

    Raises:
        TableError: the run_name has history of another configuration.
        EndpointError: the endpoint cannot serve; what was paid for is kept.
    """
    config, tables = job.config, job.tables
    fingerprint = history_hash(tables, config)
    warm_up_documents = int(str(job.details("warm_up")["documents"]))
    state = open_state(tables, config.run_name, fingerprint, 0 if warm_up_documents else 1)
    reading = Extraction(job, config.run_name, job.path("encoders", job.upstream_hash("warm_up")))
    limits = _limits(config, state)
    assignments = tables.read(ASSIGNMENTS).cache()
    clock = {"started": datetime.now(timezone.utc)}

    def extract(iteration: int, pulls: list[Pull]) -> Extracted:
        clock["started"] = datetime.now(timezone.utc)
        return reading.read(iteration, pulled_documents(assignments, pulls, seed=config.seed))

    with BudgetProgress(f"extract ({config.run_name})", limits, state) as progress:

        def record(iteration: Iteration) -> None:
            tokens = iteration.extracted.prompt_tokens + iteration.extracted.completion_tokens
            flops = inference_flops(config.endpoint.model_parameters, tokens)
            record_iteration(tables, config.run_name, fingerprint, iteration, clock["started"], flops)
            progress.show(iteration)

        state, reason = run_bandit(
            state,
            policy=_policy(config, warm_up_documents),
            limits=limits,
            extract=extract,
            score=reading.score,
            record=record,
        )
    assignments.unpersist()
    details = {"iterations": state.next_iteration - 1, "documents": state.spent.documents, "stop_reason": reason}
    return Outcome(state.spent.documents, len(state.pairs.pair_ids), details)


def _limits(config: RunConfig, state: State) -> Limits:
    num_docs = sum(arm.size for arm in state.arms.values())
    return Limits(config.document_budget(num_docs), config.budget.tokens, config.budget.money)


def _policy(config: RunConfig, warm_up_documents: int) -> Policy:
    bandit = config.bandit
    return Policy(
        bandit.strategy,
        bandit.arms_per_iteration,
        bandit.docs_per_pull,
        bandit.exploration,
        bandit.alpha,
        warm_up_documents,
    )

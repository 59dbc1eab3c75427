"""What the warm-up and the bandit do on Spark and Delta: read a sample; hand the loop its effects."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from tqdm import tqdm

from equal.config import RunConfig
from equal.core.allowance import NOTHING, Allowance
from equal.core.bandit import Pull, arms_at_once, require_affordable
from equal.core.costs import inference_flops
from equal.core.strategies import BY_SIMILARITY
from equal.errors import BudgetError
from equal.extraction import Extraction
from equal.history import Run, committed_steps, open_state, record_iteration, state_ahead
from equal.io.progress import reading_progress, task_progress
from equal.io.spool import ReplySpool
from equal.io.stage import Job, Outcome
from equal.loop import of_warm_up, run_bandit
from equal.schemas import ASSIGNMENTS, DOC_ID, DOCUMENTS, EMBEDDINGS, ITERATIONS, QA_PAIRS, REMOVALS, WARM_UP_ITERATION
from equal.state import Extracted, Iteration, Limits, Policy, Spent, State
from equal.transforms.documents import kept_documents
from equal.transforms.sampling import first_documents, hash_order, pulled_documents
from equal.transforms.similarity import similarities_by_arm, similarity_order, with_similarity
from equal.watch import Watch

log = logging.getLogger("equal")


@dataclass(frozen=True)
class Sample:
    """The warm-up's documents and what the model made of them.

    Attributes:
        num_docs: documents of the corpus.
        num_read: documents read.
        pairs: (doc_id, document text, pair text), in order of pair_id.
        parts: calls and tokens spent.
    """

    num_docs: int
    num_read: int
    pairs: list[tuple[str, str, str]]
    parts: list[Extracted]


def read_sample(job: Job, run_id: str) -> Sample:
    """Extract from the first `warm_up.fraction` of the documents in hash order, a uniform sample.

    Raises:
        BudgetError: the sample alone is above the document budget or, as its first documents show, above that of
            tokens or money; what they took is within it, and their replies are kept.
    """
    config, settings = job.config, job.config.warm_up
    documents = kept_documents(job.tables.read(DOCUMENTS), job.tables.read(REMOVALS)).select(DOC_ID, "text")
    reading = Extraction(job, run_id, config.encoder.model)
    with task_progress(job.spark, job.stage):  # until the bar of documents is there
        num_docs = documents.count()
        num_read = round(settings.fraction * num_docs) if settings.enabled else 0
        _require_within_budget(config, num_read, num_docs)
        reading.recover(WARM_UP_ITERATION)
    bar = tqdm(total=num_read, desc="warm_up", unit="doc", leave=False, dynamic_ncols=True)
    parts: list[Extracted] = []
    spent, need, limits = Spent(), NOTHING, reading.limits
    with bar:
        while spent.documents < num_read:  # in one part, unless a budget does not cover the worst case of all
            start, count = spent.documents, int(min(num_read - spent.documents, limits.covered(spent, need)))
            sample = first_documents(documents, key=hash_order(config.seed), start=start, stop=start + count)
            without_arm = sample.select(DOC_ID, F.lit(None).cast("int").alias("arm_id"))
            iteration = WARM_UP_ITERATION + len(parts)
            with reading_progress(bar, partial(_arrived, reading.spool(iteration), start, count)):
                share = limits.left(spent).share(count)
                part = reading.read(iteration, without_arm, share)
                reading.keep(iteration)
            parts.append(part)
            spent, need = spent.after(part), need.or_more(part.need)
            bar.n = spent.documents
            _require_read_whole(config, share.short_of(part.need))
            if spent.documents < num_read:
                _require_affordable_sample(config, spent, limits.left(spent).short_of(need), num_read)
    pairs = job.tables.read(QA_PAIRS).where(F.col("run_id") == run_id).join(documents, DOC_ID).orderBy("pair_id")
    rows = pairs.select(DOC_ID, "text", "question", "answer").collect()
    if num_read and not rows:
        log.warning(fruitless(num_read, parts))
    return Sample(num_docs, num_read, [(row[0], row[1], f"{row[2]}\n{row[3]}") for row in rows], parts)


def _arrived(spool: ReplySpool, start: int, count: int) -> int:
    return start + min(spool.count(), count)


def _require_read_whole(config: RunConfig, short: str) -> None:
    """Refuse a warm-up of which a budget kept something out: its encoder would serve runs with other budgets, too."""
    if short:
        limit = getattr(config.budget, short)
        raise BudgetError(
            f"budget.{short}: is {limit:g}, which the warm-up's documents do not fit in whole (over_budget in table "
            f"extractions); raise budget.{short}, or lower warm_up.fraction, extraction.max_passages or "
            "extraction.max_tokens; what was paid for is kept"
        )


def _require_within_budget(config: RunConfig, num_read: int, num_docs: int) -> None:
    budget = config.document_budget(num_docs)
    if budget and num_read > budget:
        raise BudgetError(
            f"warm_up.fraction: is {config.warm_up.fraction:g}, which reads {num_read} of {num_docs} documents, above "
            f"the budget of {budget}; set warm_up.fraction={budget / num_docs / 2:.1g} or lower, or raise "
            "budget.documents or budget.fraction"
        )


def fruitless(num_read: int, parts: Sequence[Extracted]) -> str:
    """What to tell whoever is about to spend a budget on a model that gave no pair."""
    outcomes = sum((Counter(part.outcomes) for part in parts), Counter())
    said = ", ".join(f"{status} {count}" for status, count in outcomes.most_common())
    return (
        f"warm_up: not one pair came of {num_read} documents ({said}); what the model said stands in tables "
        "extractions and replies: look at it before the budget is spent on more"
    )


def _require_affordable_sample(config: RunConfig, spent: Spent, short: str, num_read: int) -> None:
    """Refuse the rest of a sample that its first documents show to be too dear, or that no further one fits into."""
    share, num_first = config.warm_up.fraction, spent.documents
    for name in ("tokens", "money"):
        limit, used = getattr(config.budget, name), getattr(spent, name)
        needed = used / num_first * num_read
        if limit and (needed > limit or name == short):
            cause = f"so all would take about {needed:,.6g}, above"
            if needed <= limit:
                cause = "and one more may take more than is left of"
            fits = share * min(num_first / num_read, limit / max(needed, 1e-9))
            raise BudgetError(
                f"warm_up.fraction: is {share:g}; the first {num_first} of its {num_read} documents took {used:,.6g} "
                f"{name}, {cause} budget.{name}={limit:g}; set warm_up.fraction={fits / 2:.1g} or lower, or raise "
                f"budget.{name}; what was paid for is kept"
            )


@dataclass(frozen=True)
class Opened:
    """A run as its last commit left it, and what it may still spend.

    Attributes:
        assignments: the arms' documents, cached: unpersist them when the run ends.
        order: sorts them as the strategy reads them.
    """

    run: Run
    reading: Extraction
    state: State
    limits: Limits
    policy: Policy
    assignments: DataFrame
    order: Column


def open_run(job: Job) -> Opened:
    """Start or resume the run named by `run_name`; what a killed process left is taken over.

    Raises:
        TableError: the run_name has history of another configuration.
        BudgetError: pulling every arm once would take too much of the budget.
    """
    config, bandit = job.config, job.config.bandit
    run = Run(config.run_name, job.upstream_hash("cluster"), job.marks.history_hash(), config.fingerprint())
    warm_up_documents = int(str(job.details("warm_up")["documents"]))
    reading = Extraction(job, config.run_name, job.path("encoders", job.upstream_hash("warm_up")))
    with task_progress(job.spark, job.stage):  # until the bar of documents is there
        state = open_state(job.tables, run, 0 if warm_up_documents else 1)
        num_docs = sum(arm.size for arm in state.arms.values())
        limits = replace(reading.limits, documents=config.document_budget(num_docs))
        if bandit.strategy == "equal":  # the arms may be those of a run with a larger budget
            require_affordable(len(state.arms), bandit.docs_per_pull, limits.documents, config.cluster.max_sweep_share)
        _ = reading.guide  # a reference set that is missing or wrong costs nothing here, a whole iteration later
        reading.recover(state.next_iteration)
        policy = _policy(config, state, warm_up_documents)
        read_first = _in_reading_order(job, run, reading, state, warm_up_documents)
    return Opened(run, reading, state, limits, policy, *read_first)


def run_to_budget(job: Job) -> Outcome:
    """Start or resume the run named by `run_name` and pull arms until a budget is reached.

    Raises:
        TableError: the run_name has history of another configuration.
        BudgetError: pulling every arm once would take too much of the budget.
        EndpointError: the endpoint cannot serve; what was paid for is kept.
    """
    committed = datetime.now(timezone.utc)  # the first iteration is billed for the opening, too
    config, tables, opened = job.config, job.tables, open_run(job)
    run, reading, state, limits = opened.run, opened.reading, opened.state, opened.limits
    assignments, key = opened.assignments, opened.order
    resumed = state.spent.documents > 0
    ahead = state_ahead(tables, run, state) if resumed and opened.policy.pipeline_depth > 1 else None
    started: dict[int, datetime] = {}

    def extract(iteration: int, pulls: list[Pull], share: Allowance) -> Extracted:
        started[iteration] = datetime.now(timezone.utc)
        watch.reading(iteration, sum(pull.stop - pull.start for pull in pulls), reading.spool(iteration).count)
        at_once = 1 if of_warm_up(pulls, opened.policy) else opened.policy.pipeline_depth
        return reading.read(iteration, pulled_documents(assignments, pulls, key=key), share, at_once=at_once)

    past = committed_steps(tables, run.run_id) if resumed else []
    with Watch(config, job.path(run.run_id, "progress.json"), state, limits, past, run.history_hash) as watch:

        def record(iteration: Iteration) -> None:
            nonlocal committed
            reading.keep(iteration.number)
            began, flops = started.pop(iteration.number), flops_of(config, iteration)
            ended = datetime.now(timezone.utc)  # writing it is billed to the next
            record_iteration(tables, run, iteration, began, flops, billed_from=committed)
            committed = ended
            watch.committed(iteration)

        with reading_progress(watch.bar, watch.arrived):
            state, reason = run_bandit(
                state,
                policy=opened.policy,
                limits=limits,
                extract=extract,
                score=reading.score,
                record=record,
                ahead=ahead,
            )
        watch.finished(reason)
    assignments.unpersist()
    iterations = tables.read(ITERATIONS).where((F.col("run_id") == run.run_id) & ~F.col("warm_up")).count()
    spent = {"iterations": iterations, "documents": state.spent.documents, "stop_reason": reason}
    details = {**spent, "strategy": config.bandit.strategy}
    return Outcome(state.spent.documents, len(state.pairs.pair_ids), details)


def flops_of(config: RunConfig, iteration: Iteration) -> float:
    """What the model and the transport took of an iteration."""
    paid = iteration.extracted
    tokens = paid.paid_prompt_tokens + paid.paid_completion_tokens
    read = inference_flops(config.endpoint.model_parameters, tokens, paid.paid_cached_tokens)
    return read + iteration.transport_flops


def _in_reading_order(
    job: Job, run: Run, reading: Extraction, state: State, warm_up_documents: int
) -> tuple[DataFrame, Column]:
    """The arms' documents, cached, and the key that sorts them as the strategy reads them; arms get similarities."""
    seed = job.config.seed
    assignments = job.tables.read(ASSIGNMENTS).where(F.col("clustering") == run.clustering)
    if job.config.bandit.strategy not in BY_SIMILARITY:
        return assignments.cache(), hash_order(seed)
    documents = with_similarity(
        assignments, job.tables.read(EMBEDDINGS), reading.guide, seed=seed, warm_up_documents=warm_up_documents
    ).cache()
    similarities = similarities_by_arm(documents, seed=seed)
    state.arms = {arm_id: replace(arm, similarities=similarities[arm_id]) for arm_id, arm in state.arms.items()}
    return documents, similarity_order(seed)


def _policy(config: RunConfig, state: State, warm_up_documents: int) -> Policy:
    bandit = config.bandit
    return Policy(
        bandit.strategy,
        bandit.arms_per_iteration or arms_at_once(len(state.arms)),
        bandit.docs_per_pull,
        bandit.exploration,
        bandit.alpha,
        warm_up_documents,
        config.seed,
        bandit.pipeline_depth,
    )

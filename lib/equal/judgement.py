"""How good a run's result is, on items that never guided it: target loss, exact answers, transport distance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timezone

import numpy as np
from pyspark.sql import functions as F
from tqdm import tqdm

from equal.core.costs import inference_flops
from equal.core.items import Item
from equal.core.metrics import (
    Z90,
    exact_match,
    has_checkable_answer,
    mean_and_error,
    mean_cosine,
    mtld,
    ratio_by_item,
    type_token_ratio,
)
from equal.core.ngrams import words
from equal.core.transport import bootstrap, transport_cost
from equal.history import collect_pairs
from equal.io.stage import Job
from equal.io.summary import committed
from equal.schemas import EVALUATIONS, QA_PAIRS, SELECTED_PAIRS, STAGES
from equal.state import Pairs
from equal.training.encoder import EncoderFactory
from equal.training.evaluate import AnswerModel, answer_nll, generate_answers

#: what is measured on
HELD_OUT = "held_out"
#: resamples of documents behind a distance's standard error
_RESAMPLES = 50
#: points of the budget at which the distance is taken; the first and the last iteration are among them
_STEPS = 16

Row = dict[str, object]


def judge_model(job: Job, scorer: AnswerModel, name: str, items: Sequence[Item]) -> tuple[list[Row], float]:
    """Target loss (mean answer negative log-likelihood a token, nats) and, where checkable, exact answers.

    Args:
        job: its evaluate section bounds batch and answer length.
        scorer: the base or the tuned model.
        name: base or tuned.
        items: held out.

    Returns:
        Rows of `evaluations`, and the FLOPs they took.
    """
    settings = job.config.evaluate
    likelihoods = answer_nll(scorer, items, batch_size=settings.batch_size)
    losses = ratio_by_item([x.sum_nll for x in likelihoods], [x.num_tokens for x in likelihoods])
    rows = [_mean(job, name, "target_loss", losses.tolist())]
    num_tokens = sum(x.num_read for x in likelihoods)
    checkable = [item for item in items if has_checkable_answer(item.answer)]
    if checkable:
        questions = [item.question for item in checkable]
        answers = generate_answers(
            scorer, questions, max_new_tokens=settings.max_new_tokens, batch_size=settings.batch_size
        )
        num_tokens += scorer.num_tokens([*questions, *answers])
        hits = [float(exact_match(answer, item.answer)) for answer, item in zip(answers, checkable)]
        rows.append(_mean(job, name, "exact_match", hits))
    return rows, inference_flops(scorer.num_parameters, num_tokens)


def base_key(job: Job, items: Sequence[Item]) -> str:
    """What the base model's figures are a function of: model, items and how long an answer may get."""
    config = job.config
    parts = (config.finetune.base_model, config.evaluate.max_new_tokens, *map(repr, items))
    return hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=8).hexdigest()


def known_base(job: Job, key: str) -> list[Row]:
    """This run's rows of the base model, where a run on this storage has measured it under the same `base_key`."""
    marks = job.tables.read(STAGES).where("stage = 'evaluate'").orderBy("finished_at").collect()
    newest = {mark.run_id: json.loads(mark.details).get("base", {}).get("key") for mark in marks}
    run_id = next((run_id for run_id, found in newest.items() if found == key), None)
    found = job.tables.read(EVALUATIONS).where((F.col("run_id") == run_id) & (F.col("model") == "base"))
    own = {"run_id": job.config.run_name, "fingerprint": job.config.fingerprint()}
    return [row.asDict() | own for row in (found.orderBy("metric").collect() if run_id else [])]


def judge_pairs(job: Job, items: Sequence[Item]) -> tuple[list[Row], float]:
    """Debiased transport distance of the run's pairs to the held-out items, with a 90 % bootstrap interval.

    One row `pairs` for all of them, and `pairs:N` for those of iterations up to N: what the budget bought step by
    step. Always the `split` estimate: sets of different size are compared, and `plain` depends on size.

    Returns:
        Rows of `evaluations`, and the FLOPs they took.
    """
    config, settings = job.config, job.config.encoder
    folder = job.path("encoders", job.upstream_hash("warm_up"))
    encoder = EncoderFactory(folder, settings.dtype, settings.max_tokens, settings.batch_size)()
    frame = committed(job.tables, QA_PAIRS, config.run_name)
    pairs = collect_pairs(frame)
    if not len(pairs.pair_ids):
        return [], 0.0
    reference = encoder.encode([item.text for item in items])
    found_in = {row.pair_id: row.iteration for row in frame.select("pair_id", "iteration").collect()}
    iterations = np.array([found_in[pair_id] for pair_id in pairs.pair_ids])
    reached = np.unique(iterations)
    steps = reached[np.unique(np.linspace(0, len(reached) - 1, _STEPS).round().astype(int))]
    shown = tqdm(steps, desc="distance over the budget", unit="step", leave=False, mininterval=5.0)
    measured = [_distance(job, f"pairs:{n}", pairs.where(iterations <= n), reference) for n in shown]
    rows = [row for row, _ in measured]
    return [{**rows[-1], "model": "pairs"}, *rows], sum(flops for _, flops in measured)


def describe_pairs(job: Job) -> list[Row]:
    """How long and how diverse the selected pairs are, whatever they are near to (App. G and N).

    Words a question and an answer; distinct words over words of a pair; MTLD over all pairs one after the other, as
    one pair is too short for it; the mean cosine of two pairs.

    Returns:
        Rows of `evaluations`, of the model `selected`; none when nothing was selected.
    """
    of_run = job.tables.read(SELECTED_PAIRS).where(F.col("run_id") == job.config.run_name)
    embedded = committed(job.tables, QA_PAIRS, job.config.run_name).select("pair_id", "embedding")
    rows = of_run.select("pair_id", "question", "answer").join(embedded, "pair_id").orderBy("pair_id").collect()
    if not rows:
        return []
    questions, answers = ([words(row[name]) for row in rows] for name in ("question", "answer"))
    pairs = [question + answer for question, answer in zip(questions, answers)]
    by_pair = {
        "question_words": [float(len(tokens)) for tokens in questions],
        "answer_words": [float(len(tokens)) for tokens in answers],
        "type_token_ratio": [type_token_ratio(tokens) for tokens in pairs],
    }
    of_all = {
        "mtld": mtld([token for tokens in pairs for token in tokens]),
        "mean_cosine": mean_cosine(np.array([row.embedding for row in rows], np.float32)),
    }
    told = [_row(job, "selected", name, *mean_and_error(values), len(rows)) for name, values in by_pair.items()]
    return told + [_row(job, "selected", name, v, None, len(rows)) for name, v in of_all.items() if v is not None]


def _distance(job: Job, model: str, pairs: Pairs, reference: np.ndarray) -> tuple[Row, float]:
    settings, seed = job.config.transport, job.config.seed
    doc_index = np.unique(pairs.doc_ids.astype(str), return_inverse=True)[1]
    cap, splits = settings.max_pairs, settings.splits
    estimate = transport_cost(
        pairs.embeddings, reference, estimator="split", max_pairs=cap, splits=splits, seed=seed, doc_index=doc_index
    )
    values = bootstrap(
        pairs.embeddings, doc_index, reference, estimator="split", max_pairs=cap, splits=splits,
        num_resamples=_RESAMPLES, seed=seed,
    )  # fmt: skip
    # only the spread of the resamples is used: a document drawn twice brings no new point, so that they lie lower
    row = _row(job, model, "transport_distance", estimate.value, float(values.std(ddof=1)), len(reference))
    return row, (1 + _RESAMPLES) * estimate.flops


def _mean(job: Job, model: str, metric: str, values: list[float]) -> Row:
    return {**_row(job, model, metric, *mean_and_error(values), len(values)), "item_values": values}


def _row(job: Job, model: str, metric: str, value: float, error: float | None, num_items: int) -> Row:
    low, high = (None, None) if error is None else (value - Z90 * error, value + Z90 * error)
    return {
        "run_id": job.config.run_name, "benchmark": HELD_OUT, "model": model, "metric": metric, "value": value,
        "stderr": error, "low": low, "high": high, "items": num_items,
        "fingerprint": job.config.fingerprint(), "evaluated_at": datetime.now(timezone.utc),
    }  # fmt: skip

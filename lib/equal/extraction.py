"""One extraction over Spark, as the warm-up and the bandit both need it: ask, write, read back, score.

documents -> passages -> one Spark job: ask, parse, check, embed -> extractions -> driver; kept: qa_pairs, replies
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from equal.config import Budget
from equal.core.allowance import Allowance, Amount
from equal.core.chat import NOT_SENT, UNSERVED
from equal.core.contamination import BenchmarkIndex
from equal.core.costs import money
from equal.core.qa import Prompt, fewest_tokens, usual_tokens
from equal.core.transport import cost_and_error
from equal.errors import EndpointError
from equal.history import discard_uncommitted, in_order
from equal.io.bill import settle_bills
from equal.io.endpoint import check_servers, read_key
from equal.io.prompts import load_prompts
from equal.io.references import load_judges, read_items, read_judges, read_spared
from equal.io.replies import PayingClientFactory, client_factory, fold_all, hold_abandoned
from equal.io.spool import Paid, ReplySpool
from equal.io.stage import Job
from equal.io.tables import side_by_side
from equal.io.turns import Turns
from equal.schemas import ARM_ID, DOC_ID, DOCUMENTS, EXTRACTIONS, QA_PAIRS, REPLIES
from equal.state import Extracted, Limits, Pairs, Scored
from equal.training.encoder import EncoderFactory
from equal.transforms.decontaminate import SharedIndex
from equal.transforms.extract import extract_pairs, qa_pairs_of
from equal.transforms.passages import passages

#: what of the rows of an iteration adds up
_SUMMED = ("calls", "cached_calls", "prompt_tokens", "completion_tokens")
#: in place of the arm of a document that was read before there were arms
_NO_ARM = -1


@dataclass(frozen=True)
class Extraction:
    """Reads documents on behalf of one run.

    Attributes:
        job: configuration, session and tables.
        run_id: under which rows are written.
        encoder_dir: the encoder for quotes and for pair embeddings.
        turns: of iterations that are read beside each other.
    """

    job: Job
    run_id: str
    encoder_dir: str
    turns: Turns = field(default_factory=Turns)

    @cached_property
    def make_encoder(self) -> EncoderFactory:
        """The encoder of documents, pairs and reference alike."""
        settings = self.job.config.encoder
        return EncoderFactory(self.encoder_dir, settings.dtype, settings.max_tokens, settings.batch_size)

    @cached_property
    def prompts(self) -> tuple[Prompt, Prompt | None, Prompt | None]:
        """Of the extract pass and, where there is one, of the refine and of the reason pass."""
        settings = self.job.config.extraction
        return load_prompts(
            settings.domain,
            answer=settings.answer,
            refine=settings.refine,
            structured=settings.structured,
            max_pairs=settings.max_pairs,
            reason=settings.reason,
        )

    @cached_property
    def index(self) -> SharedIndex:
        """What no pair may contain; n-grams that were spared on the documents are spared here too."""
        settings = self.job.config.decontaminate
        index = BenchmarkIndex.build(
            read_judges(self.job.config),
            ngram_words=settings.ngram_words,
            short_words=settings.short_words,
            spared=read_spared(self.job.path("decontaminate", f"{self.job.upstream_hash('decontaminate')}.json")),
        )
        return SharedIndex(self.job.spark.sparkContext.broadcast(index))

    @cached_property
    def guide(self) -> np.ndarray:
        """(m, d) embeddings of the reference items that guide selection."""
        config = self.job.config
        load_judges(config)  # refuses a guide that overlaps them
        items = read_items(config.reference.guide, "reference.guide")
        return self.make_encoder().encode([item.text for item in items])

    def spool(self, iteration: int) -> ReplySpool:
        """Replies that are paid for and not yet in the table; an iteration folds its own, as another may run."""
        return ReplySpool(self.job.path("spool", self.job.owner, str(iteration)))

    @cached_property
    def key(self) -> str:
        """The endpoint's, which is checked once, before the first call."""
        endpoint = self.job.config.endpoint
        key = read_key(endpoint)
        most = self.job.config.extraction.max_tokens
        needed = max(fewest_tokens(prompt, most) for prompt in self.prompts if prompt)
        check_servers(endpoint, key, min_context=needed)
        return key

    def make_client(
        self, iteration: int, at_once: int = 1, max_failed_share: float | None = None
    ) -> PayingClientFactory:
        """What makes the clients of an iteration's tasks; arguments as of `read`."""
        endpoint, tasks = self.job.config.endpoint, self.tasks(at_once) * at_once
        if max_failed_share is not None:
            endpoint = replace(endpoint, max_failed_share=max_failed_share)
        # iterations that are read beside each other follow each other
        first = iteration % at_once
        return client_factory(endpoint, self.key, self.spool(iteration), tasks=tasks, first=first, step=at_once)

    def tasks(self, at_once: int = 1) -> int:
        """Tasks of an iteration: as many as run at once; requests in flight are shared out, one at least to each.

        Where two iterations run at once, each leaves half of the cores to the other, which must be written and scored.
        """
        config, slots = self.job.config, self.job.spark.sparkContext.defaultParallelism
        return max(1, min(slots, config.spark.partitions, config.endpoint.in_flight) // at_once)

    @property
    def limits(self) -> Limits:
        """The budgets of tokens and money; a first guess at what a document needs is one of full length."""
        budget, settings = self.job.config.budget, self.job.config.extraction
        prices = Allowance(prompt_price=budget.prompt_price, completion_price=budget.completion_price)
        passes = [prompt for prompt in self.prompts if prompt]
        prompt_tokens = sum(usual_tokens(prompt, settings.passage_chars) for prompt in passes)
        first_need = prices.cost(
            prompt_tokens * settings.max_passages, settings.max_tokens * settings.max_passages * len(passes)
        )
        return Limits(0, budget.tokens, budget.money, budget.prompt_price, budget.completion_price, first_need)

    def recover(self, first_iteration: int) -> None:
        """Take over what killed processes left: their replies are kept, rows without a commit mark go."""
        tables, config, owner = self.job.tables, self.job.config, self.job.owner
        with hold_abandoned(self.job.path("spool"), config.storage.root) as abandoned:
            for payer in (*abandoned, owner):
                fold_all(self.job.path("spool", payer), tables)
            discard_uncommitted(tables, self.run_id, first_iteration)
            settle_bills(tables, config, [*abandoned, owner])

    def read(
        self, iteration: int, documents: DataFrame, allowance: Allowance, max_failed_share: float | None = None,
        *, at_once: int = 1,
    ) -> Extracted:  # fmt: skip
        """Extract from documents and append their `extractions` rows; `keep` is to follow.

        Args:
            iteration: under which the rows stand; call `recover` before the first.
            documents: doc_id, arm_id.
            allowance: of each of them.
            max_failed_share: in place of endpoint.max_failed_share.
            at_once: iterations that may be read beside each other, and so share cores and requests in flight.

        Raises:
            EndpointError: more than that share of the documents failed; replies are kept.
        """
        job, settings = self.job, self.job.config.extraction
        # a few hundred ids travel to the texts, not a million texts to the ids
        with_text = job.tables.read(DOCUMENTS).select(DOC_ID, "text").join(F.broadcast(documents), DOC_ID)
        cut = passages(with_text, passage_chars=settings.passage_chars, max_passages=settings.max_passages).persist()
        rows = extract_pairs(
            cut,
            job.tables.read(REPLIES),
            extract_prompt=self.prompts[0],
            refine_prompt=self.prompts[1],
            model=job.config.endpoint.model,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            min_answer_similarity=settings.min_answer_similarity,
            min_grounded_share=settings.min_grounded_share,
            make_client=self.make_client(iteration, at_once, max_failed_share),
            make_encoder=self.make_encoder,
            index=self.index,
            run_id=self.run_id,
            iteration=iteration,
            num_partitions=self.tasks(at_once),
            allowance=allowance,
            refine_model=job.config.endpoint.refine_model,
            reason_prompt=self.prompts[2],
            teacher_model=job.config.endpoint.teacher_model,
        )
        try:
            with self.turns.asking(iteration, cut.count(), self.spool(iteration).count):
                job.tables.append(EXTRACTIONS, rows)
        finally:
            cut.unpersist()
        found = _collected(self._written(iteration))
        extracted = extracted_of(found, self.spool(iteration).paid(), job.config.budget)
        self._require_served(extracted, found, max_failed_share)
        return extracted

    def keep(self, iteration: int) -> None:
        """Put the pairs and the replies of what was read into their tables; its commit mark comes after it."""
        tables = self.job.tables
        side_by_side(
            lambda: tables.append(QA_PAIRS, qa_pairs_of(self._written(iteration))),
            lambda: self.spool(iteration).fold(tables),
        )

    def _written(self, iteration: int) -> DataFrame:
        return self.job.tables.read(EXTRACTIONS).where(f"run_id = '{self.run_id}' AND iteration = {iteration}")

    def _require_served(
        self, extracted: Extracted, found: Sequence[Mapping[str, Any]], max_failed_share: float | None
    ) -> None:
        """Stop a run whose endpoint fails, instead of spending its documents on nothing.

        Where something was not sent at all, the iteration is not whole, however small the share: it is read again.
        """
        kept = "Replies that came are kept: "

        def example(*statuses: str) -> str:
            return next((str(row["error"]) for row in found if row["status"] in statuses), "unknown")

        if unsent := extracted.outcomes.get(NOT_SENT, 0):
            raise EndpointError(
                f"endpoint: {unsent} documents of this iteration could not be asked about; "
                f"{example(NOT_SENT)}. {kept}mend the endpoint and run again"
            )
        failed, total = sum(extracted.outcomes.get(s, 0) for s in UNSERVED), sum(extracted.outcomes.values())
        allowed = self.job.config.endpoint.max_failed_share if max_failed_share is None else max_failed_share
        if total and failed / total > allowed:
            raise EndpointError(
                f"endpoint: {failed} of {total} documents of this iteration failed, above "
                f"endpoint.max_failed_share={allowed:g}; last error: {example(*UNSERVED)}. "
                f"{kept}mend the endpoint (or lower extraction.passage_chars if its context is "
                "too short) and run again"
            )

    def score(self, pairs: Pairs) -> Scored:
        """The transport cost of an arm's pairs to the guide items, and its error over documents."""
        settings = self.job.config.transport
        estimate, error = cost_and_error(
            pairs.embeddings,
            np.unique(pairs.doc_ids.astype(str), return_inverse=True)[1],
            self.guide,
            estimator=settings.estimator,
            max_pairs=settings.max_pairs,
            splits=settings.splits,
            num_resamples=settings.bootstrap,
            seed=self.job.config.seed,
        )
        return Scored(estimate, error)


def _collected(written: DataFrame) -> list[dict[str, Any]]:
    """EXTRACTIONS rows on the driver, in one Spark job: one an accepted pair, one of what has none; the first is 0."""
    null = {ARM_ID: _NO_ARM, "error": "unknown", "needed_tokens": 0, "needed_money": 0.0}
    columns = [DOC_ID, "final", "status", *_SUMMED, *null]
    accepted = F.filter("pairs", lambda pair: pair["accepted"])
    each = written.select(*columns, F.posexplode_outer(accepted).alias("place", "pair"))
    each = each.fillna({**null, "place": 0}).select(*columns, "place", "pair.pair_id", "pair.embedding")
    rows: list[dict[str, Any]] = each.toPandas().to_dict("records")
    return rows


def extracted_of(found: Sequence[Mapping[str, Any]], paid: Paid, budget: Budget) -> Extracted:
    """What an iteration brought, of its rows as `_collected` returns them, and what was paid for it.

    The bill is not that of the rows: the task that wrote them may have found in the spool what one paid for that died.
    """
    rows = [row for row in found if row["place"] == 0]
    final = [row for row in rows if row["final"]]
    sums = {name: sum(row[name] for row in rows) for name in _SUMMED}
    tokens, money_needed = (max((row[f"needed_{name}"] for row in rows), default=0) for name in ("tokens", "money"))
    prices = budget.prompt_price, budget.completion_price
    return Extracted(
        dict(Counter(row[ARM_ID] for row in final)),
        in_order([row for row in found if row["pair_id"] is not None]),
        dict(Counter(row["status"] for row in final)),
        calls=paid.calls,
        cached_calls=max(sums["calls"] + sums["cached_calls"] - paid.calls, 0),
        prompt_tokens=sums["prompt_tokens"],
        completion_tokens=sums["completion_tokens"],
        money=money(sums["prompt_tokens"], sums["completion_tokens"], *prices),
        paid_prompt_tokens=paid.prompt_tokens,
        paid_cached_tokens=paid.cached_tokens,
        paid_completion_tokens=paid.completion_tokens,
        paid_money=money(paid.prompt_tokens, paid.completion_tokens, *prices),
        need=Amount(int(tokens), float(money_needed)),
    )

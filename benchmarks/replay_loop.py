"""One replayed run: the product's loop with effects that look up in a pool, and what its documents were worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pools import Pool
from sklearn.cluster import KMeans

from equal.config import load as load_config
from equal.core.allowance import Allowance
from equal.core.bandit import ArmState, Pull, arms_at_once
from equal.core.strategies import IN_ONE_ORDER
from equal.core.transport import Estimate, cost_and_error, cost_matrix, transport_cost
from equal.loop import run_bandit
from equal.state import Extracted, Limits, Pairs, Policy, Scored, Spent, State

#: pairs chosen of what was paid for, when documents to quality are counted
NUM_CHOSEN = 200
#: what quality must be reached, as random's after this share of the pool; and how far the others are followed
RANDOM_SHARE, LARGEST_SHARE = 0.4, 0.2
#: documents at which quality is looked at grow by this factor
_STEP = 1.08
#: share of relevant pairs from which an arm counts as relevant
RELEVANT_SHARE = 0.2
#: groups of an arm, and neighbours of a document, for App. L's ways of sampling
NUM_STRATA, NUM_NEIGHBOURS = 8, 10
_NOTHING = Scored(Estimate(1.0, True, 0, 0, 0.0), None)


@dataclass(frozen=True)
class Setup:
    """A strategy of the product with its settings, or an ablation of it.

    Attributes:
        strategy: `bandit.strategy`; likewise exploration, alpha and docs_per_pull.
        warm_up: share of the documents, by hash.
        order: of documents, where not by hash: by falling `mean`, `top` or `max` similarity to the guide, by that of
            their `clusters` and by hash inside, or `oracle`; or inside an arm by one of IN_ARMS.
        reward: `transport`, or an ablation: `cosine` (no DS), `batches` (no union), `first` (no MAB); or `perplexity`,
            of a model tuned on the guide.
        similarity: of documents, behind the arms' similarity.
        pipeline_depth: 2 is a delay of one iteration.
    """

    strategy: str
    exploration: str = "paper"
    alpha: float = 0.0
    docs_per_pull: int = 10
    warm_up: float = 0.01
    order: str = "hash"
    reward: str = "transport"
    similarity: str = "mean"
    pipeline_depth: int = 1


def stratified(vectors: np.ndarray) -> np.ndarray:
    """Scores that take one document of each group in turn; the groups are those of k-means."""
    num_groups = min(NUM_STRATA, len(np.unique(vectors, axis=0)))
    groups = KMeans(num_groups, n_init=1, random_state=0).fit_predict(vectors)
    turn = np.empty(len(vectors))
    for group in np.unique(groups):
        turn[groups == group] = np.arange((groups == group).sum())
    return -turn


def density(vectors: np.ndarray) -> np.ndarray:
    """Scores that take the typical ones first: the mean cosine to the nearest neighbours."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    return np.sort(cosines, axis=1)[:, -min(NUM_NEIGHBOURS, max(len(vectors) - 1, 1)) :].mean(axis=1)


def diverse(vectors: np.ndarray) -> np.ndarray:
    """Scores that take next what is least like all that was taken (maximum marginal relevance without a query)."""
    scores, nearest, row = np.empty(len(vectors)), np.full(len(vectors), -np.inf), 0
    for place in range(len(vectors)):
        scores[row] = -place
        nearest = np.maximum(nearest, vectors @ vectors[row])
        nearest[row] = np.inf
        row = int(nearest.argmin())
    return scores


#: what comes first inside an arm, by (n, d) vectors in hash order (EQUAL, App. L); ties stay in that order
IN_ARMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "stratified": stratified, "density": density, "diverse": diverse,
}  # fmt: skip


class Replay:
    """A pool, ready to be read by strategies under one seed."""

    def __init__(self, pool: Pool, seed: int) -> None:
        """Take a pool; the seed is that of the hash order and of the choices."""
        self.pool, self.seed = pool, seed
        self.num_docs = len(pool.documents)
        self.by_hash = np.random.default_rng((seed, 1)).permutation(self.num_docs)
        self.first_pair = np.searchsorted(pool.pair_documents, np.arange(self.num_docs + 1))

    @cached_property
    def similarities(self) -> dict[str, np.ndarray]:
        """(n,) similarity of each document to the guide, by three measures, and that of clusters; the oracle's."""
        to_guide = self.pool.documents @ self.pool.guide.T
        top = np.sort(to_guide, axis=1)[:, -5:].mean(axis=1)
        best = np.full(self.num_docs, np.inf)
        np.minimum.at(best, self.pool.pair_documents, self.pair_ranks.min(axis=0))
        mean = to_guide.mean(axis=1)
        arms = self.pool.arms
        return {
            "mean": mean, "top": top, "max": to_guide.max(axis=1), "oracle": -best,
            "clusters": (np.bincount(arms, mean) / np.maximum(np.bincount(arms), 1))[arms],
        }  # fmt: skip

    def in_arms(self, order: str) -> np.ndarray:
        """(n,) scores by which documents of one arm come in an order of App. L; those of two arms do not compare."""
        scores = np.empty(self.num_docs)
        hashed = np.argsort(self.by_hash)
        for arm in np.unique(self.pool.arms):
            rows = np.flatnonzero(self.pool.arms == arm)
            rows = rows[np.argsort(hashed[rows])]
            scores[rows] = IN_ARMS[order](self.pool.documents[rows])
        return scores

    @cached_property
    def pair_ranks(self) -> np.ndarray:
        """(m, p) place of each pair when all are ordered by nearness to a guide item."""
        order = np.argsort(-(self.pool.guide @ self.pool.pairs.T), axis=1, kind="stable")
        ranks = np.empty(order.shape, np.int32)
        np.put_along_axis(ranks, order, np.arange(order.shape[1], dtype=np.int32)[None], axis=1)
        return ranks

    def order(self, setup: Setup) -> np.ndarray:
        """Documents in the order in which they are read: the warm-up's by hash, then by the setup's."""
        warm = round(setup.warm_up * self.num_docs)
        rest = self.by_hash[warm:]
        if setup.order != "hash":
            scores = self.in_arms(setup.order) if setup.order in IN_ARMS else self.similarities[setup.order]
            rest = rest[np.argsort(-scores[rest], kind="stable")]
        return np.concatenate([self.by_hash[:warm], rest])

    def read(self, setup: Setup, documents: int) -> np.ndarray:
        """Run the product's loop; the documents that it paid for, in order."""
        order, arms = self.order(setup), self.pool.arms
        inside = order[np.argsort(arms[order], kind="stable")]
        ids, sizes = np.unique(arms, return_counts=True)
        starts = dict(zip(ids.tolist(), (np.cumsum(sizes) - sizes).tolist()))
        nearness = self.similarities[setup.similarity][inside]
        states = {
            j: ArmState(j, n, 0, 0, 0, None, None, nearness[starts[j] : starts[j] + n])
            for j, n in zip(ids.tolist(), sizes.tolist())
        }
        paid: dict[int, np.ndarray] = {}

        def extract(iteration: int, pulls: list[Pull], share: Allowance) -> Extracted:
            del share
            slices = [
                order[pull.start : pull.stop]
                if pull.arm_id is None
                else inside[starts[pull.arm_id] + pull.start : starts[pull.arm_id] + pull.stop]
                for pull in pulls
            ]
            read = paid[iteration] = np.concatenate(slices)
            touched, counts = np.unique(arms[read], return_counts=True)
            return Extracted(dict(zip(touched.tolist(), counts.tolist())), self.pairs_of(read))

        none = self.pairs_of(np.empty(0, int))
        policy = Policy(
            setup.strategy, arms_at_once(len(ids)), setup.docs_per_pull, setup.exploration, setup.alpha,
            round(setup.warm_up * self.num_docs), self.seed, setup.pipeline_depth,
        )  # fmt: skip
        run_bandit(
            State(states, none, Spent(), 0 if policy.warm_up_documents else 1),
            policy=policy, limits=Limits(documents, 0, 0.0), extract=extract,
            score=self._scorer(setup), record=lambda iteration: None,
        )  # fmt: skip
        return np.concatenate([paid[iteration] for iteration in sorted(paid)])

    def pairs_of(self, documents: np.ndarray) -> Pairs:
        """All pairs of some documents."""
        rows = self.rows_of(documents)
        of = self.pool.pair_documents[rows]
        return Pairs(rows, self.pool.arms[of], of, self.pool.pairs[rows])

    def rows_of(self, documents: np.ndarray) -> np.ndarray:
        """Rows of their pairs, rising."""
        read = np.zeros(self.num_docs, bool)
        read[documents] = True
        return np.flatnonzero(read[self.pool.pair_documents])

    def _scorer(self, setup: Setup) -> Callable[[Pairs], Scored]:
        """The product's reward with its defaults, or what an ablation has in its place."""
        settings, guide = load_config().transport, self.pool.guide
        seen: dict[int, tuple[np.ndarray, list[float]]] = {}
        frozen: dict[int, Scored] = {}

        def transport(pairs: Pairs) -> Scored:
            return Scored(
                *cost_and_error(
                    pairs.embeddings,
                    pairs.doc_ids,
                    guide,
                    estimator=settings.estimator,
                    max_pairs=settings.max_pairs,
                    splits=settings.splits,
                    num_resamples=settings.bootstrap,
                    seed=self.seed,
                )
            )

        def cosine(pairs: Pairs) -> Scored:
            cost = float(cost_matrix(pairs.embeddings, guide).mean())
            return Scored(Estimate(cost, True, len(pairs.pair_ids), len(guide), 0.0), None)

        def batches(pairs: Pairs) -> Scored:
            arm = int(pairs.arm_ids[0])
            before, costs = seen.get(arm, (np.empty(0, int), []))
            new = pairs.where(~np.isin(pairs.pair_ids, before))
            costs = [*costs, transport(new).estimate.value] if len(new.pair_ids) else costs
            seen[arm] = (pairs.pair_ids, costs)
            return Scored(Estimate(float(np.mean(costs)), True, len(pairs.pair_ids), len(guide), 0.0), None)

        def perplexity(pairs: Pairs) -> Scored:
            if self.pool.losses is None:
                raise SystemExit("equal_perplexity: the pool's pairs have no losses; run benchmarks/perplexities.py")
            cost = float(np.nanmean(self.pool.losses[pairs.pair_ids]))
            return Scored(Estimate(cost, True, len(pairs.pair_ids), len(guide), 0.0), None)

        def first(pairs: Pairs) -> Scored:
            arm = int(pairs.arm_ids[0])
            scored = frozen.get(arm) or transport(pairs)
            if len(np.unique(pairs.doc_ids)) > 2:  # more than the warm-up gave: the sweep's
                frozen[arm] = scored
            return scored

        if setup.strategy in IN_ONE_ORDER:
            return lambda pairs: _NOTHING  # no reward enters the choice
        rewards = {
            "transport": transport, "cosine": cosine, "batches": batches, "first": first, "perplexity": perplexity,
        }  # fmt: skip
        return rewards[setup.reward]

    def distance(self, documents: np.ndarray) -> float:
        """Debiased transport distance of all their pairs to the held-out items, as the product's `evaluate` has it."""
        pairs = self.pairs_of(documents)
        return transport_cost(
            pairs.embeddings, self.pool.held_out, estimator="split", max_pairs=500, splits=8, seed=self.seed,
            doc_index=pairs.doc_ids,
        ).value  # fmt: skip

    def quality(self, documents: np.ndarray) -> float:
        """Cost between the held-out items and the best pairs of some documents; infinite where they are too few."""
        chosen = self.best(documents)
        if len(chosen) < NUM_CHOSEN:
            return np.inf
        x = self.pool.pairs[chosen]
        return transport_cost(x, self.pool.held_out, estimator="plain", max_pairs=500, splits=1, seed=0).value

    def best(self, documents: np.ndarray) -> np.ndarray:
        """Rows of the best pairs of some documents, by one rule for all strategies.

        Guide items take the nearest pair that is left, in turn, until NUM_CHOSEN are taken.
        """
        rows = self.rows_of(documents)
        if len(rows) <= NUM_CHOSEN:
            return rows
        ranks = self.pair_ranks[:, rows]
        first = np.argpartition(ranks, NUM_CHOSEN - 1, axis=1)[:, :NUM_CHOSEN]
        nearest = np.take_along_axis(first, np.argsort(np.take_along_axis(ranks, first, 1), axis=1), 1)
        return rows[list(dict.fromkeys(nearest.T.ravel().tolist()))[:NUM_CHOSEN]]

    def documents_to(self, quality: float, read: np.ndarray) -> float:
        """The fewest documents, in the order read, whose best pairs are as near as this; infinite if never."""
        steps = np.unique(np.geomspace(NUM_CHOSEN / 4, len(read), int(np.log(len(read)) / np.log(_STEP))).astype(int))
        return next((float(n) for n in steps if self.quality(read[:n]) <= quality), np.inf)

    @cached_property
    def arm_shares(self) -> np.ndarray:
        """Relevant pairs a pair, by arm."""
        of = self.pool.arms[self.pool.pair_documents]
        return np.bincount(of, self.pool.relevant) / np.maximum(np.bincount(of), 1)

    def regret(self, read: np.ndarray) -> float:
        """Relevant pairs missed, as a share of those that draining the truly best arms in turn would have found."""
        best = np.argsort(-self.arm_shares[self.pool.arms[self.by_hash]], kind="stable")[: len(read)]
        could = self.pool.relevant[self.rows_of(self.by_hash[best])].sum()
        return float(1 - self.pool.relevant[self.rows_of(read)].sum() / could)

    def in_relevant_arms(self, read: np.ndarray) -> float:
        """Share of documents read that lie in relevant arms."""
        return float((self.arm_shares[self.pool.arms[read]] >= RELEVANT_SHARE).mean())

"""A planted world for the loop: arms of known reward, effects that are plain functions."""

from __future__ import annotations

import numpy as np

from equal.core.allowance import NOTHING, Allowance
from equal.core.bandit import ArmState, Pull
from equal.core.transport import Estimate
from equal.loop import run_bandit
from equal.state import Extracted, Iteration, Limits, Pairs, Policy, Scored, Spent, State

POLICY = Policy("equal", arms_per_iteration=2, docs_per_pull=3, exploration="paper", alpha=0.0, warm_up_documents=4)
NO_PAIRS = Pairs(np.empty(0, object), np.empty(0, int), np.empty(0, object), np.empty((0, 2), np.float32))


class World:
    """A document of arm j gives one pair whose cost is j / 10; the hash order deals the arms in turn."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.by_arm = {arm: [f"{rank:03d}-{arm}" for rank in range(size)] for arm, size in enumerate(sizes)}
        self.in_order = sorted(doc for docs in self.by_arm.values() for doc in docs)
        self.read: list[str] = []
        self.iterations: list[Iteration] = []
        self.shares: list[tuple[Allowance, int]] = []
        self.need, self.first_need, self.prices = NOTHING, NOTHING, (0.0, 0.0)

    def state(self) -> State:
        arms = {
            arm: ArmState(arm, size, 0, 0, 0, None, None, np.full(size, 1 - arm / 10))
            for arm, size in enumerate(self.sizes)
        }
        return State(arms, NO_PAIRS, Spent(), 0)

    def extract(self, iteration: int, pulls: list[Pull], share: Allowance) -> Extracted:
        docs: list[str] = []
        for pull in pulls:
            docs += (self.in_order if pull.arm_id is None else self.by_arm[pull.arm_id])[pull.start : pull.stop]
        self.read += docs
        self.shares.append((share, len(docs)))
        arms = np.array([int(doc.split("-")[1]) for doc in docs])
        counts = {int(arm): int((arms == arm).sum()) for arm in set(arms.tolist())}
        ids = np.array(docs, dtype=object)
        order = np.argsort(ids)
        pairs = Pairs(ids[order], arms[order], ids[order], np.ones((len(docs), 2), np.float32))
        tokens = 7 * len(docs), 3 * len(docs)
        cost = share.cost(*tokens).money
        return Extracted(counts, pairs, {"accepted": len(docs)}, len(docs), 0, *tokens, money=cost, need=self.need)

    def score(self, pairs: Pairs) -> Scored:
        assert len(set(pairs.arm_ids.tolist())) == 1
        return Scored(
            Estimate(float(pairs.arm_ids[0]) / 10, True, len(pairs.pair_ids), 1, flops=float(len(pairs.pair_ids))),
            None,
        )

    def record(self, iteration: Iteration) -> None:
        self.iterations.append(iteration)

    def run(
        self, state: State | None = None, policy: Policy = POLICY, ahead: State | None = None, **limits: float
    ) -> tuple[State, str]:
        limit = Limits(
            int(limits.get("documents", 0)), int(limits.get("tokens", 0)), limits.get("money", 0.0), *self.prices,
            first_need=self.first_need,
        )  # fmt: skip
        return run_bandit(
            state or self.state(),
            policy=policy,
            limits=limit,
            extract=self.extract,
            score=self.score,
            record=self.record,
            ahead=ahead,
        )

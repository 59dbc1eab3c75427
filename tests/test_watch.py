"""What is told of an extraction while it runs is what it committed, whole, and says how it ended."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equal.config import RunConfig, load
from equal.core.allowance import NOTHING
from equal.core.bandit import ArmState
from equal.history import Step
from equal.io.progress import write_progress
from equal.state import Extracted, Iteration, Limits, Pairs, Spent, State
from equal.watch import Watch, seconds_left

NO_PAIRS = Pairs(np.empty(0, object), np.empty(0, int), np.empty(0, object), np.empty((0, 0), np.float32))
LIMITS = Limits(40, 5000, 2.0)


class Recorder:
    """Stands for the MLflow run."""

    def __init__(self, config: RunConfig, history_hash: str, past: dict[int, dict[str, float]]) -> None:
        self.past, self.logged, self.failed = past, list[tuple[int, dict[str, float]]](), None

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.logged.append((step, dict(metrics)))

    def close(self, *, failed: bool) -> None:
        self.failed = failed


@pytest.fixture(autouse=True)
def recorder(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """Those that were made."""
    made: list[Recorder] = []

    def make(*args: object, **named: object) -> Recorder:
        made.append(Recorder(*args, **named))
        return made[-1]

    monkeypatch.setattr("equal.watch.ExtractionRun", make)
    return made


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load(overrides=[f"storage.root={tmp_path / 'root'}", "run_name=r1", "budget.documents=40"])


def arm(arm_id: int, reward: float | None = None) -> ArmState:
    return ArmState(arm_id, 30, 0, 0, 0, reward, None)


def fresh() -> State:
    return State({n: arm(n) for n in range(8)}, NO_PAIRS, Spent(), 1)


def iteration(number: int, rewards: dict[int, float | None], outcomes: dict[str, int], spent: Spent) -> Iteration:
    count = outcomes.get("accepted", 0)
    ids = np.array([f"{number}-{n}" for n in range(count)], object)
    pairs = replace(NO_PAIRS, pair_ids=ids)
    num_docs = sum(outcomes.values())
    extracted = Extracted(dict.fromkeys(rewards, num_docs // len(rewards)), pairs, outcomes, calls=num_docs)
    arms = {n: arm(n, r) for n, r in rewards.items()}
    return Iteration(number, False, NOTHING, arms, {}, {}, extracted, spent, "", 0.0)


FIRST = iteration(1, dict.fromkeys(range(7)) | {0: 0.5}, {"accepted": 5, "failed": 2}, Spent(7, 1000, 0.25))
SECOND = iteration(2, {0: 0.7, 3: 0.2}, {"void": 1, "context_too_short": 1}, Spent(9, 1500, 0.5))


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_what_the_store_gave_tells_nothing_of_the_pace_and_the_bar_never_falls_back(config, tmp_path, monkeypatch):
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("equal.watch.time", clock)
    path = tmp_path / "r1" / "progress.json"
    spooled = iter([7, 0, 2])
    with Watch(config, str(path), fresh(), replace(LIMITS, money=0.0, tokens=0), [], "h1") as watch:
        watch.reading(1, 7, lambda: next(spooled))
        assert [watch.arrived(), watch.arrived()] == [7, 7]  # the replies are on their way to the table
        watch.committed(replace(FIRST, extracted=replace(FIRST.extracted, calls=0)))
        assert read(path)["seconds_left"] is None
        clock.now += 10
        watch.committed(SECOND)
        assert read(path)["seconds_left"] == 155.0, "31 documents at 2 in 10 s"


def test_the_file_holds_what_was_committed(config, tmp_path, capsys, monkeypatch, recorder):
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("equal.watch.time", clock)
    path = tmp_path / "r1" / "progress.json"
    with Watch(config, str(path), fresh(), replace(LIMITS, money=0.0), [], "h1") as watch:
        begun = read(path)
        assert (begun["state"], begun["iteration"], begun["seconds_left"], begun["failed_share"]) == (
            "running", None, None, 0.0,
        )  # fmt: skip
        watch.committed(FIRST)
        clock.now += 90
        watch.committed(SECOND)
        now = read(path)
        watch.finished("documents")
    assert now["spent"] == {"documents": 9, "tokens": 1500, "money": 0.5}
    assert now["limits"] == {"documents": 40, "tokens": 5000, "money": None}
    assert (now["run_name"], now["state"], now["iteration"], now["arms"]) == ("r1", "running", 2, [0, 3])
    assert now["outcomes"] == {"accepted": 5, "context_too_short": 1, "failed": 2, "void": 1}
    assert (now["pairs"], now["failed_share"], now["fingerprint"]) == (5, round(3 / 9, 4), config.fingerprint())
    assert (now["seconds_since_start"], now["seconds_left"]) == (90.0, 210.0), "by tokens; documents would take 310"
    end = read(path)
    assert (end["state"], end["stop_reason"], end["seconds_left"]) == ("finished", "documents", 0.0)
    assert [p.name for p in path.parent.iterdir()] == ["progress.json"]
    shown = capsys.readouterr().err
    assert "9/40 docs" in shown
    assert "iteration 2, arms 0,3, 1,500/5,000 tokens, 5 pairs, 33.3% failed, 03:30 left" in shown
    assert "money" not in shown
    (mlflow,) = recorder
    assert (mlflow.past, mlflow.failed) == ({}, False)
    assert [step for step, _ in mlflow.logged] == [1, 2]
    assert mlflow.logged[1][1] == {
        "documents": 9, "tokens": 1500, "money": 0.5, "pairs": 5, "failed_share": 3 / 9,
        "best_reward": 0.7, "mean_reward": pytest.approx(0.45),
    }  # fmt: skip


def test_a_resumed_run_counts_what_was_committed_before(config, tmp_path, recorder):
    path = tmp_path / "progress.json"
    resumed = replace(fresh(), spent=SECOND.spent, next_iteration=3)
    past = [
        Step(1, FIRST.spent, FIRST.extracted.outcomes, 5, {0: 0.5, 1: None}),
        Step(2, SECOND.spent, {"failed": 1, "void": 1}, 0, {0: 0.7}),
    ]
    with Watch(config, str(path), resumed, LIMITS, past, "h1") as watch:
        begun = read(path)
        watch.committed(iteration(3, {1: None}, {"failed": 3}, Spent(12, 2000, 0.7)))
    assert (begun["iteration"], begun["spent"]["documents"], begun["failed_share"]) == (2, 9, round(3 / 9, 4))
    assert read(path)["failed_share"] == 0.5
    first, second = recorder[0].past[1], recorder[0].past[2]
    assert (first["best_reward"], second["best_reward"]) == (0.5, 0.7)
    assert (first["failed_share"], second["failed_share"]) == (2 / 7, 3 / 9)
    assert (second["documents"], second["pairs"]) == (9, 5)
    assert recorder[0].logged[0][1]["best_reward"] == 0.7


def test_an_error_is_told_by_its_kind_and_nothing_more(config, tmp_path, recorder):
    path = tmp_path / "progress.json"
    with pytest.raises(ValueError, match="sk-"), Watch(config, str(path), fresh(), LIMITS, [], "h1"):
        raise ValueError("sk-a-secret")
    assert (read(path)["state"], read(path)["stop_reason"]) == ("failed", "ValueError")
    assert "sk-" not in path.read_text()
    assert recorder[0].failed


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    write_progress(str(path), {"n": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_progress(str(path), {"n": 2})
    assert read(path) == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["progress.json"]


amounts = st.integers(1, 10_000)


@given(st.floats(1, 1e6), amounts, amounts, amounts, amounts)
def test_the_time_left_is_that_of_the_limit_which_ends_first(elapsed, documents, tokens, more_documents, more_tokens):
    begun, spent = Spent(5, 50), Spent(5 + documents, 50 + tokens)
    both = Limits(spent.documents + more_documents, spent.tokens + more_tokens, 0.0)
    by_documents, by_tokens = elapsed * more_documents / documents, elapsed * more_tokens / tokens
    assert seconds_left(elapsed, begun, spent, both) == pytest.approx(min(by_documents, by_tokens))
    assert seconds_left(elapsed, begun, spent, replace(both, tokens=0)) == pytest.approx(by_documents)
    assert seconds_left(elapsed, begun, begun, both) is None

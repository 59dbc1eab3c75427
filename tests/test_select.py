"""Selection: best arms first, the same whatever order rows arrive in, and a file that `datasets` and TRL load."""

from __future__ import annotations

import json
import random

import pytest
from datasets import load_dataset
from hypothesis import given
from hypothesis import strategies as st
from trl.data_utils import is_conversational

from equal.errors import TableError
from equal.io.export import LINEAGE, write_conversations
from equal.selection.rows import select_pairs


def _pair(pair_id: str, arm_id: int | None, similarity: float | None = None) -> dict[str, object]:
    return {
        "pair_id": pair_id, "run_id": "r", "iteration": 1, "arm_id": arm_id, "doc_id": f"doc-{pair_id}",
        "passage_index": 0, "similarity": similarity, "question": f"Q {pair_id}?", "answer": f"A {pair_id} é\n2",
    }  # fmt: skip


def _arm(arm_id: int, iteration: int, reward: float | None) -> dict[str, object]:
    return {
        "run_id": "r", "iteration": iteration, "arm_id": arm_id, "pulls": 1, "documents": 5, "pairs": 3,
        "reward": reward, "standard_error": None,
    }  # fmt: skip


HISTORY = [_arm(0, 1, 0.9), _arm(0, 2, 0.2), _arm(1, 1, 0.5), _arm(2, 1, None)]
PAIRS = [
    _pair("a", 0), _pair("b", 1, 0.6), _pair("c", 1, 0.8), _pair("d", 2), _pair("e", 1, 0.8), _pair("f", None),
]  # fmt: skip


def _ids(pairs, **settings) -> list[str]:
    defaults = {"strategy": "equal", "max_pairs": 0, "seed": 1}
    return [row["pair_id"] for row in select_pairs(pairs, HISTORY, **{**defaults, **settings})]


def test_pairs_stand_by_latest_reward_then_similarity_then_id():
    assert _ids(PAIRS) == ["c", "e", "b", "a", "d", "f"]
    first = select_pairs(PAIRS, HISTORY, strategy="equal", max_pairs=1, seed=1)
    assert first == [
        {"run_id": "r", "method": "equal", "pair_id": "c", "rank": 1, "score": 0.5, "round": 1, "arm_id": 1,
         "doc_id": "doc-c", "question": "Q c?", "answer": "A c é\n2"}
    ]  # fmt: skip


@given(st.randoms(use_true_random=False), st.integers(0, 8), st.sampled_from(["equal", "random"]))
def test_order_of_arrival_changes_nothing_and_the_cut_is_a_prefix(shuffler: random.Random, cut: int, strategy: str):
    shuffled = PAIRS.copy()
    shuffler.shuffle(shuffled)
    whole = _ids(PAIRS, strategy=strategy)
    assert _ids(shuffled, strategy=strategy, max_pairs=cut) == whole[: cut or None]
    assert sorted(whole) == ["a", "b", "c", "d", "e", "f"]


def test_the_random_control_ignores_rewards_and_follows_its_seed():
    orders = {tuple(_ids(PAIRS, strategy="random", seed=seed)) for seed in range(8)}
    assert len(orders) > 4
    assert select_pairs(PAIRS, HISTORY, strategy="random", max_pairs=0, seed=1)[0]["score"] is None


def test_the_export_is_loaded_as_conversations_with_lineage(tmp_path):
    path = tmp_path / "run" / "selected.jsonl"
    selected = select_pairs(PAIRS, HISTORY, strategy="equal", max_pairs=4, seed=1)
    assert write_conversations(str(path), selected) == 4
    loaded = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert is_conversational(loaded[0])
    assert [row["pair_id"] for row in loaded] == ["c", "e", "b", "a"]
    assert loaded[3]["prompt"] == [{"role": "user", "content": "Q a?"}]
    assert loaded[3]["completion"] == [{"role": "assistant", "content": "A a é\n2"}]
    assert set(LINEAGE) < set(json.loads(path.read_text(encoding="utf-8").splitlines()[0]))
    assert [p.name for p in path.parent.iterdir()] == ["selected.jsonl"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "run").write_text("a file where a folder should be")
    with pytest.raises(TableError, match=r"selected\.jsonl"):
        write_conversations(str(tmp_path / "run" / "selected.jsonl"), [])

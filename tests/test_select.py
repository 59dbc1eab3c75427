"""Selection: best arms first, the same whatever order rows arrive in, and a file that `datasets` and TRL load."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from datasets import load_dataset
from hypothesis import given
from hypothesis import strategies as st
from trl.data_utils import is_conversational

from equal.errors import TableError
from equal.io.export import LINEAGE, write_conversations
from equal.selection import duplicates
from equal.selection.duplicates import stand_ins
from equal.selection.rows import select_pairs


def _pair(pair_id: str, arm_id: int | None, similarity: float | None = None) -> dict[str, object]:
    return {
        "pair_id": pair_id, "run_id": "r", "iteration": 1, "arm_id": arm_id, "doc_id": f"doc-{pair_id}",
        "passage_index": 0, "similarity": similarity, "question": f"What is {pair_id}?", "answer": f"A {pair_id} é\n2",
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


#: each pair is like itself alone
EMBEDDINGS = dict(zip("abcdef", np.eye(6, dtype=np.float32)))


def _select(pairs, embeddings=EMBEDDINGS, **settings) -> list[dict[str, object]]:
    defaults = {"strategy": "equal", "max_pairs": 0, "max_similarity": 0.98, "seed": 1}
    return select_pairs(pairs, HISTORY, embeddings, **{**defaults, **settings})


def _ids(pairs, **settings) -> list[str]:
    return [row["pair_id"] for row in _select(pairs, **settings)]


def test_pairs_stand_by_latest_reward_then_similarity_then_id():
    assert _ids(PAIRS) == ["c", "e", "b", "a", "d", "f"]
    first = _select(PAIRS, max_pairs=1)
    assert first == [
        {"run_id": "r", "method": "equal", "pair_id": "c", "rank": 1, "score": 0.5, "round": 1, "arm_id": 1,
         "doc_id": "doc-c", "question": "What is c?", "answer": "A c é\n2", "duplicates": []}
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
    assert _select(PAIRS, strategy="random")[0]["score"] is None


def test_the_best_ranked_pair_stands_for_the_same_question_and_for_near_ones():
    same = {"question": "WHAT  is c"}
    pairs = [row | same if row["pair_id"] == "a" else row for row in PAIRS]
    near = np.array([0, 0.1, 0, 0, 0.995, 0], np.float32)
    vectors = EMBEDDINGS | {"d": near / np.linalg.norm(near)}
    found = _select(pairs, vectors)
    assert [row["pair_id"] for row in found] == ["c", "e", "b", "f"]
    assert [row["rank"] for row in found] == [1, 2, 3, 4]
    assert found[0]["duplicates"] == [{"pair_id": "a", "reason": "same_question", "similarity": 0.0}]
    (of_e,) = found[1]["duplicates"]
    assert (of_e["pair_id"], of_e["reason"], round(of_e["similarity"], 3)) == ("d", "near", 0.995)
    off = _select(pairs, vectors, max_similarity=1.0)
    assert [row["pair_id"] for row in off] == ["c", "e", "b", "d", "f"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("What is 2 + 3?", "What is 2 - 3?"), ("What is C++?", "What is C#?"), ("Is i < n?", "Is i > n?"),
     ("What does <div> do?", "What does <span> do?"), ("What is -5 times 3?", "What is 5 times 3?")],
)  # fmt: skip
def test_questions_that_differ_by_a_sign_are_not_the_same(one: str, other: str):
    asked = [row | {"question": {"a": one, "c": other}.get(row["pair_id"], row["question"])} for row in PAIRS]
    assert not any(row["duplicates"] for row in _select(asked, max_similarity=1.0))


#: directions of which those of a pair (0 and 1, 2 and 3 ...) have a cosine of .99, others of less than .8
_AXES = np.eye(8, dtype=np.float32)[np.repeat(np.arange(4), 2)]
_AXES[1::2] += 0.1425 * np.eye(8, dtype=np.float32)[4:]
_DIRECTIONS = _AXES / np.linalg.norm(_AXES, axis=1, keepdims=True)


@given(
    st.lists(st.tuples(st.sampled_from(["", *"abcdefghijkl"]), st.integers(0, 7)), max_size=40),
    st.integers(0, 12),
    st.sampled_from([0.98, 0.999, 1.0]),
    st.integers(1, 7),
    st.integers(1, 7),
)
def test_block_by_block_is_what_comparing_all_with_all_gives(rows, most, max_similarity, block, chunk):
    keys = [key for key, _ in rows]
    vectors = _DIRECTIONS[[direction for _, direction in rows]] if rows else np.empty((0, 8), np.float32)
    kept, owners = [], []
    for row in range(len(rows)):
        cosines = vectors @ vectors[row]
        alike = [
            other for other in kept
            if (keys[row] and keys[other] == keys[row]) or (max_similarity < 1 and cosines[other] > max_similarity)
        ]  # fmt: skip
        owners.append(alike[0] if alike else row)
        kept += [] if alike else [row]
        if len(kept) == (most or len(rows)):
            break
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(duplicates, "_BLOCK", block)
        patched.setattr(duplicates, "_CHUNK", chunk)
        assert stand_ins(keys, vectors, max_similarity=max_similarity, most=most).tolist() == owners


def test_the_export_is_loaded_as_conversations_with_lineage(tmp_path):
    path = tmp_path / "run" / "selected.jsonl"
    selected = _select(PAIRS, max_pairs=4)
    assert write_conversations(str(path), selected) == 4
    loaded = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert is_conversational(loaded[0])
    assert [row["pair_id"] for row in loaded] == ["c", "e", "b", "a"]
    assert loaded[3]["prompt"] == [{"role": "user", "content": "What is a?"}]
    assert loaded[3]["completion"] == [{"role": "assistant", "content": "A a é\n2"}]
    assert set(LINEAGE) < set(json.loads(path.read_text(encoding="utf-8").splitlines()[0]))
    assert [p.name for p in path.parent.iterdir()] == ["selected.jsonl"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "run").write_text("a file where a folder should be")
    with pytest.raises(TableError, match=r"selected\.jsonl"):
        write_conversations(str(tmp_path / "run" / "selected.jsonl"), [])

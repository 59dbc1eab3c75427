"""Answer likelihood against a token-by-token hand computation, in any batch and order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from equal.core.items import Item
from equal.errors import InputError
from equal.training.evaluate import answer_nll, generate_answers, load_answer_model

ITEMS = [
    Item("1", "What is the mean of 1 and 3?", "2"),
    Item("2", "Name it.", "The variance of a sum of independent variables is the sum of their variances."),
    Item("3", "What is 2?", "What is 2?"),  # the answer stands in the question too
    Item("4", "Why?", "  spaces around \n"),
    Item("5", "Mark?", "end"),  # stands in the template's mark too
    Item("6", "Accents?", "é ∑ x²"),
    Item("7", "Empty?", ""),
]


@pytest.fixture(scope="module")
def scorer(tiny_model):
    """In float32, so that the hand computation must be met exactly."""
    return replace(
        load_answer_model(tiny_model),
        model=AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval(),
    )


def _by_hand(folder: str, item: Item) -> tuple[float, int]:
    """Bytes are tokens: the answer's are known without the code under test."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # the template keeps blanks around the content, which are not the answer's own
    lead = item.answer[: len(item.answer) - len(item.answer.lstrip())]
    before = f"<|start|>user\n{item.question}<|end|>\n<|start|>assistant\n{lead}"
    answer = item.answer.strip()
    context = tokenizer(before, add_special_tokens=False)["input_ids"]
    tokens = tokenizer(answer, add_special_tokens=False)["input_ids"] if answer else []
    assert len(tokens) == len(answer.encode())
    with torch.no_grad():
        logits = model(torch.tensor([context + tokens])).logits[0].float()
    scores = torch.log_softmax(logits, dim=-1)
    return -sum(float(scores[len(context) + i - 1, token]) for i, token in enumerate(tokens)), len(tokens)


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.item_id)
def test_likelihood_is_that_of_the_answers_tokens_alone(scorer, tiny_model, item):
    expected = _by_hand(tiny_model, item)
    found = answer_nll(scorer, [item], batch_size=1)[0]
    assert found.num_tokens == expected[1]
    turns = f"<|start|>user\n{item.question}<|end|>\n<|start|>assistant\n{item.answer}<|end|>\n"
    assert found.num_read == scorer.num_tokens([turns]) == len(scorer.tokenizer(turns)["input_ids"])
    assert found.sum_nll == pytest.approx(expected[0], rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 50])
def test_batches_and_order_change_nothing(scorer, batch_size):
    alone = [answer_nll(scorer, [item], batch_size=1)[0] for item in ITEMS]
    backwards = answer_nll(scorer, ITEMS[::-1], batch_size=batch_size)[::-1]
    assert [r.num_tokens for r in backwards] == [r.num_tokens for r in alone]
    np.testing.assert_allclose([r.sum_nll for r in backwards], [r.sum_nll for r in alone], rtol=1e-5)


def test_no_items_have_no_likelihood(scorer):
    assert answer_nll(scorer, [], batch_size=4) == []


def test_generation_in_a_batch_is_generation_alone(scorer):
    questions = [item.question for item in ITEMS[:4]]
    alone = [generate_answers(scorer, [q], max_new_tokens=6, batch_size=1)[0] for q in questions]
    assert generate_answers(scorer, questions, max_new_tokens=6, batch_size=3) == alone
    assert any(alone)


def test_what_is_missing_is_named(tiny_model, tmp_path):
    with pytest.raises(InputError, match=r"finetune\.base_model: is empty"):
        load_answer_model("")
    with pytest.raises(InputError, match=r"finetune\.base_model: '/nowhere'"):
        load_answer_model("/nowhere")
    with pytest.raises(InputError, match=r"finetune\.base_model: '.*' could not be loaded \(.*\); give a directory"):
        load_answer_model(str(tmp_path))
    with pytest.raises(InputError, match="run jobs/finetune"):
        load_answer_model(tiny_model, str(tmp_path / "none"))

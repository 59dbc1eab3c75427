"""Fine-tuning a tiny model for real: it learns the answers and nothing of the questions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from equal.core.items import Item
from equal.errors import InputError
from equal.training.evaluate import answer_nll, load_answer_model
from equal.training.sft import train

EXAMPLES = [(f"What is item {i}?", "It is blue.") for i in range(12)]
SETTINGS = {
    "method": "lora", "epochs": 4.0, "learning_rate": 2e-2, "batch_size": 4, "micro_batch_size": 2, "max_tokens": 128,
    "lora_rank": 4, "lora_alpha": 8, "seed": 5,
}  # fmt: skip
#: every linear layer of the model but its output head
LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def _nll(model: str, tuned: str | None, items: list[Item]) -> float:
    found = answer_nll(load_answer_model(model, tuned), items, batch_size=4)
    return sum(r.sum_nll for r in found) / sum(r.num_tokens for r in found)


@pytest.fixture(scope="module", params=["lora", "full"])
def tuned(request, tiny_model, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("run") / "adapter")
    seen: list[tuple[int, float]] = []
    result = train(
        EXAMPLES, base_model=tiny_model, output_dir=folder, on_step=lambda *point: seen.append(point),
        **{**SETTINGS, "method": request.param, "learning_rate": 2e-2 if request.param == "lora" else 1e-2},
    )  # fmt: skip
    return request.param, folder, result, seen


def test_loss_falls_and_every_step_is_reported(tuned):
    _, _, result, seen = tuned
    assert [step for step, _ in result.losses] == list(range(1, 13))
    assert seen == list(result.losses)
    assert result.losses[-1][1] < 0.8 * result.losses[0][1]
    assert result.seconds > 0


def test_the_saved_model_gives_the_answers_more_likelihood(tuned, tiny_model):
    _, folder, _, _ = tuned
    items = [Item("x", "What is item 99?", "It is blue.")]
    assert _nll(tiny_model, folder, items) < 0.8 * _nll(tiny_model, None, items)


def test_what_is_saved_is_an_adapter_or_a_whole_model(tuned, tiny_model):
    method, folder, result, _ = tuned
    names = {path.name for path in Path(folder).iterdir()}
    assert ("adapter_config.json" in names) == (method == "lora")
    assert [path.name for path in Path(folder).parent.iterdir()] == ["adapter"]
    whole = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(tiny_model).parameters())
    assert result.num_parameters == whole
    assert (result.num_trained < whole / 3) == (method == "lora")
    if method == "lora":
        modules = json.loads((Path(folder) / "adapter_config.json").read_text())["target_modules"]
        assert {name.rpartition(".")[2] for name in modules} == LINEAR


def test_tokens_are_counted_over_all_epochs(tuned, tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    lengths = []
    for question, answer in EXAMPLES:
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        lengths.append(len(tokenizer(text, add_special_tokens=False)["input_ids"]))
    assert tuned[2].num_tokens == 4 * sum(lengths)
    assert tuned[2].num_truncated == 0


def test_only_the_answer_is_trained_on(tiny_model, tmp_path):
    """The first step's loss, before anything moved, is the answers' own; the marks that close an answer count too."""
    result = train(
        EXAMPLES,
        base_model=tiny_model,
        output_dir=str(tmp_path / "a"),
        **{**SETTINGS, "epochs": 0.1, "batch_size": 12},
    )
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    total, count = 0.0, 0
    for question, answer in EXAMPLES:
        context = tokenizer(f"<|start|>user\n{question}<|end|>\n<|start|>assistant\n", add_special_tokens=False)
        tokens = tokenizer(f"{answer}<|end|>\n", add_special_tokens=False)["input_ids"]
        ids = context["input_ids"] + tokens
        with torch.no_grad():
            scores = torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), dim=-1)
        total -= sum(float(scores[len(ids) - len(tokens) + i - 1, token]) for i, token in enumerate(tokens))
        count += len(tokens)
    assert result.losses[0][1] == pytest.approx(total / count, rel=0.01)  # bfloat16 against float32


def test_the_same_seed_gives_the_same_losses(tiny_model, tmp_path):
    runs = [
        train(EXAMPLES, base_model=tiny_model, output_dir=str(tmp_path / name), **{**SETTINGS, "epochs": 1.0})
        for name in ("a", "b")
    ]
    assert runs[0].losses == runs[1].losses


def test_what_was_cut_is_counted(tiny_model, tmp_path):
    examples = [*EXAMPLES, ("Long?", "x" * 500), ("y" * 500, "An answer of which nothing is left.")]
    result = train(examples, base_model=tiny_model, output_dir=str(tmp_path / "a"), **{**SETTINGS, "epochs": 1.0})
    assert (result.num_truncated, result.num_dropped) == (1, 1)


def test_a_cut_that_leaves_no_answer_anywhere_is_an_error_that_names_it(tiny_model, tmp_path):
    with pytest.raises(InputError, match=r"finetune\.max_tokens: is 16"):
        train(EXAMPLES, base_model=tiny_model, output_dir=str(tmp_path / "a"), **{**SETTINGS, "max_tokens": 16})


def test_nothing_to_train_on_and_a_model_without_template_are_named(tiny_model, tmp_path):
    with pytest.raises(InputError, match="no selected pair"):
        train([], base_model=tiny_model, output_dir=str(tmp_path / "a"), **SETTINGS)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = None
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(tmp_path / "plain")
    tokenizer.save_pretrained(tmp_path / "plain")
    with pytest.raises(InputError, match="no chat template"):
        train(EXAMPLES, base_model=str(tmp_path / "plain"), output_dir=str(tmp_path / "a"), **SETTINGS)
    assert not (tmp_path / "a").exists()

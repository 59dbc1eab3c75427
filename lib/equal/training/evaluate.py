"""How well a model answers held-out items: the likelihood it gives their answers, and the answers it gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from tqdm import tqdm

from equal.core.conversation import conversation
from equal.core.items import Item
from equal.errors import InputError
from equal.training.likelihood import token_nll
from equal.training.sft import load_causal_model


@dataclass(frozen=True)
class Likelihood:
    """Of one item's answer.

    Attributes:
        sum_nll: negative log-likelihood in nats, summed over the answer's tokens.
        num_tokens: the answer's tokens; 0 for an empty answer.
        num_read: all tokens of the conversation, which the model read for it.
    """

    sum_nll: float
    num_tokens: int
    num_read: int


@dataclass(frozen=True)
class AnswerModel:
    """A language model ready to be asked, in evaluation mode."""

    model: Any
    tokenizer: Any

    @property
    def num_parameters(self) -> int:
        """Weights, adapters included."""
        return sum(p.numel() for p in self.model.parameters())

    def num_tokens(self, texts: Sequence[str]) -> int:
        """Tokens of the texts taken together."""
        return sum(len(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"])


def load_answer_model(base_model: str, tuned_dir: str | None = None) -> AnswerModel:
    """The base model; or the tuned one, whether `tuned_dir` holds an adapter on it or a whole model.

    In float32, 4 bytes a weight: an adapter merged into bfloat16 weights loses most of what it learnt to
    rounding (measured on 135 M weights: target loss 2.446 instead of 2.384, against 2.548 untuned).

    Raises:
        InputError: a model is missing.
    """
    if tuned_dir is None:
        return _ready(*load_causal_model(base_model, "finetune.base_model", torch.float32))
    if not Path(tuned_dir).is_dir():
        raise InputError(f"evaluate: the tuned model {tuned_dir!r} is not there; run jobs/finetune.py first")
    if not (Path(tuned_dir) / "adapter_config.json").is_file():
        return _ready(*load_causal_model(tuned_dir, "evaluate: tuned model", torch.float32))
    base, tokenizer = load_causal_model(base_model, "finetune.base_model", torch.float32)
    return _ready(PeftModel.from_pretrained(base, tuned_dir).merge_and_unload(), tokenizer)


def answer_nll(scorer: AnswerModel, items: Sequence[Item], *, batch_size: int) -> list[Likelihood]:
    """Likelihood of each item's answer after its question, in the model's chat format.

    The tokens counted are those of the answer's own text: neither the question nor the template's marks.

    Args:
        scorer: from `load_answer_model`.
        items: questions with answers.
        batch_size: items at once in memory; moves low bits only.

    Returns:
        One `Likelihood` an item, in the order given.
    """
    encoded = [_answer_tokens(scorer.tokenizer, item) for item in items]
    results: list[Likelihood] = [Likelihood(0.0, 0, 0)] * len(items)
    for rows in _by_length([len(ids) for ids, _ in encoded], batch_size, "target loss"):
        width = max(len(encoded[i][0]) for i in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        seen = torch.zeros_like(ids)
        counted = torch.zeros(len(rows), width, dtype=torch.bool)
        for row, i in enumerate(rows):
            tokens, is_answer = encoded[i]
            ids[row, : len(tokens)] = torch.tensor(tokens)
            seen[row, : len(tokens)] = 1
            counted[row, : len(tokens)] = torch.tensor(is_answer)
        with torch.inference_mode():
            nll, row_of = token_nll(scorer.model, *(part.to(scorer.model.device) for part in (ids, seen, counted)))
        for row, i in enumerate(rows):
            own = nll[row_of == row].double()
            results[i] = Likelihood(float(own.sum()), len(own), len(encoded[i][0]))
    return results


def generate_answers(
    scorer: AnswerModel, questions: Sequence[str], *, max_new_tokens: int, batch_size: int
) -> list[str]:
    """The model's greedy answer to each question, at most `max_new_tokens` tokens, in the order given."""
    tokenizer, device = scorer.tokenizer, scorer.model.device
    prompts = [_render(tokenizer, question, None) for question in questions]
    answers = [""] * len(prompts)
    for rows in _by_length([len(prompt) for prompt in prompts], batch_size, "answers"):
        batch = tokenizer(
            [prompts[i] for i in rows],
            return_tensors="pt",
            padding=True,
            padding_side="left",
            add_special_tokens=False,
        )
        inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            out = scorer.model.generate(
                **inputs, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
        new = out[:, inputs["input_ids"].shape[1] :]
        for i, text in zip(rows, tokenizer.batch_decode(new, skip_special_tokens=True)):
            answers[i] = text.strip()
    return answers


def _ready(model: Any, tokenizer: Any) -> AnswerModel:
    return AnswerModel(model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer)


def _render(tokenizer: Any, question: str, answer: str | None) -> str:
    """The conversation as text: up to where the answer starts, or whole."""
    turns = conversation(question, answer or "")
    messages = turns["prompt"] + (turns["completion"] if answer is not None else [])
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer is None))


def _answer_tokens(tokenizer: Any, item: Item) -> tuple[list[int], list[bool]]:
    """Token ids of the conversation, and which of them spell the answer (found by their place in the text)."""
    text, answer = _render(tokenizer, item.question, item.answer), item.answer.strip()
    opening = _render(tokenizer, item.question, None)
    # some templates open an answer otherwise than they show a given one
    start = text.find(answer, len(opening)) if text.startswith(opening) else text.rfind(answer)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = encoding["offset_mapping"]
    return encoding["input_ids"], [stop > start and begin < start + len(answer) for begin, stop in spans]


def _by_length(lengths: Sequence[int], batch_size: int, label: str) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first, under a progress bar."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return iter(tqdm(batches, desc=label, unit="batch", leave=False, mininterval=5.0))

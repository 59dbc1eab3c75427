"""Supervised fine-tuning of the base model on selected pairs: LoRA or full, loss on the answer only."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig
from peft.helpers import disable_input_dtype_casting
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, ProgressCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from equal.core.conversation import conversation
from equal.errors import InputError
from equal.training.encoder import best_dtype, resolve_model
from equal.training.likelihood import token_nll

#: loss on answers alone; the rate rises over a twentieth of the steps, then falls along a cosine
_FIXED: dict[str, Any] = {
    "completion_only_loss": True,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,
    "train_sampling_strategy": "group_by_length",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
}

#: (question, answer)
Example = tuple[str, str]


@dataclass(frozen=True)
class SftResult:
    """What a fine-tuning did.

    Attributes:
        losses: (step, loss in nats per answer token) of each optimiser step.
        seconds: of the training loop.
        num_tokens: tokens trained on, question and answer, all epochs.
        num_truncated: examples that reached `max_tokens` and lost their end.
        num_dropped: examples whose question alone reached it, so that nothing of the answer was left.
        num_parameters: weights of the model without adapters; num_trained: weights that moved.
    """

    losses: tuple[tuple[int, float], ...]
    seconds: float
    num_tokens: int
    num_truncated: int
    num_dropped: int
    num_parameters: int
    num_trained: int


def train(
    examples: Sequence[Example],
    *,
    base_model: str,
    output_dir: str,
    method: str,
    epochs: float,
    learning_rate: float,
    batch_size: int,
    micro_batch_size: int,
    max_tokens: int,
    lora_rank: int,
    lora_alpha: int,
    seed: int,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    on_trained: Callable[[], None] = lambda: None,
) -> SftResult:
    """Fine-tune and save the adapter (LoRA) or the model (full), with its tokenizer.

    Args:
        examples: (question, answer), in an order that depends on their content only.
        base_model: directory or model name, with a chat template; output_dir: appears whole or not at all.
        method: `lora` (all linear layers but the output head) or `full`.
        epochs: passes over the examples, parts of one allowed; learning_rate: peak of a cosine schedule.
        batch_size: examples a step, by accumulation; micro_batch_size: of them at once in memory.
        max_tokens: longer conversations are cut at the end; seed: of order, initialisation and dropout.
        lora_rank: of the adapter; lora_alpha: its scale.
        on_step: called with (step, loss) as training goes; on_trained: before output_dir is replaced.

    Raises:
        InputError: there are no examples or none fits, or the model or its chat template is missing.
    """
    if not examples:
        raise InputError("finetune: there is no selected pair to train on; see table extractions for why")
    micro = min(micro_batch_size, len(examples))
    arguments = SFTConfig(
        output_dir=output_dir + ".unfinished",
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=math.ceil(min(batch_size, len(examples)) / micro),
        max_length=max_tokens,
        seed=seed,
        data_seed=seed,
        **(_FIXED | _hardware()),
    )
    adapter = _lora(lora_rank, lora_alpha) if method == "lora" else None
    recorder = _Recorder(on_step)
    trainer = _trainer(examples, base_model, arguments, adapter, recorder)
    lengths = [len(row["input_ids"]) for row in trainer.train_dataset]
    if not lengths:
        raise InputError(f"finetune.max_tokens: is {max_tokens}, no question leaves room for its answer; raise it")
    started = time.monotonic()
    # autocast rounds what enters an adapter; peft would widen it to float32 first, for nothing
    with disable_input_dtype_casting(trainer.model, active=adapter is not None):
        trainer.train()
    seconds = time.monotonic() - started
    on_trained()
    _save(trainer, Path(output_dir))
    num_trained, num_frozen = (_num_weights(trainer.model, trained=moves) for moves in (True, False))
    return SftResult(
        losses=tuple(recorder.losses),
        seconds=seconds,
        num_tokens=round(sum(lengths) * epochs),
        num_truncated=sum(length >= max_tokens for length in lengths),
        num_dropped=len(examples) - len(lengths),
        num_parameters=num_frozen + (0 if adapter else num_trained),
        num_trained=num_trained,
    )


def _trainer(
    examples: Sequence[Example], base_model: str, arguments: SFTConfig, adapter: LoraConfig | None, recorder: _Recorder
) -> SFTTrainer:
    # frozen weights may be rounded; those that move by small steps may not
    dtype = best_dtype("auto") if adapter else torch.float32
    model, tokenizer = load_causal_model(base_model, "finetune.base_model", dtype)
    disable_progress_bars()  # four for a few hundred examples, before the one that counts
    if not torch.cuda.is_available():
        model.set_attn_implementation("eager")  # the fused kernel's backward pass is slow on a CPU
    trainer = _AnswerTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list([dict(conversation(*example)) for example in examples]),
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=[recorder],
    )
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _num_weights(model: torch.nn.Module, *, trained: bool) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad == trained)


def _save(trainer: SFTTrainer, folder: Path) -> None:
    """Write beside the target and rename, so that a killed job leaves no half adapter under the final name."""
    unfinished = Path(trainer.args.output_dir)
    trainer.model.save_pretrained(unfinished)
    trainer.processing_class.save_pretrained(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def load_causal_model(name: str, field: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """A language model and its tokenizer.

    Args:
        name: directory, installed weights package or model name.
        field: the setting that names it, for messages.
        dtype: of its weights.

    Raises:
        InputError: there is no such model, or it has no chat template.
    """
    if not name:
        raise InputError(f"{field}: is empty; give the directory or the name of the model to start from")
    try:
        folder = resolve_model(name, field)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{field}: {name!r} could not be loaded ({str(error).splitlines()[0]}); give a directory that holds "
            "a causal language model and its tokenizer, an installed weights package or a model's name"
        ) from error
    if not tokenizer.chat_template:
        raise InputError(f"{field}: {name!r} has no chat template; give an instruction-tuned model")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def _hardware() -> dict[str, Any]:
    gpu = torch.cuda.is_available()
    return {
        "bf16": best_dtype("auto") == torch.bfloat16,
        "use_cpu": not gpu,
        # memory is what a GPU runs short of, time is what a CPU does
        "gradient_checkpointing": gpu,
        "dataloader_pin_memory": gpu,
    }


def _lora(rank: int, alpha: int) -> LoraConfig:
    # without dropout: drawing its masks took a third of the time on a CPU, and the epochs are few
    return LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")


class _AnswerTrainer(SFTTrainer):
    """Computes no statistics of the whole vocabulary beside the loss: on a CPU they took as long as the model."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Mean nll of the answer tokens of a step, this micro-batch's share of it."""
        counted = inputs["labels"] != -100
        nll, _ = token_nll(model, inputs["input_ids"], inputs["attention_mask"], counted)
        return nll.sum() / (len(nll) if num_items_in_batch is None else num_items_in_batch)


class _Recorder(TrainerCallback):
    """Keeps the loss of every step, passes it on, and shows one progress bar."""

    def __init__(self, on_step: Callable[[int, float], None]) -> None:
        self.losses: list[tuple[int, float]] = []
        self._on_step = on_step
        self._bar: tqdm[Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._bar = tqdm(total=state.max_steps, desc="finetune", unit="step", leave=False, mininterval=5.0)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs or self._bar is None:
            return
        loss = float(logs["loss"])
        self.losses.append((state.global_step, loss))
        self._on_step(state.global_step, loss)
        self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
        self._bar.update()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.close()

"""A tiny sentence encoder with random weights, for what asks nothing of a vector but that it is the text's own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_tiny_encoder(folder: str, texts: Iterable[str]) -> str:
    """One layer of 32 dimensions; a word of the texts is a token, any other word is spelt; returns the folder."""
    torch.manual_seed(0)
    signs = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    words = sorted({word for text in texts for word in re.findall(r"[a-z]{2,}", text.lower())})
    vocabulary = [*_SPECIAL, *signs, *(f"##{sign}" for sign in signs), *words]
    Path(folder).mkdir(parents=True)
    Path(folder, "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab_file=str(Path(folder, "vocab.txt"))).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=128, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder

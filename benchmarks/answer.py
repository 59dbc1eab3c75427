"""Answer a file of requests with a model in this process, all in batches: for a machine that nobody can reach.

Replies depend on prompt, model and decoding parameters alone. Where an accelerator has neither Spark nor a network,
the requests go there as a file and the replies come back as one (benchmarks/offline.py). Decoding is the server's:
greedy, the same chat template, JSON by the same grammar compiler under the same settings. What is longer than the
server's context is left out, so that the server says so itself. Needs torch, transformers and xgrammar alone.

    python benchmarks/answer.py requests.jsonl.gz replies.jsonl.gz --model .cache/models/smollm2-135m-instruct
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path
from typing import Any

import torch
import xgrammar
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer
from xgrammar.contrib.hf import LogitsProcessor

#: prompt and reply together, as the server is started with
MAX_MODEL_LEN = 4096
#: tokens of prompts, padding included, that one batch may hold
BATCH_TOKENS = 1_000_000

Row = dict[str, Any]


class Answerer:
    """A model with its tokenizer and the grammars it was asked for."""

    def __init__(self, folder: str, device: str) -> None:
        self.device = device
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(device).eval()
        info = xgrammar.TokenizerInfo.from_huggingface(self.tokenizer, vocab_size=self.model.config.vocab_size)
        self.compiler = xgrammar.GrammarCompiler(info)

    def prompt(self, request: Row) -> list[int]:
        """The token ids that the server makes of a request's messages."""
        text = self.tokenizer.apply_chat_template(request["messages"], tokenize=False, add_generation_prompt=True)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def answer(self, requests: list[Row], prompts: list[list[int]]) -> list[Row]:
        """Replies to requests that share decoding parameters and schema."""
        padded = self.tokenizer.pad({"input_ids": prompts}, return_tensors="pt").to(self.device)
        max_tokens, schema = requests[0]["parameters"]["max_tokens"], requests[0]["schema"]
        compact = {"any_whitespace": False, "separators": (",", ":")}  # the server's `disable_any_whitespace`
        grammar = self.compiler.compile_json_schema(json.dumps(schema), **compact) if schema else None
        with torch.inference_mode():
            out = self.model.generate(
                **padded, do_sample=False, max_new_tokens=max_tokens,
                logits_processor=[LogitsProcessor([grammar] * len(requests))] if grammar else [],
            )  # fmt: skip
        replies = []
        for request, prompt, ids in zip(requests, prompts, out[:, padded["input_ids"].shape[1] :].tolist()):
            end = ids.index(self.tokenizer.eos_token_id) + 1 if self.tokenizer.eos_token_id in ids else max_tokens
            replies.append({
                "key": request["key"],
                "text": self.tokenizer.decode(ids[:end], skip_special_tokens=True),
                "finish_reason": "stop" if self.tokenizer.eos_token_id in ids else "length",
                "prompt_tokens": len(prompt), "completion_tokens": end, "received_at": time.time(),
            })  # fmt: skip
        return replies


def batches(requests: list[Row], prompts: list[list[int]], batch_tokens: int) -> list[list[int]]:
    """Rows of each batch: of one schema and one set of parameters, of about one length."""
    kind = [json.dumps([request["parameters"], request["schema"]], sort_keys=True) for request in requests]
    found: list[list[int]] = []
    for row in sorted(range(len(requests)), key=lambda row: (kind[row], len(prompts[row]))):
        width = len(prompts[row]) + requests[row]["parameters"]["max_tokens"]
        if found and kind[found[-1][0]] == kind[row] and width * (len(found[-1]) + 1) <= batch_tokens:
            found[-1].append(row)
        else:
            found.append([row])
    return found


def main() -> None:
    """Answer what is asked, a batch at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requests", type=Path)
    parser.add_argument("replies", type=Path)
    parser.add_argument("--model", required=True, help="folder of the model that the server serves")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS)
    arguments = parser.parse_args()
    with gzip.open(arguments.requests, "rt", encoding="utf-8") as file:
        requests = [json.loads(line) for line in file]
    answerer = Answerer(arguments.model, arguments.device)
    prompts = [answerer.prompt(request) for request in requests]
    fits = [
        row for row in range(len(requests))
        if len(prompts[row]) + requests[row]["parameters"]["max_tokens"] <= MAX_MODEL_LEN
    ]  # fmt: skip
    requests, prompts = [requests[row] for row in fits], [prompts[row] for row in fits]
    started, tokens = time.monotonic(), 0
    with gzip.open(arguments.replies, "wt", encoding="utf-8") as file, tqdm(total=len(requests), mininterval=5) as bar:
        for rows in batches(requests, prompts, arguments.batch_tokens):
            for reply in answerer.answer([requests[row] for row in rows], [prompts[row] for row in rows]):
                tokens += reply["completion_tokens"]
                file.write(json.dumps(reply) + "\n")
            file.flush()
            bar.update(len(rows))
    seconds = time.monotonic() - started
    print(f"{len(requests):,} replies, {sum(map(len, prompts)):,} + {tokens:,} tokens, {seconds:.1f} s")


if __name__ == "__main__":
    main()

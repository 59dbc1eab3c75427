"""The demo: the whole pipeline on documentation texts of this environment, with a real model on this machine.

EQUAL and a control that reads random documents get the same budget; both are fine-tuned and evaluated.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from corpus import write_corpus
from equal.config import RunConfig, load
from equal.io.report import verdict, write_report
from equal.io.session import open_session
from equal.io.stage import Body, exit_on_error, finished, log, run_stage
from equal.io.summary import by_model, evaluations, summarise
from equal.io.tables import Tables
from equal.jobs.pipeline import ARMS, CORPUS, RUN
from model import convert
from reference import write_reference
from server import MODEL_NAME, Server, serve

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "demo"
KEY_ENV = "EQUAL_ENDPOINT_KEY"
#: the runs compared: name and bandit.strategy
RUNS = ("equal", "random")


def main() -> None:
    """Run or resume the demo; finished stages are passed over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, default=8000, help="documents in the corpus")
    num_docs = parser.parse_args().docs
    started = time.monotonic()
    with exit_on_error("demo"):
        _begin(num_docs)
        model_dir = convert()
        configs = {name: _config(name, model_dir) for name in RUNS}
        if not _extracted(configs):
            with serve(model_dir, OUT / "vllm.log") as server:
                _until_extracted(configs, server)
        for name in RUNS:
            for stage in ("select", "finetune", "evaluate"):
                _stage(configs[name], stage, RUN[stage])
        _finish(configs, started)


def _begin(num_docs: int) -> None:
    """Write corpus and reference set; a demo of another size starts over."""
    note = OUT / "demo.json"
    wanted = {"docs": num_docs}
    if note.is_file() and json.loads(note.read_text()) != wanted:
        log.info("build/demo holds a demo of another size: starting over")
        shutil.rmtree(OUT)
    OUT.mkdir(parents=True, exist_ok=True)
    if not note.is_file():
        write_reference(OUT / "reference")
        written = write_corpus(num_docs, OUT / "source")
        log.info("corpus: %s texts from the documentation of the installed packages", f"{written:,}")
        note.write_text(json.dumps(wanted))


def _config(name: str, model_dir: Path) -> RunConfig:
    reference = OUT / "reference"
    return load(
        ROOT / "conf" / "demo.yml",
        [
            f"run_name={name}",
            f"bandit.strategy={name}",
            f"storage.root={OUT}",
            f"documents.path={OUT / 'source'}",
            f"reference.guide={reference / 'guide.jsonl'}",
            f"reference.held_out={reference / 'held_out.jsonl'}",
            f"decontaminate.benchmarks={{held_out: {reference / 'held_out.jsonl'}}}",
            f"endpoint.model={MODEL_NAME}",
            f"finetune.base_model={model_dir}",
        ],
    )


def _tables(config: RunConfig) -> Tables:
    return Tables(open_session(config.spark.partitions), config.storage.root, config.storage.schema)


def _extracted(configs: dict[str, RunConfig]) -> bool:
    """Whether both runs have read their documents, so that no server is needed."""
    tables = _tables(configs["equal"])
    return all(finished(tables, config, "extract") for config in configs.values())


def _until_extracted(configs: dict[str, RunConfig], server: Server) -> None:
    """Corpus stages while the server starts, then everything that asks it."""
    os.environ[KEY_ENV] = server.key
    equal, random = (replace(configs[name], endpoint=replace(configs[name].endpoint, url=server.url)) for name in RUNS)
    for stage, body in CORPUS.items():
        _stage(equal, stage, body)
    log.info(
        "waiting for the vLLM server (started beside the corpus stages; log: %s)", server.log_path.relative_to(ROOT)
    )
    server.wait_ready()
    for stage, body in ARMS.items():
        _stage(equal, stage, body)
    for config in (equal, random):
        _stage(config, "extract", RUN["extract"])


def _stage(config: RunConfig, stage: str, body: Body) -> None:
    log.info("--- %s%s", stage, f" ({config.run_name})" if stage in RUN else "")
    run_stage(config, stage, body)


def _finish(configs: dict[str, RunConfig], started: float) -> None:
    tables = _tables(configs["equal"])
    summary = summarise(tables, *RUNS)
    (OUT / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    write_report(tables, OUT / "report.html", *RUNS)
    shutil.copy(OUT / "equal" / configs["equal"].select.export, OUT / "selected.jsonl")
    losses = by_model(evaluations(tables, list(RUNS)), "target_loss", *RUNS)
    print(_closing_lines(summary, losses, time.monotonic() - started))


def _closing_lines(summary: dict[str, Any], losses: dict[str, Any], seconds: float) -> str:
    distance = {
        name: f"{d['value']:.3f} ({d['low']:.3f} to {d['high']:.3f})" for name, d in summary["distance"].items()
    }
    nearer, better = verdict(summary["distance"], losses)
    tokens = summary["prompt_tokens"] + summary["completion_tokens"]
    return f"""
Spent      {summary["documents_extracted"]:,} of {summary["documents"]:,} documents, {summary["llm_calls"]:,} calls,\
 {tokens:,} tokens, {summary["pairs"]:,} pairs kept, {seconds / 60:.1f} min
Distance   to the held-out reference, lower is better: EQUAL {distance["equal"]}, random {distance["random"]}
           {nearer}
Loss       {better}
Written    build/demo/report.html  summary.json  selected.jsonl  equal/adapter  tables/  mlflow.db
Go on      make history       the SQL of notebooks/history.sql over these tables
           make mlflow        MLflow's own pages for both fine-tunings"""


if __name__ == "__main__":
    main()

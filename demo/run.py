"""The demo: the whole pipeline on documentation texts of this environment, with a real model on this machine.

EQUAL and a control that reads random documents get the same budget; both are fine-tuned and evaluated.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from corpus import write_corpus
from equal.config import RunConfig, load
from equal.estimate import estimate_run, told
from equal.io.marks import Marks
from equal.io.report import verdict, write_report
from equal.io.session import open_session
from equal.io.stage import Body, exit_on_error, log, run_stage
from equal.io.summary import by_model, evaluations, summarise
from equal.io.tables import Tables
from equal.jobs.pipeline import ARMS, CORPUS, RUN
from equal.schemas import SCHEMAS
from model import convert
from reference import write_reference
from remaining import Remaining, Step
from server import Server, serve
from size import MIN_DOCS, SETTINGS, WHOLE_DOCS, fitting_docs, share, sized, slowness

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "demo"
KEY_ENV = "EQUAL_ENDPOINT_KEY"
#: the runs compared and what differs between them; the control learns nothing on its way, so its iterations are larger
RUNS = {"equal": [], "random": ["bandit.strategy=random", "bandit.docs_per_pull=10"]}
#: what follows once the model has read its documents, one run after the other
JUDGED = ("select", "finetune", "evaluate")
#: (run, stage) in the order in which they are taken
STEPS: list[Step] = [
    *[("equal", stage) for stage in (*CORPUS, *ARMS)],
    *[(name, "extract") for name in RUNS],
    *[(name, stage) for name in RUNS for stage in JUDGED],
]
#: minutes of each step at that size on two cores with nothing beside it; the time left is told by them and by the pace
#: of the machine
TYPICAL_MIN = dict(zip(STEPS, (0.6, 0.2, 0.2, 0.2, 1.3, 1.0, 0.2, 4.7, 1.7, 0.1, 1.5, 0.8, 0.1, 1.5, 0.4)))


def main() -> None:
    """Run or resume the demo; finished stages are passed over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, help="size of the corpus; else what this machine reads in 20 minutes")
    asked = parser.parse_args().docs
    num_docs = fitting_docs() if asked is None else asked
    if num_docs < MIN_DOCS:
        parser.error(f"argument --docs: {num_docs} texts are no corpus to choose from; at least {MIN_DOCS}")
    os.chdir(ROOT)  # conf/demo.yml names its files from here, and so does whoever runs a job on them later
    with exit_on_error("demo"):
        configs = {
            name: load(SETTINGS, [f"run_name={name}", *sized(num_docs), *changed]) for name, changed in RUNS.items()
        }
        if asked is None and num_docs < WHOLE_DOCS:
            whole = f"{WHOLE_DOCS:,} texts take this processor more than 20 minutes"
            log.info("%s: %s are taken; make demo DOCS=%s for all", whole, f"{num_docs:,}", WHOLE_DOCS)
        _begin(num_docs, configs)
        model_dir = convert()
        log.info("opening the tables under %s, some twenty seconds", OUT.relative_to(ROOT))
        remaining = Remaining(_typical(configs, num_docs), pace=slowness())
        if _extracted(configs):
            log.info("corpus, arms and both extractions are finished: no server is needed")
        else:
            with serve(model_dir, OUT / "vllm.log") as server:
                _until_extracted(configs, server, remaining)
        for name in RUNS:
            for stage in JUDGED:
                _stage(configs[name], stage, RUN[stage], remaining)
        _finish(configs)


def _begin(num_docs: int, configs: dict[str, RunConfig]) -> None:
    """Open the session, and write corpus and reference set; a demo of another size, other settings, stages or tables
    starts over."""
    note = OUT / "demo.json"
    wanted = {
        "size": num_docs,
        "settings": {name: config.fingerprint() for name, config in configs.items()},
        "stages": [*CORPUS, *ARMS, *RUN],
        "tables": {name: schema.simpleString() for name, schema in SCHEMAS.items()},
    }
    found = json.loads(note.read_text()) if note.is_file() else wanted
    if found != wanted:
        others = ", ".join(name for name, value in wanted.items() if found.get(name) != value)
        log.info("build/demo: deleted and begun anew, as it holds a demo of other %s", others)
        shutil.rmtree(OUT)
    OUT.mkdir(parents=True, exist_ok=True)
    log.info("starting Spark, and reading the documentation of the installed packages, about half a minute")
    with ThreadPoolExecutor(1) as beside, _output_to(OUT / "spark.log"):
        # the packages are parsed for as long as Spark takes to start
        writing = None if note.is_file() else beside.submit(write_corpus, num_docs, OUT / "source")
        open_session(configs["equal"].spark.partitions, with_models=True)
    if writing is not None:
        write_reference(OUT / "reference")
        log.info(
            "corpus: %s texts from the documentation of the installed packages; the model reads %s, from %s arms",
            *(f"{n:,}" for n in (writing.result(), configs["equal"].budget.documents, configs["equal"].cluster.k)),
        )
        note.write_text(json.dumps(wanted))


@contextmanager
def _output_to(log_path: Path) -> Iterator[None]:
    """What is started meanwhile, Spark's JVM and through it the Python workers, prints into a file for good."""
    sys.stdout.flush()
    saved = os.dup(1), os.dup(2)
    with log_path.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    try:
        yield
    finally:
        for stream, copy in zip((1, 2), saved):
            os.dup2(copy, stream)
            os.close(copy)


def _tables(config: RunConfig) -> Tables:
    return Tables(open_session(config.spark.partitions), config.storage.root, config.storage.schema)


def _extracted(configs: dict[str, RunConfig]) -> bool:
    """Whether both runs have read their documents, so that no server is needed."""
    tables = _tables(configs["equal"])
    return all(Marks.read(tables, config).finished("extract") for config in configs.values())


def _until_extracted(configs: dict[str, RunConfig], server: Server, remaining: Remaining) -> None:
    """Corpus stages while the server starts, then everything that asks it."""
    os.environ[KEY_ENV] = server.key
    equal, random = (replace(configs[name], endpoint=replace(configs[name].endpoint, url=server.url)) for name in RUNS)
    for stage, body in CORPUS.items():
        _stage(equal, stage, body, remaining)
    log.info(
        "waiting for the vLLM server (started beside the corpus stages; log: %s)", server.log_path.relative_to(ROOT)
    )
    server.wait_ready()
    for stage, body in ARMS.items():
        _stage(equal, stage, body, remaining)
    log.info("what the extraction will take, as the warm-up shows it:\n%s", told(estimate_run(equal)))
    for config in (equal, random):
        _stage(config, "extract", RUN["extract"], remaining)


def _stage(config: RunConfig, stage: str, body: Body, remaining: Remaining) -> None:
    step = config.run_name, stage
    what = f"{STEPS.index(step) + 1} of {len(STEPS)}: {stage}" + (f" ({config.run_name})" if stage in RUN else "")
    log.info("--- %s; about %.0f min to the end", what, max(remaining.minutes, 1.0))
    started = time.monotonic()
    run_stage(config, stage, body)
    remaining.ended(step, time.monotonic() - started)


def _typical(configs: dict[str, RunConfig], num_docs: int) -> dict[Step, float]:
    """Minutes of each step by experience: Spark's own, or as what a model has to do; nothing where it is done."""
    read, corpus = share(num_docs), num_docs / WHOLE_DOCS
    work = {"warm_up": corpus, "embed": corpus, "extract": read, "finetune": read}
    tables = _tables(configs["equal"])
    marks = {name: Marks.read(tables, config) for name, config in configs.items()}
    return {
        (name, stage): TYPICAL_MIN[name, stage] * work.get(stage, 1.0)
        for name, stage in STEPS
        if not marks[name].finished(stage)
    }


def _finish(configs: dict[str, RunConfig]) -> None:
    log.info("--- writing summary and report, about half a minute")
    tables = _tables(configs["equal"])
    summary = summarise(tables, *RUNS)
    (OUT / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    write_report(tables, OUT / "report.html", *RUNS)
    shutil.copy(OUT / "equal" / configs["equal"].select.export, OUT / "selected.jsonl")
    losses = by_model(evaluations(tables, list(RUNS)), "target_loss", *RUNS)
    print(_closing_lines(summary, losses))


def _closing_lines(summary: dict[str, Any], losses: dict[str, Any]) -> str:
    distance = {
        name: f"{d['value']:.3f} ({d['low']:.3f} to {d['high']:.3f})" for name, d in summary["distance"].items()
    }
    nearer, better = verdict(summary["distance"], losses)
    tokens = summary["prompt_tokens"] + summary["completion_tokens"]
    minutes = sum(summary["seconds"].values()) / 60
    return f"""
Spent      EQUAL (bandit.strategy {summary["strategy"]["equal"]}) {summary["documents_extracted"]:,} of\
 {summary["documents"]:,} documents, {summary["llm_calls"]:,} calls, {tokens:,} tokens, {summary["pairs"]:,} pairs;\
 both runs and their corpus took {minutes:.1f} min
Distance   to the held-out reference, lower is better: EQUAL {distance["equal"]}, random {distance["random"]}
           {nearer}
Loss       {better}
Written    build/demo/report.html  summary.json  selected.jsonl  equal/adapter  tables/  mlflow.db
Go on      make history       the SQL of notebooks/history.sql over these tables
           make mlflow        MLflow's own pages for both fine-tunings"""


if __name__ == "__main__":
    main()

"""The demo's own parts: its corpus, its reference files, its set-up and its settings."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import pytest

import run as demo
import server
import size
from corpus import MIN_CHARS, NUM_PLANTED, docstrings, write_corpus
from equal.config import load
from equal.errors import PlatformError
from equal.training import encoder
from reference import SPLITS, read_split, write_reference
from remaining import Remaining

ROOT = Path(__file__).parents[1]
LONG = "A sentence of a docstring. " * 20


def _read(folder: Path) -> list[dict[str, str]]:
    return [
        json.loads(line)
        for part in sorted(folder.glob("*.gz"))
        for line in gzip.decompress(part.read_bytes()).splitlines()
    ]


def test_docstrings_are_found_wherever_they_stand():
    source = f'''
"""{LONG}"""
import nothing_like_this
if True:
    class Outer:
        """{LONG}"""
        async def method(self):
            """{LONG}"""
        def short(self):
            "Too short."
try:
    def twice():
        """{LONG} one"""
except ImportError:
    def twice():
        """{LONG} other"""
'''
    found = [d["id"] for d in docstrings(source, "p/m.py")]
    assert sorted(found) == ["p/m.py#<module>", "p/m.py#Outer", "p/m.py#Outer.method", "p/m.py#twice", "p/m.py#twice"]


@pytest.mark.parametrize("source", ["def broken(:", "\0", "x = " + "(" * 3000 + ")" * 3000, ""])
def test_source_that_cannot_be_parsed_yields_nothing(source: str):
    assert list(docstrings(source, "p/m.py")) == []


def test_corpus_is_the_same_each_time_and_spread_over_packages(tmp_path: Path):
    packages = ("networkx", "ot", "jinja2")
    assert write_corpus(150, tmp_path / "a", packages) == 150
    write_corpus(1200, tmp_path / "b", packages)
    write_corpus(150, tmp_path / "b", packages)
    assert [p.read_bytes() for p in (tmp_path / "a").iterdir()] == [p.read_bytes() for p in (tmp_path / "b").iterdir()]
    documents = _read(tmp_path / "a")
    plain = [d for d in documents if not d["id"].startswith("planted/")]
    counts = {name: sum(d["id"].startswith(name + "/") for d in plain) for name in packages}
    assert len(documents) == 150
    assert min(counts.values()) > 150 / len(packages) - NUM_PLANTED
    assert all(len(d["text"]) >= MIN_CHARS for d in documents)


def test_corpus_carries_held_out_questions(tmp_path: Path):
    write_corpus(60, tmp_path, ("networkx",))
    planted = [d for d in _read(tmp_path) if d["id"].startswith("planted/")]
    questions = {item["id"]: item["question"] for item in read_split("held_out")}
    assert len(planted) == NUM_PLANTED
    assert all(questions[d["id"].removeprefix("planted/")] in d["text"] for d in planted)


def test_unknown_package_is_named(tmp_path: Path):
    with pytest.raises(PlatformError, match="no_such_package: not installed; run `make setup`"):
        write_corpus(10, tmp_path, ("no_such_package",))


def test_reference_files_hold_their_halves(tmp_path: Path):
    write_reference(tmp_path)
    ids = {split: [json.loads(line)["id"] for line in (tmp_path / f"{split}.jsonl").open()] for split in SPLITS}
    assert [len(ids[split]) for split in SPLITS] == [40, 40]
    assert not set(ids["guide"]) & set(ids["held_out"])


def test_settings_agree_with_the_server_and_the_reference():
    config = load(ROOT / "conf" / "demo.yml")
    assert config.endpoint.in_flight == server.MAX_NUM_SEQS
    assert config.endpoint.model == server.MODEL_NAME
    assert config.judges == {"held_out": config.reference.held_out}
    assert config.evaluate.max_items == len(read_split("held_out"))
    sweep = config.cluster.k * config.bandit.docs_per_pull
    assert sweep <= config.cluster.max_sweep_share * config.document_budget(size.WHOLE_DOCS)


SIZES = [(8000, 200, 32), (2000, 100, 16), (500, 50, 8), (32000, 400, 64)]


@pytest.mark.parametrize(("docs", "budget", "arms"), SIZES)
def test_budget_and_arms_follow_the_size_of_the_corpus(docs: int, budget: int, arms: int):
    config = load(ROOT / "conf" / "demo.yml", size.sized(docs))
    assert (config.document_budget(docs), config.cluster.k) == (budget, arms)


@pytest.mark.parametrize("docs", [size.MIN_DOCS, 777, 1999, 37_000, 100_000])
def test_every_size_can_sweep_its_arms(docs: int):
    config = load(ROOT / "conf" / "demo.yml", size.sized(docs))
    sweep = config.cluster.k * config.bandit.docs_per_pull
    assert 0 < sweep <= config.cluster.max_sweep_share * config.budget.documents
    assert config.warm_up.fraction * docs <= 0.45 * config.budget.documents


@pytest.mark.parametrize(
    ("dtype", "cores", "docs"),
    [("bfloat16", 2, 8000), ("bfloat16", 1, 1000), ("float32", 2, 1000), ("float32", 4, 2000), ("float32", 8, 8000)],
)
def test_a_slow_processor_takes_a_smaller_demo_if_no_size_is_asked_for(monkeypatch, dtype: str, cores: int, docs: int):
    monkeypatch.setattr(size, "native_dtype", lambda: dtype)
    monkeypatch.setattr(size.os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert size.fitting_docs() == docs


def test_server_key_stays_out_of_sight(tmp_path: Path):
    process = subprocess.Popen(["true"])
    process.wait()
    made = server.Server("http://127.0.0.1:1/v1", "m", "the-secret", process.pid, tmp_path / "log", process)
    assert "the-secret" not in repr(made)
    assert not any("the-secret" in part for part in server._command(tmp_path, 1, 128))


@pytest.mark.parametrize(("flags", "dtype"), [("avx2 avx512_bf16", "bfloat16"), ("avx2 avx512f", "float32")])
def test_the_server_computes_in_what_the_processor_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, dtype: str
):
    (cpuinfo := tmp_path / "cpuinfo").write_text(f"flags : {flags}")
    monkeypatch.setattr(encoder, "Path", lambda _: cpuinfo)
    command = server._command(tmp_path, 1, 128)
    assert command[command.index("--dtype") + 1] == dtype


def test_server_that_ends_at_once_shows_its_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    failing = tmp_path / "python"
    failing.write_text("#!/bin/sh\necho no such model >&2\nexit 3\n")
    failing.chmod(0o755)
    monkeypatch.setattr(server, "SERVER_PYTHON", failing)
    with (
        server.serve(tmp_path, tmp_path / "vllm.log") as started,
        pytest.raises(PlatformError, match=r"(?s)ended with status 3.*no such model"),
    ):
        started.wait_ready(deadline_s=30)


def test_server_is_stopped_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    busy = tmp_path / "python"
    busy.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {tmp_path}/child\nwait\n")
    busy.chmod(0o755)
    monkeypatch.setattr(server, "SERVER_PYTHON", busy)
    with server.serve(tmp_path, tmp_path / "vllm.log") as started:
        with pytest.raises(PlatformError, match="no answer within 2 s"):
            started.wait_ready(deadline_s=2)
        child = int((tmp_path / "child").read_text())
        assert Path(f"/proc/{child}").exists()
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_the_time_left_follows_the_pace_of_this_machine():
    left = Remaining({("equal", "ingest"): 1.0, ("equal", "embed"): 3.0, ("equal", "extract"): 4.0})
    assert left.minutes == 8.0
    left.ended(("equal", "quality"), 600.0)  # finished before: what passing over it took counts for nothing
    assert left.minutes == 8.0
    left.ended(("equal", "ingest"), 120.0)
    assert left.minutes == 14.0, "twice the typical time so far"
    left.ended(("equal", "embed"), 60.0)
    assert left.minutes == 3.0, "3 minutes for what takes 4"
    left.ended(("equal", "extract"), 1.0)
    assert left.minutes == 0.0


def test_the_time_left_begins_with_what_the_processor_promises():
    left = Remaining({("equal", "ingest"): 1.0, ("equal", "embed"): 3.0}, pace=2.5)
    assert left.minutes == 10.0
    left.ended(("equal", "ingest"), 90.0)
    assert left.minutes == 4.5, "what a step has shown counts alone"


def test_every_step_of_the_demo_has_a_typical_time():
    assert set(demo.TYPICAL_MIN) == set(demo.STEPS)
    assert len(demo.STEPS) == len(demo.TYPICAL_MIN)


def test_a_finished_demo_is_kept_until_its_size_or_its_settings_change(tmp_path, monkeypatch, caplog):
    root = tmp_path / "checkout"
    shutil.copytree(Path(demo.ROOT) / "conf", root / "conf")
    monkeypatch.setattr(demo, "ROOT", root)
    monkeypatch.setattr(demo, "OUT", root / "build" / "demo")
    monkeypatch.setattr(demo, "write_corpus", lambda num_docs, folder: num_docs)
    monkeypatch.setattr(demo, "open_session", lambda partitions, with_models: None)

    def begin(num_docs: int) -> bool:
        """Whether what an earlier demo left is still there."""
        names = {"equal": load(settings), "random": load(settings, ["bandit.strategy=random"])}
        demo._begin(num_docs, names)
        left = root / "build" / "demo" / "left"
        kept = left.exists()
        left.touch()
        return kept

    settings = root / "conf" / "demo.yml"
    caplog.set_level("INFO")
    monkeypatch.setattr(demo.log, "propagate", True)
    assert [begin(60), begin(60)] == [False, True]
    assert "deleted" not in caplog.text
    assert [begin(70), begin(70)] == [False, True]
    assert "build/demo: deleted and begun anew, as it holds a demo of other size\n" in caplog.text
    settings.write_text(settings.read_text() + "\ndeduplicate:\n  threshold: 0.8\n")
    assert [begin(70), begin(70)] == [False, True]
    monkeypatch.setattr(demo, "CORPUS", {**demo.CORPUS, "new_stage": None})
    assert [begin(70), begin(70)] == [False, True]
    monkeypatch.setattr(demo, "SCHEMAS", {**demo.SCHEMAS, "documents": demo.SCHEMAS["removals"]})
    assert [begin(70), begin(70)] == [False, True]

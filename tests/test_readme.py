"""What the README tells people to type is there, and what it lists is all there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from equal.config import load
from equal.jobs.pipeline import STAGES
from equal.schemas import SCHEMAS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = re.findall(r"`([^`\n]+)`", README) + [line.strip() for line in README.splitlines() if line.startswith("    ")]
PATH = re.compile(r"(?:jobs|conf|docs|notebooks|benchmarks|resources|lib|demo|tests)/[\w./-]*\w")


def test_the_test_command_is_the_one_that_every_change_must_pass():
    assert re.search(r"^    make test ", README, re.MULTILINE)
    assert "exec make test" in (ROOT / ".ci" / "run").read_text()


def test_every_make_target_named_exists():
    named = {target for text in CODE for target in re.findall(r"\bmake ([a-z]+)", text)}
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "history", "mlflow", "wheel"} <= named <= targets


def test_every_setting_named_in_a_command_is_one():
    keys = set(re.findall(r"--set '?([a-z_.]+)=", README))
    assert len(keys) >= 8
    for key in keys:
        section, _, name = key.partition(".")
        assert hasattr(getattr(load(), section), name), key


def test_every_file_named_exists():
    named = {path for text in CODE for path in PATH.findall(text) if "NAME" not in path}
    assert len(named) >= 6
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_all_tables_all_stages_and_all_benchmarks_are_listed():
    rows = re.findall(r"^\| ([a-z_, ]+) \|", README.split("## What it records")[1].split("## ")[0], re.MULTILINE)
    assert {name for row in rows for name in row.split(", ")} - {"table"} == set(SCHEMAS)
    listed = README.split("Stages can be run one by one")[1].split(".")[0]
    assert re.findall(r"`(\w+)`", listed) == ["select_pairs" if name == "select" else name for name in STAGES]
    scripts = {path.name for path in (ROOT / "benchmarks").glob("*.py") if "def main(" in path.read_text()}
    assert scripts - {"passages.py"} <= set(re.findall(r"`(\w+\.py)`", README.split("## Benchmarks")[1]))


@pytest.mark.parametrize("name", ["databricks.yml", "conf/prod.yml"])
def test_what_a_cluster_is_given_is_readable(name: str):
    assert yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))

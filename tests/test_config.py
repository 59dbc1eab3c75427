"""Configuration: layers, defaults, fingerprints; test_config_problems.py has the mistakes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from equal.config import RunConfig, load, parse_arguments
from equal.errors import ConfigError

CONF = Path(__file__).parents[1] / "conf"
BASE = CONF / "base.yml"

_SECTIONS = [
    type(getattr(load(), f.name)) for f in dataclasses.fields(RunConfig) if f.name not in ("run_name", "seed")
]


def test_defaults_stand_in_base_yml_alone():
    for section in (RunConfig, *_SECTIONS):
        for field in dataclasses.fields(section):
            assert field.default is dataclasses.MISSING, f"{section.__name__}.{field.name} has a second default"


def test_base_yml_explains_its_settings():
    settings = [line for line in BASE.read_text(encoding="utf-8").splitlines() if re.match(r"\s*[a-z_]+: +\S", line)]
    bare = [line for line in settings if "#" not in line]
    assert len(settings) > 80
    assert bare == []


@pytest.mark.parametrize("name", ["demo", "prod"])
def test_shipped_files_are_valid_and_change_something(name: str):
    config = load(CONF / f"{name}.yml")
    assert config.fingerprint() != load().fingerprint()


@pytest.mark.parametrize("name", ["demo", "prod"])
def test_shipped_files_repeat_no_default(name: str):
    base = yaml.safe_load(BASE.read_text(encoding="utf-8"))
    layer = yaml.safe_load((CONF / f"{name}.yml").read_text(encoding="utf-8"))
    repeated = [
        f"{section}.{key}"
        for section, keys in layer.items()
        if isinstance(keys, dict)
        for key, value in keys.items()
        if base[section][key] == value
    ]
    assert repeated == []


def test_layers_lie_on_one_another(tmp_path: Path):
    layer = tmp_path / "layer.yml"
    layer.write_text("bandit: {docs_per_pull: 7, alpha: 0.5}\n")
    config = load(layer, ["bandit.docs_per_pull=3"])
    assert (config.bandit.docs_per_pull, config.bandit.alpha) == (3, 0.5)
    assert config.bandit.arms_per_iteration == load().bandit.arms_per_iteration


def test_benchmarks_are_replaced_whole(tmp_path: Path):
    layer = tmp_path / "layer.yml"
    layer.write_text("decontaminate: {benchmarks: {a: a.jsonl}}\n")
    assert load(layer, ["decontaminate.benchmarks={b: b.jsonl}"]).decontaminate.benchmarks == {"b": "b.jsonl"}


@pytest.mark.parametrize(
    ("overrides", "num_docs", "budget"),
    [
        (["budget.fraction=0.05"], 1000, 50),
        (["budget.fraction=0.05"], 15, 1),  # less than a document is not "no limit"
        (["budget.fraction=0.05", "budget.documents=30"], 1000, 30),
        (["budget.fraction=0", "budget.tokens=9"], 1000, 0),
    ],
)
def test_document_budget(overrides: list[str], num_docs: int, budget: int):
    assert load(overrides=overrides).document_budget(num_docs) == budget


def test_empty_file_changes_nothing(tmp_path: Path):
    (tmp_path / "empty.yml").write_text("")
    assert load(tmp_path / "empty.yml") == load()


def test_empty_override_is_empty_text():
    assert load(None, ["encoder.model="]).encoder.model == ""


def test_number_in_scientific_notation_is_a_number():
    assert load(None, ["warm_up.learning_rate=1e-5"]).warm_up.learning_rate == 1e-5


def test_fingerprint_changes_with_science_only():
    base = load()
    for name in ("storage.root=elsewhere", "endpoint.in_flight=3", "endpoint.key_env=OTHER", "run_name=second"):
        assert load(None, [name]).fingerprint() == base.fingerprint(), name
    for name in ("seed=18", "bandit.alpha=0.2", "extraction.refine=false", "endpoint.model=m"):
        assert load(None, [name]).fingerprint() != base.fingerprint(), name


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_fingerprint_is_a_function_of_the_values(first: int, second: int):
    prints = [load(None, [f"bandit.docs_per_pull={value}"]).fingerprint() for value in (first, second)]
    assert (prints[0] == prints[1]) == (first == second)


def test_varied_copy_is_checked_again():
    config = load()
    with pytest.raises(ConfigError):
        dataclasses.replace(config, budget=dataclasses.replace(config.budget, fraction=0.0))


def test_command_line_takes_file_and_overrides():
    config = parse_arguments(["--config", str(CONF / "demo.yml"), "--set", "cluster.k=9", "--set", "seed=3"], "text")
    assert (config.cluster.k, config.seed, config.extraction.answer) == (9, 3, "quoted")


def test_only_a_strategy_that_sweeps_all_arms_is_held_to_a_share_of_the_budget():
    assert load().bandit.strategy == "warm_start"
    assert load().sweep_share == 1.0
    assert load(overrides=["bandit.strategy=equal", "cluster.max_sweep_share=0.2"]).sweep_share == 0.2

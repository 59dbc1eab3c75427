"""Configuration: every mistake is named with its field, value, what is allowed and the remedy, all at once."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from equal.config import RunConfig, load, parse_arguments, vary
from equal.errors import ConfigError

CONF = Path(__file__).parents[1] / "conf"
BASE = CONF / "base.yml"


def _problems(*overrides: str, config: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(config, overrides)
    return caught.value.problems


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


def test_misspelt_key_names_the_nearest():
    assert _problems("bandit.docs_per_pul=5") == [
        "bandit.docs_per_pul: unknown key; did you mean bandit.docs_per_pull?"
    ]
    assert "did you mean bandit?" in _problems("bandits.alpha=1")[0]


def test_key_like_no_other_lists_what_is_allowed():
    (problem,) = _problems("select.zzzzqq=5")
    assert "allowed here: max_pairs, export" in problem


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("bandit.docs_per_pull=five", "a whole number"),
        ("bandit.docs_per_pull=2.5", "a whole number"),
        ("bandit.docs_per_pull=true", "a whole number"),
        ("bandit.alpha=much", "a number"),
        ("bandit.alpha=false", "a number"),
        ("extraction.refine=1", "true or false"),
        ("endpoint.url=[1]", "text"),
        ("cluster.elbow_grid=8", "a list of int"),
        ("decontaminate.benchmarks=[a]", "a mapping"),
        ("bandit=5", "a section"),
    ],
)
def test_wrong_type_says_value_and_expected(override: str, expected: str):
    (problem,) = _problems(override)
    field, _, value = override.partition("=")
    assert problem.startswith(field)
    assert str(yaml.safe_load(value)) in problem
    assert expected in problem


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("cluster.k=-1", "at least 0"),
        ("budget.fraction=1.5", "at most 1"),
        ("deduplicate.threshold=0.01", "at least 0.05"),
        ("endpoint.max_attempts=21", "at most 20"),
        ("budget.documents=-5", "at least 0"),
        ("budget.money=-1", "at least 0"),
        ("documents.format=jsnl", "did you mean jsonl?"),
        ("bandit.strategy=greedy", "allowed: equal, random"),
    ],
)
def test_out_of_range_says_what_is_allowed(override: str, expected: str):
    (problem,) = _problems(override)
    assert problem.startswith(override.partition("=")[0])
    assert expected in problem


def test_several_mistakes_are_all_listed():
    problems = _problems("bandit.docs_per_pul=5", "cluster.k=-1", "extraction.refine=maybe", "documents.format=xml")
    assert [p.split(":")[0] for p in sorted(problems)] == [
        "bandit.docs_per_pul",
        "cluster.k",
        "documents.format",
        "extraction.refine",
    ]


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


@pytest.mark.parametrize("text", ["documents.text_field=@text", "cluster.elbow_grid=[8, 16", "run_name={a"])
def test_override_that_is_no_yaml_is_named(text: str):
    (problem,) = _problems(text)
    assert problem.startswith(f"--set {text!r}")


def test_budget_of_nothing_is_refused():
    (problem,) = _problems("budget.fraction=0")
    assert problem.startswith("budget:")
    assert "budget.documents=200" in problem


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        (["budget.money=5"], "budget.money"),
        (["documents.min_chars=500", "documents.max_chars=100"], "documents.min_chars"),
        (["decontaminate.short_words=9", "decontaminate.ngram_words=5"], "decontaminate.short_words"),
        (["quality.blocked_sources=['(']"], "quality.blocked_sources"),
        (["quality.languages=[english]"], "quality.languages"),
        (["run_name=a b"], "run_name"),
        (["storage.root=s3a://bucket/x"], "storage.root"),
        (["run_name='../up'"], "run_name"),
    ],
)
def test_contradictions_are_named(overrides: list[str], field: str):
    (problem,) = _problems(*overrides)
    assert problem.startswith(field)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no such file"),
        ("a: [1", "not readable as YAML"),
        ("- a", "the top level is a list"),
        (b"\xff\xfe\x00", "YAML"),
    ],
)
def test_unreadable_file_names_the_path(tmp_path: Path, content: str | bytes | None, expected: str):
    layer = tmp_path / "layer.yml"
    if content is not None:
        layer.write_bytes(content.encode() if isinstance(content, str) else content)
    (problem,) = _problems(config=layer)
    assert str(layer) in problem
    assert expected in problem


def test_empty_file_changes_nothing(tmp_path: Path):
    (tmp_path / "empty.yml").write_text("")
    assert load(tmp_path / "empty.yml") == load()


@pytest.mark.parametrize("text", ["bandit.alpha", "=5"])
def test_malformed_override_shows_the_form(text: str):
    assert "expected section.key=value" in _problems(text)[0]


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
        vary(config, budget=dataclasses.replace(config.budget, fraction=0.0))


def test_command_line_takes_file_and_overrides():
    config = parse_arguments(["--config", str(CONF / "demo.yml"), "--set", "cluster.k=9", "--set", "seed=3"], "text")
    assert (config.cluster.k, config.seed, config.extraction.answer) == (9, 3, "quoted")

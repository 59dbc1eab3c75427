"""Mistakes in a configuration: each is named with its field, value, what is allowed and the remedy, all at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from equal.config import RunConfig, load
from equal.contradictions import contradictions
from equal.errors import ConfigError
from equal.settings import build

#: how the message of a single setting ends
REMEDY = re.compile(r"; (correct it, or leave it out for .+|did you mean .+\?|give some of .+)$")


def _problems(*overrides: str, config: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(config, overrides)
    return caught.value.problems


def test_misspelt_key_names_the_nearest():
    assert _problems("bandit.docs_per_pul=5") == [
        "bandit.docs_per_pul: unknown key; did you mean bandit.docs_per_pull?"
    ]
    assert "did you mean bandit?" in _problems("bandits.alpha=1")[0]


def test_key_like_no_other_lists_what_is_allowed():
    (problem,) = _problems("select.zzzzqq=5")
    assert "allowed here: max_pairs, max_similarity, export" in problem


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
    assert REMEDY.search(problem)


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
        ("bandit.strategy=greedy", "allowed: equal, warm_start, similarity, random"),
    ],
)
def test_out_of_range_says_what_is_allowed(override: str, expected: str):
    (problem,) = _problems(override)
    field, _, value = override.partition("=")
    assert problem.startswith(f"{field}: is {yaml.safe_load(value)!r}")
    assert expected in problem
    assert REMEDY.search(problem)


@pytest.mark.parametrize("value", [".nan", "nan", ".inf", "-.inf", "1e999", "1" + "0" * 400])
@pytest.mark.parametrize("field", ["budget.fraction", "warm_up.learning_rate", "bandit.alpha", "endpoint.timeout_s"])
def test_number_that_is_not_finite_is_refused(field: str, value: str):
    (problem,) = _problems(f"{field}={value}")
    assert problem.startswith(f"{field}: is {yaml.safe_load(value)!r}")
    assert "a number that is finite" in problem
    assert REMEDY.search(problem)


def test_remedy_names_the_value_that_would_stand_without_it(tmp_path: Path):
    layer = tmp_path / "layer.yml"
    layer.write_text("{cluster: {k: 9, elbow_grid: [2, 4]}, endpoint: {model: m}}")
    assert _problems("cluster.k=-1", "cluster.elbow_grid=8", "endpoint.model=[]", config=layer) == [
        "cluster.k: is -1, must be at least 0; correct it, or leave it out for 9",
        "cluster.elbow_grid: is 8 (int), expected a list of int; correct it, or leave it out for [2, 4]",
        'endpoint.model: is [] (list), expected text; correct it, or leave it out for "m"',
    ]
    assert _problems("documents.markup_patterns=x")[0].endswith("; correct it")  # its default fills many lines


def test_settings_that_no_layer_gives_are_all_listed():
    with pytest.raises(ConfigError) as caught:
        build(RunConfig, [{"seed": 1}], [], contradictions)
    fields = {problem.partition(": missing; give it")[0] for problem in caught.value.problems}
    assert {"run_name", "budget.money"} <= fields
    assert len(fields) == len(caught.value.problems) > 80
    assert "seed" not in fields


def test_several_mistakes_are_all_listed():
    problems = _problems("bandit.docs_per_pul=5", "cluster.k=-1", "extraction.refine=maybe", "documents.format=xml")
    assert [p.split(":")[0] for p in sorted(problems)] == [
        "bandit.docs_per_pul",
        "cluster.k",
        "documents.format",
        "extraction.refine",
    ]


def test_mistakes_of_every_kind_in_every_layer_are_listed_together(tmp_path: Path):
    layer = tmp_path / "layer.yml"
    layer.write_text("{bandit: {docs_per_pul: 5, alpha: much}, cluster: {k: -1}, select: 3}")
    overrides = [
        "cluster.k=9",  # does not hide what is wrong below
        "select.max_pairs=2",
        "encoder.model",
        "documents.text_field=@text",
        "deduplicate.threshold=2",
        "documents.format=xml",
        "budget.fraction=0",
        "run_name=a b",
    ]
    starts = [problem.partition(":")[0] for problem in _problems(*overrides, config=layer)]
    assert sorted(starts) == [
        "--set 'documents.text_field=@text'",
        "--set 'encoder.model'",
        "bandit.alpha",
        "bandit.docs_per_pul",
        "budget",
        "cluster.k",
        "deduplicate.threshold",
        "documents.format",
        "run_name",
        "select",
    ]


def test_file_that_is_missing_hides_no_other_mistake(tmp_path: Path):
    missing, problem = _problems("cluster.k=-1", config=tmp_path / "none.yml")
    assert "no such file" in missing
    assert problem.startswith("cluster.k")


@pytest.mark.parametrize(
    "overrides",
    [
        ["documents.max_chars=many", "documents.min_chars=2000000"],
        ["budget.documents=many", "budget.fraction=0"],
        ["budget.documents=-5", "budget.fraction=0"],
        ["budget.docments=200", "budget.fraction=0"],
        ["budgets.documents=200", "budget.fraction=0"],
        ["budget.documents", "budget.fraction=0"],
        ["=200", "budget.fraction=0"],
    ],
)
def test_setting_whose_value_is_unknown_contradicts_nothing(overrides: list[str]):
    (problem,) = _problems(*overrides)
    assert overrides[0].partition(".")[0] in problem


def test_file_that_is_unreadable_contradicts_nothing(tmp_path: Path):
    (problem,) = _problems("budget.fraction=0", config=tmp_path / "none.yml")
    assert "no such file" in problem


@pytest.mark.parametrize(
    "text", ["documents.text_field=@text", "cluster.elbow_grid=[8, 16", "run_name={a", "run_name=2024-13-01"]
)
def test_override_that_is_no_yaml_is_named(text: str):
    (problem,) = _problems(text)
    assert problem.startswith(f"--set {text!r}")


def test_budget_of_nothing_is_refused():
    (problem,) = _problems("budget.fraction=0")
    assert problem.startswith("budget:")
    assert "budget.documents=200" in problem


@pytest.mark.parametrize(
    ("overrides", "field", "value"),
    [
        (["budget.money=5"], "budget.money", "5"),
        (["budget.money=5", "budget.prompt_price=1", "endpoint.refine_model=large"], "budget.money", "'large'"),
        (["endpoint.refine_url=http://user:key@host/v1"], "endpoint.refine_url", "before @"),
        (["endpoint.teacher_url=http://user:key@host/v1"], "endpoint.teacher_url", "before @"),
        (["endpoint.teacher_model=large"], "endpoint.teacher_model", "'large'"),
        (
            ["budget.money=5", "budget.prompt_price=1", "endpoint.teacher_model=large", "extraction.reason=true"],
            "budget.money",
            "teacher_model 'large'",
        ),
        (["endpoint.others={'http://user:key@host/v1': 1}"], "endpoint.others", "before @"),
        (["endpoint.in_flight=1", "bandit.pipeline_depth=2"], "endpoint.in_flight", "1"),
        (["documents.min_chars=500", "documents.max_chars=100"], "documents.min_chars", "500"),
        (["decontaminate.short_words=9", "decontaminate.ngram_words=5"], "decontaminate.short_words", "9"),
        (["decontaminate.benchmarks={held_out: a}", "reference.held_out=b"], "decontaminate.benchmarks", "'a'"),
        (["quality.blocked_sources=['(']"], "quality.blocked_sources", "'('"),
        (["quality.languages=[english]"], "quality.languages", "'english'"),
        (["run_name=a b"], "run_name", "'a b'"),
        (["storage.root=s3a://bucket/x"], "storage.root", "'s3a://bucket/x'"),
        (["run_name='../up'"], "run_name", "'../up'"),
        (["run_name=Tables"], "run_name", "'Tables'"),
        (["run_name=warm_up-1"], "run_name", "'warm_up-1'"),
    ],
)
def test_contradictions_are_named_with_value_and_remedy(overrides: list[str], field: str, value: str):
    (problem,) = _problems(*overrides)
    assert problem.startswith(field)
    assert value in problem
    assert re.search(r"; (give|lower|correct) ", problem)


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
    assert re.search("; (give|correct|begin with) ", problem)


@pytest.mark.parametrize("text", ["bandit.alpha", "=5"])
def test_malformed_override_shows_the_form(text: str):
    assert "expected section.key=value" in _problems(text)[0]

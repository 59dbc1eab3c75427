"""Reference files: what is read, and one clear message for each way a file can be wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from equal.config import RunConfig, load
from equal.core.contamination import ngram_key
from equal.core.items import Item
from equal.errors import InputError
from equal.io.references import (
    load_judges,
    read_items,
    read_judges,
    read_spared,
    require_complete,
    require_disjoint,
    write_spared,
)

RULE = {"ngram_words": 10, "short_words": 3}
FAIR_COIN = "A fair coin is tossed ten times; what is the probability of exactly 3 heads?"


def write(path: Path, *records: object) -> str:
    text = "\n".join(r if isinstance(r, str) else json.dumps(r) for r in records) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", ["items.jsonl", "items.jsonl.gz"])
def test_items_keep_their_ids_and_otherwise_take_the_line_number(tmp_path: Path, name: str):
    path = write(
        tmp_path / name, {"id": "a", "question": "Q1", "answer": "A1"}, "", {"question": "Q2", "answer": "", "x": 1}
    )
    assert read_items(path, "reference.guide") == [Item("a", "Q1", "A1"), Item("3", "Q2", "")]


@pytest.mark.parametrize(
    ("lines", "message", "remedy"),
    [
        ([], "has no items", "it needs one JSON object a line"),
        (["{broken"], "line 1 is not JSON .*: '{broken'", "write one JSON object there or remove the line"),
        (
            [{"question": "Q", "answer": "A"}, "[1, 2]"],
            r"line 2 is a JSON list, '\[1, 2\]'",
            "write one with question",
        ),
        ([{"prompt": "Q", "answer": "A"}], "has no 'question'; fields present: prompt, answer", "add 'question'"),
        ([{"question": "Q"}], "has no 'answer'; fields present: question", "add 'answer'"),
        ([{"question": 7, "answer": "A"}], r"question is 7 \(int\), expected text", "put it in quotes"),
        ([{"question": "Q", "answer": None}], r"answer is None \(NoneType\), expected text", "put it in quotes"),
        ([{"question": "  ", "answer": "A"}], "question is blank", "fill it or remove the line"),
        ([{"id": 1, "question": "Q", "answer": "A"}] * 2, "has id '1' twice", "ids must be unique, rename one"),
    ],
)
def test_a_wrong_file_is_named_with_setting_path_and_remedy(
    tmp_path: Path, lines: list[object], message: str, remedy: str
):
    path = write(tmp_path / "items.jsonl", *lines)
    with pytest.raises(InputError, match=message) as caught:
        read_items(path, "reference.held_out")
    assert str(caught.value).startswith(f"reference.held_out: {path}")
    assert f"; {remedy}" in str(caught.value)


def test_of_a_long_malformed_line_the_beginning_is_shown(tmp_path: Path):
    path = write(tmp_path / "items.jsonl", "{" + "long " * 1000)
    with pytest.raises(InputError, match=r": '\{long long [^']*\.\.\.'; write one") as caught:
        read_items(path, "reference.held_out")
    assert len(str(caught.value)) < len(path) + 300


def test_a_missing_file_an_unset_path_and_a_directory(tmp_path: Path):
    for path in (str(tmp_path / "none.jsonl"), str(tmp_path)):
        with pytest.raises(InputError, match=r"reference\.guide: is '.*', no such file; give a JSON-lines file"):
            read_items(path, "reference.guide")
    with pytest.raises(InputError, match=r"reference\.guide: is empty; give the path"):
        read_items("", "reference.guide")


def test_another_encoding_and_a_cut_archive(tmp_path: Path):
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes('{"question": "Caf\u00e9?", "answer": ""}'.encode("latin-1"))
    with pytest.raises(InputError, match=r"is not UTF-8 .*; convert it"):
        read_items(str(latin), "reference.guide")
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"question": "Q", "answer": "A"}\n' * 500)[:40])
    with pytest.raises(InputError, match=r"cannot be read .*; check that the file is whole"):
        read_items(str(cut), "reference.guide")


def config(**paths: str) -> RunConfig:
    return load(None, [f"{key.replace('__', '.')}={value}" for key, value in paths.items()])


def test_benchmarks_are_named_in_messages_and_held_out_items_are_one_of_them(tmp_path: Path):
    path = write(tmp_path / "b.jsonl", {"question": "Q", "answer": "A"})
    other = write(tmp_path / "h.jsonl", {"question": "H", "answer": "A"})
    exam, held_out = [Item("1", "Q", "A")], [Item("1", "H", "A")]
    assert read_judges(config(decontaminate__benchmarks=f"{{exam: {path}}}")) == {"exam": exam}
    both = config(decontaminate__benchmarks=f"{{exam: {path}}}", reference__held_out=other)
    assert read_judges(both) == {"exam": exam, "held_out": held_out}
    named = config(decontaminate__benchmarks=f"{{mine: {other}}}", reference__held_out=other)
    assert read_judges(named) == {"mine": held_out}, "once is enough"
    with pytest.raises(InputError, match=r"decontaminate\.benchmarks\.exam: is 'nowhere'"):
        read_judges(config(decontaminate__benchmarks="{exam: nowhere}"))
    with pytest.raises(InputError, match=r"reference\.held_out: is 'nowhere'"):
        read_judges(config(reference__held_out="nowhere"))


def test_a_guide_item_among_the_judges_is_refused_by_name():
    guide = [Item("g1", "What is a mean?", "A sum over a count."), Item("g2", FAIR_COIN.upper(), "0.117")]
    require_disjoint(guide, {"held_out": [Item("h1", "Define variance in one line.", "")]}, **RULE)
    with pytest.raises(InputError, match=r"1 of 2 items.*g2 shares .* with h1 of held_out"):
        require_disjoint(guide, {"held_out": [Item("h1", f"Solve this. {FAIR_COIN}", "")]}, **RULE)
    with pytest.raises(InputError, match="g1 shares 'what is a mean' with b1 of exam"):
        require_disjoint(guide, {"exam": [Item("b1", "What is a mean?", "")]}, **RULE)


def test_a_run_checks_its_guide_against_held_out_and_benchmarks(tmp_path: Path):
    guide = write(tmp_path / "guide.jsonl", {"question": FAIR_COIN, "answer": "0.117"})
    other = write(tmp_path / "other.jsonl", {"question": "Define variance in one short line.", "answer": ""})
    assert load_judges(config()) == {}
    found = load_judges(config(reference__guide=guide, decontaminate__benchmarks=f"{{exam: {other}}}"))
    assert [item.item_id for item in found["exam"]] == ["1"]
    with pytest.raises(InputError, match="of held_out"):
        load_judges(config(reference__guide=guide, reference__held_out=guide))
    with pytest.raises(InputError, match="of exam"):
        load_judges(config(reference__guide=guide, decontaminate__benchmarks=f"{{exam: {guide}}}"))


def test_spared_ngrams_come_back_as_the_keys_an_index_takes(tmp_path: Path):
    path = str(tmp_path / "deep" / "spared.json")
    write_spared(path, [{"ngram": "a b c", "key": ngram_key("a b c"), "documents": 12}])
    write_spared(path, [{"ngram": "a b d", "key": ngram_key("a b d"), "documents": 11}])
    assert read_spared(path) == frozenset({ngram_key("a b d")})


def test_a_pipeline_is_told_at_once_of_everything_that_its_stages_need(tmp_path):
    with pytest.raises(InputError) as refused:
        require_complete(load())
    lines = str(refused.value).splitlines()
    names = ["documents.path", "reference.guide", "reference.held_out", "endpoint.model", "finetune.base_model"]
    assert [line.split(":")[0].strip() for line in lines] == names
    assert all("is empty; give " in line for line in lines)
    given = [f"{name}=x" for name in names if not name.startswith("reference")]
    files = [f"reference.guide={tmp_path}/absent", f"reference.held_out={tmp_path}/absent"]
    with pytest.raises(InputError, match="no such file"):
        require_complete(load(overrides=[*given, *files]))

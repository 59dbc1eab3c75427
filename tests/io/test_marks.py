"""Which stages a change puts out of date, and what each of them then refuses to build on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from equal.config import RunConfig, load
from equal.errors import TableError
from equal.io.marks import UPSTREAM, Marks

CORPUS = ("quality", "deduplicate", "decontaminate")


def finished(marks: Marks, *stages: str) -> Marks:
    """As they stand when these stages have run on what `marks` say is there."""
    for stage in stages:
        row = {"input_hash": marks.expected_hash(stage), "settings_hash": marks.settings_hash(stage), "batch": "0"}
        marks = replace(marks, rows={**marks.rows, stage: row})
    return marks


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return load()


@pytest.fixture(scope="module")
def done(config) -> Marks:
    """Every stage is finished."""
    return finished(Marks(config, {}, "documents/none", "none", 0), *UPSTREAM)


def out_of_date(marks: Marks) -> list[str]:
    return [stage for stage in UPSTREAM if not marks.finished(stage)]


def may_run(marks: Marks) -> list[str]:
    """The stages that do not refuse what lies before them."""
    found = []
    for stage in UPSTREAM:
        try:
            marks.require_upstream(stage)
            found.append(stage)
        except TableError:
            continue
    return found


def test_nothing_is_out_of_date_when_nothing_changed(done):
    assert out_of_date(done) == []
    assert may_run(done) == list(UPSTREAM)


def test_a_withdrawal_puts_selection_out_of_date_and_what_was_made_of_it(done):
    withdrawn = replace(done, corpus_hash="documents/one", withdrawn_hash="one")
    assert out_of_date(withdrawn) == ["quality", "select"]
    assert may_run(withdrawn) == ["ingest", "quality", "select"]  # to fine-tune on the old selection is refused
    selected = finished(withdrawn, "select")
    assert out_of_date(selected) == ["quality", "finetune"]
    assert "finetune" in may_run(selected)
    assert "evaluate" not in may_run(selected)
    assert {"select", "finetune", "evaluate"} <= set(may_run(finished(selected, "finetune")))
    # the refreshed corpus does not stand in their way; that of an encoder tuned anew does, for what needs the encoder
    refreshed = finished(withdrawn, *CORPUS, "select", "finetune")
    assert {"select", "finetune", "evaluate"} <= set(may_run(refreshed))
    assert set(may_run(finished(refreshed, "warm_up"))) & {"select", "finetune", "evaluate"} == {"select", "finetune"}


def test_new_documents_leave_what_was_selected_as_it_is(done):
    grown = replace(done, corpus_hash="more/none")
    assert out_of_date(grown) == ["quality"]
    assert set(may_run(grown)) == {"ingest", "quality", "select", "finetune", "evaluate"}


@pytest.mark.parametrize("setting", ["quality.min_words=3", "warm_up.fraction=0.02", "bandit.alpha=0.5"])
def test_other_settings_before_the_pairs_are_refused_by_all_that_use_them(config, done, setting):
    changed = replace(done, config=load(overrides=[setting]))
    assert set(may_run(changed)).isdisjoint({"select", "finetune"})
    with pytest.raises(TableError, match="was made with other settings"):
        changed.require_upstream("evaluate")


def test_a_stage_that_has_not_run_is_named(config):
    with pytest.raises(TableError, match="stage extract: has not finished"):
        Marks(config, {}, "documents/none", "none", 0).require_upstream("select")

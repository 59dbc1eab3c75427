"""A job ends in one line: its own errors, and a full disk whoever runs into it."""

from __future__ import annotations

import logging
import sqlite3
import time
from types import SimpleNamespace

import pytest
from safetensors import SafetensorError

from equal.config import load
from equal.errors import InputError, RunLockedError
from equal.io import progress, stage
from equal.io.lock import run_lock
from equal.io.stage import exit_on_error, run_stage


def _write_text() -> None:
    with open("/dev/full", "w") as file:  # every write to it finds the disk full
        file.write("x")


def _write_weights() -> None:
    # it renames a finished file onto its target, so that it cannot be pointed at a device
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def _write_rows() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA max_page_count = 2")
    connection.execute("CREATE TABLE t (x)")
    try:
        connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    except sqlite3.OperationalError as error:
        raise RuntimeError("a library's own words") from error


@pytest.mark.parametrize("write", [_write_text, _write_weights, _write_rows])
def test_a_full_disk_is_one_line_whatever_library_met_it(write, capsys):
    with pytest.raises(SystemExit) as ended, exit_on_error("finetune"):
        write()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("finetune: no space left on the device of ")
    assert "free some or move it, run it again" in said
    assert said.count("\n") == 1


def test_an_error_of_ours_is_one_line_and_any_other_is_not_hidden(capsys):
    with pytest.raises(SystemExit), exit_on_error("ingest"):
        raise InputError("documents.path: is empty; give the folder")
    assert capsys.readouterr().err == "ingest: documents.path: is empty; give the folder\n"
    with pytest.raises(ZeroDivisionError), exit_on_error("ingest"):
        raise ZeroDivisionError


def test_work_over_ten_seconds_shows_tasks_done_of_all(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_QUIET_S", 0.01)
    monkeypatch.setattr(progress, "_EVERY_S", 0.01)
    active = SimpleNamespace(stageId=1, numTasks=8, numCompletedTasks=3)
    tracker = SimpleNamespace(getActiveStageIds=lambda: [1], getStageInfo=lambda _: active)
    spark = SimpleNamespace(sparkContext=SimpleNamespace(statusTracker=lambda: tracker))
    with progress.task_progress(spark, "embed"):
        time.sleep(0.3)
    assert "embed:" in (said := capsys.readouterr().err)
    assert "3/8" in said
    logging.getLogger("equal").handlers.clear()


@pytest.mark.parametrize("name", ["ingest", "deduplicate", "cluster"])
def test_of_two_refreshes_of_one_corpus_the_second_fails_before_it_reads_anything(name, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "open_session", lambda *_, **__: None)
    monkeypatch.setattr(stage, "Tables", lambda *_: None)
    ours, theirs = (load(overrides=[f"storage.root={tmp_path}", f"run_name={run}"]) for run in ("ours", "theirs"))
    with run_lock(str(tmp_path), stage.owner(ours, name)), pytest.raises(RunLockedError) as refused:
        run_stage(theirs, name, lambda _: pytest.fail("two write the corpus"))
    assert str(refused.value).startswith("storage.root: the corpus is being worked on by process ")
    assert "run_name" not in str(refused.value)
    with (
        run_lock(str(tmp_path), stage.owner(ours, "extract")),
        run_lock(str(tmp_path), stage.owner(theirs, "extract")),
    ):
        pass  # each run extracts for itself

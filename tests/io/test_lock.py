"""Two runs of one name: the second fails clearly; a dead owner's lock does not stand in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from equal.errors import RunLockedError
from equal.io.lock import _put_away, run_lock


def test_a_second_holder_is_refused_and_told_who_holds_it(tmp_path):
    refusal = pytest.raises(RunLockedError, match=r"run_name: nightly .* process \d+")
    with run_lock(str(tmp_path), "nightly"), refusal, run_lock(str(tmp_path), "nightly"):
        pass


def test_another_run_name_is_free_and_a_lock_ends_with_its_body(tmp_path):
    with run_lock(str(tmp_path), "a"), run_lock(str(tmp_path), "b"):
        pass
    with run_lock(str(tmp_path), "a"):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    code = f"""
import os, signal
from equal.io.lock import run_lock
with run_lock({str(tmp_path)!r}, "nightly"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (tmp_path / "locks" / "nightly.json").exists()
    with run_lock(str(tmp_path), "nightly"):
        pass


def test_of_processes_that_start_at_once_one_holds_the_lock(tmp_path):
    code = f"""
import sys, time
from pathlib import Path
from equal.errors import RunLockedError
from equal.io.lock import run_lock
here = Path({str(tmp_path)!r})
(here / f"ready{{sys.argv[1]}}").touch()
while not (here / "go").exists():
    pass
try:
    with run_lock(str(here), "nightly"):
        while not (here / "end").exists():
            time.sleep(0.01)
    print("held")
except RunLockedError:
    print("refused")
"""
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    give_up = time.monotonic() + 60
    while len(list(tmp_path.glob("ready*"))) < len(started) and time.monotonic() < give_up:
        time.sleep(0.01)
    (tmp_path / "go").touch()
    while sum(process.poll() is None for process in started) > 1 and time.monotonic() < give_up:
        time.sleep(0.01)
    (tmp_path / "end").touch()
    assert sorted(process.communicate(timeout=60)[0].strip() for process in started) == ["held", *["refused"] * 3]


def test_the_lock_of_another_machine_is_left_alone(tmp_path):
    path = tmp_path / "locks" / "nightly.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 0, "taken_at": "then"}))
    with pytest.raises(RunLockedError, match="elsewhere"), run_lock(str(tmp_path), "nightly"):
        pass
    assert path.exists()


@pytest.mark.parametrize("content", ['{"host": "elsewhere", "pid": 1}', ""], ids=["another machine", "cut off"])
def test_a_lock_without_a_sign_of_life_is_taken_over(tmp_path, content):
    path = tmp_path / "locks" / "nightly.json"
    path.parent.mkdir()
    path.write_text(content)
    os.utime(path, (time.time() - 3600,) * 2)
    with run_lock(str(tmp_path), "nightly"):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not list(path.parent.iterdir())


def test_a_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr("equal.io.lock._BEAT_S", 0.05)
    path = tmp_path / "locks" / "nightly.json"
    with run_lock(str(tmp_path), "nightly"):
        os.utime(path, (0, 0))
        give_up = time.monotonic() + 10
        while path.stat().st_mtime == 0 and time.monotonic() < give_up:
            time.sleep(0.05)
        assert path.stat().st_mtime > 0


def test_a_lock_that_was_just_taken_by_another_is_put_back(tmp_path):
    path = tmp_path / "nightly.json"
    path.write_text('{"pid": 2}')
    _put_away(path, {"pid": 1})
    assert path.read_text() == '{"pid": 2}'
    _put_away(path, {"pid": 2})
    assert not path.exists()

"""What a machine must have before anything is set up; a missing part is named with its remedy."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import preflight


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'openjdk version \"11.0.2\" 2019-01-15' >&2", "is version 11.0.2, needed is 17"),
        ("echo 'openjdk version \"21.0.4\" 2024-07-16' >&2", "is version 21.0.4, needed is 17"),
        ("echo 'java version \"1.8.0_392\"' >&2", "is version 1.8.0_392, needed is 17"),
        ("exit 1", "is version unknown"),
        ("echo 'openjdk version \"17.0.15\" 2025-04-15' >&2", ""),
    ],
)
def test_java_of_another_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: str
):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    problem = preflight.java_problem()
    assert expected in problem
    assert bool(problem) == bool(expected)
    assert "\n" not in problem


def test_missing_java_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert re.search(r"not found on PATH; install a JDK 17", preflight.java_problem())
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    assert "JAVA_HOME=/nowhere" in preflight.java_problem()


@pytest.mark.parametrize(
    ("free_gb", "installed", "fails"), [(19, False, True), (21, False, False), (5, True, False), (2, True, True)]
)
def test_full_disk_is_refused(monkeypatch: pytest.MonkeyPatch, free_gb: int, installed: bool, fails: bool):
    usage = type("Usage", (), {"free": free_gb * 10**9})
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage)
    assert bool(preflight.disk_problem(installed)) == fails


@pytest.mark.parametrize(
    ("version", "venv", "expected"),
    [
        ((3, 11, 9), True, ""),
        ((3, 10, 14), True, "this is 3.10.14, needed is 3.11; install it and call make PYTHON="),
        ((3, 12, 0), True, "this is 3.12.0, needed is 3.11"),
        ((3, 11, 9), False, "3.11 is here without venv; install it, for example the Debian package python3.11-venv"),
    ],
)
def test_python_of_another_version_or_without_venv_is_refused(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], venv: bool, expected: str
):
    found = SimpleNamespace(find_spec=lambda name: object() if venv else None)
    monkeypatch.setattr(preflight, "sys", SimpleNamespace(version_info=version))
    monkeypatch.setattr(preflight, "importlib", SimpleNamespace(util=found))
    problem = preflight.python_problem()
    assert expected in problem
    assert bool(problem) == bool(expected)


def test_preflight_fails_with_the_first_problem_and_is_silent_without(monkeypatch: pytest.MonkeyPatch, capsys):
    problems = {"python_problem": "no Python", "java_problem": "no Java", "disk_problem": "no space"}
    for name in problems:
        monkeypatch.setattr(preflight, name, lambda *_, name=name: problems[name])
    for name, problem in list(problems.items()):
        with pytest.raises(SystemExit) as ended:
            preflight.main()
        assert ended.value.code == problem  # a text is printed, and the status is 1
        problems[name] = ""
    preflight.main()
    assert capsys.readouterr() == ("", "")


def test_preflight_asks_for_less_disk_once_both_environments_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[bool] = []
    monkeypatch.setattr(preflight, "ROOT", tmp_path)
    monkeypatch.setattr(preflight, "python_problem", str)
    monkeypatch.setattr(preflight, "java_problem", str)
    monkeypatch.setattr(preflight, "disk_problem", lambda installed: asked.append(installed) or "")
    preflight.main()
    for venv in (".venv", ".venv-vllm"):
        (tmp_path / venv).mkdir()
        (tmp_path / venv / ".installed").touch()
        preflight.main()
    assert asked == [False, False, True]

"""The wheel: what a cluster installs holds every job, its configuration and its data files."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from deltalake import DeltaTable
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked, built from a copy so that nothing is left in the checkout."""
    work = tmp_path_factory.mktemp("wheel")
    for name in ("lib", "jobs", "conf", "notebooks"):
        shutil.copytree(ROOT / name, work / "src" / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, work / "src")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(work), str(work / "src")]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = work.glob("*.whl")
    zipfile.ZipFile(built).extractall(work / "site")
    return work / "site"


@pytest.fixture(scope="module")
def entry_points(wheel: Path) -> dict[str, str]:
    lines = next(wheel.glob("*.dist-info/entry_points.txt")).read_text().splitlines()
    return dict(line.split(" = ") for line in lines if " = " in line)


@pytest.fixture(scope="module")
def requirements(wheel: Path) -> list[Requirement]:
    metadata = Parser().parsestr(next(wheel.glob("*.dist-info/METADATA")).read_text(encoding="utf-8"))
    return [Requirement(text) for text in metadata.get_all("Requires-Dist")]


def test_every_job_is_an_entry_point(entry_points: dict[str, str]):
    jobs = {path.stem for path in (ROOT / "jobs").glob("*.py")} - {"__init__"}
    assert entry_points == {f"equal-{job.replace('_', '-')}": f"equal.jobs.{job}:main" for job in jobs}


def test_no_job_hides_a_module_of_the_standard_library():
    # a script's folder comes first on the path: jobs/select.py would break every socket of every job
    names = {path.stem for folder in ("jobs", "demo") for path in (ROOT / folder).glob("*.py")} - {"__init__"}
    assert names
    assert not names & sys.stdlib_module_names


def test_all_modules_and_data_files_are_in(wheel: Path):
    wanted = [p.relative_to(ROOT / "lib") for p in (ROOT / "lib" / "equal").rglob("*") if p.suffix in {".py", ".html"}]
    for folder in ("jobs", "conf", "notebooks"):
        files = [p for p in (ROOT / folder).rglob("*") if p.suffix in {".py", ".yml", ".sql", ".conf"}]
        wanted += [Path("equal") / p.relative_to(ROOT) for p in files]
    assert len(wanted) > 50
    assert [str(path) for path in wanted if not (wheel / path).is_file()] == []


#: what each console script of the wheel does with a misspelt setting, as one process: a script each would take minutes
_EVERY_SCRIPT = """
import sys
from importlib.metadata import distributions
(wheel,) = (found for found in distributions(path=[sys.argv.pop()]) if found.name == "equal-spark")
for script in wheel.entry_points:
    main = script.load()
    sys.argv[1:] = ["--set", "bandit.alfa=1"]
    try:
        main()
    except SystemExit as ended:
        print(script.name, ended.code, sys.modules[main.__module__].__file__, flush=True)
"""


def test_every_script_of_the_wheel_starts_and_reads_the_configuration_of_the_wheel(
    wheel: Path, entry_points: dict[str, str], tmp_path: Path
):
    environment = {"PYTHONPATH": str(wheel), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", _EVERY_SCRIPT, str(wheel)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = [line.split() for line in done.stdout.splitlines()]
    assert {name for name, _, _ in found} == set(entry_points)
    assert [line for line in found if line[1] != "2" or not line[2].startswith(f"{wheel}/equal/jobs/")] == []
    assert done.stderr.count("bandit.alfa: unknown key; did you mean bandit.alpha?") == len(entry_points)
    assert "Traceback" not in done.stderr


def test_a_job_of_the_wheel_does_its_work_where_there_is_no_checkout(wheel: Path, tmp_path: Path):
    (tmp_path / "in").mkdir()
    record = {"id": "a", "text": "The variance of a sample measures the spread of its values around their mean."}
    (tmp_path / "in" / "docs.jsonl").write_text(json.dumps(record))
    settings = ("documents.path=in", "storage.root=store", "documents.min_chars=20", "spark.partitions=1")
    arguments = [part for setting in settings for part in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-c", "from equal.jobs.ingest import main; main()", *arguments],
        env={**os.environ, "PYTHONPATH": str(wheel)}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "ingest: 1 rows in, 1 rows out" in done.stderr
    assert DeltaTable(str(tmp_path / "store" / "tables" / "documents")).to_pyarrow_table().num_rows == 1


def test_cluster_keeps_its_own_spark(requirements: list[Requirement]):
    always = {r.name for r in requirements if r.marker is None}
    assert not always & {"pyspark", "delta-spark"}
    local = {r.name for r in requirements if r.marker is not None and r.marker.evaluate({"extra": "local"})}
    assert {"pyspark", "delta-spark"} <= local


def test_all_that_is_imported_is_declared(requirements: list[Requirement]):
    owners = packages_distributions()
    declared = {requirement.name.lower().replace("_", "-") for requirement in requirements}
    missing = set()
    for path in [*(ROOT / "lib").rglob("*.py"), *(ROOT / "jobs").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for top in {name.partition(".")[0] for name in names} - {"equal"} - set(sys.stdlib_module_names):
                if not {owner.lower() for owner in owners.get(top, [])} & declared:
                    missing.add(top)
    # these come with pyspark and jinja2
    assert missing <= {"py4j", "markupsafe"}


def test_locks_hold_every_requirement_at_an_allowed_version(requirements: list[Requirement]):
    pins = {}
    for name in ("main.lock", "weights.lock"):
        for line in (ROOT / "conf" / "requirements" / name).read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                package, _, version = line.partition("==")
                pins[package.lower()] = version
    assert len(pins) > 150
    assert all(pins.values())
    for requirement in requirements:
        assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement

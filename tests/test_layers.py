"""The layer law: who may import what, by the source's syntax tree, function-level imports included."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIB = ROOT / "lib" / "equal"

#: modules that wire loop, io, transforms and training together for the jobs
WIRING = {"daemon", "estimate", "extraction", "history", "judgement", "refresh", "retry", "run", "watch"}

#: layer -> (what of equal it may import, what of other packages)
LAW: dict[str, tuple[set[str], set[str]]] = {
    "errors": (set(), set()),
    "settings": ({"errors"}, {"yaml"}),
    "config": ({"errors", "settings", "contradictions"}, {"yaml"}),
    "contradictions": (set(), set()),
    "schemas": (set(), {"pyspark"}),
    "core": ({"errors"}, {"numpy", "scipy", "numba", "ot"}),
    "state": ({"core"}, {"numpy"}),
    "loop": ({"core", "state"}, set()),
    "selection": ({"core", "errors"}, {"numpy"}),
    "training": (
        {"core", "errors"},
        {"numpy", "torch", "transformers", "peft", "trl", "datasets", "accelerate", "sentence_transformers", "tqdm"},
    ),
    "transforms": (
        {"core", "schemas", "errors"},
        {"pyspark", "pandas", "numpy", "pyarrow", "scipy", "sparknlp", "py3langid"},
    ),
    "io": (
        {"core", "schemas", "errors", "config", "settings"},
        {
            *("pyspark", "py4j", "delta", "pandas", "numpy", "aiohttp", "tenacity", "yaml", "tqdm"),
            *("mlflow", "plotly", "jinja2", "markupsafe", "psutil"),
        },
    ),
    "wiring": (
        {
            *("core", "state", "loop", "io", "transforms", "selection", "training"),
            *("schemas", "errors", "config", "settings"),
        },
        {"pyspark", "numpy", "tqdm"},
    ),
}
#: what makes a result depend on when and where it is computed
NOT_IN_CORE = {"time", "datetime", "random", "socket", "http", "urllib", "subprocess"}
#: a file, and a function from its `def` on, have fewer lines
MAX_LINES = 300
MAX_FUNCTION_LINES = 70
MAX_JOB_LINES = 60


def _layer(parts: tuple[str, ...]) -> str:
    """The layer of equal.PARTS: its package, or its file for modules at the top."""
    return "wiring" if parts and parts[0] in WIRING else (parts[0] if parts else "package")


def _imports(source: str) -> set[str]:
    """Absolute module names imported anywhere; `from a import b` gives a.b, as b may be a module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def violations(layer: str, source: str) -> list[str]:
    """Imports of `source` that its layer may not have."""
    internal, external = LAW[layer]
    bad = []
    for name in sorted(_imports(source)):
        top, _, rest = name.partition(".")
        if top == "equal":
            target = _layer(tuple(rest.split(".")))
            if target != layer and target not in internal:
                bad.append(name)
        elif top in sys.stdlib_module_names:
            if layer == "core" and top in NOT_IN_CORE:
                bad.append(name)
        elif top not in external:
            bad.append(name)
    return bad


LIB_FILES = sorted(p for p in LIB.rglob("*.py") if p.name != "__init__.py")
JOB_FILES = sorted(p for p in (ROOT / "jobs").glob("*.py") if p.name != "__init__.py")
FOLDERS = ("lib", "jobs", "demo", "benchmarks", "tests")
PYTHON_FILES = sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))


def long_functions(source: str) -> list[str]:
    """Functions and methods that do not fit on a screen, wherever they stand."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno + 1 >= MAX_FUNCTION_LINES
    ]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_files_were_found():
    layers = {_layer(path.relative_to(LIB).with_suffix("").parts) for path in LIB_FILES}
    assert layers == set(LAW)
    assert len(LIB_FILES) >= 30
    assert {p.relative_to(ROOT).parts[0] for p in PYTHON_FILES} == set(FOLDERS)
    assert set(LIB_FILES) | set(JOB_FILES) | {Path(__file__)} < set(PYTHON_FILES)
    assert {p.stem for p in JOB_FILES} >= {"ingest", "deduplicate", "extract", "pipeline", "evaluate"}


@pytest.mark.parametrize("path", LIB_FILES, ids=_name)
def test_module_imports_only_what_its_layer_may(path: Path):
    layer = _layer(path.relative_to(LIB).with_suffix("").parts)
    assert violations(layer, path.read_text(encoding="utf-8")) == []


def test_cached_compiled_code_calls_none_of_another_file_that_changes():
    """Numba would not notice the change, and a user who pulls would run the old code."""
    cached = [path for path in LIB_FILES if "@njit(cache=True" in path.read_text(encoding="utf-8")]
    assert len(cached) >= 3
    for path in cached:
        ours = {name for name in _imports(path.read_text(encoding="utf-8")) if name.startswith("equal")}
        assert ours <= {"equal.core.mixing.mix", "equal.core.mixing.WORD_BASE"}, path


@pytest.mark.parametrize("path", LIB_FILES, ids=_name)
def test_nobody_imports_jobs_notebooks_or_the_demo(path: Path):
    for name in _imports(path.read_text(encoding="utf-8")):
        assert not name.startswith(("equal.jobs", "equal.notebooks", "jobs.", "demo.", "benchmarks."))


@pytest.mark.parametrize("path", sorted(LIB.rglob("__init__.py")), ids=_name)
def test_packages_import_nothing(path: Path):
    """So that importing a pure module never starts Spark or torch."""
    assert _imports(path.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize("path", JOB_FILES, ids=_name)
def test_job_is_a_paragraph(path: Path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) < MAX_JOB_LINES
    assert ast.get_docstring(ast.parse(source))
    assert 'if __name__ == "__main__":' in source
    others = {name for name in _imports(source) if name.startswith("equal.jobs")}
    assert not others or path.stem == "pipeline"


@pytest.mark.parametrize("path", PYTHON_FILES, ids=_name)
def test_file_and_functions_stay_readable(path: Path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) < MAX_LINES
    assert long_functions(source) == []


@pytest.mark.parametrize("head", ["def f():", "async def f():", "class C:\n  def f(self):", "if x:\n  def f():"])
def test_long_function_is_found(head: str):
    body = "\n    pass"
    assert long_functions(head + body * (MAX_FUNCTION_LINES - 2)) == []
    assert long_functions(head + body * (MAX_FUNCTION_LINES - 1)) == ["f"]


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("core", "import pyspark"),
        ("core", "def f():\n    import torch"),
        ("core", "from time import monotonic"),
        ("core", "from equal.schemas import DOCUMENTS"),
        ("core", "from equal import config"),
        ("loop", "from equal.io.tables import Tables"),
        ("io", "class C:\n    def f(self):\n        from equal.transforms.embed import embed"),
        ("io", "import torch"),
        ("transforms", "import aiohttp"),
        ("transforms", "from equal.io.endpoint import read_key"),
        ("training", "from pyspark.sql import DataFrame"),
        ("training", "import mlflow"),
        ("schemas", "from equal.config import load"),
        ("errors", "import yaml"),
        ("wiring", "from equal.jobs.extract import main"),
    ],
)
def test_law_catches_what_it_forbids(layer: str, source: str):
    assert violations(layer, source)

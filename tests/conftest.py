"""One local Spark session a test process; a fresh table root for each test that asks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault("SPARK_DRIVER_MEMORY", "2g")
os.environ.setdefault("SPARK_MASTER", "local[2]")

TESTS = Path(__file__).resolve().parent
#: take minutes each, so they begin first: one process must not be left alone with one of them at the end
LONGEST = ("extract", "test_submit.py", "test_vllm_lane.py", "test_disk_full.py")


class ByFixtures(LoadScopeScheduling):
    """What shares fixtures stays in one process of `pytest -n`: a file, or the folder tests/extract."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return "tests/extract" if file.startswith("tests/extract/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFixtures:
    return ByFixtures(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def turn(item: pytest.Item) -> int:
        first = item.path.relative_to(TESTS).parts[0]
        return LONGEST.index(first) if first in LONGEST else len(LONGEST)

    items.sort(key=turn)


@pytest.fixture(scope="session")
def spark() -> Iterator[object]:
    from equal.io.session import open_session

    session = open_session(partitions=2, with_models=True)
    # each plan runs once, on a few rows: writing, compiling and warming up Java for it takes longer than it saves
    session.conf.set("spark.sql.codegen.wholeStage", "false")
    session.conf.set("spark.sql.codegen.factoryMode", "NO_CODEGEN")
    yield session
    session.stop()


@pytest.fixture
def tables(spark, tmp_path: Path):
    from equal.io.tables import Tables

    return Tables(spark, str(tmp_path / "root"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tiny_model import make_tiny_model

    folder = str(tmp_path_factory.mktemp("model") / "tiny")
    make_tiny_model(folder)
    return folder

"""One local Spark session for all tests; a fresh table root for each test that asks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("SPARK_DRIVER_MEMORY", "2g")
os.environ.setdefault("SPARK_MASTER", "local[2]")


@pytest.fixture(scope="session")
def spark() -> Iterator[object]:
    from equal.io.session import open_session

    session = open_session(partitions=2, with_models=True)
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

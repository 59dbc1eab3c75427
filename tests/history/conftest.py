"""The filled tables, written once for all files of this folder."""

from __future__ import annotations

import pytest

from equal.io.tables import Tables
from filled_tables import fill


@pytest.fixture(scope="package")
def history_root(spark, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A storage root with the filled tables."""
    root = str(tmp_path_factory.mktemp("history") / "root")
    fill(Tables(spark, root))
    return root


@pytest.fixture
def history(spark, history_root: str) -> Tables:
    """The filled tables, in use by the session."""
    return Tables(spark, history_root)

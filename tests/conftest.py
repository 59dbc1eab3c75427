"""One local Spark session a test process; a fresh table root for each test that asks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault("SPARK_DRIVER_MEMORY", "2g")
os.environ.setdefault("SPARK_MASTER", "local[2,2]")  # a task that dies is tried once more, as on a cluster

# for the processes that tests start, too: most live for seconds, and code that is compiled once less well takes a
# fifth less of the processor than code that is compiled twice; and each plan runs once, on a few rows, so that
# writing, compiling and warming up Java for it takes longer than it saves. The space for compiled code must hold all
# of it: with the 48 MB that this compiler gets, code was thrown away and compiled again, a sixth of the processor
os.environ.setdefault(
    "JDK_JAVA_OPTIONS",
    "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:+UseSerialGC"
    " -Dspark.sql.codegen.wholeStage=false -Dspark.sql.codegen.factoryMode=NO_CODEGEN",
)

#: the second compiler takes what was called four times as often as it would wait for: it had 40 % of the processor
LATE_SECOND_COMPILER = (
    "-XX:Tier4InvocationThreshold=20000 -XX:Tier4MinInvocationThreshold=2400"
    " -XX:Tier4CompileThreshold=60000 -XX:Tier4BackEdgeThreshold=160000"
)

# more threads than cores wait for each other here: they should sleep, not spin
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

TESTS = Path(__file__).resolve().parent
#: folders whose files share what takes long to make
FOLDERS = ("tests/extract", "tests/history")
#: take minutes each, so they begin first: one process must not be left alone with one of them at the end; the two
#: before the real server warm the session up for it
LONGEST = ("extract", "test_refresh.py", "test_ingest.py", "test_vllm_lane.py", "test_disk_full.py")


class ByFixtures(LoadScopeScheduling):
    """What shares fixtures stays in one process of `pytest -n`: a file, or a folder of FOLDERS."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        folder = file.rpartition("/")[0]
        return folder if folder in FOLDERS else file


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

    with pytest.MonkeyPatch.context() as patch:
        # this one lives for twenty minutes: after five it has saved what compiling well took, of what runs often
        patch.setenv("SPARK_SUBMIT_OPTS", f"-XX:TieredStopAtLevel=4 {LATE_SECOND_COMPILER}")
        session = open_session(partitions=2, with_models=True)
    yield session
    session.stop()


@pytest.fixture(scope="session")
def empty_root(spark, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root whose tables are there and empty: to copy them is much faster than to create them."""
    from equal.io.tables import Tables

    root = tmp_path_factory.mktemp("empty") / "root"
    Tables(spark, str(root))
    return root


@pytest.fixture
def tables(spark, empty_root: Path, tmp_path: Path):
    from equal.io.tables import Tables

    return Tables(spark, str(shutil.copytree(empty_root, tmp_path / "root")))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tiny_model import make_tiny_model

    folder = str(tmp_path_factory.mktemp("model") / "tiny")
    make_tiny_model(folder)
    return folder

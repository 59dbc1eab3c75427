"""A machine that cannot run Spark is told so in one line; a session has what the jobs need."""

from __future__ import annotations

import re
import stat
import sys
from types import SimpleNamespace

import pyarrow as pa
import pytest

from equal.errors import PlatformError
from equal.io import session as module


@pytest.fixture
def no_session(monkeypatch):
    """As in a fresh process: where a session runs there is a Java."""
    monkeypatch.setattr(module.SparkSession, "getActiveSession", lambda: None)


@pytest.mark.usefixtures("no_session")
def test_missing_java_is_named_with_its_remedy(monkeypatch, tmp_path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlatformError, match=r"java: not found \(not on PATH\); install a JDK 17"):
        module.open_session(1)


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("version", ["11.0.2", "21.0.4"])
def test_a_java_of_another_version_is_refused(monkeypatch, tmp_path, version):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2019-01-15' >&2\n")
    java.chmod(java.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(PlatformError, match=rf"version is {re.escape(version)}, allowed: 17; install a JDK 17"):
        module.open_session(1)


def test_every_line_of_spark_conf_reaches_the_session(spark):
    jars = spark.conf.get("spark.jars")
    for key, value in module.local_settings().items():
        if key == "spark.jars.packages":
            assert all(package.split(":")[1] in jars for package in value.split(","))
        elif key == "spark.jars.excludes":
            assert not [name for name in value.split(",") if name.split(":")[1] in jars]
        else:
            assert spark.conf.get(key) == value
    assert spark.conf.get("spark.speculation") == "false"


def test_a_session_that_may_pay_twice_is_refused():
    with pytest.raises(PlatformError, match=r"spark.speculation: is true, .*; allowed: false; set it"):
        module._require_one_attempt(SimpleNamespace(conf={"spark.speculation": "true"}))


def test_jars_that_were_found_once_are_not_looked_for_again(monkeypatch, tmp_path):
    settings = module.local_settings()
    (tmp_path / ".ivy2").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert module._with_found_jars(settings) == settings
    jars = [tmp_path / "one.jar", tmp_path / "two.jar"]
    for jar in jars:
        jar.touch()
    conf = {**settings, "spark.jars": ",".join(f"file://{jar}" for jar in jars)}
    module._note_jars(SimpleNamespace(sparkContext=SimpleNamespace(getConf=lambda: conf)), settings)
    found = module._with_found_jars(settings)
    assert found["spark.jars"] == conf["spark.jars"]
    assert found.keys() == settings.keys() - set(module._PACKAGES) | {"spark.jars"}
    other = {**settings, "spark.jars.packages": "io.delta:delta-spark_2.12:9.9.9"}
    assert module._with_found_jars(other) == other
    jars[1].unlink()
    assert module._with_found_jars(settings) == settings


def test_no_task_looks_through_jars_for_python(spark):
    def paths(batches):
        for batch in batches:
            yield pa.RecordBatch.from_pydict({"path": [";".join(sys.path)] * batch.num_rows})

    (found,) = spark.range(1).selectExpr("'' AS path").mapInArrow(paths, "path string").collect()
    assert "pyspark" in found.path
    assert not [path for path in [*found.path.split(";"), *sys.path] if path.endswith(".jar")]

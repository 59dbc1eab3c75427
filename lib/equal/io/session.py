"""The Spark session: the cluster's own when there is one, a local one with Delta and Spark NLP otherwise."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import resources
from pathlib import Path

from pyspark.sql import SparkSession

from equal.errors import PlatformError

log = logging.getLogger("equal")
#: the settings that name packages instead of jars
_PACKAGES = ("spark.jars.packages", "spark.jars.excludes")


def on_databricks() -> bool:
    """Whether this process runs on a Databricks cluster."""
    return "DATABRICKS_RUNTIME_VERSION" in os.environ


def open_session(partitions: int, *, with_models: bool = False) -> SparkSession:
    """Return the session that a job works in.

    On Databricks the cluster's session is taken as it is. Elsewhere conf/spark.conf is applied; the master
    is the one spark-submit names, or SPARK_MASTER, or every core of this machine.

    Args:
        partitions: of shuffles.
        with_models: the workers of a local session that is begun here have the model libraries loaded when they
            start (`equal.daemon`). On a cluster a daemon may start before this package is on its path.

    Raises:
        PlatformError: Java is missing or of another version, or spark-submit was not given Delta.
    """
    if on_databricks():
        return _require_one_attempt(SparkSession.builder.getOrCreate())
    if SparkSession.getActiveSession() is None:
        _require_java()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("equal").config("spark.sql.shuffle.partitions", str(partitions))
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # started by spark-submit: jars cannot be added any more
        return _without_jars_in_python(_require_delta(_require_one_attempt(builder.getOrCreate())))
    master = os.environ.get("SPARK_MASTER", "local[*]")
    if SparkSession.getActiveSession() is None:
        log.info("starting Spark (%s), some ten seconds", master)
    if master.startswith("local"):  # executors on other machines must find the driver
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = builder.master(master)
    builder = builder.config("spark.driver.memory", os.environ.get("SPARK_DRIVER_MEMORY", "4g"))
    builder = builder.config("spark.ui.enabled", "false")
    if with_models and master.startswith("local"):
        builder = builder.config("spark.python.daemon.module", "equal.daemon")
        # with true, workers of SQL and of RDDs differ in an environment variable, and Spark begins a daemon for either
        builder = builder.config("spark.sql.execution.pyspark.udf.simplifiedTraceback.enabled", "false")
    settings = local_settings()
    for key, value in _with_found_jars(settings).items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    _note_jars(session, settings)
    return _without_jars_in_python(session)


def _with_found_jars(settings: Mapping[str, str]) -> Mapping[str, str]:
    """The settings with paths in place of the packages' names, once they are known: Spark looks for three seconds."""
    with suppress(OSError):
        jars = _jar_list(settings).read_text(encoding="utf-8").split(",")
        if all(os.path.exists(jar.removeprefix("file://")) for jar in jars):
            return {"spark.jars": ",".join(jars)} | {k: v for k, v in settings.items() if k not in _PACKAGES}
    return settings


def _note_jars(session: SparkSession, settings: Mapping[str, str]) -> None:
    """Write down the jars that Spark has found for the packages, for the sessions to come."""
    conf = session.sparkContext.getConf()
    if all(conf.get(name) == settings.get(name) for name in _PACKAGES) and (jars := conf.get("spark.jars")):
        with suppress(OSError):
            unfinished = _jar_list(settings).with_suffix(f".{os.getpid()}")
            unfinished.write_text(jars, encoding="utf-8")
            unfinished.replace(_jar_list(settings))


def _jar_list(settings: Mapping[str, str]) -> Path:
    """Beside the jars, by the names of what was asked for."""
    names = "\n".join(settings.get(name, "") for name in _PACKAGES)
    return Path.home() / ".ivy2" / f"equal-{hashlib.blake2b(names.encode(), digest_size=8).hexdigest()}.jars"


def _without_jars_in_python(session: SparkSession) -> SparkSession:
    """Take the jars of spark.jars.packages off Python's path, where Spark puts them as some hold Python code.

    What of theirs is imported in a task comes with this package, and a worker reads the directory of every archive on
    its path before each of its tasks: of 95 jars, in half a second to several. What came by --py-files stays.
    """
    context = session.sparkContext
    context._python_includes = [name for name in context._python_includes or [] if not name.endswith(".jar")]
    sys.path[:] = [entry for entry in sys.path if not entry.endswith(".jar")]
    return session


def local_settings() -> dict[str, str]:
    """The lines of conf/spark.conf: a key, blanks, a value."""
    lines = (resources.files("equal.conf") / "spark.conf").read_text(encoding="utf-8").splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#")]
    return {key: value.strip() for key, value in pairs}


def _require_one_attempt(session: SparkSession) -> SparkSession:
    if str(session.conf.get("spark.speculation", "false")).lower() == "true":
        raise PlatformError(
            "spark.speculation: is true, with which two copies of a task may pay for the same calls; allowed: false; "
            "set it in the cluster's configuration"
        )
    return session


def _require_delta(session: SparkSession) -> SparkSession:
    if "DeltaSparkSessionExtension" not in (session.conf.get("spark.sql.extensions", "") or ""):
        raise PlatformError(
            "spark-submit: this session has no Delta Lake (spark.sql.extensions does not name it); add "
            "--properties-file conf/spark.conf, or put the lines of that file into the cluster's spark-defaults.conf"
        )
    session.sparkContext.setLogLevel("ERROR")
    return session


def _require_java() -> None:
    remedy = "install a JDK 17, for example the Debian package openjdk-17-jdk-headless, or set JAVA_HOME"
    home = os.environ.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else shutil.which("java")
    if not java or not os.path.exists(java):
        raise PlatformError(f"java: not found ({'JAVA_HOME is ' + home if home else 'not on PATH'}); {remedy}")
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = shown.split('"')[1] if '"' in shown else "unknown"
    if version.split(".")[0] != "17":  # Spark takes others too, but 17 is what was run with Delta and Spark NLP
        raise PlatformError(f"java: version is {version}, allowed: 17; {remedy}")

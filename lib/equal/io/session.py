"""The Spark session: the cluster's own when there is one, a local one with Delta and Spark NLP otherwise."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from pyspark.sql import SparkSession

from equal.errors import PlatformError

SPARK_NLP = "com.johnsnowlabs.nlp:spark-nlp_2.12:5.5.3"
#: native engines that the rule-based annotators do not need, a gigabyte a node
EXCLUDES = ",".join(
    f"com.johnsnowlabs.nlp:{engine}_2.12" for engine in ("tensorflow-cpu", "jsl-llamacpp-cpu", "jsl-openvino-cpu")
)

_SETTINGS = {
    "spark.jars.excludes": EXCLUDES,
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
    "spark.kryoserializer.buffer.max": "1000M",
    # a call that costs money must not be made twice
    "spark.speculation": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "1024",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.ui.showConsoleProgress": "false",
    "spark.ui.enabled": "false",
}


def on_databricks() -> bool:
    """Whether this process runs on a Databricks cluster."""
    return "DATABRICKS_RUNTIME_VERSION" in os.environ


def open_session(partitions: int) -> SparkSession:
    """Return the session that a job works in.

    On Databricks the cluster's session is taken as it is. Elsewhere Delta and Spark NLP are added;
    the master is the one spark-submit names, or SPARK_MASTER, or every core of this machine.

    Raises:
        PlatformError: Java is missing or older than 17.
    """
    if on_databricks():
        return SparkSession.builder.getOrCreate()
    _require_java()
    from delta import configure_spark_with_delta_pip

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = SparkSession.builder.appName("equal")
    if "PYSPARK_GATEWAY_PORT" not in os.environ:  # not started by spark-submit
        builder = builder.master(os.environ.get("SPARK_MASTER", "local[*]"))
        builder = builder.config("spark.driver.memory", os.environ.get("SPARK_DRIVER_MEMORY", "4g"))
    for key, value in _SETTINGS.items():
        builder = builder.config(key, value)
    builder = builder.config("spark.sql.shuffle.partitions", str(partitions))
    session = configure_spark_with_delta_pip(builder, extra_packages=[SPARK_NLP]).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def _require_java() -> None:
    remedy = "install a JDK 17, for example the Debian package openjdk-17-jre-headless, or set JAVA_HOME"
    home = os.environ.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else shutil.which("java")
    if not java or not os.path.exists(java):
        raise PlatformError(f"java: not found ({'JAVA_HOME is ' + home if home else 'not on PATH'}); {remedy}")
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = shown.split('"')[1] if '"' in shown else "unknown"
    major = version.split(".")[0]
    if not major.isdigit() or int(major) not in (17, 21):
        raise PlatformError(f"java: version is {version}, allowed: 17; {remedy}")

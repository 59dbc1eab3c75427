"""MLflow, on the driver only: where it keeps things, one tracked run a fine-tuning, and one an extraction.

Only settings that results depend on are logged. The endpoint's key is in no setting, and so in no parameter.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from equal.config import RunConfig
from equal.errors import InputError
from equal.io.session import on_databricks
from equal.io.tables import Tables

log = logging.getLogger("equal")

#: entries that one request to the tracking server may hold
_PARAMS_PER_CALL, _METRICS_PER_CALL, _VALUE_CHARS = 100, 1000, 500


def set_up(config: RunConfig) -> str:
    """Point MLflow at `tracking.uri`, or at a SQLite file under storage.root, and choose the experiment.

    Returns:
        The experiment's id.

    On Databricks an empty uri leaves the workspace's tracking server in place; an experiment is
    named by an absolute path there, so a relative name goes under /Shared.

    Raises:
        InputError: the tracking store cannot be used.
    """
    uri, name = config.tracking.uri, config.tracking.experiment
    root = Path(config.storage.root).absolute()
    try:
        if on_databricks() and not uri:
            return str(mlflow.set_experiment(name if name.startswith("/") else f"/Shared/{name}").experiment_id)
        if not uri:
            root.mkdir(parents=True, exist_ok=True)
        _quieten()
        mlflow.set_tracking_uri(uri or f"sqlite:///{root}/mlflow.db")
        if not uri and mlflow.get_experiment_by_name(name) is None:
            mlflow.create_experiment(name, artifact_location=(root / "mlartifacts").as_uri())
        return str(mlflow.set_experiment(name).experiment_id)
    except (MlflowException, OSError) as error:
        where = uri or f"{root}/mlflow.db"
        raise InputError(f"tracking.uri: {where!r} cannot be used ({_first_line(error)})") from error


@contextmanager
def tracked(config: RunConfig, name: str, tags: Mapping[str, str]) -> Iterator[str]:
    """Start a run with the configuration as parameters; yields its id. An error marks it failed.

    Args:
        config: its science settings become parameters, its fingerprint a tag.
        name: shown in the run list.
        tags: further tags.

    Raises:
        InputError: the tracking store cannot be used.
    """
    set_up(config)
    about = {"run_name": config.run_name, "fingerprint": config.fingerprint(), **tags}
    with mlflow.start_run(run_name=name, tags=about) as run:
        parameters = list(_parameters(config).items())
        for start in range(0, len(parameters), _PARAMS_PER_CALL):
            mlflow.log_params(dict(parameters[start : start + _PARAMS_PER_CALL]))
        yield run.info.run_id


def log_metric(name: str, value: float, step: int) -> None:
    """Add one point of a curve to the active run."""
    mlflow.log_metric(name, value, step=step)


def log_table(tables: Tables, table: str, where: str, context: str) -> int:
    """Log the rows of a Delta table that match `where` as the active run's data set; returns the Delta version."""
    version = tables.version(table)
    frame = tables.read(table, version).where(where)
    source = {"table_name": tables.name(table)} if tables.schema else {"path": tables.path(table)}
    data = mlflow.data.from_spark(
        frame, **source, version=str(version), name=f"{table} where {where}", digest=f"{table}-v{version}"
    )
    mlflow.log_input(data, context=context)
    mlflow.set_tags({f"{context}.table": tables.name(table), f"{context}.delta_version": str(version)})
    return version


def log_folder(folder: str, name: str) -> None:
    """Copy a folder, such as an adapter, to the active run's artifacts."""
    mlflow.log_artifacts(folder, name)


class ExtractionRun:
    """The MLflow run of an extraction: a step an iteration, one request each.

    What MLflow does not take stops nothing: it is said once, kept, and offered again at the end, as the tables hold it
    anyway and a server that is down costs minutes of waiting each time. What a killed process had not sent is sent by
    the next one, which also ends the MLflow run that the kill left running.
    """

    def __init__(self, config: RunConfig, history_hash: str, past: Mapping[int, Mapping[str, float]]) -> None:
        """Nothing is opened before the first commit.

        Args:
            config: of the run; its fingerprint becomes a tag.
            history_hash: tells the run from others of its name on a shared server.
            past: metrics of the iterations committed before, for which there is an MLflow run to go on with.
        """
        self._config, self._past = config, past
        self._tags = {"run_id": config.run_name, "history_hash": history_hash, "stage": "extract"}
        self._run_id, self._kept, self._refused = "", list[Metric](), False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one iteration's metrics."""
        self._kept += _points({step: metrics})
        if not self._refused:
            self._send()

    def close(self, *, failed: bool) -> None:
        """End the MLflow run, if one was opened; one that is resumed runs again."""
        if self._kept or self._past:
            self._send()
        if self._run_id:
            with _said("its run is not marked as ended"):
                mlflow.MlflowClient().set_terminated(self._run_id, "FAILED" if failed else "FINISHED")

    def _send(self) -> None:
        self._refused = True
        with _said("metrics of the extraction wait until its end; table iterations has them"):
            self._run_id = self._run_id or self._open()
            for start in range(0, len(self._kept), _METRICS_PER_CALL):
                points = self._kept[start : start + _METRICS_PER_CALL]
                mlflow.MlflowClient().log_batch(self._run_id, metrics=points)
            self._kept, self._refused = [], False

    def _open(self) -> str:
        experiment, client = set_up(self._config), mlflow.MlflowClient()
        fingerprint = self._config.fingerprint()
        wanted = " AND ".join(f"tags.{name} = '{value}'" for name, value in self._tags.items())
        found = client.search_runs([experiment], wanted, max_results=1) if self._past else []
        sent: set[int] = set()
        if found:
            run_id = str(found[0].info.run_id)
            client.update_run(run_id, "RUNNING")
            client.set_tag(run_id, "fingerprint", fingerprint)  # a larger budget has another one
            sent = {point.step for point in client.get_metric_history(run_id, "documents")}
        else:
            tags = {**self._tags, "run_name": self._config.run_name, "fingerprint": fingerprint}
            run_id = str(client.create_run(experiment, tags=tags, run_name=self._config.run_name).info.run_id)
        self._kept[:0] = _points({step: metrics for step, metrics in self._past.items() if step not in sent})
        return run_id


def _points(metrics: Mapping[int, Mapping[str, float]]) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(name, float(value), now, step) for step, each in metrics.items() for name, value in each.items()]


@contextmanager
def _said(consequence: str) -> Iterator[None]:
    """Whatever MLflow, its store or the way to it raises becomes one line of the log."""
    try:
        yield
    except Exception as error:
        log.warning("tracking.uri: MLflow does not answer (%s); %s", _first_line(error), consequence)


def add_metrics(config: RunConfig, mlflow_run_id: str, metrics: Mapping[str, float]) -> None:
    """Add metrics to a run that has ended.

    Raises:
        InputError: the tracking store cannot be used.
    """
    set_up(config)
    now = int(time.time() * 1000)
    points = [Metric(name, float(value), now, 0) for name, value in metrics.items()]
    mlflow.MlflowClient().log_batch(mlflow_run_id, metrics=points)


def log_warm_up(config: RunConfig, details: Mapping[str, Any], losses: Sequence[float]) -> None:
    """Track the tuning of the encoder: the loss of each step, the alignment before and after.

    Raises:
        InputError: the tracking store cannot be used.
    """
    with tracked(config, "warm_up", {"stage": "warm_up", "note": str(details.get("note", ""))}) as run_id:
        numbers = {name: value for name, value in details.items() if isinstance(value, (int, float))}
        now = int(time.time() * 1000)
        points = [Metric(name, float(value), now, 0) for name, value in numbers.items()]
        points += [Metric("loss", loss, now, step) for step, loss in enumerate(losses, start=1)]
        for start in range(0, len(points), _METRICS_PER_CALL):
            mlflow.MlflowClient().log_batch(run_id, metrics=points[start : start + _METRICS_PER_CALL])


def _parameters(config: RunConfig) -> dict[str, str]:
    """Every setting that results depend on, as section.name."""
    flat: dict[str, str] = {"seed": str(config.seed)}
    for section in dataclasses.fields(config):
        value = getattr(config, section.name)
        if not dataclasses.is_dataclass(value):
            continue
        for field in dataclasses.fields(value):
            if field.metadata.get("science", True):
                flat[f"{section.name}.{field.name}"] = str(getattr(value, field.name))[:_VALUE_CHARS]
    return flat


def _quieten() -> None:
    """A new SQLite store reports each of its migrations otherwise."""
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

"""MLflow for real, in a SQLite file under storage.root: nothing strays into the working directory, no key anywhere."""

from __future__ import annotations

import dataclasses

import mlflow
import pytest

from equal.config import load
from equal.errors import InputError
from equal.io import tracking
from equal.schemas import SELECTED_PAIRS

SECRET = "sk-not-to-be-seen"


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUAL_ENDPOINT_KEY", SECRET)
    monkeypatch.chdir(tmp_path)
    return load(overrides=[f"storage.root={tmp_path / 'root'}", "run_name=r1", "budget.documents=5"])


def test_a_run_holds_settings_curve_and_artifacts_under_the_root(config, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights").write_text("w")
    with tracking.tracked(config, "finetune r1", {"stage": "finetune"}) as run_id:
        for step in (1, 2):
            tracking.log_metric("loss", 1.0 / step, step)
        tracking.log_folder(str(tmp_path / "adapter"), "adapter")
    tracking.add_metrics(config, run_id, {"target_loss.base": 2.5})
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'root'}/mlflow.db")
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["bandit.docs_per_pull"] == "10"
    assert run.data.params["seed"] == "17"
    assert run.data.tags["fingerprint"] == config.fingerprint()
    assert [m.value for m in client.get_metric_history(run_id, "loss")] == [1.0, 0.5]
    assert run.data.metrics["target_loss.base"] == 2.5
    assert (tmp_path / "root" / "mlartifacts" / run_id / "artifacts" / "adapter" / "weights").read_text() == "w"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "root"]


def test_neither_key_nor_address_is_a_parameter(config, tmp_path):
    _course(config, steps=(1,))
    with tracking.tracked(config, "n", {}):
        pass
    assert not [p for p in (tmp_path / "root").rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
    run = mlflow.search_runs(output_format="list")[0]
    assert not [name for name in run.data.params if (name.startswith("endpoint.") and "key" in name) or "url" in name]
    assert "endpoint.model" in run.data.params


def test_an_error_marks_the_run_failed(config):
    with pytest.raises(ZeroDivisionError), tracking.tracked(config, "n", {}) as run_id:
        raise ZeroDivisionError
    assert mlflow.get_run(run_id).info.status == "FAILED"


def test_warm_up_shows_its_losses_and_alignment(config):
    tracking.log_warm_up(config, {"pairs": 7, "mrr_before": 0.5, "mrr_after": None, "note": "n"}, [0.9, 0.8, 0.7])
    run = mlflow.search_runs(output_format="list")[0]
    assert run.data.metrics == {"pairs": 7.0, "mrr_before": 0.5, "loss": 0.7}
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.9), (2, 0.8), (3, 0.7)]


def _metrics(step):
    return {"documents": 10 * step, "best_reward": 0.5}


def _course(config, history_hash="h1", *, past=(), failed=False, steps=()):
    run = tracking.ExtractionRun(config, history_hash, {step: _metrics(step) for step in past})
    for step in steps:
        run.log(step, _metrics(step))
    run.close(failed=failed)


def test_an_extraction_is_one_run_however_often_it_is_resumed(config):
    _course(config, steps=(1, 2), failed=True)
    larger = dataclasses.replace(config, budget=dataclasses.replace(config.budget, documents=9))
    _course(larger, past=(1, 2), steps=(3,))
    (run,) = mlflow.search_runs(output_format="list")
    assert (run.info.run_name, run.info.status) == ("r1", "FINISHED")
    assert run.data.tags["fingerprint"] == larger.fingerprint() != config.fingerprint()
    assert (run.data.tags["run_id"], run.data.tags["stage"]) == ("r1", "extract")
    points = mlflow.MlflowClient().get_metric_history(run.info.run_id, "documents")
    assert [(m.step, m.value) for m in points] == [(1, 10.0), (2, 20.0), (3, 30.0)]
    _course(config, "h2", past=(1,), steps=(2,))  # another run of that name
    _course(config, steps=(1,))  # begun anew
    with tracking.tracked(config, "finetune r1", {"stage": "finetune"}):
        pass
    assert len(mlflow.search_runs(output_format="list")) == 4


def test_what_a_killed_process_left_open_and_unsent_is_ended_and_sent_by_the_next(config):
    killed = tracking.ExtractionRun(config, "h1", {})
    killed.log(0, _metrics(0))  # and 1 and 2 were committed without MLflow, before the kill
    (run,) = mlflow.search_runs(output_format="list")
    assert run.info.status == "RUNNING"
    _course(config, past=(0, 1, 2))  # nothing was left to pull
    run = mlflow.get_run(run.info.run_id)
    assert run.info.status == "FINISHED"
    for name, values in {"documents": [0.0, 10.0, 20.0], "best_reward": [0.5] * 3}.items():
        points = mlflow.MlflowClient().get_metric_history(run.info.run_id, name)
        assert [(m.step, m.value) for m in points] == list(enumerate(values))


def test_mlflow_that_does_not_answer_is_asked_again_at_the_end_alone(config, monkeypatch, caplog):
    sent, down = [], [True]

    def log_batch(self, run_id, metrics=(), params=(), tags=()):
        sent.append([m.step for m in metrics])
        if down[0]:
            raise ConnectionError("refused")

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", log_batch)
    run = tracking.ExtractionRun(config, "h1", {})
    run.log(1, {"documents": 1})
    run.log(2, {"documents": 2})
    assert sent == [[1]]
    down[0] = False
    run.close(failed=False)
    assert sent == [[1], [1, 2]]
    assert [r.message for r in caplog.records if "does not answer (refused)" in r.message] == [
        caplog.records[0].message
    ]


def test_a_store_that_cannot_be_opened_is_named(config, tmp_path):
    (tmp_path / "root").write_text("a file where a folder should be")
    with pytest.raises(InputError, match=r"tracking\.uri"):
        tracking.set_up(config)
    _course(config, steps=(1,))  # an extraction goes on without


def test_the_data_set_is_a_delta_table_at_a_version(config, tables):
    row = {"run_id": "r1", "method": "equal", "pair_id": "p", "rank": 1}
    tables.append(SELECTED_PAIRS, tables.rows(SELECTED_PAIRS, [row]))
    tables.append(SELECTED_PAIRS, tables.rows(SELECTED_PAIRS, [row | {"run_id": "r2"}]))
    with tracking.tracked(config, "n", {}) as run_id:
        version = tracking.log_table(tables, SELECTED_PAIRS, "run_id = 'r1'", "training")
    run = mlflow.get_run(run_id)
    data = run.inputs.dataset_inputs[0].dataset
    assert data.digest == f"selected_pairs-v{version}"
    assert tables.path(SELECTED_PAIRS) in data.source
    assert f'"delta_table_version": "{version}"' in data.source
    assert run.data.tags["training.delta_version"] == str(version)
    assert tables.read(SELECTED_PAIRS, version).count() == 2

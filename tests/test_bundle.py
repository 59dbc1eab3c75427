"""The Databricks bundle, checked offline: jobs by the vendor's own classes, the rest against our sources."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from databricks.bundles.jobs import Job

from equal.config import load
from equal.io.marks import UPSTREAM
from equal.io.session import local_settings

ROOT = Path(__file__).parents[1]
BUNDLE = yaml.safe_load((ROOT / "databricks.yml").read_text(encoding="utf-8"))
FILES = sorted(ROOT.glob("resources/*.yml"))
JOBS: dict[str, dict[str, Any]] = {
    name: job for path in FILES for name, job in yaml.safe_load(path.read_text())["resources"]["jobs"].items()
}
PIPELINE = JOBS["equal_pipeline"]
_WORKSPACE = {"host", "profile", "root_path", "file_path", "artifact_path", "state_path", "resource_path"}
_GRANT = {"level": None, "group_name": None, "user_name": None, "service_principal_name": None}
_PRESETS = (
    *("artifacts_dynamic_version", "jobs_max_concurrent_runs", "name_prefix", "source_linked_deployment", "tags"),
    "trigger_pause_status",
)
_TARGET: dict[str, Any] = {
    **dict.fromkeys(("mode", "default", "variables", "cluster_id", "git", "sync", "resources", "artifacts")),
    "presets": dict.fromkeys(_PRESETS),
    "workspace": dict.fromkeys(_WORKSPACE),
    "run_as": {"service_principal_name": None, "user_name": None},
    "permissions": [_GRANT],
}
#: keys that the vendor's schema of databricks.yml allows, of the parts we use; "*" is any name, None any value
ALLOWED: dict[str, Any] = {
    **dict.fromkeys(("include", "resources", "sync", "scripts", "python")),
    **{key: _TARGET[key] for key in ("workspace", "permissions", "run_as", "presets")},
    "bundle": dict.fromkeys(("name", "uuid", "databricks_cli_version", "engine", "deployment", "git", "cluster_id")),
    "artifacts": {"*": dict.fromkeys(("type", "build", "path", "files", "executable", "dynamic_version"))},
    "variables": {"*": dict.fromkeys(("default", "description", "lookup", "type"))},
    "targets": {"*": _TARGET},
}


def _unknown_keys(tree: Any, allowed: Any, path: str = "") -> list[str]:
    if isinstance(allowed, list) and isinstance(tree, list):
        return [key for item in tree for key in _unknown_keys(item, allowed[0], f"{path}[]")]
    if not isinstance(allowed, dict):
        return []
    found = []
    for key, value in tree.items():
        below = allowed.get(key, allowed.get("*", key))
        found += [f"{path}.{key}"] if below is key else _unknown_keys(value, below, f"{path}.{key}")
    return found


def _strings(tree: Any) -> list[str]:
    if isinstance(tree, dict):
        return [s for key, value in tree.items() for s in (str(key), *_strings(value))]
    if isinstance(tree, list):
        return [s for value in tree for s in _strings(value)]
    return [tree] if isinstance(tree, str) else []


def _fields(tree: Any) -> set[str]:
    """Names of all fields."""
    if isinstance(tree, dict):
        return set(map(str, tree)).union(*map(_fields, tree.values()))
    return set().union(*map(_fields, tree)) if isinstance(tree, list) else set()


def test_files_are_included():
    assert BUNDLE["include"] == ["resources/*.yml"]
    assert {path.stem for path in FILES} == {"pipeline", "refresh"}
    assert not _unknown_keys(BUNDLE, ALLOWED)
    assert set(BUNDLE["targets"]) == {"dev", "prod"}
    assert [name for name, target in BUNDLE["targets"].items() if target.get("default")] == ["dev"]
    assert {name: target["mode"] for name, target in BUNDLE["targets"].items()} == {
        "dev": "development",
        "prod": "production",
    }


@pytest.mark.parametrize(
    "path",
    [
        ("targets",),
        ("targets", "prod", "run_as"),
        ("targets", "prod", "permissions", 0, "level"),
        ("targets", "dev", "presets", "artifacts_dynamic_version"),
        ("artifacts", "wheel", "build"),
        ("variables", "catalog", "default"),
    ],
    ids=lambda path: str(path[-1]),
)
def test_misspelt_key_of_the_bundle_is_found(path: tuple[Any, ...]):
    bundle = copy.deepcopy(BUNDLE)
    parent: Any = bundle
    for step in path[:-1]:
        parent = parent[step]
    parent[f"{path[-1]}x"] = parent.pop(path[-1])
    assert [key.split(".")[-1] for key in _unknown_keys(bundle, ALLOWED)] == [f"{path[-1]}x"]


@pytest.mark.parametrize("name", sorted(JOBS))
def test_job_is_one_to_its_vendor(name: str):
    assert Job.from_dict(JOBS[name]).as_dict()["name"] == JOBS[name]["name"]


@pytest.mark.parametrize(
    "path",
    [
        ("tasks", 0, "python_wheel_task", "entry_point"),
        ("tasks", 0, "libraries", 1, "maven", "exclusions"),
        ("tasks", 1, "depends_on"),
        ("job_clusters", 0, "new_cluster", "data_security_mode"),
        ("parameters",),
    ],
    ids=lambda path: str(path[-1]),
)
def test_misspelt_key_fails(path: tuple[Any, ...]):
    job = copy.deepcopy(PIPELINE)
    parent: Any = job
    for step in path[:-1]:
        parent = parent[step]
    parent[f"{path[-1]}x"] = parent.pop(path[-1])
    with pytest.raises(Exception, match=f"{path[-1]}x|unexpected|required"):
        Job.from_dict(job)


def test_schedule_without_expression_fails():
    job = copy.deepcopy(JOBS["equal_refresh"])
    del job["schedule"]["quartz_cron_expression"]
    with pytest.raises(Exception, match="quartz_cron_expression"):
        Job.from_dict(job)


def test_every_variable_is_declared_and_used():
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "databricks.yml", *FILES))
    assert set(re.findall(r"\$\{var\.(\w+)\}", text)) == set(BUNDLE["variables"])
    for target in BUNDLE["targets"].values():
        assert set(target.get("variables", {})) <= set(BUNDLE["variables"])
    # a default is read before variables are known
    assert not any("${" in str(variable.get("default")) for variable in BUNDLE["variables"].values())
    for job in re.findall(r"\$\{resources\.jobs\.(\w+)\.id\}", text):
        assert job in JOBS


def test_production_is_not_deployed_before_its_principal_is_named():
    assert "default" not in BUNDLE["variables"]["service_principal"]
    assert "service_principal" not in BUNDLE["targets"]["prod"].get("variables", {})


def test_stages_follow_one_another_as_in_the_code():
    order, stage = ["evaluate"], "evaluate"
    while stage := UPSTREAM[stage][0]:
        order.insert(0, stage)
    tasks = PIPELINE["tasks"]
    assert [task["task_key"] for task in tasks] == order
    for before, task in zip([None, *order], tasks):
        assert task.get("depends_on", []) == ([{"task_key": before}] if before else [])
    clusters = {cluster["job_cluster_key"] for cluster in PIPELINE["job_clusters"]}
    assert {task["job_cluster_key"] for task in tasks} == clusters


def test_entry_points_are_those_of_the_wheel():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    for task in PIPELINE["tasks"]:
        wheel = task["python_wheel_task"]
        job = {"select": "select_pairs"}.get(task["task_key"], task["task_key"])
        assert wheel["entry_point"] == f"equal-{job.replace('_', '-')}"
        assert f'name="{wheel["package_name"]}"' in setup
        assert f'"{job}"' in setup


@pytest.mark.parametrize("task", PIPELINE["tasks"], ids=lambda task: task["task_key"])
def test_parameters_are_valid_settings(task: dict[str, Any]):
    given = [text.replace("${var.endpoint_model_parameters}", "8") for text in task["python_wheel_task"]["parameters"]]
    parameters = [re.sub(r"\$?\{+(?:\w+\.)*\w+\}+", "x", text) for text in given]
    assert parameters[0] == "--config"
    assert parameters[1::2][0] == "x/conf/prod.yml"
    assert set(parameters[2::2]) == {"--set"}
    config = load(ROOT / "conf" / "prod.yml", parameters[3::2])
    assert config.storage.schema == "x.x"
    assert config.spark.loader == "auto_loader"
    assert config.endpoint.key_secret == "x/endpoint-key"
    assert config.endpoint.model_parameters == 8
    assert config.judges == {"held_out": config.reference.held_out}


def test_cluster_is_set_as_the_local_session():
    conf = PIPELINE["job_clusters"][0]["new_cluster"]["spark_conf"]
    # the runtime brings Delta, a metastore and a UI of its own; local Delta reads small snapshots
    local_only = re.compile(r"spark\.(jars|ui|sql\.extensions|sql\.catalog|databricks\.delta|driver)")
    assert conf == {key: value for key, value in local_settings().items() if not local_only.match(key)}


def test_spark_nlp_comes_as_in_the_local_session():
    for task in PIPELINE["tasks"]:
        maven = [library["maven"] for library in task["libraries"] if "maven" in library]
        if task["job_cluster_key"] == "spark":
            assert [m["coordinates"] for m in maven] == local_settings()["spark.jars.packages"].split(",")[1:]
            assert ",".join(maven[0]["exclusions"]) == local_settings()["spark.jars.excludes"]
        assert {"whl": "../dist/*.whl"} in task["libraries"]


def test_training_packages_are_those_tested_here():
    lock = (ROOT / "conf" / "requirements" / "main.lock").read_text(encoding="utf-8").split()
    packages = [lib["pypi"]["package"] for lib in PIPELINE["tasks"][-1]["libraries"] if "pypi" in lib]
    assert len(packages) == 5
    assert set(packages) <= set(lock)


def test_no_secret_stands_in_the_bundle():
    """The key is named by scope alone, and no setting or field but that one speaks of keys."""
    secret = re.compile(r"(?i)token|passw|secret|api_?key|bearer|credential")
    named = {text for text in _strings([BUNDLE, JOBS]) if secret.search(text)}
    assert {text for text in named if "=" in text} == {"endpoint.key_secret=${var.secret_scope}/endpoint-key"}
    assert {field for field in _fields([BUNDLE, JOBS]) if secret.search(field)} == {"secret_scope"}


def test_refresh_is_paused_unless_somebody_switches_it_on():
    """It spends every week, so a deployment alone must not start it."""
    assert JOBS["equal_refresh"]["schedule"]["pause_status"] == "${var.refresh_pause_status}"
    assert BUNDLE["variables"]["refresh_pause_status"]["default"] == "PAUSED"
    assert not any("refresh_pause_status" in target.get("variables", {}) for target in BUNDLE["targets"].values())


def test_refresh_gives_each_run_a_name_of_its_own():
    refresh = JOBS["equal_refresh"]
    assert len(refresh["schedule"]["quartz_cron_expression"].split()) == 6
    parameters = refresh["tasks"][0]["run_job_task"]["job_parameters"]
    assert set(parameters) == {p["name"] for p in PIPELINE["parameters"]}
    assert "{{job.start_time" in parameters["run_name"]

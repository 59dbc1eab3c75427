"""The notebook is in Databricks' source format and runs from top to bottom over real tables."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from filled_tables import EQUAL_RUN, NUM_ARMS

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "arms.py"


@pytest.fixture(scope="module")
def names(spark, history_root, tmp_path_factory) -> dict[str, object]:
    """What the notebook's cells leave behind."""
    config = tmp_path_factory.mktemp("notebook") / "run.yml"
    config.write_text("spark:\n  partitions: 2\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQUAL_CONFIG", str(config))
        patch.setenv("EQUAL_SET", f"run_name={EQUAL_RUN} storage.root={history_root}")
        return runpy.run_path(str(NOTEBOOK))


def test_it_has_the_source_format():
    source = NOTEBOOK.read_text(encoding="utf-8")
    assert source.startswith("# Databricks notebook source\n")
    cells = re.split(r"^# COMMAND -{10}$", source, flags=re.M)
    assert len(cells) > 8
    for cell in cells:
        magic = [line.startswith("# MAGIC") for line in cell.strip().splitlines()[cell is cells[0] :]]
        assert all(magic) or not any(magic), "a cell is markdown or code, not both"


def test_it_shows_every_arm_and_what_was_spent(names):
    assert len(names["arms"]) == NUM_ARMS
    assert sum(arm["read"] for arm in names["arms"]) == sum(names["used"]["outcomes"].values())
    assert 0 < names["plane_share"] <= 1


def test_its_figures_hold_data(names):
    for figure in (names["map_of_arms"], names["rewards"]):
        assert sum(len(trace.x) for trace in figure.data) > 0


def test_the_budget_leans_to_the_arms_it_read(names):
    rows = names["budget"].collect()
    assert rows[0]["times_random"] > 1
    assert [row["times_random"] for row in rows] == sorted((row["times_random"] for row in rows), reverse=True)


def test_the_best_arm_shows_its_pairs(names):
    assert names["best"]["reward"] == max(arm["reward"] for arm in names["arms"] if arm["reward"] is not None)
    assert names["pairs_of_best"].count() > 0

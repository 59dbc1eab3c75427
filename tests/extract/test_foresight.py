"""An estimate costs what the warm-up pays anyway, and holds what the run takes."""

from __future__ import annotations

from dataclasses import replace

from equal.estimate import estimate_run
from equal.io.tables import Tables
from equal.jobs.extract import main
from equal.schemas import COSTS, ESTIMATES
from extract_world import BUDGET, settings_file


def test_after_the_warm_up_it_asks_nothing_and_holds_what_the_run_takes(
    spark, config, server, unbroken, tmp_path, capsys
):
    server.bodies.clear()
    main(["--config", str(settings_file(config, tmp_path / "job.yml")), "--estimate"])
    assert not server.bodies
    said = capsys.readouterr().out
    assert "extract: until documents end it" in said
    rows = {
        row.measure: row for row in Tables(spark, config.storage.root).read(ESTIMATES).collect() if row.run_id == "r"
    }
    assert {row.stage for row in rows.values()} == {"extract"}
    assert {row.sample for row in rows.values()} == {6}
    assert rows["documents"].value == BUDGET
    costs = Tables(spark, unbroken.config.storage.root).read(COSTS).where("run_id = 'r'").collect()
    for measure in ("calls", "prompt_tokens"):
        taken = sum(row[measure] for row in costs)
        assert rows[measure].low <= taken <= rows[measure].high, measure
    assert rows["calls"].value == unbroken.calls


def test_without_a_warm_up_it_asks_about_its_first_documents_which_are_then_there(spark, config, server):
    other = replace(
        config,
        extraction=replace(config.extraction, max_tokens=config.extraction.max_tokens - 1),
        warm_up=replace(config.warm_up, fraction=0.05),
    )
    server.bodies.clear()
    found = estimate_run(other)
    assert len(server.bodies) == 8
    assert set(found) == {"warm_up", "extract"}
    assert found["warm_up"].documents.value == 3
    costs = Tables(spark, config.storage.root).read(COSTS).where("stage = 'estimate'").collect()
    assert [(row.run_id, row.documents, row.calls) for row in costs] == [("corpus", 8, 8)], (
        "what was paid is in the bill"
    )
    again = estimate_run(other)
    assert len(server.bodies) == 8
    assert again["extract"].amounts["calls"] == found["extract"].amounts["calls"]

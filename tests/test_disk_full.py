"""Ingest on a disk that is full: named, and where there is room it loses nothing."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from deltalake import DeltaTable

from equal.config import load
from equal.io.stage import run_stage
from equal.jobs.ingest import ingest
from small_disk import needs_namespaces, run_out_of_space

INGEST = Path(__file__).resolve().parent.parent / "jobs" / "ingest.py"
DOCS = 15


@needs_namespaces
def test_ingest_names_the_full_disk_and_loses_nothing_when_it_goes_on_elsewhere(spark, tmp_path: Path) -> None:
    disk, source, kept = tmp_path / "disk", tmp_path / "in", tmp_path / "kept"
    disk.mkdir()
    source.mkdir()
    letters = random.Random(5)
    with (source / "docs.jsonl").open("w") as file:
        for number in range(DOCS):  # what compresses badly: 3 MB in all
            text = " ".join(f"{letters.getrandbits(64):x}" for _ in range(12_000))
            file.write(json.dumps({"id": f"d{number}", "text": text}) + "\n")
    settings = [f"documents.path={source}", "spark.partitions=2"]
    arguments = [part for setting in (f"storage.root={disk}", *settings) for part in ("--set", setting)]
    said = run_out_of_space([sys.executable, str(INGEST), *arguments], disk=disk, size=1_500_000, kept=kept)
    assert "no space left on the device that holds storage.root; free some or move storage.root" in said
    run_stage(load(overrides=[f"storage.root={kept}", *settings]), "ingest", ingest)
    rows = DeltaTable(str(kept / "tables" / "documents")).to_pyarrow_table().to_pylist()
    assert sorted(row["source_id"] for row in rows) == sorted(f"d{number}" for number in range(DOCS))

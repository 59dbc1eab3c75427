"""The job ingest on real files: every record is a document or a removal, each file is read exactly once."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from pyspark.sql import functions as F

from equal.config import RunConfig, load
from equal.errors import InputError, TableError
from equal.io import source
from equal.io.marks import Marks
from equal.io.source import check_source
from equal.io.stage import Job, run_stage
from equal.io.tables import Tables
from equal.jobs.ingest import ingest
from equal.schemas import DOCUMENTS, REMOVALS, STAGES

PROSE = "The variance of a sum of independent variables is the sum of their variances. "


def config(tmp_path: Path, *overrides: str) -> RunConfig:
    settings = [
        f"storage.root={tmp_path / 'root'}", f"documents.path={tmp_path / 'in'}", "documents.min_chars=20",
        "budget.documents=10", "spark.partitions=2", *overrides,
    ]  # fmt: skip
    return load(None, settings)


@pytest.fixture(autouse=True)
def empty_tables(empty_root: Path, tmp_path: Path) -> None:
    shutil.copytree(empty_root, tmp_path / "root")


def line(**record: object) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode()


def put(tmp_path: Path, name: str, *lines: bytes) -> Path:
    path = tmp_path / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = b"\n".join(lines) + b"\n"
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def run(spark, settings: RunConfig) -> Tables:
    """The job's body, without the mark and the cost row that every stage leaves."""
    tables = Tables(spark, settings.storage.root)
    ingest(Job(settings, spark, tables, "ingest", "hash", Marks(settings, {}, "", "", -1)))
    return tables


def reasons(tables: Tables) -> dict[str, int]:
    return {r.reason: r["count"] for r in tables.read(REMOVALS).groupBy("reason").count().collect()}


def versions(tables: Tables) -> tuple[int, int]:
    return tables.version(DOCUMENTS), tables.version(REMOVALS)


def test_every_bad_record_is_a_removal_with_its_reason_and_evidence(spark, tmp_path):
    huge = "A very long text. " * 2_800_000  # 50 MB
    put(
        tmp_path,
        "pool.jsonl",
        line(id="good", text=PROSE),
        line(id="cut", text=PROSE)[:40],
        b"[1, 2]",
        b'"just a string"',
        line(id="null", text=None),
        line(id="absent"),
        line(id="blank", text=" \n\t\u00a0 "),
        line(id="tags", text="<p><br/></p>"),
        line(id="short", text="Too short."),
        line(id="huge", text=huge),
        line(id="long", text=PROSE * 20_000),
        '{"id": "latin", "text": "Un caf\u00e9 au lait, deux caf\u00e9s noirs."}'.encode("latin-1"),
        b"",
        line(id="same", text=PROSE + "One."),
        line(id="same", text=PROSE + "Two."),
        line(id="twice", text=PROSE),
        line(id="twice", text=PROSE.replace(" ", "  ")),
    )
    tables = run(spark, config(tmp_path))
    kept = {(r.source_id, r.text.strip()) for r in tables.read(DOCUMENTS).collect()}
    texts = {text for _, text in kept}
    assert {source_id for source_id, _ in kept} == {"good", "same", "twice"}
    assert {PROSE + "One.", PROSE + "Two."} < texts
    assert reasons(tables) == {
        "unreadable_line": 3, "null_text": 2, "blank_text": 2, "too_short": 1, "too_long": 2, "wrong_encoding": 1,
        "repeated_record": 1,
    }  # fmt: skip
    rows = tables.read(REMOVALS).orderBy(F.length("evidence")).collect()
    assert {json.loads(r.evidence)["num_chars"] for r in rows if r.reason == "too_long"} == {
        len(PROSE) * 20_000, len(line(id="huge", text=huge))
    }  # fmt: skip
    evidence = {r.reason: json.loads(r.evidence) for r in rows}
    assert evidence["too_long"]["limit"] == 1_000_000
    assert len(evidence["too_long"]["preview"]) == 200
    assert evidence["too_short"]["source_id"] == "short"
    assert "latin" in evidence["wrong_encoding"]["preview"]
    ids = [r.doc_id for table in (DOCUMENTS, REMOVALS) for r in tables.read(table).collect()]
    assert len(set(ids)) == len(ids) == 16
    assert all(len(doc_id) == 32 for doc_id in ids)
    repeated = evidence["repeated_record"]["repeats"]
    assert tables.read(DOCUMENTS).where(F.col("doc_id") == repeated).first().source_id == "twice"


def test_a_second_run_reads_only_new_files_however_old_they_look(spark, tmp_path, caplog):
    caplog.set_level("INFO", logger="equal")
    put(tmp_path, "a.jsonl", line(id="1", text=PROSE), b"{broken")
    tables = run(spark, config(tmp_path))
    before = versions(tables)
    run(spark, config(tmp_path))
    assert versions(tables) == before
    assert "no new files" in caplog.text
    late = put(tmp_path, "deeper/b.jsonl.gz", line(id="2", text=PROSE), line(id="1", text=PROSE))
    old = time.time() - 90 * 86400
    os.utime(late, (old, old))
    run(spark, config(tmp_path))
    assert {r.source_id for r in tables.read(DOCUMENTS).collect()} == {"1", "2"}
    assert reasons(tables) == {"unreadable_line": 1, "repeated_record": 1}


def test_a_batch_that_died_between_its_two_tables_is_finished_once(spark, tmp_path, monkeypatch):
    put(tmp_path, "a.jsonl", line(id="1", text=PROSE), line(id="1", text=PROSE), b"{broken")
    append = Tables.append

    def die_at_documents(self, table, frame):
        if table == DOCUMENTS:
            raise TableError("table documents: no space left on the device")
        append(self, table, frame)

    monkeypatch.setattr(Tables, "append", die_at_documents)
    with pytest.raises(TableError, match="no space left"):
        run(spark, config(tmp_path))
    monkeypatch.undo()
    tables = run(spark, config(tmp_path))
    assert tables.read(DOCUMENTS).count() == 1
    assert reasons(tables) == {"unreadable_line": 1, "repeated_record": 1}


def test_a_batch_that_died_after_both_tables_is_not_written_again(spark, tmp_path, monkeypatch):
    put(tmp_path, "a.jsonl", line(id="1", text=PROSE), b"{broken")
    write = source._write_batch

    def die_after(*arguments):
        write(*arguments)
        raise RuntimeError("killed")

    monkeypatch.setattr(source, "_write_batch", die_after)
    with pytest.raises(TableError, match="killed"):
        run(spark, config(tmp_path))
    monkeypatch.undo()
    tables = run(spark, config(tmp_path))
    assert tables.read(DOCUMENTS).count() == 1
    assert reasons(tables) == {"unreadable_line": 1}


def test_ids_do_not_depend_on_how_records_lie_in_files(spark, tmp_path):
    lines = [line(id=str(i % 20), text=PROSE + str(i)) for i in range(40)]
    put(tmp_path / "one", "all.jsonl", *lines)
    for part in range(2):
        put(tmp_path / "two", f"{part}.jsonl", *reversed(lines[part::2]))
    ids = []
    for case, batch in (("one", 64), ("two", 1)):
        tables = run(spark, config(tmp_path / case, f"documents.max_files_per_trigger={batch}"))
        ids.append({(r.doc_id, r.source_id, r.text) for r in tables.read(DOCUMENTS).collect()})
    assert ids[0] == ids[1]
    assert len(ids[0]) == 40


def test_text_files_are_one_document_each(spark, tmp_path):
    code = b"def f(x):\n    return x\n\n# a comment"
    put(tmp_path, "notes/one.txt", code)
    put(tmp_path, "two.txt.gz", code)
    put(tmp_path, "three.txt", PROSE.encode("utf-16"))
    tables = run(spark, config(tmp_path, "documents.format=text"))
    rows = tables.read(DOCUMENTS).orderBy("source_id").collect()
    assert [(r.source_id, r.text) for r in rows] == [(name, code.decode()) for name in ("one.txt", "two.txt.gz")]
    assert rows[0].source_file.endswith("in/notes/one.txt")
    assert reasons(tables) == {"wrong_encoding": 1}


def test_parquet_is_read_by_its_columns(spark, tmp_path):
    rows = [(7, PROSE, 1.0), (8, None, 2.0), (9, "short", 3.0)]
    spark.createDataFrame(rows, "key long, body string, other double").write.parquet(str(tmp_path / "in"))
    settings = config(tmp_path, "documents.format=parquet", "documents.id_field=key", "documents.text_field=body")
    tables = run(spark, settings)
    assert [(r.source_id, r.text) for r in tables.read(DOCUMENTS).collect()] == [("7", PROSE.strip())]
    assert reasons(tables) == {"null_text": 1, "too_short": 1}


def test_without_an_id_field_the_text_is_the_identity(spark, tmp_path):
    put(tmp_path, "a.jsonl", line(text=PROSE), line(text=PROSE), line(text=PROSE + "More."))
    tables = run(spark, config(tmp_path, "documents.id_field=''"))
    assert tables.read(DOCUMENTS).count() == 2
    assert reasons(tables) == {"repeated_record": 1}


@pytest.mark.parametrize(
    ("files", "overrides", "message", "remedy"),
    [
        (None, [], r"documents\.path: .*in cannot be read", "; check the path"),
        ({}, [], r"documents\.path: .* holds no files", "; put jsonl files there"),
        ({"empty.jsonl": None}, [], r"documents\.path: .* holds no files", "; put jsonl files there"),
        (
            {"a": {"body": "x", "key": 1}},
            [],
            r"documents\.text_field: 'text' is not in .*present: body, key",
            "; set documents.text_field to one of them",
        ),
        (
            {"a": {"text": "x", "key": 1}},
            [],
            r"documents\.id_field: 'id' is not in .*present: key, text.*or empty",
            "; set documents.id_field to one of them or empty",
        ),
        (
            {"a": "no json"},
            [],
            r"documents\.format: is jsonl, but none of the first 1 lines",
            "allowed: jsonl, parquet, text; set documents.format to what the files are",
        ),
        ({}, ["documents.path=''"], r"documents\.path: is empty", "; give the folder"),
    ],
)
def test_bad_sources_are_refused_with_a_remedy(spark, tmp_path, files, overrides, message, remedy):
    if files is not None:
        (tmp_path / "in").mkdir()
    for name, content in (files or {}).items():
        (tmp_path / "in" / name).write_text("" if content is None else json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        check_source(spark, config(tmp_path, *overrides).documents)
    assert remedy in str(caught.value)


def test_files_of_another_format_are_refused(spark, tmp_path):
    put(tmp_path, "a.jsonl", line(id="1", text=PROSE))
    with pytest.raises(InputError, match=r"cannot be read as parquet \(.*a\.jsonl"):
        check_source(spark, config(tmp_path, "documents.format=parquet").documents)


def test_a_damaged_archive_is_named_and_a_whole_copy_in_its_place_loses_nothing(spark, tmp_path):
    put(tmp_path, "a.jsonl", line(id="1", text=PROSE))
    whole = gzip.compress(b"\n".join(line(id=str(i), text=f"{PROSE} {i}") for i in range(5000)))
    archive = tmp_path / "in" / "cut.jsonl.gz"
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.jsonl\.gz is cut off or damaged \(.*put a whole copy in its place"):
        run(spark, config(tmp_path))
    archive.write_bytes(whole)
    assert run(spark, config(tmp_path)).read(DOCUMENTS).count() == 5001


def test_a_loader_that_only_databricks_has_is_refused_elsewhere(spark, tmp_path):
    put(tmp_path, "a.jsonl", line(id="1", text=PROSE))
    with pytest.raises(InputError, match="only Databricks has"):
        run(spark, config(tmp_path, "spark.loader=auto_loader"))


def test_a_refused_source_leaves_no_trace(spark, tmp_path):
    put(tmp_path, "a.jsonl", line(id="1", body=PROSE))
    with pytest.raises(InputError, match="text_field"):
        run(spark, config(tmp_path))
    assert versions(Tables(spark, str(tmp_path / "root"))) == (0, 0)
    assert not (tmp_path / "root" / "checkpoints").exists()


def test_the_stage_is_marked_at_its_end_and_nothing_is_built_on_what_died_before(spark, tmp_path, monkeypatch):
    put(tmp_path, "a.jsonl", line(id="1", text=PROSE), b"{broken")
    settings = config(tmp_path)
    run_stage(settings, "ingest", ingest)
    row = Tables(spark, settings.storage.root).read(STAGES).first()
    assert (row.stage, row.rows_in, row.rows_out) == ("ingest", 2, 1)
    with pytest.raises(TableError, match="made with other settings of section documents"):
        run(spark, config(tmp_path, "documents.min_chars=21"))
    run(spark, config(tmp_path, "seed=99"))

    put(tmp_path, "b.jsonl", line(id="2", text=PROSE + PROSE))
    monkeypatch.setattr("equal.jobs.ingest.corpus_facts", lambda tables: {})
    with pytest.raises(KeyError):
        run_stage(settings, "ingest", ingest)
    monkeypatch.undo()
    tables = Tables(spark, settings.storage.root)
    with pytest.raises(TableError, match="stage ingest: has not finished"):
        Marks.read(tables, settings).require_upstream("quality")
    run_stage(settings, "ingest", ingest)
    assert Marks.read(tables, settings).batch == 1

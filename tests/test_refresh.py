"""The corpus jobs on Delta: what each removes, what a rerun, a later load, a withdrawal or another setting changes."""

from __future__ import annotations

import json
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import functions as F

from equal.config import RunConfig, load
from equal.errors import InputError, TableError
from equal.io.marks import Marks
from equal.io.references import read_spared
from equal.io.stage import Job, Outcome, run_stage
from equal.io.tables import Tables
from equal.jobs.pipeline import CORPUS
from equal.schemas import BAND_KEYS, BENCHMARK_HITS, DOCUMENTS, REMOVALS, SELECTED_PAIRS

QUESTION = "A die is rolled twice; what is the probability that both rolls show a six at once?"
SEED = 11
Line = dict[str, str]
#: what the source takes back after the first load, and what it brings anew under one of their ids
GONE = ("d10", "d14", "d22")
CORRECTED = {"id": GONE[0], "text": "What stands here now was written anew by somebody with better knowledge of it."}


def corpus() -> list[Line]:
    """Chains of edited texts, exact copies, texts with a benchmark's question and unfit ones, in random order."""
    rng = random.Random(SEED)
    texts = []
    for topic in range(12):
        tokens = [f"w{rng.randrange(300)}" for _ in range(rng.randrange(25, 60))]
        for _ in range(rng.randrange(1, 6)):
            texts.append(" ".join(tokens))
            tokens = list(tokens)
            tokens[rng.randrange(len(tokens))] = f"w{rng.randrange(300)}"
            if rng.random() < 0.3:
                tokens.append(f"extra{topic}")
    texts += [
        texts[0].replace(" ", "  "),
        texts[3].upper(),
        f"{texts[5]} {QUESTION}",
        f"Of an exam: {QUESTION} {'x y ' * 9}",
    ]
    texts += ["Too short.", "a b c"]
    lines = [{"id": f"d{i}", "text": text} for i, text in enumerate(texts)]
    rng.shuffle(lines)
    return lines


@pytest.fixture(scope="module")
def whole(spark, empty_root: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The corpus in one load; its tables are not to be written."""
    root = tmp_path_factory.mktemp("whole")
    shutil.copytree(empty_root, root / "store")
    (root / "exam.jsonl").write_text(json.dumps({"id": "e1", "question": QUESTION, "answer": "1/36"}))
    config = load(
        overrides=[
            f"storage.root={root / 'store'}", f"documents.path={root / 'in'}", "documents.min_chars=5",
            f"decontaminate.benchmarks={{exam: {root / 'exam.jsonl'}}}", "quality.min_words=8",
            "quality.max_repeated_runs=1.0", "deduplicate.threshold=0.6", "spark.partitions=2",
        ]
    )  # fmt: skip
    bring(config, [line for line in corpus() if line["id"] not in GONE] + [CORRECTED], "all")
    return config


def elsewhere(config: RunConfig, root: Path, **spark: int) -> RunConfig:
    return replace(
        config,
        storage=replace(config.storage, root=str(root / "store")),
        documents=replace(config.documents, path=str(root / "in")),
        spark=replace(config.spark, **spark),
    )


def bring(config: RunConfig, lines: list[Line], name: str) -> None:
    """Put a file in place and run the corpus stages."""
    folder = Path(config.documents.path)
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.jsonl").write_text("\n".join([*map(json.dumps, lines), "{broken"]))
    refresh(config)


def refresh(config: RunConfig) -> None:
    for stage, body in CORPUS.items():
        run_stage(config, stage, body)


def removed(spark, config: RunConfig) -> set[tuple[str, ...]]:
    """Every removal but those of unreadable records, without the names of files, which say how the corpus came."""
    rows = Tables(spark, config.storage.root).read(REMOVALS).where("stage != 'ingest'").drop("source_file").collect()
    found = {tuple(re.sub(r'"named_in":"[^"]*"', "", str(value)) for value in row) for row in rows}
    assert len(found) == len(rows)
    return found


def test_each_stage_removes_what_it_is_there_for(spark, whole):
    tables = Tables(spark, whole.storage.root)
    named = {row.doc_id: row.source_id for row in tables.read(DOCUMENTS).collect()}
    found = {named.get(row.doc_id, "-"): row.reason for row in tables.read(REMOVALS).collect()}
    lines = {line["id"]: line["text"] for line in corpus() if line["id"] not in GONE}
    assert found["-"] == "unreadable_line"
    assert {i for i, text in lines.items() if QUESTION in text} <= {i for i in found if found[i] != "few_words"}
    assert {i for i, text in lines.items() if len(text.split()) < 8} == {i for i in found if found[i] == "few_words"}
    assert set(found.values()) == {
        "unreadable_line", "few_words", "exact_duplicate", "near_duplicate", "contaminated"
    }  # fmt: skip
    mark = Marks.read(tables, whole).of("decontaminate")
    assert json.loads(mark["details"])["contaminated"] == sum(reason == "contaminated" for reason in found.values())
    assert read_spared(f"{whole.storage.root}/decontaminate/{mark['input_hash']}.json") == frozenset()


def test_two_loads_and_a_withdrawal_leave_the_removals_of_one_load(spark, whole, empty_root, tmp_path, caplog):
    """And the second one repairs what a killed job left; what gave way to a withdrawn document takes its place."""
    shutil.copytree(empty_root, tmp_path / "store")
    config, lines = elsewhere(whole, tmp_path, partitions=3), corpus()
    bring(config, lines[::2], "first")
    tables = Tables(spark, config.storage.root)
    winners = {json.loads(row[3])["kept"] for row in removed(spark, config) if row[1] == "deduplicate"}
    taken = tables.read(DOCUMENTS).where(F.col("source_id").isin(*GONE)).collect()
    assert winners >= {row.doc_id for row in taken}
    assert len(taken) == 3
    kept = {name: sorted(tables.read(name).collect()) for name in (BAND_KEYS, BENCHMARK_HITS)}
    for name in kept:  # a job of the next load was killed after it had written its index
        half = tables.read(name).withColumn("batch", F.lit(1))
        tables.append(name, half.withColumn("doc_keys", F.col("band_keys")) if name == BAND_KEYS else half)

    selected = [{"run_id": "r", "pair_id": doc_id, "doc_id": doc_id} for doc_id in (taken[0].doc_id, "another")]
    tables.append(SELECTED_PAIRS, tables.rows(SELECTED_PAIRS, selected))
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "1.jsonl").write_text("\n".join(json.dumps({"id": name}) for name in [*GONE, "never there"]))
    config = replace(config, documents=replace(config.documents, withdrawn=str(tmp_path / "gone")))
    bring(config, [*lines[1::2], CORRECTED], "second")
    assert "1 selected pairs of run r are of documents withdrawn by now; run jobs/select_pairs.py" in caplog.text
    for name, rows in kept.items():
        assert sorted(tables.read(name).where("batch = 0").collect()) == rows
    after = removed(spark, config)
    assert {row[0] for row in after if row[2] == "withdrawn"} == {row.doc_id for row in taken}
    assert {row for row in after if row[2] != "withdrawn"} == removed(spark, whole)
    assert any("chained" in row[3] for row in after)
    version = tables.version(REMOVALS)
    refresh(config)
    assert tables.version(REMOVALS) == version

    (tmp_path / "gone" / "2.jsonl").write_text('{"name": "d1"}')
    with pytest.raises(InputError, match=r"2\.jsonl has the line .* gives no id"):
        run_stage(config, "ingest", CORPUS["ingest"])


def test_other_settings_judge_anew_and_refuse_an_index_that_was_not_made_with_them(spark, whole, tmp_path):
    shutil.copytree(whole.storage.root, tmp_path / "store")
    config = replace(elsewhere(whole, tmp_path), documents=whole.documents)
    strict = replace(config, deduplicate=replace(config.deduplicate, threshold=1.0))

    def killed(job: Job) -> Outcome:
        CORPUS[job.stage](job)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run_stage(strict, "deduplicate", killed)
    found = {row[2] for row in removed(spark, strict) if row[1] == "deduplicate"}
    assert "exact_duplicate" in found
    assert {row for row in removed(spark, strict) if row[2] == "near_duplicate"} < {
        row for row in removed(spark, whole) if row[2] == "near_duplicate"
    }
    refresh(config)  # what the killed job wrote is not taken for these settings' own
    assert removed(spark, config) == removed(spark, whole)
    other = replace(config, deduplicate=replace(config.deduplicate, bands=14, rows=8))
    with pytest.raises(TableError, match=r"written with shingle_words=5, bands=16, .* has shingle_words=5, bands=14,"):
        run_stage(other, "deduplicate", CORPUS["deduplicate"])

"""The corpus jobs in a row, on Delta: what each removes, what a rerun does, what a changed setting changes."""

from __future__ import annotations

import json

from equal.config import load
from equal.io.marks import Marks
from equal.io.references import read_spared
from equal.io.stage import run_stage
from equal.io.tables import Tables
from equal.jobs.decontaminate import decontaminate
from equal.jobs.deduplicate import deduplicate
from equal.jobs.ingest import ingest
from equal.jobs.quality import quality
from equal.schemas import DOCUMENTS, REMOVALS
from equal.transforms.documents import kept_documents

BODY = "The sample variance divides the sum of squared deviations by one less than the number of values in the sample "
QUESTION = "A die is rolled twice; what is the probability that both rolls show a six?"


def test_documents_pass_through_the_four_stages(spark, tmp_path):
    (tmp_path / "in").mkdir()
    texts = {
        "original": BODY + "which makes it an unbiased estimate.",
        "respaced": BODY.replace(" ", "\n") + "which makes it an unbiased estimate.",
        "edited": BODY + "which makes it an unbiased guess.",
        "planted": "From an exam. " + QUESTION,
        "unfit": "Hardly a word is here.",
        **{f"own{i}": f"Text {i} stands for itself alone, with {i * 7} and {i * 13} in it." for i in range(4)},
    }
    lines = [json.dumps({"id": name, "text": text}) for name, text in texts.items()]
    (tmp_path / "in" / "docs.jsonl").write_text("\n".join([*lines, "{broken"]))
    (tmp_path / "exam.jsonl").write_text(json.dumps({"id": "e1", "question": QUESTION, "answer": "1/36"}))

    def config(threshold: float):
        return load(
            None,
            [
                f"storage.root={tmp_path / 'root'}", f"documents.path={tmp_path / 'in'}", "documents.min_chars=20",
                f"decontaminate.benchmarks={{exam: {tmp_path / 'exam.jsonl'}}}", f"deduplicate.threshold={threshold}",
                "quality.min_words=8", "spark.partitions=2",
            ],
        )  # fmt: skip

    def removed() -> dict[str, str]:
        named = tables.read(REMOVALS).join(tables.read(DOCUMENTS).select("doc_id", "source_id"), "doc_id", "left")
        return {r.source_id or "-": r.reason for r in named.collect()}

    tables = Tables(spark, str(tmp_path / "root"))
    expected = {
        "-": "unreadable_line", "unfit": "few_words",
        "respaced": "exact_duplicate", "edited": "near_duplicate", "planted": "contaminated"
    }  # fmt: skip
    stages = {"ingest": ingest, "quality": quality, "deduplicate": deduplicate, "decontaminate": decontaminate}
    for name, body in stages.items():
        run_stage(config(0.75), name, body)
    assert removed() == expected
    version = tables.version(REMOVALS)
    for name in ("quality", "deduplicate", "decontaminate"):
        run_stage(config(0.75), name, stages[name])
    assert tables.version(REMOVALS) == version
    kept = kept_documents(tables.read(DOCUMENTS), tables.read(REMOVALS))
    assert {r.source_id for r in kept.collect()} == {"original", "own0", "own1", "own2", "own3"}

    mark = Marks.read(tables, config(0.75)).of("decontaminate")
    details = json.loads(mark["details"])
    assert (details["contaminated"], details["spared"]) == (1, 0)
    spared = tmp_path / "root" / "decontaminate" / f"{mark['input_hash']}.json"
    assert read_spared(str(spared)) == frozenset()

    del expected["edited"]
    run_stage(config(1.0), "deduplicate", deduplicate)
    assert removed() == expected

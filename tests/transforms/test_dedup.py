"""Planted duplicates are found, a search through all pairs agrees, partitions and order do not matter."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal

import numpy as np
from pyspark import TaskContext
from pyspark.sql import functions as F

from equal.core.minhash import Permutations, jaccard, shingles
from equal.core.ngrams import normalise
from equal.core.texts import Texts
from equal.schemas import REMOVALS, SCHEMAS
from equal.transforms import dedup
from equal.transforms.band_index import near_new
from equal.transforms.dedup import band_keys, find_duplicates, find_groups, overtaken, settled_components

HOW = {"shingle_words": 3, "permutations": Permutations.seeded(bands=5, rows=4, seed=17)}
SCHEMA = "doc_id string, content_hash string, num_chars int, source_file string, text string"


def duplicates(frame, partitions: int, **limit: int) -> list:
    """Of a corpus that comes in one load."""
    nothing = frame.sparkSession.createDataFrame([], "doc_id string, kept string")
    index = band_keys(frame, **HOW).withColumn("fresh", F.lit(True))
    groups = find_groups(index, nothing, nothing, partitions, **limit)
    return find_duplicates(frame, groups, threshold=0.75, num_partitions=partitions, **HOW).collect()


def row(doc_id: str, text: str) -> tuple[str, str, int, str, str]:
    return doc_id, normalise(text), len(text), f"file-{doc_id}", text


def corpus() -> list[tuple[str, str, int, str, str]]:
    """About 300 documents: originals, edited copies on both sides of the threshold, respaced copies of each."""
    rng = random.Random(5)
    texts = []
    for _ in range(90):
        tokens = [str(rng.randrange(400)) for _ in range(rng.randrange(3, 90))]
        texts.append(" ".join(tokens))
        for _ in range(rng.randrange(4)):
            tokens = list(tokens)
            for _ in range(rng.randrange(1, 4)):
                tokens[rng.randrange(len(tokens))] = str(rng.randrange(400))
            texts.append(" ".join(tokens))
            if rng.random() < 0.5:
                texts.append(" ".join(tokens).replace(" ", "  "))
    texts += ["...", "!!!", "", "?"]
    return [row(f"{rng.randrange(16**8):08x}", text) for text in texts]


def expected_kept(rows: list[tuple[str, str, int, str, str]]) -> dict[str, str]:
    """Dropped to kept, by comparing all pairs."""
    permutations = Permutations.seeded(bands=5, rows=4, seed=17)
    sets = [shingles(r[4], 3) for r in rows]
    found, has_words = permutations.band_keys(Texts.of([r[4] for r in rows]), 3)
    keys = [row if known else row[:0] for row, known in zip(found, has_words)]
    parents = list(range(len(rows)))

    def root(i: int) -> int:
        while parents[i] != i:
            i = parents[i]
        return i

    for a, b in itertools.combinations(range(len(rows)), 2):
        near = np.intersect1d(keys[a], keys[b]).size and jaccard(sets[a], sets[b]) >= 0.75
        if rows[a][1] == rows[b][1] or near:
            parents[root(a)] = root(b)
    kept: dict[int, int] = {}
    for i, r in enumerate(rows):
        best = kept.get(root(i), i)
        kept[root(i)] = min(best, i, key=lambda j: (-rows[j][2], rows[j][0]))
        del r
    return {r[0]: rows[kept[root(i)]][0] for i, r in enumerate(rows) if kept[root(i)] != i}


def test_a_search_through_all_pairs_agrees_for_any_partitions_and_order(spark):
    rows = corpus()
    results = []
    for partitions, tasks in ((1, 64), (7, 1), (64, 7)):
        frame = spark.createDataFrame(rows, SCHEMA).repartition(partitions)
        found = duplicates(frame, tasks)
        results.append({tuple(r) for r in found})
        random.Random(partitions).shuffle(rows)
    assert results[0] == results[1] == results[2]
    removed = {r[0]: json.loads(r[4]) for r in results[0]}
    expected = expected_kept(rows)
    assert {doc_id: evidence["kept"] for doc_id, evidence in removed.items()} == expected
    assert len(expected) > 100
    texts = {r[0]: r[4] for r in rows}
    for doc_id, stage, reason, source_file, _ in results[0]:
        evidence = removed[doc_id]
        same = normalise(texts[doc_id]) == normalise(texts[evidence["kept"]])
        assert (stage, source_file) == ("deduplicate", f"file-{doc_id}")
        assert (reason == "exact_duplicate") == same
        value = 1.0 if same else jaccard(shingles(texts[doc_id], 3), shingles(texts[evidence["kept"]], 3))
        assert evidence["jaccard"] == round(value, 6)
        assert evidence.get("chained", False) == (value < 0.75)
        assert evidence["kept"] not in removed


def test_five_loads_in_any_order_lead_to_the_removals_of_one(spark):
    """A later, longer twin takes the place of what was kept before, and what hung on that hangs on it."""
    rows = corpus()
    whole = {tuple(r) for r in duplicates(spark.createDataFrame(rows, SCHEMA), 2)}
    random.Random(8).shuffle(rows)
    index, found_before, changed = None, set(), 0
    nothing_gone = spark.createDataFrame([], "doc_id string")
    for load in range(5):
        removals = spark.createDataFrame(list(found_before), SCHEMAS[REMOVALS]).coalesce(1)
        new = spark.createDataFrame(rows[load::5], SCHEMA).coalesce(1)
        documents = spark.createDataFrame([r for i, r in enumerate(rows) if i % 5 <= load], SCHEMA).coalesce(1)
        fresh = band_keys(new, **HOW).withColumn("fresh", F.lit(True))
        index = fresh if index is None else index.withColumn("fresh", F.lit(False)).union(fresh)
        index = index.localCheckpoint()  # a job reads tables; without this each load would work out all before it anew
        settled, reopened = (frame.localCheckpoint() for frame in settled_components(removals, nothing_gone))
        limit = {"driver_keys": 0} if load == 3 else {}  # more than is sent around, so all is shuffled
        groups = find_groups(near_new(index, reopened, **limit), settled, reopened, 1).localCheckpoint()
        found = find_duplicates(documents, groups, threshold=0.75, num_partitions=1, **HOW)
        stale = overtaken(removals, nothing_gone, groups, reopened)
        now = {tuple(r) for r in removals.join(stale, "doc_id", "left_anti").unionByName(found).collect()}
        found_before, changed = now, changed + len(found_before - now)
    assert found_before == whole
    assert changed > 0


def test_a_task_that_is_killed_half_way_and_tried_again_changes_nothing(spark):
    rows = corpus()
    frame = spark.createDataFrame(rows, SCHEMA).repartition(3)
    killed = spark.sparkContext.accumulator(0)

    def die_once(batches):
        context = TaskContext.get()
        for batch in batches:
            yield batch
            if context.partitionId() == 1 and context.attemptNumber() == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            killed.add(context.partitionId() == 1)

    dying = frame.mapInArrow(die_once, SCHEMA)
    assert {tuple(r) for r in duplicates(dying, 3)} == {tuple(r) for r in duplicates(frame, 3)}
    assert killed.value > 0  # a second attempt came to its end


def test_edges_known_from_before_count_among_those_that_the_driver_joins(spark, monkeypatch):
    frame = spark.createDataFrame(
        [row("a", "one text that is here twice"), row("b", "one text that is here twice")], SCHEMA
    )
    index = band_keys(frame, **HOW).withColumn("fresh", F.lit(True))
    settled = spark.createDataFrame([(f"dropped-{i}", "kept") for i in range(4)], "doc_id string, kept string")
    for way in ("driver_components", "star_components"):
        monkeypatch.setattr(dedup, way, lambda *_, way=way: way)
    nothing = settled.limit(0)
    for limit, way in ((9, "driver_components"), (8, "star_components")):  # five bands, four from before
        assert find_groups(index, settled, nothing, 1, driver_edges=limit) == way


def test_a_corpus_without_duplicates_loses_nothing(spark):
    rows = [row(str(i), f"entirely its own words {i} {i * 7} {i * 31}") for i in range(5)]
    frame = spark.createDataFrame(rows, SCHEMA)
    assert duplicates(frame, 2) == duplicates(frame, 2, driver_edges=-1) == []

"""Exact and near duplicates: MinHash LSH proposes, exact Jaccard decides, one document of each group stays.

    texts -> band keys, packed -> (shuffle) who shares a key -> driver: groups -> (shuffle) verified texts

The first pass reads texts where they lie and makes band keys, a few blobs a task instead of a row a key. They are
kept, so that a later load is compared with them and not with texts. Candidate groups are joined as 64-bit numbers, on
the driver while they fit there (`components`); the last pass brings each group's texts together. A component of
duplicates is a function of the texts in it: a load that touches one leads to the same removals as if all had come at
once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from equal.core.minhash import Permutations, ShingleSets, verify_duplicates
from equal.schemas import DOC_ID, EVIDENCE, REASON, REMOVALS, SCHEMAS, SOURCE_FILE, STAGE, TEXT
from equal.transforms.arrow import packed_texts
from equal.transforms.components import DRIVER_EDGES, driver_components, star_components

#: documents whose band keys a task holds before it sends them on; a band's keys are shared out among so many buckets
_FLUSH_DOCUMENTS, _SHARES = 1 << 20, 8

_VERIFIED = "doc_id string, source_file string, kept string, jaccard double, same_content boolean"

EXACT_DUPLICATE, NEAR_DUPLICATE = "exact_duplicate", "near_duplicate"


def band_keys(documents: DataFrame, *, shingle_words: int, permutations: Permutations) -> DataFrame:
    """The LSH band keys of documents, packed by bucket (a band and a share of its keys).

    Args:
        documents: doc_id, content_hash, text. They are read where they lie, without a shuffle.
        shingle_words: words a shingle.
        permutations: of the signatures.

    Returns:
        bucket, band_keys, doc_keys: in each row n keys and the n documents (xxhash64 of doc_id) that have them, int64.
    """
    texts = documents.select(
        F.xxhash64(DOC_ID).alias("doc_key"), F.xxhash64("content_hash").alias("content_key"), TEXT
    )
    return texts.mapInArrow(_bander(shingle_words, permutations), "bucket int, band_keys binary, doc_keys binary")


def settled_components(removals: DataFrame, gone: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Part earlier findings into those that still hold and those that lost a document, which must be looked at again.

    Args:
        removals: of this stage.
        gone: doc_id of the documents that no longer take part: few, where those that do are a million.

    Returns:
        doc_id, kept of every document that was dropped for another and whose component is whole; and doc_id of the
        documents left of the other components.
    """
    dropped = removals.select(DOC_ID, F.get_json_object(EVIDENCE, "$.kept").alias("kept"))
    members = dropped.union(dropped.select("kept", "kept").distinct())
    broken = members.join(gone, DOC_ID, "left_semi").select("kept").distinct()
    left = members.join(broken, "kept").select(DOC_ID).join(gone, DOC_ID, "left_anti")
    return dropped.join(broken, "kept", "left_anti").select(DOC_ID, "kept"), left


def overtaken(removals: DataFrame, gone: DataFrame, groups: DataFrame, reopened: DataFrame) -> DataFrame:
    """doc_id of earlier findings that no longer count: found anew in a group, freed, or of a document that is gone.

    Args:
        removals: of this stage.
        gone: doc_id of the documents that no longer take part.
        groups: from `find_groups`.
        reopened: from `settled_components`.
    """
    grouped = removals.join(groups, F.xxhash64(DOC_ID) == F.col("doc_key"), "left_semi").select(DOC_ID)
    return grouped.union(removals.join(gone, DOC_ID, "left_semi").select(DOC_ID)).union(reopened).distinct()


def find_duplicates(
    documents: DataFrame,
    groups: DataFrame,
    *,
    shingle_words: int,
    permutations: Permutations,
    threshold: float,
    num_partitions: int,
) -> DataFrame:
    """Name every document that repeats another; of each component the longest text stays, then the smallest doc_id.

    Args:
        documents: doc_id, content_hash, num_chars, source_file, text.
        groups: from `find_groups`.
        shingle_words: words a shingle.
        permutations: those of the band keys.
        threshold: exact Jaccard of shingle sets from which two documents are one.
        num_partitions: tasks.

    Returns:
        Rows of `removals`. Evidence holds `kept`, the document that stays, and `jaccard` to it; where a document
        is tied to it only through others, so that the Jaccard lies below the threshold, it says `chained`.
    """
    texts = documents.select(
        DOC_ID, SOURCE_FILE, "num_chars", TEXT,
        F.xxhash64(DOC_ID).alias("doc_key"), F.xxhash64("content_hash").alias("content_key"),
    )  # fmt: skip
    found = (
        texts.join(groups, "doc_key")
        .repartition(num_partitions, "group")
        .sortWithinPartitions("group", F.desc("num_chars"), DOC_ID)  # the first of a component stays
        .select("group", DOC_ID, SOURCE_FILE, "content_key", TEXT)
        .mapInArrow(_verifier(shingle_words, permutations, threshold), _VERIFIED)
    )
    chained = F.when(F.col("jaccard") < threshold, F.lit(True)).alias("chained")
    evidence = F.to_json(F.struct("kept", F.round("jaccard", 6).alias("jaccard"), chained))
    reason = F.when(F.col("same_content"), EXACT_DUPLICATE).otherwise(NEAR_DUPLICATE)
    removals = found.select("*", evidence.alias(EVIDENCE), reason.alias(REASON), F.lit("deduplicate").alias(STAGE))
    return removals.select(*SCHEMAS[REMOVALS].fieldNames())


def find_groups(
    index: DataFrame, settled: DataFrame, reopened: DataFrame, num_partitions: int, driver_edges: int = DRIVER_EDGES
) -> DataFrame:
    """The documents that must be compared: those that share a band with a new one, directly or through others.

    Two documents may share a doc_key by chance; that only puts more documents into a group. Runs Spark jobs.

    Args:
        index: `band_keys` of all documents, or what `near_new` leaves of them, and `fresh`: whether the row's are new.
        settled: doc_id, kept, from `settled_components`; a component goes into a group whole.
        reopened: doc_id of documents that are to be compared as if they were new.
        num_partitions: tasks.
        driver_edges: pairs of documents, those of `settled` too, above which they stay on the executors.

    Returns:
        doc_key, group.
    """
    again = reopened.select(F.xxhash64(DOC_ID)).toPandas().to_numpy(np.int64)[:, 0]
    known = settled.select(F.xxhash64(DOC_ID).alias("left"), F.xxhash64("kept").alias("right")).persist()
    met = (
        index.repartition(num_partitions, "bucket")
        .groupBy("bucket")
        .applyInPandas(lambda bucket: _meet(bucket, again), "left long, right long")
        .persist()
    )
    try:
        join = driver_components if met.count() + known.count() <= driver_edges else star_components
        return join(met, known)
    finally:
        met.unpersist()
        known.unpersist()


def _bander(
    shingle_words: int, permutations: Permutations
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def band(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        keys: list[np.ndarray] = []
        owners: list[np.ndarray] = []
        for batch in batches:
            doc_keys, content_keys = (batch.column(i).to_numpy(zero_copy_only=False) for i in range(2))
            found, has_words = permutations.band_keys(packed_texts(batch.column(2)), shingle_words)
            found[~has_words] = content_keys[~has_words, None]  # without words only the same content is a duplicate
            keys.append(found)
            owners.append(doc_keys)
            if sum(map(len, owners)) >= _FLUSH_DOCUMENTS:
                yield _packed(np.concatenate(keys), np.concatenate(owners))
                keys, owners = [], []
        if owners:
            yield _packed(np.concatenate(keys), np.concatenate(owners))

    return band


def _packed(keys: np.ndarray, owners: np.ndarray) -> pa.RecordBatch:
    """Rows of (bucket, band keys, owners): a bucket is a band and a share of its keys, so none grows too large."""
    rows = []
    for band in range(keys.shape[1]):
        share = keys[:, band] % _SHARES
        for part in range(_SHARES):
            chosen = share == part
            if chosen.any():
                rows.append((band * _SHARES + part, keys[chosen, band].tobytes(), owners[chosen].tobytes()))
    columns = list(zip(*rows)) or [(), (), ()]
    types = (pa.int32(), pa.binary(), pa.binary())
    arrays = [pa.array(values, kind) for values, kind in zip(columns, types)]
    return pa.RecordBatch.from_arrays(arrays, names=["bucket", "band_keys", "doc_keys"])


def _meet(bucket: pd.DataFrame, again: np.ndarray) -> pd.DataFrame:
    """Edges from the lowest document of every band key to the others that have it, where one of them is fresh."""
    keys = np.frombuffer(b"".join(bucket["band_keys"]), np.int64)
    owners = np.frombuffer(b"".join(bucket["doc_keys"]), np.int64)
    fresh = np.repeat(bucket["fresh"].to_numpy(bool), bucket["doc_keys"].str.len().to_numpy() // 8)
    fresh |= np.isin(owners, again)
    asked = keys if fresh.all() else np.unique(keys[fresh])
    chosen = np.isin(keys, asked) if len(asked) < len(keys) else np.ones(len(keys), bool)
    keys, owners = keys[chosen], owners[chosen]
    order = np.argsort(keys)
    same = keys[order[1:]] == keys[order[:-1]]
    several = order[(np.append(same, False) | np.append(False, same))[: len(keys)]]  # few: most keys have one document
    keys, owners = keys[several], owners[several]
    order = np.lexsort((owners, keys))
    keys, owners = keys[order], owners[order]
    repeats = np.append(False, keys[1:] == keys[:-1])[: len(keys)]
    first = np.maximum.accumulate(np.where(repeats, 0, np.arange(len(keys))))
    return pd.DataFrame({"left": owners[first[repeats]], "right": owners[repeats]})


def _verifier(
    shingle_words: int, permutations: Permutations, threshold: float
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def verify(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held: list[pa.RecordBatch] = []  # of the last group, which may go on in the next batch
        last = None
        for batch in batches:
            if not batch.num_rows:
                continue
            groups = batch.column(0).to_numpy()
            if groups[-1] == last:
                held.append(batch)
                continue
            last = groups[-1]
            begun = int(np.searchsorted(groups, last))
            if held or begun:
                yield _verified([*held, batch.slice(0, begun)], shingle_words, permutations, threshold)
            held = [batch.slice(begun)]
        if held:
            yield _verified(held, shingle_words, permutations, threshold)

    return verify


def _verified(
    batches: list[pa.RecordBatch], shingle_words: int, permutations: Permutations, threshold: float
) -> pa.RecordBatch:
    """What is dropped of whole groups, in the columns of _VERIFIED."""
    groups, ids, files, contents, texts = pa.Table.from_batches(batches).columns
    content = contents.to_numpy()
    sets = ShingleSets.of(packed_texts(texts.cast(pa.large_string()).combine_chunks()), shingle_words)
    sets = sets.or_else(content)  # as in the first pass
    found = verify_duplicates(sets, permutations.keys_of(sets), groups.to_numpy(), threshold)
    dropped, kept = (name.combine_chunks() for name in (ids.take(found.dropped), ids.take(found.kept)))
    columns = [
        dropped, files.take(found.dropped).combine_chunks(), kept,
        pa.array(found.jaccard), pa.array(content[found.dropped] == content[found.kept]),
    ]  # fmt: skip
    return pa.RecordBatch.from_arrays(columns, names=[DOC_ID, SOURCE_FILE, "kept", "jaccard", "same_content"])

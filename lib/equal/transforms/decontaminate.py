"""Documents that hold benchmark items, and the n-grams too common to prove it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from equal.core.contamination import BenchmarkIndex, Hit
from equal.schemas import DOC_ID, EVIDENCE, REASON, REMOVALS, SCHEMAS, SOURCE_FILE, STAGE, TEXT
from equal.transforms.arrow import raw_texts

CONTAMINATED = "contaminated"
#: an n-gram in fewer documents than this is never boilerplate, however small the corpus
MIN_BOILERPLATE_DOCUMENTS = 10
#: n-grams named for each benchmark
FREQUENT_NGRAMS = 10

_HITS = pa.schema(
    [
        (DOC_ID, pa.string()), (SOURCE_FILE, pa.string()), ("benchmark", pa.string()), ("item_id", pa.string()),
        ("ngram", pa.string()), ("key", pa.int64()), ("position", pa.int32()),
    ]
)  # fmt: skip
_HITS_DDL = "doc_id string, source_file string, benchmark string, item_id string, ngram string, key long, position int"


@dataclass(frozen=True)
class SharedIndex:
    """A benchmark index that executors get by a broadcast of its own.

    Spark writes to disk what is too large to travel with a task, and the endpoint's key must not be beside it there.
    """

    broadcast: Broadcast[BenchmarkIndex]

    def match(self, text: str) -> Hit | None:
        """Look a pair up in the benchmarks."""
        return self.broadcast.value.match(text)


def find_hits(documents: DataFrame, index: BenchmarkIndex) -> DataFrame:
    """Look for benchmark n-grams in every document.

    Args:
        documents: doc_id, source_file, text.
        index: of the benchmarks, with nothing spared.

    Returns:
        doc_id, source_file, benchmark, item_id, ngram, key, position; one row a document and distinct n-gram.
    """
    # no shuffle: the texts are searched where they are read
    return documents.select(DOC_ID, SOURCE_FILE, TEXT).mapInArrow(_finder(index), _HITS_DDL)


def spared_ngrams(hits: DataFrame, num_documents: int, *, max_document_share: float) -> DataFrame:
    """The n-grams that are boilerplate: in more than this share of the documents and in at least ten.

    Returns:
        key, ngram, benchmark, item_id, documents, most common first.
    """
    counts = hits.groupBy("key", "ngram", "benchmark", "item_id").agg(F.count("*").alias("documents"))
    common = (F.col("documents") > num_documents * max_document_share) & (
        F.col("documents") >= MIN_BOILERPLATE_DOCUMENTS
    )
    ordered = counts.where(common).orderBy(F.desc("documents"), "ngram")
    return ordered.select("key", "ngram", "benchmark", "item_id", "documents")


def find_contaminated(hits: DataFrame, spared: DataFrame) -> DataFrame:
    """Name every document with an n-gram that is not spared.

    Args:
        hits: from `find_hits`.
        spared: from `spared_ngrams`.

    Returns:
        Rows of `removals`; evidence holds benchmark, item_id, n-gram and position (in words) of the first hit in the
        text, and `num_ngrams`, how many distinct ones the document shares.
    """
    telling = hits.join(F.broadcast(spared.select("key")), "key", "left_anti")
    in_text = Window.partitionBy(DOC_ID)
    first = telling.withColumn("rank", F.row_number().over(in_text.orderBy("position", F.length("ngram"), "ngram")))
    first = first.withColumn("num_ngrams", F.count("*").over(in_text)).where("rank = 1")
    return first.select(
        DOC_ID,
        F.lit("decontaminate").alias(STAGE),
        F.lit(CONTAMINATED).alias(REASON),
        SOURCE_FILE,
        F.to_json(F.struct("benchmark", "item_id", "ngram", "position", "num_ngrams")).alias(EVIDENCE),
    ).select(*SCHEMAS[REMOVALS].fieldNames())


def count_by_benchmark(hits: DataFrame, spared: DataFrame) -> DataFrame:
    """What each benchmark that was met cost the corpus, and by which words.

    Returns:
        benchmark, documents (that hold one of its n-grams), items (met), spared (n-grams), frequent (its ten n-grams
        in most documents: ngram, documents). Spared n-grams count in `spared` alone.
    """
    telling = hits.join(F.broadcast(spared.select("key")), "key", "left_anti")
    totals = telling.groupBy("benchmark").agg(
        F.countDistinct(DOC_ID).alias("documents"), F.countDistinct("item_id").alias("items")
    )
    counts = telling.groupBy("benchmark", "ngram").agg(F.countDistinct(DOC_ID).alias("documents"))
    common_first = F.row_number().over(Window.partitionBy("benchmark").orderBy(F.desc("documents"), "ngram"))
    frequent = counts.withColumn("rank", common_first).where(F.col("rank") <= FREQUENT_NGRAMS)
    by_rank = F.sort_array(F.collect_list(F.struct("rank", "ngram", "documents")))
    named = F.transform(
        by_rank, lambda row: F.struct(row["ngram"].alias("ngram"), row["documents"].alias("documents"))
    )
    frequent = frequent.groupBy("benchmark").agg(named.alias("frequent"))
    left_out = spared.groupBy("benchmark").agg(F.count("*").alias("spared"))
    met = totals.join(frequent, "benchmark").join(left_out, "benchmark", "full")
    return met.fillna(0, ["documents", "items", "spared"]).select(
        "benchmark", "documents", "items", "spared", "frequent"
    )


def _finder(index: BenchmarkIndex) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def find(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            suspects = batch.filter(pa.array(index.candidates(raw_texts(batch.column(2)))))
            rows = [
                (doc_id, source_file, hit.benchmark, hit.item_id, hit.ngram, hit.key, hit.position)
                for doc_id, source_file, text in zip(*(suspects.column(i).to_pylist() for i in range(3)))
                for hit in index.matches(text)
            ]
            arrays = [pa.array([row[i] for row in rows], field.type) for i, field in enumerate(_HITS)]
            yield pa.RecordBatch.from_arrays(arrays, schema=_HITS)

    return find

"""Table names, column-name constants and one StructType per table.

Long text and embeddings stand last: Delta keeps statistics for the first 32 columns only.
"""

from __future__ import annotations

from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

DOC_ID, TEXT, SOURCE_ID, SOURCE_FILE = "doc_id", "text", "source_id", "source_file"
STAGE, REASON, EVIDENCE = "stage", "reason", "evidence"
#: in place of a stage, of documents that were there and that their source has taken back
WITHDRAWN = "withdrawn"
CLUSTERING, CLUSTER_ID, ARM_ID, DISTANCE, EMBEDDING = "clustering", "cluster_id", "arm_id", "distance", "embedding"
RUN_ID, ITERATION, REQUEST_KEY, PAIR_ID = "run_id", "iteration", "request_key", "pair_id"
QUESTION, ANSWER = "question", "answer"

DOCUMENTS = "documents"
REMOVALS = "removals"
BAND_KEYS = "band_keys"
BENCHMARK_HITS = "benchmark_hits"
EMBEDDINGS = "embeddings"
CENTROIDS = "centroids"
ASSIGNMENTS = "assignments"
REPLIES = "replies"
EXTRACTIONS = "extractions"
QA_PAIRS = "qa_pairs"
ARM_HISTORY = "arm_history"
ITERATIONS = "iterations"
SELECTED_PAIRS = "selected_pairs"
COSTS = "costs"
ESTIMATES = "estimates"
EVALUATIONS = "evaluations"
STAGES = "stages"

#: iteration number of the warm-up documents, an arm's first observation
WARM_UP_ITERATION = 0


def _struct(**columns: DataType) -> StructType:
    return StructType([StructField(name, kind) for name, kind in columns.items()])


_S, _I, _L, _D, _B, _T = StringType(), IntegerType(), LongType(), DoubleType(), BooleanType(), TimestampType()
_VECTOR = ArrayType(FloatType())

#: one pair as the extraction leaves it; `reason` is null when the pair counts, `evidence` says why it does not
PAIR = _struct(
    pair_id=_S,
    passage_index=_I,
    accepted=_B,
    reason=_S,
    evidence=_S,
    similarity=_D,
    question=_S,
    answer=_S,
    embedding=_VECTOR,
)

SCHEMAS: dict[str, StructType] = {
    # one row a kept input record; batch is the load it came with; text is cleaned
    DOCUMENTS: _struct(
        doc_id=_S, source_id=_S, source_file=_S, content_hash=_S, num_chars=_I, ingested_at=_T, batch=_L, text=_S
    ),
    # one row a dropped record: reason in words a person can group by, evidence as JSON
    REMOVALS: _struct(doc_id=_S, stage=_S, reason=_S, source_file=_S, evidence=_S),
    # what later loads are compared with: the LSH band keys of the documents up to a batch, many to a row
    BAND_KEYS: _struct(settings=_S, batch=_L, bucket=_I, band_keys=BinaryType(), doc_keys=BinaryType()),
    # one row a document and benchmark n-gram in it, whether it led to a removal or not
    BENCHMARK_HITS: _struct(
        batch=_L, doc_id=_S, source_file=_S, benchmark=_S, item_id=_S, ngram=_S, key=_L, position=_I
    ),
    EMBEDDINGS: _struct(doc_id=_S, embedding=_VECTOR),
    # clustering: input_hash of the cluster stage; earlier ones stay, as an arm_id is a cluster_id of its run's own
    CENTROIDS: _struct(clustering=_S, cluster_id=_I, num_documents=_L, fingerprint=_S, centroid=_VECTOR),
    ASSIGNMENTS: _struct(clustering=_S, doc_id=_S, cluster_id=_I, distance=_D),
    # every paid-for reply, and the run that paid, `corpus` for the warm-up; errors are not here but in extractions
    REPLIES: _struct(
        request_key=_S,
        passage_key=_S,
        prompt_version=_S,
        model=_S,
        finish_reason=_S,
        prompt_tokens=_L,
        cached_tokens=_L,
        completion_tokens=_L,
        latency_ms=_D,
        attempts=_I,
        received_at=_T,
        parameters=_S,
        messages=_S,
        text=_S,
        run_id=_S,
    ),
    # one row a document and pass; on the row marked final stand the document's one outcome, its pairs, and how many
    # of the requests about it the endpoint failed: above 0 it is a dead letter, also when others gave pairs
    EXTRACTIONS: _struct(
        run_id=_S,
        iteration=_I,
        arm_id=_I,
        doc_id=_S,
        **{"pass": _S},
        final=_B,
        status=_S,
        prompt_version=_S,
        calls=_I,
        cached_calls=_I,
        attempts=_I,
        prompt_tokens=_L,
        completion_tokens=_L,
        paid_prompt_tokens=_L,
        paid_cached_tokens=_L,
        paid_completion_tokens=_L,
        needed_tokens=_L,
        needed_money=_D,
        passages=_I,
        unserved=_I,
        num_pairs=_I,
        num_rejected=_I,
        request_keys=ArrayType(_S),
        error=_S,
        pairs=ArrayType(PAIR),
    ),
    QA_PAIRS: _struct(
        pair_id=_S,
        run_id=_S,
        iteration=_I,
        arm_id=_I,
        doc_id=_S,
        passage_index=_I,
        similarity=_D,
        question=_S,
        answer=_S,
        embedding=_VECTOR,
    ),
    # one row an arm that was pulled in the iteration; rewards are of all its pairs so far
    ARM_HISTORY: _struct(
        run_id=_S,
        iteration=_I,
        arm_id=_I,
        pulls=_I,
        documents=_L,
        pairs=_L,
        reward=_D,
        standard_error=_D,
        ds_score=_D,
        converged=_B,
        exhausted=_B,
        fingerprint=_S,
    ),
    # written last: an iteration without its row did not happen
    ITERATIONS: _struct(
        run_id=_S,
        iteration=_I,
        warm_up=_B,
        arms=ArrayType(_I),
        documents=_L,
        pairs=_L,
        prompt_tokens=_L,
        completion_tokens=_L,
        money=_D,
        total_documents=_L,
        total_tokens=_L,
        total_money=_D,
        reserved_tokens=_L,
        reserved_money=_D,
        stop_reason=_S,
        clustering=_S,
        history_hash=_S,
        fingerprint=_S,
        started_at=_T,
        finished_at=_T,
    ),
    # duplicates: accepted pairs that this one stands for, better-ranked as it is; reason: same_question or near
    SELECTED_PAIRS: _struct(
        run_id=_S,
        method=_S,
        pair_id=_S,
        rank=_I,
        score=_D,
        round=_I,
        arm_id=_I,
        doc_id=_S,
        question=_S,
        answer=_S,
        duplicates=ArrayType(_struct(pair_id=_S, reason=_S, similarity=_D)),
    ),
    # cached_tokens are those of the prompt_tokens that the server's prefix cache answered
    COSTS: _struct(
        run_id=_S,
        stage=_S,
        iteration=_I,
        documents=_L,
        calls=_L,
        cached_calls=_L,
        prompt_tokens=_L,
        cached_tokens=_L,
        completion_tokens=_L,
        seconds=_D,
        flops=_D,
        money=_D,
        recorded_at=_T,
    ),
    # what `extract --estimate` foresaw for the stages that ask the model
    ESTIMATES: _struct(
        run_id=_S,
        stage=_S,
        measure=_S,
        low=_D,
        value=_D,
        high=_D,
        ends_by=_S,
        sample=_I,
        estimated_at=_T,
    ),
    # item_values: one an item, in the order of the file, with the mean `value`: runs are compared item by item
    EVALUATIONS: _struct(
        run_id=_S,
        benchmark=_S,
        model=_S,
        metric=_S,
        value=_D,
        stderr=_D,
        low=_D,
        high=_D,
        items=_I,
        mlflow_run_id=_S,
        fingerprint=_S,
        evaluated_at=_T,
        item_values=ArrayType(_D),
    ),
    # completion marks: a stage is finished for an input when the row with that input_hash is here
    STAGES: _struct(
        run_id=_S,
        stage=_S,
        input_hash=_S,
        settings_hash=_S,
        batch=_L,
        fingerprint=_S,
        rows_in=_L,
        rows_out=_L,
        seconds=_D,
        details=_S,
        finished_at=_T,
    ),
}

"""Documents to passages: sentences by Spark NLP, packed into what one request reads.

Sentence detection is slow (hundreds of documents a second), so it sees only the documents that go to the model.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, IntegerType, StringType, StructField, StructType
from sparknlp.annotator import SentenceDetector
from sparknlp.base import DocumentAssembler

from equal.core.qa import passage_key
from equal.core.sentences import pack, split_at
from equal.schemas import ARM_ID, DOC_ID, TEXT

PASSAGE = StructType(
    [
        StructField("passage_index", IntegerType()),
        StructField("passage_key", StringType()),
        StructField("sentences", ArrayType(StringType())),
    ]
)
PASSAGES = StructType(
    [
        StructField(DOC_ID, StringType()),
        StructField(ARM_ID, IntegerType()),
        StructField("num_skipped", IntegerType()),
        StructField("passages", ArrayType(PASSAGE)),
    ]
)


def passages(documents: DataFrame, *, passage_chars: int, max_passages: int) -> DataFrame:
    """Cut documents into passages of whole sentences.

    Args:
        documents: doc_id, arm_id, text.
        passage_chars: longest passage; a passage's sentences join to the document's own text.
        max_passages: a document; later ones are counted in num_skipped.

    Returns:
        doc_id, arm_id, num_skipped, passages: array of (passage_index, passage_key, sentences).
    """

    def cut(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for frame in frames:
            cut_texts = [
                cut_text(text, detected, passage_chars) for text, detected in zip(frame[TEXT], frame["detected"])
            ]
            yield pd.DataFrame(
                {
                    DOC_ID: frame[DOC_ID],
                    ARM_ID: frame[ARM_ID],
                    "num_skipped": [max(len(found) - max_passages, 0) for found in cut_texts],
                    "passages": [found[:max_passages] for found in cut_texts],
                }
            )

    return detect_sentences(documents).mapInPandas(cut, PASSAGES)


def detect_sentences(documents: DataFrame) -> DataFrame:
    """doc_id, arm_id, text and `detected`: the sentences as Spark NLP's rules find them."""
    assembler = DocumentAssembler().setInputCol(TEXT).setOutputCol("document")
    # its list rule takes every word in brackets for a bullet
    detector = SentenceDetector().setInputCols(["document"]).setOutputCol("sentence").setDetectLists(False)
    annotated = detector.transform(assembler.transform(documents))
    return annotated.select(DOC_ID, F.col(ARM_ID).cast("int"), TEXT, F.col("sentence.result").alias("detected"))


def cut_text(text: str, detected: list[str], passage_chars: int) -> list[dict[str, object]]:
    """The passages of one document as rows of PASSAGE."""
    packed = pack(split_at(text, list(detected)), passage_chars)
    return [
        {"passage_index": index, "passage_key": passage_key("".join(sentences)), "sentences": sentences}
        for index, sentences in enumerate(packed)
    ]

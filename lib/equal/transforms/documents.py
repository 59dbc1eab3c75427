"""Raw records to documents: every record becomes a document or a removal with its reason, never neither.

A record passes through `parse_records` (what the file says), `clean_records` (what we make of it) and
`split_records` (where it goes). A record that is turned down keeps its reason and evidence; a document
gets an id that depends on its source id and text alone, so that files may come in any order and batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pandas as pd
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType
from sparknlp.annotator import DocumentNormalizer
from sparknlp.base import DocumentAssembler

from equal.core.ngrams import normalise
from equal.schemas import (
    DOC_ID,
    DOCUMENTS,
    EVIDENCE,
    REASON,
    REMOVALS,
    SCHEMAS,
    SOURCE_FILE,
    SOURCE_ID,
    STAGE,
    TEXT,
    WITHDRAWN,
)

UNREADABLE_LINE, WRONG_ENCODING = "unreadable_line", "wrong_encoding"
NULL_TEXT, BLANK_TEXT, TOO_SHORT, TOO_LONG = "null_text", "blank_text", "too_short", "too_long"
#: the same source id with the same text: one document, each further copy a removal
REPEATED_RECORD = "repeated_record"

#: characters of a bad line that are kept as evidence
_PREVIEW_CHARS = 200
_CORRUPT = "_corrupt"


def parse_records(raw: DataFrame, *, file_format: str, id_field: str, text_field: str) -> DataFrame:
    """Read source id and text out of what a file holds.

    Args:
        raw: `source_file` and, for jsonl and text, `value` (a line, a whole file); for parquet the file's columns.
        file_format: jsonl, parquet or text.
        id_field: field of the source's own id; empty when there is none. A text file's id is its name.
        text_field: field of the text.

    Returns:
        source_file, source_id, text, reason (null while nothing is wrong), preview. Blank lines are no records.
    """
    if file_format == "jsonl":
        return _parse_lines(raw, id_field, text_field)
    value = F.col("value") if file_format == "text" else F.col(f"`{text_field}`").cast("string")
    if file_format == "text":
        source_id = F.element_at(F.split(SOURCE_FILE, "/"), -1)
    else:
        source_id = F.col(f"`{id_field}`").cast("string") if id_field else F.lit(None).cast("string")
    reason = F.when(_is_misencoded(value), WRONG_ENCODING).when(value.isNull(), NULL_TEXT)
    return raw.select(
        SOURCE_FILE, source_id.alias(SOURCE_ID), value.alias(TEXT), reason.alias(REASON), _preview(value)
    )


def _parse_lines(raw: DataFrame, id_field: str, text_field: str) -> DataFrame:
    line = F.regexp_replace("value", "^\ufeff", "")
    fields = dict.fromkeys([text_field, *([id_field] if id_field else []), _CORRUPT])
    schema = StructType([StructField(name, StringType()) for name in fields])
    record = F.from_json(line, schema, {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": _CORRUPT})
    parsed = raw.where(F.trim(line) != "").select(SOURCE_FILE, "value", record.alias("record"))
    text = F.col("record").getField(text_field)
    # from_json takes an array of objects for its first object, and a bare number or string for nulls
    unreadable = F.col("record").getField(_CORRUPT).isNotNull() | ~F.ltrim(line).startswith("{")
    reason = (
        F.when(_is_misencoded(F.col("value")), WRONG_ENCODING)
        .when(F.coalesce(unreadable, F.lit(True)), UNREADABLE_LINE)
        .when(text.isNull(), NULL_TEXT)
    )
    source_id = F.col("record").getField(id_field) if id_field else F.lit(None).cast("string")
    body = F.when(reason == UNREADABLE_LINE, F.col("value")).otherwise(text)
    return parsed.select(
        SOURCE_FILE, source_id.alias(SOURCE_ID), body.alias(TEXT), reason.alias(REASON), _preview(F.col("value"))
    )


def _is_misencoded(value: Column) -> Column:
    """Whether a string's bytes are not UTF-8; Spark keeps them as they were read."""
    raw = value.cast("binary")
    return F.encode(F.decode(raw, "UTF-8"), "UTF-8") != raw


def _preview(value: Column) -> Column:
    return F.decode(F.substring(value, 1, _PREVIEW_CHARS).cast("binary"), "UTF-8").alias("preview")


def clean_records(
    records: DataFrame, known: DataFrame, *, min_chars: int, max_chars: int, markup_patterns: Sequence[str]
) -> DataFrame:
    """Clean markup, give ids, and turn down what is blank, too short, too long or already there.

    Args:
        records: as `parse_records` returns them.
        known: doc_id of the documents of earlier batches, and whether each was `withdrawn`: that one's text may
            come again, as a document of its own.
        min_chars: fewest characters of a cleaned text.
        max_chars: most characters of a text as it came; longer ones are not cleaned.
        markup_patterns: Java regular expressions; each match becomes a space.

    Returns:
        doc_id, source_id, source_file, content_hash, num_chars, text, reason, evidence; reason is null for a document.
    """
    num_chars, reason, text = F.col("num_chars"), F.col(REASON), F.col(TEXT)
    # a JSON reader gives up on a string of 20 million characters: such a line is too long, not broken
    too_long = (num_chars > max_chars) & (reason.isNull() | (reason == UNREADABLE_LINE))
    sized = records.withColumn("num_chars", F.length(TEXT)).withColumn(
        REASON, F.when(too_long, TOO_LONG).otherwise(reason)
    )
    open_text = F.when(reason.isNull(), text)
    cleaned = _clean_markup(sized.withColumn(TEXT, open_text), markup_patterns)
    judged = cleaned.withColumn("num_chars", F.when(reason.isNull(), F.length(TEXT)).otherwise(num_chars)).withColumn(
        REASON,
        F.coalesce(reason, F.when(~text.rlike(r"(?U)\S"), BLANK_TEXT), F.when(num_chars < min_chars, TOO_SHORT)),
    )
    identified = _identify(judged, known)
    limit = F.when(reason == TOO_LONG, max_chars).when(reason == TOO_SHORT, min_chars).alias("limit")
    evidence = F.to_json(F.struct(SOURCE_ID, "num_chars", limit, "repeats", "preview"))
    return identified.select(
        DOC_ID, SOURCE_ID, SOURCE_FILE, "content_hash", "num_chars", TEXT, REASON,
        F.when(reason.isNotNull(), evidence).alias(EVIDENCE),
    )  # fmt: skip


def split_records(cleaned: DataFrame, batch: int) -> tuple[DataFrame, DataFrame]:
    """Part the cleaned records of a batch into rows of `documents` and rows of `removals`."""
    came = {"ingested_at": F.current_timestamp(), "batch": F.lit(batch)}
    documents = cleaned.where(F.col(REASON).isNull()).withColumns(came)
    removals = cleaned.where(F.col(REASON).isNotNull()).withColumn(STAGE, F.lit("ingest"))
    return documents.select(*SCHEMAS[DOCUMENTS].fieldNames()), removals.select(*SCHEMAS[REMOVALS].fieldNames())


def kept_documents(documents: DataFrame, removals: DataFrame, *stages: str) -> DataFrame:
    """The documents that no stage removed; with `stages`, that none of those stages removed."""
    if stages:
        removals = removals.where(F.col(STAGE).isin(*stages))
    return documents.join(removals.select(DOC_ID), DOC_ID, "left_anti")


def _clean_markup(records: DataFrame, patterns: Sequence[str]) -> DataFrame:
    """Replace what matches by a space, keep line breaks and indentation, and drop what then trails.

    One DocumentNormalizer a pattern, policy `all`: given several patterns the annotator joins them with `##|`,
    and so deletes every `##` and breaks back-references; policy `pretty_all` folds a document into one line.
    """
    frame = DocumentAssembler().setInputCol(TEXT).setOutputCol("_markup_0").transform(records)
    for step, pattern in enumerate(patterns):
        normalizer = DocumentNormalizer().setInputCols([f"_markup_{step}"]).setOutputCol(f"_markup_{step + 1}")
        normalizer = normalizer.setAction("clean").setPatterns([pattern]).setReplacement(" ").setPolicy("all")
        frame = normalizer.setLowercase(False).transform(frame)
    text = F.element_at(F.col(f"_markup_{len(patterns)}.result"), 1)
    # each run of blanks is tried from its start only, else a long one costs its square
    text = F.regexp_replace(F.regexp_replace(text, "\r\n?", "\n"), r"(?<!\h)\h++(?=\n)", "")
    text = F.regexp_replace(F.regexp_replace(text, r"\n{3,}", "\n\n"), r"\A\n+|(?<!\s)\s++\z", "")
    return frame.withColumn(TEXT, text).select(*records.columns)


@F.pandas_udf(StructType([StructField("identity", StringType()), StructField("content_hash", StringType())]))
def _identities(
    reason: pd.Series, source_id: pd.Series, text: pd.Series, source_file: pd.Series, preview: pd.Series
) -> pd.DataFrame:
    """A document is its source id and normalised text; a refused record is all that is known of it."""
    rows = [
        (_digest(refused, *("" if part is None else part for part in known)), None)
        if refused is not None
        else (_digest(known[0] or "", content := normalise(body)), _digest(content))
        for refused, body, *known in zip(reason, text, source_id, source_file, preview)
    ]
    return pd.DataFrame(rows, columns=["identity", "content_hash"], dtype=object)


def _digest(*parts: str) -> str:
    """128 bits of BLAKE2b as 32 hex digits."""
    return hashlib.blake2b("\x00".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _identify(records: DataFrame, known: DataFrame) -> DataFrame:
    """Give every record an id of its own: a removal with a document's id would take that document away with it."""
    reason, identity, copy = F.col(REASON), F.col("identity"), F.col("copy")
    ids = _identities(REASON, SOURCE_ID, TEXT, SOURCE_FILE, "preview")
    hashed = records.withColumn("ids", ids).select("*", "ids.identity", "ids.content_hash").drop("ids")
    joined = hashed.join(known.select(F.col(DOC_ID).alias("identity"), WITHDRAWN), "identity", "left")
    numbered = joined.withColumn(
        "copy", F.row_number().over(Window.partitionBy("identity").orderBy(SOURCE_FILE, TEXT, "preview"))
    )
    repeated = reason.isNull() & (~F.coalesce(WITHDRAWN, F.lit(True)) | (copy > 1))
    taken = F.col(WITHDRAWN).isNotNull() | (copy > 1)
    extra = F.substring(F.sha2(F.concat_ws("|", identity, SOURCE_FILE, copy.cast("string")), 256), 1, 32)
    return (
        numbered.withColumn("repeats", F.when(repeated, identity))
        .withColumn(REASON, F.when(repeated, REPEATED_RECORD).otherwise(reason))
        .withColumn(DOC_ID, F.when(taken, extra).otherwise(identity))
    )

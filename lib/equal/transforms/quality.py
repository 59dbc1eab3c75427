"""Documents that are not worth a call, each with the rule that it breaks and what was measured."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
from pyspark.sql import DataFrame

from equal.core.quality import BLOCKED_SOURCE, OTHER_LANGUAGE, QualityLimits, find_faults
from equal.schemas import DOC_ID, EVIDENCE, REASON, REMOVALS, SCHEMAS, SOURCE_FILE, SOURCE_ID, STAGE, TEXT

#: characters from which the language is told
_LANGUAGE_CHARS = 1_000
_COLUMNS = (DOC_ID, SOURCE_ID, SOURCE_FILE, TEXT)


def find_unfit(
    documents: DataFrame, limits: QualityLimits, *, languages: Sequence[str], blocked_sources: Sequence[str]
) -> DataFrame:
    """Name every document that breaks a rule.

    Args:
        documents: doc_id, source_id, source_file, text.
        limits: of the text itself.
        languages: ISO 639-1 codes that stay; empty keeps all. Told by py3langid from a text's beginning.
        blocked_sources: regular expressions; a document whose source id or source file holds a match goes.

    Returns:
        Rows of `removals`; evidence holds `value`, what was found, and `limit`, the rule.
    """

    def judge(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        blocked = [re.compile(pattern) for pattern in blocked_sources]
        for batch in batches:
            rows = []
            columns = [batch.column(name).to_pylist() for name in _COLUMNS]
            faults = find_faults(columns[-1], limits)
            for doc_id, source_id, source_file, text, fault in zip(*columns, faults):
                names = source_id or "", source_file
                if held := next(((name, p.pattern) for p in blocked for name in names if p.search(name)), None):
                    found = (BLOCKED_SOURCE, *held)
                elif fault:
                    found = (fault.reason, round(fault.value, 4), fault.limit)
                elif languages and (language := _language(text)) not in languages:
                    found = (OTHER_LANGUAGE, language, ", ".join(languages))
                else:
                    continue
                evidence = json.dumps({"value": found[1], "limit": found[2]}, ensure_ascii=False)
                rows.append((doc_id, source_file, found[0], evidence))
            columns = list(zip(*rows)) or [()] * len(_UNFIT)
            arrays = [pa.array(values, field.type) for values, field in zip(columns, _UNFIT)]
            yield pa.RecordBatch.from_arrays(arrays, schema=_UNFIT)

    found = documents.select(*_COLUMNS).mapInArrow(judge, _UNFIT_DDL)
    return found.selectExpr("*", f"'quality' AS {STAGE}").select(*SCHEMAS[REMOVALS].fieldNames())


_UNFIT = pa.schema([(name, pa.string()) for name in (DOC_ID, SOURCE_FILE, REASON, EVIDENCE)])
_UNFIT_DDL = ", ".join(f"{field.name} string" for field in _UNFIT)


def _language(text: str) -> str:
    from py3langid.langid import classify  # loads its model, which a corpus of any language does not need

    return str(classify(text[:_LANGUAGE_CHARS])[0])

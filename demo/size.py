"""How large the demo is: what was asked for, or what ends in 20 minutes on this machine."""

from __future__ import annotations

import math
import os
from pathlib import Path

from equal.config import load
from server import native_dtype

SETTINGS = Path(__file__).resolve().parent.parent / "conf" / "demo.yml"
#: the size for which conf/demo.yml states budget and arms
WHOLE_DOCS = 8000
#: sizes, and the minutes that each takes on the machine that typical times are of, by docs/log.md, rounded up; that of
#: 2,000 was not measured there, and is taken to lie between the others
_MINUTES = {WHOLE_DOCS: 17.0, 2000: 10.5, 1000: 8.2}
_LIMIT_MIN = 20.0
MIN_DOCS = 100
#: its cores; it has bfloat16
_TYPICAL_CORES = 2
#: times as long as there two cores without bfloat16 were seen to take, over all stages (docs/log.md)
_WITHOUT_BFLOAT16 = 2.4


def fitting_docs() -> int:
    """The whole demo's texts, or fewer where they would take more than 20 minutes."""
    return next((size for size, minutes in _MINUTES.items() if minutes * slowness() <= _LIMIT_MIN), min(_MINUTES))


def slowness() -> float:
    """How many times as long as typical this machine takes, by its processor: cores, and bfloat16 of its own."""
    return (1.0 if native_dtype() == "bfloat16" else _WITHOUT_BFLOAT16) * _TYPICAL_CORES / len(os.sched_getaffinity(0))


def share(num_docs: int) -> float:
    """Of the whole demo's reading: a quarter of the documents halves it, so that a small one has something to show."""
    return math.sqrt(num_docs / WHOLE_DOCS)


def sized(num_docs: int) -> list[str]:
    """Budget for a corpus of this size, as many arms as it can sweep like the whole demo's, and the warm-up."""
    whole = load(SETTINGS)
    documents = round(whole.budget.documents * share(num_docs))
    arms = documents * whole.cluster.k // whole.budget.documents
    warm_up = whole.warm_up.fraction / max(1.0, share(num_docs))  # of a larger corpus it would eat up the budget
    return [f"budget.documents={documents}", f"cluster.k={arms}", f"warm_up.fraction={warm_up}"]

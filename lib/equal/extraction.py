"""One extraction over Spark, as the warm-up and the bandit both need it: read documents, ask, write, collect."""

from __future__ import annotations


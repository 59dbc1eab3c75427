"""Compile the loops of the corpus stages once, at set-up: else every worker of the first run does, half a minute each.

numba keeps what it compiled beside the source.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from equal.core.contamination import BenchmarkIndex
from equal.core.items import Item
from equal.core.minhash import Permutations, ShingleSets, jaccard, verify_duplicates
from equal.core.quality import QualityLimits, find_faults
from equal.transforms.arrow import packed_texts, raw_texts

QUESTION = "A die is rolled twice; what is the probability that both of the rolls show a six?"
TEXTS = [f"Of an exam: {QUESTION} Nobody knew.", f"Of an exam: {QUESTION} Nobody <b>knew</b>.", "a &lt; b", ""]


def main() -> None:
    """Run each of them as the stages do, on arrays of the types that they get there; settings make no difference."""
    column = pa.array(TEXTS, pa.large_string())
    permutations = Permutations.seeded(bands=20, rows=6, seed=17)
    permutations.band_keys(packed_texts(column), 5)
    sets = ShingleSets.of(packed_texts(column), 5).or_else(np.arange(len(TEXTS)))
    groups = pa.chunked_array([pa.array([0] * len(TEXTS), pa.int64())]).to_numpy()
    found = verify_duplicates(sets, permutations.keys_of(sets), groups, 0.5)
    jaccard(sets[0], sets[1])
    index = BenchmarkIndex.build({"exam": [Item("q", QUESTION, "1/36")]}, ngram_words=10, short_words=3)
    held = index.candidates(raw_texts(column))
    index.match(TEXTS[1])
    find_faults(TEXTS, QualityLimits(1, 1.0, 1.0, 1.0))
    if found.dropped.tolist() != [1] or held.tolist() != [True, True, False, False]:
        raise SystemExit("demo/kernels.py: what was compiled does not find what it is there for")


if __name__ == "__main__":
    main()

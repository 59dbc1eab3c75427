"""Selections that EQUAL is compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from equal.selection.equal import Candidate


def rank_at_random(candidates: Sequence[Candidate], seed: int) -> list[tuple[Candidate, None]]:
    """Candidates by hash of seed and pair_id, which no order of arrival moves; none has a score."""

    def rank(candidate: Candidate) -> bytes:
        return hashlib.blake2b(f"{seed}:{candidate.pair_id}".encode(), digest_size=16).digest()

    return [(candidate, None) for candidate in sorted(candidates, key=rank)]

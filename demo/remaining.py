"""How long the demo still takes: what its stages took elsewhere, scaled by how this machine has done so far."""

from __future__ import annotations

from collections.abc import Mapping

#: (run, stage)
Step = tuple[str, str]


class Remaining:
    """Minutes to the end, of steps taken in order."""

    def __init__(self, typical: Mapping[Step, float]) -> None:
        """Begin with the pace of the machine on which the typical times were measured.

        Args:
            typical: minutes of each step that has something to do.
        """
        self._ahead = dict(typical)
        self._took = self._expected = 0.0

    @property
    def minutes(self) -> float:
        """Of all steps that have not ended."""
        return sum(self._ahead.values()) * (self._took / self._expected if self._expected else 1.0)

    def ended(self, step: Step, seconds: float) -> None:
        """Count a step; one that had nothing to do says nothing of the machine."""
        if expected := self._ahead.pop(step, 0.0):
            self._took += seconds / 60
            self._expected += expected

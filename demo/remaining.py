"""How long the demo still takes: what its stages took elsewhere, scaled by how this machine has done so far."""

from __future__ import annotations

from collections.abc import Mapping

#: (run, stage)
Step = tuple[str, str]


class Remaining:
    """Minutes to the end, of steps taken in order."""

    def __init__(self, typical: Mapping[Step, float], pace: float = 1.0) -> None:
        """Begin with what is known of the machine.

        Args:
            typical: minutes of each step that has something to do.
            pace: how many times as long this machine may take, until a step has shown it.
        """
        self._ahead, self._pace = dict(typical), pace
        self._took = self._expected = 0.0

    @property
    def minutes(self) -> float:
        """Of all steps that have not ended."""
        return sum(self._ahead.values()) * (self._took / self._expected if self._expected else self._pace)

    def ended(self, step: Step, seconds: float) -> None:
        """Count a step; one that had nothing to do says nothing of the machine."""
        if expected := self._ahead.pop(step, 0.0):
            self._took += seconds / 60
            self._expected += expected

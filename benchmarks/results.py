"""Where a benchmark leaves its figures: benchmarks/results/NAME.json, with the commit that it ran on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "results"


def write(name: str, figures: dict[str, object]) -> None:
    """Write and print the figures; `commit` ends in + where the tree had changes beside it."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False, cwd=FOLDER.parent).stdout.strip()
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps({**figures, "commit": commit}, indent=2)
    (FOLDER / f"{name}.json").write_text(text + "\n")
    print(text)

"""Where a benchmark leaves its figures: benchmarks/results/NAME.json, with the commit that it ran on."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "results"


@cache
def commit() -> str:
    """The one that stood there when the benchmark began; it ends in + where the tree had changes beside it."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=FOLDER.parent).stdout.strip()


commit()  # now, and not when hours later there is something to write


def read(name: str) -> dict[str, Any]:
    """The figures that were left last, none when there are none."""
    file = FOLDER / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else {}


def write(name: str, figures: dict[str, object]) -> None:
    """Write and print the figures, with the commit."""
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps({**figures, "commit": commit()}, indent=2)
    (FOLDER / f"{name}.json").write_text(text + "\n")
    print(text)

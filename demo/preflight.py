"""Check what set-up cannot install itself: Python 3.11 with venv, Java 17, disk space.

Runs before any package is there, so it uses the standard library alone. Prints one line and fails when
something is missing.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: both environments, jars, model and a run of the demo
SET_UP_GB = 20
#: what a run still needs once everything is installed
RUN_GB = 3
JAVA_REMEDY = "install a JDK 17, for example the Debian package openjdk-17-jdk-headless, and point JAVA_HOME at it"


def python_problem() -> str:
    """Say what is wrong with the interpreter that runs this, or nothing."""
    if sys.version_info[:2] != (3, 11):
        found = ".".join(map(str, sys.version_info[:3]))
        return f"Python: this is {found}, needed is 3.11; install it and call make PYTHON=/path/to/python3.11"
    if importlib.util.find_spec("ensurepip") is None:
        return "Python: 3.11 is here without venv; install it, for example the Debian package python3.11-venv"
    return ""


def java_problem() -> str:
    """Say what is wrong with the Java that Spark would start, or nothing."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(os.path.join(home, "bin", "java")) if home else shutil.which("java")
    if java is None:
        return f"Java: not found {f'in JAVA_HOME={home}' if home else 'on PATH'}; {JAVA_REMEDY}"
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "([^"]+)"', shown)
    if version is None or version[1].split(".")[0] != "17":
        return f"Java: {java} is version {version[1] if version else 'unknown'}, needed is 17; {JAVA_REMEDY}"
    return ""


def disk_problem(installed: bool) -> str:
    """Say whether the disk that holds this checkout is too full, or nothing."""
    needed = RUN_GB if installed else SET_UP_GB
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < needed:
        return f"Disk: {free:.1f} GB free at {ROOT}, needed are {needed} GB; free some or clone to a larger disk"
    return ""


def main() -> None:
    """Print the first problem and fail, or do nothing."""
    installed = all((ROOT / venv / ".installed").exists() for venv in (".venv", ".venv-vllm"))
    problem = python_problem() or java_problem() or disk_problem(installed)
    if problem:
        sys.exit(problem)


if __name__ == "__main__":
    main()

"""A full disk, for real: a small file system of a test's own, in a mount namespace that needs no root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

UNSHARE = ["unshare", "--map-root-user", "--mount"]
#: runs the command on the small disk and keeps what is there then
SCRIPT = """
mount -t tmpfs -o size="$SIZE" tmpfs "$DISK" || exit 9
[ -z "$BEFORE" ] || cp -r "$BEFORE/." "$DISK" || exit 9
"$@"; echo "status $?"
cp -r "$DISK" "$KEPT"
"""


def _namespaces_work() -> bool:
    return bool(shutil.which("unshare")) and not subprocess.run([*UNSHARE, "true"], check=False).returncode


# some containers forbid mounts, and a full disk can be made by nothing else without root; it runs wherever they do not
needs_namespaces = pytest.mark.skipif(not _namespaces_work(), reason="this system gives users no mount namespaces")


def run_out_of_space(command: Sequence[str], *, disk: Path, size: int, kept: Path, before: Path | None = None) -> str:
    """Run a job that fills `disk`; returns what it wrote to stderr.

    Args:
        command: works on files under `disk`.
        disk: an empty folder.
        size: bytes of the small disk.
        kept: not there yet; holds the disk's content afterwards.
        before: a folder whose content is on the disk from the start.
    """
    places = {"DISK": str(disk), "KEPT": str(kept), "SIZE": str(size), "BEFORE": str(before or "")}
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", SCRIPT, "sh", *command],
        env={**os.environ, **places},
        capture_output=True,
        text=True,
        check=False,
    )
    statuses = [line for line in done.stdout.split("\n") if line.startswith("status")]
    assert statuses == ["status 2"], done.stderr[-3000:]
    return done.stderr

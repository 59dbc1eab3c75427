"""The parent of the Python workers of a local session, with the model libraries loaded before it forks.

Spark ends a worker that is idle for a minute, and importing these libraries takes a new one many seconds. Forked
from here it has them, and all workers share their pages. Spark starts this by spark.python.daemon.module.
"""

from __future__ import annotations

import gc
import sys
from contextlib import redirect_stdout

from pyspark.daemon import manager

if __name__ == "__main__":
    # Spark's own, of which a worker would read the directory before each task
    for jar in [entry for entry in sys.path if entry.endswith(".jar")]:
        sys.path.remove(jar)
        sys.path_importer_cache.pop(jar, None)
    with redirect_stdout(sys.stderr):  # Spark reads a port number from the real one
        import equal.training.encoder  # noqa: F401
    gc.freeze()  # else a worker's first collection writes to, and so copies, every page it shares
    manager()

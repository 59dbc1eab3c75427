"""Write report.html and summary.json of `run_name` under storage.root.

It stands beside the newest random run that read as many documents of the same clusters, if there is one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from equal.config import parse_arguments
from equal.io.report import write_report
from equal.io.session import open_session
from equal.io.stage import exit_on_error, log
from equal.io.summary import find_control, summarise
from equal.io.tables import Tables, require_tables


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job from the command line."""
    with exit_on_error("report"):
        config = parse_arguments(argv, __doc__)
        require_tables(config.storage.root, config.storage.schema)
        tables = Tables(open_session(config.spark.partitions), config.storage.root, config.storage.schema)
        control = find_control(tables, config.run_name)
        root = Path(config.storage.root)
        write_report(tables, root / "report.html", config.run_name, control)
        summary = summarise(tables, config.run_name, control)
        (root / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        beside = f"beside {control}" if control else "no random run read as many documents of the same clusters"
        log.info("report: wrote %s and %s, %s", root / "report.html", root / "summary.json", beside)


if __name__ == "__main__":
    main()

"""Answer the questions of notebooks/history.sql from the tables under storage.root, one after the other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources

from equal.config import parse_arguments
from equal.errors import TableError
from equal.io.session import open_session
from equal.io.stage import exit_on_error
from equal.io.tables import Tables, require_tables
from equal.schemas import ITERATIONS

ROWS, WIDTH, COLUMNS, LONG = 20, 48, 11, 400  # of an answer; more columns are printed downwards, a LONG line each


@dataclass(frozen=True)
class Query:
    """One question: its name, why it is asked, its SQL, and whether it needs Spark on Delta."""

    name: str
    why: str
    sql: str
    spark_only: bool


def read_queries() -> list[Query]:
    """The queries of history.sql in their order."""
    text = (resources.files("equal.notebooks") / "history.sql").read_text(encoding="utf-8")
    return [_query(block) for block in re.split(r"^-- name: ", text, flags=re.M)[1:]]


def _query(block: str) -> Query:
    lines = block.splitlines()
    notes = [line.removeprefix("-- ") for line in lines[1:] if line.startswith("--")]
    why = " ".join(note for note in notes if not note.startswith("engine:"))
    sql = "\n".join(line for line in lines[1:] if not line.startswith("--")).strip()
    return Query(lines[0].strip(), why, sql.removesuffix(";"), "engine: spark" in notes)


def main(argv: list[str] | None = None) -> None:
    """Run the job from the command line."""
    with exit_on_error("history"):
        config = parse_arguments(argv, __doc__)
        require_tables(config.storage.root, config.storage.schema)
        tables = Tables(open_session(config.spark.partitions), config.storage.root, config.storage.schema)
        if tables.read(ITERATIONS).isEmpty():
            raise TableError(f"iterations: none under storage.root={config.storage.root}; run jobs/extract.py first")
        tables.register_all()
        for query in read_queries():
            print(f"\n{query.name.replace('_', ' ')}\n{query.why}")
            many = len((answer := tables.spark.sql(query.sql)).columns) > COLUMNS
            answer.show(ROWS, LONG if many else WIDTH, vertical=many)


if __name__ == "__main__":
    main()

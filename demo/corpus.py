"""Write the demo's corpus: docstrings and documentation pages of the packages installed beside it.

Sources are parsed, never imported. Packages take turns, so that a big one does not drown the rest; inside a
package, files come in hash order. Copies and near copies stay in, they are what deduplication is for, and
a few documents get a held-out question appended, which decontamination has to find.

    python demo/corpus.py --docs 8000 --out build/demo/documents
"""

from __future__ import annotations

import argparse
import ast
import gzip
import hashlib
import json
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from equal.errors import PlatformError
from reference import read_split

PACKAGES = (
    *("numpy", "scipy", "pandas", "sklearn", "statsmodels", "sympy", "networkx", "matplotlib", "ot", "torch"),
    *("transformers", "peft", "trl", "datasets", "accelerate", "pyspark", "mlflow", "sqlalchemy", "plotly"),
)
MIN_CHARS = 300
#: documents that carry a held-out question
NUM_PLANTED = 6
DOCUMENTS_PER_FILE = 1000

Document = dict[str, str]


def write_corpus(num_docs: int, output_dir: Path, packages: Sequence[str] = PACKAGES) -> int:
    """Write `num_docs` documents as gzip JSON lines {id, text}; the same packages give the same bytes.

    Args:
        num_docs: documents wanted, planted ones among them.
        output_dir: gets part-000.jsonl.gz and so on; parts of an earlier call are replaced.
        packages: top-level packages to read.

    Returns:
        Documents written, fewer than `num_docs` only when the packages hold no more.

    Raises:
        PlatformError: a package is not installed.
    """
    documents = list(islice(_take_turns([_package_documents(name) for name in packages]), num_docs))
    _plant(documents)
    output_dir.mkdir(parents=True, exist_ok=True)
    for old in output_dir.glob("part-*.jsonl.gz"):
        old.unlink()
    for start in range(0, len(documents), DOCUMENTS_PER_FILE):
        lines = [json.dumps(d, ensure_ascii=False) + "\n" for d in documents[start : start + DOCUMENTS_PER_FILE]]
        path = output_dir / f"part-{start // DOCUMENTS_PER_FILE:03d}.jsonl.gz"
        # no time stamp in the header, so that a second call writes the same bytes
        path.write_bytes(gzip.compress("".join(lines).encode(), mtime=0))
    return len(documents)


def docstrings(source: str, prefix: str) -> Iterator[Document]:
    """Yield the docstrings of a Python source that are long enough, ids `prefix#qualified.name`.

    A source that this Python cannot parse yields nothing: packages ship templates and future syntax.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    pending: deque[tuple[str, ast.AST]] = deque([("", module)])
    while pending:
        name, node = pending.popleft()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node) or ""
            if len(text) >= MIN_CHARS:
                yield {"id": f"{prefix}#{name or '<module>'}", "text": text}
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                pending.append((f"{name}.{child.name}".lstrip("."), child))
            elif not isinstance(child, ast.expr):  # definitions also stand inside `if`, `try`, `except`
                pending.append((name, child))


def _package_documents(package: str) -> Iterator[Document]:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise PlatformError(f"package {package}: not installed; run `make setup`")
    root = Path(spec.submodule_search_locations[0])
    paths = [p for p in root.rglob("*") if p.suffix in {".py", ".rst", ".md"} and "tests" not in p.parts]
    for path in sorted(paths, key=lambda p: _rank(p.relative_to(root.parent).as_posix())):
        text = path.read_text(encoding="utf-8", errors="replace")
        prefix = path.relative_to(root.parent).as_posix()
        if path.suffix == ".py":
            yield from docstrings(text, prefix)
        elif len(text) >= MIN_CHARS:
            yield {"id": prefix, "text": text}


def _take_turns(sources: Sequence[Iterator[Document]]) -> Iterator[Document]:
    """One document of each source in turn; a source that ends leaves its turns to the others."""
    waiting = deque(sources)
    while waiting:
        source = waiting.popleft()
        for document in islice(source, 1):
            yield document
            waiting.append(source)


def _plant(documents: list[Document]) -> None:
    """Append a held-out question to the last few documents, in place."""
    held_out = read_split("held_out")
    step = max(1, len(held_out) // NUM_PLANTED)
    for document, item in zip(documents[-NUM_PLANTED:], held_out[::step]):
        document["id"] = f"planted/{item['id']}"
        document["text"] += f"\n\nExercise\n--------\n{item['question']}\n"


def _rank(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8).digest()


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, default=8000, help="documents to write")
    parser.add_argument("--out", type=Path, required=True, help="folder for the gzip JSON lines")
    arguments = parser.parse_args(argv)
    print(f"{write_corpus(arguments.docs, arguments.out):,} documents in {arguments.out}")


if __name__ == "__main__":
    main()

"""What a browser makes of the report: nothing that stands in documents, pairs or settings runs, all of it is text."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from equal.io.report import write_report
from equal.io.tables import Tables
from equal.schemas import ARM_HISTORY, EXTRACTIONS, ITERATIONS
from filled_rows import HOSTILE
from filled_tables import EQUAL_RUN, RANDOM_RUN

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: plotly writes the label of an arm, which holds the beginning of a document, when one hovers over it
HOVER = """<script>addEventListener("load", () => {
  const map = document.getElementById("plot-map");
  map.data.forEach((trace, curve) => [].concat(trace.hovertext || trace.text || []).forEach((label, point) => {
    if (label.includes("script")) Plotly.Fx.hover(map, [{curveNumber: curve, pointNumber: point}]);
  }));
});</script></body>"""

# a browser is none of what the README asks for; test_report.py looks for the same in the parsed page everywhere
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium, chromium-browser or google-chrome")


def opened(source: str, folder: Path) -> str:
    """The page's elements as they are when its scripts have run, and its images have failed to load."""
    page = folder / "opened.html"
    page.write_text(source, encoding="utf-8")
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=5000"]
    command += [f"--user-data-dir={folder / 'profile'}", page.as_uri()]
    return subprocess.run(command, capture_output=True, check=True, timeout=120).stdout.decode()


def title(dom: str) -> str:
    return unescape(re.findall(r"<title>(.*?)</title>", dom, re.S)[0])


def text(dom: str) -> str:
    """Outside of scripts and styles, without the elements."""
    return unescape(re.sub(r"<[^>]*>", "", re.sub(r"<(script|style)\b.*?</\1>", "", dom, flags=re.S)))


@pytest.fixture(scope="module")
def source(spark, history_root: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(Tables(spark, history_root), path, EQUAL_RUN, RANDOM_RUN)
    return path.read_text(encoding="utf-8")


def test_documents_and_pairs_are_text(source: str, tmp_path: Path) -> None:
    assert source.count("</body>") == 1
    dom = opened(source.replace("</body>", HOVER), tmp_path)
    assert title(dom) == f"EQUAL: {EQUAL_RUN}"
    assert "<img" not in re.sub(r"<script\b.*?</script>", "", dom, flags=re.S)
    assert text(dom).count(HOSTILE) >= 3, "the label of an arm, an answer, and its passage"
    (label,) = re.findall(r'<g class="hovertext".*?</g>', dom, re.S)
    assert HOSTILE[:60] in text(label)


def test_the_browser_would_run_what_is_not_escaped(source: str, tmp_path: Path) -> None:
    dom = opened(source.replace("&lt;", "<").replace("&gt;", ">"), tmp_path)
    assert title(dom) in ("1", "2")


def test_the_name_of_a_run_is_text(tables: Tables, tmp_path: Path) -> None:
    named = f"</title>{HOSTILE}"
    base = {"run_id": named, "iteration": 1, "arm_id": 3}
    mark = {**base, "warm_up": False, "total_documents": 1, "prompt_tokens": 9}
    tables.append(ITERATIONS, tables.rows(ITERATIONS, [mark]))
    tables.append(ARM_HISTORY, tables.rows(ARM_HISTORY, [{**base, "pulls": 1, "documents": 1, "pairs": 0}]))
    void = {**base, "doc_id": "d", "final": True, "status": HOSTILE, "calls": 1, "cached_calls": 0, "pairs": []}
    tables.append(EXTRACTIONS, tables.rows(EXTRACTIONS, [void]))
    write_report(tables, tmp_path / "report.html", named)
    dom = opened((tmp_path / "report.html").read_text(encoding="utf-8"), tmp_path)
    assert title(dom) == f"EQUAL: {named}"
    assert "<img" not in re.sub(r"<script\b.*?</script>", "", dom, flags=re.S)
    assert f"run {named}" in text(dom)

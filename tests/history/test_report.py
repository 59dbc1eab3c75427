"""The report is one honest, self-contained file in which no document can run code."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from equal.errors import TableError
from equal.io import evidence, report
from equal.io.tables import Tables
from equal.jobs.report import main
from equal.schemas import ARM_HISTORY, EXTRACTIONS, ITERATIONS
from filled_rows import HOSTILE, TOPICS
from filled_tables import DOCS_PER_ARM, DOCS_PER_ITERATION, EQUAL_RUN, NUM_ARMS, RANDOM_RUN
from filled_tables import ITERATIONS as ITERATIONS_MADE

SECTIONS = ("corpus", "arms", "rewards", "budget", "costs", "outcomes", "pairs", "training")
PLOTS = ("funnel", "map", "rewards", "distances", "outcomes", "losses")


class _Page(HTMLParser):
    """Collects what a browser would see: elements, their attributes, and text outside scripts and styles."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


@pytest.fixture(scope="module")
def source(spark, history_root, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("report") / "deep" / "report.html"
    report.write_report(Tables(spark, history_root), path, EQUAL_RUN, RANDOM_RUN)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source) -> _Page:
    return _Page(source)


def test_it_is_one_file_that_asks_for_nothing(source, page):
    loads = [(t, a) for t, a in page.elements if "src" in a or t in ("link", "iframe", "object", "img")]
    assert loads == []
    assert [a["href"] for t, a in page.elements if t == "a" and not a["href"].startswith("#")] == []
    styles = "".join(re.findall(r"<style>(.*?)</style>", source, re.S))
    assert "url(" not in styles
    assert "@import" not in styles
    assert source.count("plotly.js v") == 1


def test_what_was_foreseen_stands_beside_what_was_taken(source):
    table = source.split("foreseen for")[1].split("</table>")[0]
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table.split("<tr>")[1:]]
    read = str((ITERATIONS_MADE + 1) * DOCS_PER_ITERATION)
    warm_up, documents, calls = cells  # money without a price is no line
    assert (warm_up[0], warm_up[5].split(".")[0], warm_up[6]) == ("warm up", "8", "yes")
    assert documents[:2] == ["extract", "documents"]
    assert {documents[2].split(".")[0], documents[5].split(".")[0]} == {read}
    assert (documents[6], calls[1], calls[6]) == ("yes", "calls", "no")


def test_no_document_runs_code(source, page):
    assert page.count("script") == 2 + len(PLOTS), "the library, one for each plot, and the colours"
    assert page.count("img") == 0
    assert HOSTILE in page.text
    assert not any("<script" in script for script in page.scripts[1:])
    hover = next(script for script in page.scripts if '"plot-map"' in script)
    assert "\\u003cb\\u003earm" in hover
    assert "&lt;script\\u003e" not in hover
    assert "&lt;script&gt;" in hover, "plotly reads tags in hover text, so they are escaped twice"


def test_every_section_begins_with_what_one_sees(source, page):
    ids = [a["id"] for t, a in page.elements if t == "section"]
    assert ids == list(SECTIONS)
    for name in SECTIONS:
        section = source.split(f'<section id="{name}">')[1].split("</section>")[0]
        first = re.match(r"\s*<h2>[^<]+</h2>\s*<p>([^<]+)</p>", section)
        assert first, name
        assert first.group(1).strip().endswith("."), name
    assert [a["id"] for t, a in page.elements if a.get("class") == "plotly-graph-div"] == [f"plot-{p}" for p in PLOTS]
    assert len({a["id"] for _, a in page.elements if "id" in a}) == sum("id" in a for _, a in page.elements)


def test_colours_follow_light_and_dark_in_page_and_plots(source):
    roles = set(re.findall(r'"meta":"([a-z0-9]+)"', source)) - {"reward"}
    light = set(re.findall(r"--([a-z0-9]+):", source.split(":root {")[1].split("}")[0]))
    dark = set(re.findall(r"--([a-z0-9]+):", source.split(":root {")[2].split("}")[0]))
    assert roles >= {"equal", "random", "neutral", "quiet", "ring", "arm1"}
    assert roles <= light
    assert light == dark
    assert 'matchMedia("(prefers-color-scheme: dark)").addEventListener' in source


def test_wide_content_scrolls_inside_its_own_box(source):
    assert source.count("<table>") == len(re.findall(r'<div class="scroll"><table>', source)) == 7
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in source


def test_the_headline_holds_the_numbers(page):
    head = page.text.split("Lower is better")[0]
    for shown in ("0.2100", "0.1900 to 0.2300", "0.3900", "2.410", "2.520", "2.710", "19,200", "12%", "5.0%"):
        assert shown in head
    assert "closer to the target" in head
    assert "EQUAL’s is the lower by 0.110 (item by item, 90% interval 0.084 to 0.136)" in head


def test_the_budgets_that_are_compared_are_those_of_the_tables(page):
    read = DOCS_PER_ITERATION * (ITERATIONS_MADE + 1)
    assert f"for EQUAL up to {read} documents and for the random control up to {read}; lower" in page.text


def test_twelve_pairs_stand_with_their_passage(history, page):
    examples = evidence.examples(history, EQUAL_RUN, report.NUM_EXAMPLES)
    ranks = [example["rank"] for example in examples]
    assert len(ranks) == page.count("article") == 12
    assert ranks[0] == 1
    assert ranks[-1] == history.read("selected_pairs").where(f"run_id = '{EQUAL_RUN}'").count()
    assert max(np.diff(ranks)) - min(np.diff(ranks)) <= 1
    assert all(" ".join(e["found"].split()) == " ".join(e["answer"].split()) for e in examples)
    assert page.count("mark") == 12


def test_what_the_pairs_are_like_stands_beside_the_control(source):
    table = source.split("all pairs selected for", 1)[1].split("</table>", 1)[0]
    rows = re.findall(r"</span>(.+?)</th>\n(.+)</tr>", table)
    assert [name for name, _ in rows] == ["EQUAL", "random documents"]
    for _, cells in rows:
        assert re.findall(r"<td>(.*?)</td>", cells) == ["–", "17.2<small>± 0.5</small>", "–", "61.5", "–"]


def test_the_arms_are_the_clusters_that_the_run_read_from(history):
    arms, _ = evidence.arms(history, EQUAL_RUN, evidence.arm_history(history, EQUAL_RUN))
    assert {arm["arm_id"]: arm["size"] for arm in arms} == {arm: DOCS_PER_ARM - arm for arm in range(NUM_ARMS)}
    assert all(TOPICS[arm["arm_id"]] in arm["label"] or HOSTILE[:20] in arm["label"] for arm in arms)


def test_the_loss_curve_is_that_of_mlflow(history):
    curve = evidence.loss_curve(history, EQUAL_RUN)
    assert [step for step, _ in curve] == list(range(1, 21))
    assert curve[0][1] == pytest.approx(1.9 + 0.9 * 0.8)


def test_without_evaluation_or_control_it_says_so(tables, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = {"run_id": "alone", "iteration": 1, "arm_id": 3}
    mark = {**base, "warm_up": False, "total_documents": 1, "prompt_tokens": 9}
    tables.append(ITERATIONS, tables.rows(ITERATIONS, [mark]))
    tables.append(ARM_HISTORY, tables.rows(ARM_HISTORY, [{**base, "pulls": 1, "documents": 1, "pairs": 0}]))
    void = {**base, "doc_id": "d", "final": True, "status": "void", "calls": 1, "cached_calls": 0, "pairs": []}
    tables.append(EXTRACTIONS, tables.rows(EXTRACTIONS, [void]))
    report.write_report(tables, "report.html", "alone")
    text = _Page(Path("report.html").read_text(encoding="utf-8")).text
    for said in (
        "The distance to the held-out reference has not been measured.", "The target loss has not been measured.",
        "no pair was accepted", "has not chosen any pair", "No loss was logged", "Nothing was removed.",
    ):  # fmt: skip
        assert said in text
    assert [path.name for path in Path().iterdir() if path.suffix == ".db"] == [], "no empty MLflow store is made"


def test_an_unknown_run_writes_nothing(history, tmp_path):
    with pytest.raises(TableError, match="no-such-run"):
        report.write_report(history, tmp_path / "report.html", "no-such-run")
    assert list(tmp_path.iterdir()) == []


def test_the_job_finds_the_control_and_writes_both_files(history_root):
    main(["--set", f"storage.root={history_root}", "--set", f"run_name={EQUAL_RUN}"])
    assert f"control {RANDOM_RUN}" in (Path(history_root) / "report.html").read_text(encoding="utf-8")
    assert '"documents_extracted"' in (Path(history_root) / "summary.json").read_text(encoding="utf-8")


def test_the_job_ends_with_one_message_for_an_unknown_run(history_root, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--set", f"storage.root={history_root}", "--set", "run_name=nobody"])
    assert "nobody has no committed iteration" in capsys.readouterr().err

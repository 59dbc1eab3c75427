"""The report: one HTML file that needs nothing but a browser."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from equal.core.metrics import Z90, mean_and_error
from equal.io import evidence, figures
from equal.io.summary import by_model, evaluations, spend, summarise
from equal.io.tables import Tables
from equal.schemas import WITHDRAWN

NUM_EXAMPLES = 12
NUM_ARMS_LISTED = 15
MISSING = "–"
CORPUS_STEPS = (
    ("quality", "fit to read"), ("deduplicate", "without duplicates"), ("decontaminate", "without contamination")
)  # fmt: skip

#: what the selected pairs are like: metric, the two lines above its column
LIKENESS = {
    "question_words": ("words", "a question"),
    "answer_words": ("words", "an answer"),
    "type_token_ratio": ("distinct words", "of a pair’s words"),
    "mtld": ("lexical", "diversity (MTLD)"),
    "mean_cosine": ("mean cosine", "of two pairs"),
}
#: what an outcome or a rejection means, in words
MEANINGS = {
    "accepted": "gave at least one pair that passed every check",
    "void": "the model found no question worth asking",
    "truncated": "the reply was cut at max_tokens",
    "not_json": "the reply was not JSON",
    "wrong_schema": "the reply was JSON of another shape",
    "empty": "the reply was empty",
    "looping": "the reply repeats itself",
    "ungrounded": "too few of the answer’s words stand in the passage",
    "unanswered": "no sentence of the passage answers the question",
    "copied_example": "the question was copied from the prompt’s examples",
    "duplicate": "the question was asked before of the same document",
    "contaminated": "shares a run of words with a benchmark item",
    "copied_prompt": "words of the prompt that its passage lacks",
    "context_too_short": "the prompt did not fit the model’s context",
    "surplus": "beyond max_pairs of its passage",
    "oversized": "the reply was too large to be one",
    "refused": "the refine pass rejected it",
    "failed": "no reply after all attempts",
    "over_budget": "its longest possible reply was above what the budget left",
}  # fmt: skip


def write_report(tables: Tables, path: str | Path, equal_run: str, random_run: str | None = None) -> None:
    """Write the report of a run, compared with its random control where there is one.

    Args:
        tables: the history.
        path: the HTML file; its directory is made.
        equal_run: run_name of the run.
        random_run: run_name of the control.

    Raises:
        TableError: a run has no committed iteration.
    """
    page = _environment().from_string(_template()).render(**_sections(tables, equal_run, random_run))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(page, encoding="utf-8")


def verdict(distance: dict[str, Any], target_loss: dict[str, Any]) -> list[str]:
    """The comparison in words, whatever it is: distance first, then target loss.

    Args:
        distance: equal, random -> value, low, high, or None.
        target_loss: base, equal, random -> value, item_values, or None.
    """
    return [_distance_verdict(distance), _loss_verdict(target_loss)]


def _distance_verdict(distance: dict[str, Any]) -> str:
    equal, random = distance["equal"], distance["random"]
    if equal is None:
        return "The distance to the held-out reference has not been measured."
    if random is None:
        return "There is no random control to compare this run with."
    if equal["high"] < random["low"]:
        return "EQUAL’s pairs lie closer to the target than those of random documents."
    if equal["low"] > random["high"]:
        return "EQUAL’s pairs lie farther from the target than those of random documents."
    return "EQUAL’s pairs and those of random documents are not clearly apart: their intervals overlap."


def _loss_verdict(losses: dict[str, Any]) -> str:
    base, equal, random = losses["base"], losses["equal"], losses["random"]
    if base is None or equal is None:
        return "The target loss has not been measured."
    text = (
        f"Fine-tuning on EQUAL’s pairs takes the target loss from {number(base['value'])} to "
        f"{number(equal['value'])} nats per answer token"
    )
    if random is None:
        return f"{text}."
    text = f"{text}, on random’s to {number(random['value'])}"
    return f"{text}; {_loss_gap(equal['item_values'], random['item_values'])}."


def _loss_gap(equal: list[float], random: list[float]) -> str:
    """Which is lower. Item by item, as what makes an item hard for both models says nothing about their difference."""
    if len(equal) != len(random):
        return f"they were judged on {len(equal)} and {len(random)} items, so nothing follows from the two"
    gap, error = mean_and_error(np.subtract(equal, random))
    if gap == 0:
        return "EQUAL’s equals it"
    said = f"EQUAL’s is the {'lower' if gap < 0 else 'higher'} by {number(abs(gap))}"
    if error is None:
        return f"{said} on a single item"
    low, high = abs(gap) - Z90 * error, abs(gap) + Z90 * error
    doubt = ", so the two are not clearly apart" if low <= 0 else ""
    return f"{said} (item by item, 90% interval {number(low)} to {number(high)}){doubt}"


def _sections(tables: Tables, equal_run: str, random_run: str | None) -> dict[str, Any]:
    """Everything the template shows."""
    summary = summarise(tables, equal_run, random_run)
    runs = {"equal": equal_run, **({"random": random_run} if random_run else {})}
    used = {role: spend(tables, run) for role, run in runs.items()}
    dropped = evidence.removals(tables)
    history = evidence.arm_history(tables, equal_run)
    arms, plane_share = evidence.arms(tables, equal_run, history)
    measured = evaluations(tables, list(runs.values()))
    courses = {role: evidence.distance_course(tables, measured, run) for role, run in runs.items()}
    curves = {role: curve for role, run in runs.items() if (curve := evidence.loss_curve(tables, run))}
    rejected = {role: evidence.rejections(tables, run) for role, run in runs.items()}
    names = _outcome_names(used, rejected)
    rewarded = [row for row in history if row["reward"] is not None]
    losses = by_model(measured, "target_loss", equal_run, random_run)
    corpus, steps = _corpus_steps(summary), _run_steps(used["equal"])
    ledger = evidence.ledger(tables, list(runs.values()))
    plots = {
        "funnel": figures.funnel(corpus, steps),
        "map": figures.arm_map(arms),
        "rewards": figures.rewards(
            rewarded, max(row["iteration"] for row in history), used["equal"]["warm_up_iterations"]
        )
        if rewarded
        else None,
        "distances": figures.distances(courses) if any(courses.values()) else None,
        "outcomes": figures.outcomes(
            [name for name in names if any(name in totals["outcomes"] for totals in used.values())],
            {role: totals["outcomes"] for role, totals in used.items()},
        ),
        "losses": figures.losses(curves) if curves else None,
    }
    return {
        "columns": LIKENESS, "likeness": _likeness(measured, runs),
        "summary": summary, "runs": runs, "used": used, "num_records": corpus[0][1], "removals": dropped, "arms": arms,
        "plane_share": plane_share, "verdict": verdict(summary["distance"], losses),
        "num_arms_listed": NUM_ARMS_LISTED,
        "target_loss": losses, "exact_match": by_model(measured, "exact_match", equal_run, random_run),
        "courses": courses, "curves": curves,
        "rejected": rejected, "outcome_names": names,
        "meanings": MEANINGS, "ledger": ledger,
        "foreseen": evidence.foreseen(tables, equal_run, ledger),
        "examples": evidence.examples(tables, equal_run, NUM_EXAMPLES),
        "plots": {name: Markup(figures.to_div(plot, name)) for name, plot in plots.items() if plot is not None},
        "plotly": Markup(get_plotlyjs()),
    }  # fmt: skip


def _likeness(measured: dict[tuple[str, str, str], Any], runs: dict[str, str]) -> dict[str, dict[str, Any]]:
    """By role, the rows of `evaluations` about its selected pairs; only roles that have any."""
    found = {role: {name: measured.get((run, name, "selected")) for name in LIKENESS} for role, run in runs.items()}
    return {role: rows for role, rows in found.items() if any(rows.values())}


def _corpus_steps(summary: dict[str, Any]) -> list[tuple[str, int]]:
    removed = summary["removed"]
    steps = [("records read", summary["documents"] + removed.get("ingest", 0)), ("ingested", summary["documents"])]
    if WITHDRAWN in removed:
        steps.append(("not withdrawn", steps[-1][1] - removed[WITHDRAWN]))
    for stage, label in CORPUS_STEPS:
        steps.append((label, steps[-1][1] - removed.get(stage, 0)))
    return steps


def _run_steps(used: dict[str, Any]) -> list[tuple[str, int]]:
    outcomes = used["outcomes"]
    return [("read by the model", sum(outcomes.values())), ("gave a pair", outcomes.get("accepted", 0))]


def _outcome_names(used: dict[str, Any], rejected: dict[str, dict[str, int]]) -> list[str]:
    """Outcomes of documents first, most frequent for EQUAL first; then reasons that only pairs had."""
    names = {name: None for totals in used.values() for name in totals["outcomes"]}
    names |= {name: None for reasons in rejected.values() for name in reasons}
    return sorted(names, key=lambda name: (-used["equal"]["outcomes"].get(name, 0), name))


def _environment() -> Environment:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "count": count, "percent": percent, "duration": duration, "flops": flops,
                            "words": lambda name: name.replace("_", " ")}  # fmt: skip
    return environment


def _template() -> str:
    return (resources.files("equal.io") / "report.html").read_text(encoding="utf-8")


def number(value: float | None, digits: int = 3) -> str:
    """A decimal with a true minus sign, or a dash for what was not measured."""
    return MISSING if value is None else f"{value:,.{digits}f}".replace("-", "−")


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    return MISSING if value is None else f"{round(value):,}"


def percent(share: float) -> str:
    """A share in per cent, one digit below ten."""
    if 0 < share < 0.0005:
        return "< 0.1%"
    return f"{share:.0%}" if share >= 0.1 or share == 0 else f"{share:.1%}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 8.2 s, 6 min 05 s, 2 h 10 min."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02d} min"


def flops(value: float) -> str:
    """Floating-point operations with an SI prefix."""
    for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{value / size:,.3g} {prefix}FLOP"
    return MISSING if not value else re.sub(r"\.0$", "", f"{value:,.1f}") + " FLOP"

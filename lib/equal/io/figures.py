"""The report's plots. Colours are roles: the page's script fills them in for light or dark (`meta` names the role)."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio

Point = dict[str, Any]

#: arms that get a colour of their own in the reward plot; the others stay grey
NUM_HIGHLIGHTED = 5
#: arms whose number stands on the map
NUM_NAMED = 6
_NAMES = {"equal": "EQUAL", "random": "random"}
_CONFIG = {"responsive": True, "displayModeBar": False}


def to_div(figure: go.Figure, name: str) -> str:
    """HTML of a figure, without the plotting library itself; text in it is escaped for a script element."""
    return str(pio.to_html(figure, full_html=False, include_plotlyjs=False, config=_CONFIG, div_id=f"plot-{name}"))


def funnel(corpus: Sequence[tuple[str, int]], run: Sequence[tuple[str, int]]) -> go.Figure:
    """Documents left after each step, from the top down: those of the corpus, then those of the run."""
    bars = [
        go.Bar(
            x=[count for _, count in steps], y=[label for label, _ in steps], orientation="h", meta=role, width=0.62,
            text=[f"{count:,}" for _, count in steps], textposition="outside", cliponaxis=False, hoverinfo="skip",
        )
        for role, steps in (("neutral", corpus), ("equal", run))
    ]  # fmt: skip
    figure = _figure(bars, height=20 + 38 * (len(corpus) + len(run)), legend=False)
    figure.update_layout(barmode="overlay")
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="", showline=False, ticklabelstandoff=8)
    figure.update_xaxes(visible=False, range=[0, 1.28 * max(1, *(count for _, count in [*corpus, *run]))])
    return figure


def arm_map(arms: Sequence[Point]) -> go.Figure:
    """Arms in the plane of their first two principal components.

    Args:
        arms: each with arm_id, x, y, size (documents), read, reward (None when it has none), label.
    """
    largest = max([1, *(arm["size"] for arm in arms)])
    most = max([1, *(arm["read"] for arm in arms)])
    widest = min(36, 160 / max(len(arms), 1) ** 0.5)
    sizes = {arm["arm_id"]: 6 + widest * (arm["size"] / largest) ** 0.5 for arm in arms}
    seen = [arm for arm in arms if arm["reward"] is not None]
    bar = {"orientation": "h", "thickness": 8, "len": 0.6, "y": -0.02, "yanchor": "top", "outlinewidth": 0}
    scale = {"color": [arm["reward"] for arm in seen], "showscale": len(seen) > 0,
             "colorbar": bar | {"title": {"text": "reward", "side": "top", "font": {"size": 13}}}}  # fmt: skip
    traces = [
        _discs([arm for arm in arms if arm["reward"] is None], sizes, "quiet", {}),
        _discs(seen, sizes, "reward", scale),
        _rings([arm for arm in arms if arm["read"]], sizes, most),
    ]
    figure = _figure(traces, height=460, legend=False)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


def _discs(arms: Sequence[Point], sizes: Mapping[int, float], role: str, colours: dict[str, Any]) -> go.Scatter:
    return go.Scatter(
        x=[arm["x"] for arm in arms], y=[arm["y"] for arm in arms], mode="markers", meta=role,
        marker={"size": [sizes[arm["arm_id"]] for arm in arms], "opacity": 1, "line": {"width": 0}, **colours},
        text=[_arm_label(arm) for arm in arms], hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _rings(arms: Sequence[Point], sizes: Mapping[int, float], most: int) -> go.Scatter:
    """A ring around each arm that was read, a gap away from its disc; the most read ones carry their number."""
    named = {arm["arm_id"] for arm in sorted(arms, key=lambda arm: -arm["read"])[:NUM_NAMED]}
    return go.Scatter(
        x=[arm["x"] for arm in arms], y=[arm["y"] for arm in arms], mode="markers+text", meta="ring",
        marker={
            "symbol": "circle-open", "opacity": 1, "size": [sizes[arm["arm_id"]] + 7 for arm in arms],
            "line": {"width": [0.5 + 4.5 * arm["read"] / most for arm in arms]},
        },
        text=[f"arm {arm['arm_id']}" if arm["arm_id"] in named else "" for arm in arms],
        textposition="top center", hoverinfo="skip",
    )  # fmt: skip


def _arm_label(arm: Point) -> str:
    """Hover text; plotly reads tags in it, so what comes from documents is escaped."""
    reward = "no pairs yet" if arm["reward"] is None else f"reward {arm['reward']:.3f}"
    label = html.escape(arm["label"][:70])
    return f"<b>arm {arm['arm_id']}</b>, {reward}<br>{arm['read']:,} of {arm['size']:,} documents read<br>{label}"


def rewards(rows: Sequence[Point], last_iteration: int, num_warm_up: int) -> go.Figure:
    """Reward of each arm over the iterations with its standard error: bars on the best arms, the others' when touched.

    Args:
        rows: arm_id, iteration, reward, standard_error, pairs; ordered by iteration, without missing rewards.
        last_iteration: to which a reward that no longer changes is drawn on.
        num_warm_up: iterations that read the warm-up, the first ones.
    """
    by_arm: dict[int, list[Point]] = {}
    for row in rows:
        by_arm.setdefault(row["arm_id"], []).append(row)
    best = sorted(by_arm, key=lambda arm: (-by_arm[arm][-1]["reward"], arm))
    x: list[float | None] = []
    y: list[float | None] = []
    texts: list[str] = []
    for arm in best[NUM_HIGHLIGHTED:]:
        x += [*(row["iteration"] for row in by_arm[arm]), last_iteration, None]
        y += [*(row["reward"] for row in by_arm[arm]), by_arm[arm][-1]["reward"], None]
        known = [_reward_label(row) for row in by_arm[arm]]
        texts += [f"<b>arm {arm}</b>, {label}" for label in [*known, known[-1]]] + [""]
    others = go.Scatter(
        x=x, y=y, mode="lines", line={"width": 1}, meta="quiet", name="other arms",
        text=texts, hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    traces = [
        _reward_line(arm, by_arm[arm], place, last_iteration) for place, arm in enumerate(best[:NUM_HIGHLIGHTED])
    ]
    if x:
        traces.insert(0, others)
    figure = _figure(traces, height=420)
    named = {0: "", 1: " (0 is the warm-up)"}.get(num_warm_up, f" (0 to {num_warm_up - 1} are the warm-up)")
    figure.update_xaxes(title_text=f"iteration{named}", dtick=1 if last_iteration <= 12 else None, showgrid=False)
    figure.update_yaxes(title_text="reward, 1 − transport cost")
    return figure


def _reward_line(arm: int, points: Sequence[Point], place: int, last_iteration: int) -> go.Scatter:
    """One highlighted arm; moved sideways a little so that error bars stand beside each other."""
    held = {**points[-1], "iteration": last_iteration, "standard_error": None}
    drawn = points if points[-1]["iteration"] == last_iteration else [*points, held]
    aside = 0.05 * (place - (NUM_HIGHLIGHTED - 1) / 2)
    return go.Scatter(
        x=[row["iteration"] + aside for row in drawn], y=[row["reward"] for row in drawn], name=f"arm {arm}",
        mode="lines+markers", line={"width": 2}, meta=f"arm{place + 1}",
        marker={"size": [7 if row in points else 0 for row in drawn], "line": {"width": 0}},
        error_y={"array": [row["standard_error"] or 0 for row in drawn], "thickness": 1, "width": 0},
        text=[_reward_label(row) for row in drawn],
        hovertemplate="%{text}<extra>" + f"arm {arm}</extra>",
    )  # fmt: skip


def _reward_label(row: Point) -> str:
    error = "" if row["standard_error"] is None else f" ± {row['standard_error']:.3f}"
    return f"iteration {row['iteration']}: {row['reward']:.3f}{error}, {row['pairs']:,} pairs"


def distances(curves: Mapping[str, Sequence[Point]]) -> go.Figure:
    """Distance to the held-out reference against documents read, with bootstrap intervals.

    Args:
        curves: run role -> points with documents, value, low, high.
    """
    traces = [
        go.Scatter(
            x=[point["documents"] for point in points], y=[point["value"] for point in points], name=_NAMES[role],
            mode="lines+markers", line={"width": 2}, marker={"size": 6}, meta=role,
            error_y={
                "symmetric": False, "thickness": 1, "width": 0,
                "array": [_reach(point, "high") for point in points],
                "arrayminus": [_reach(point, "low") for point in points],
            },
            hovertemplate="%{x:,} documents: %{y:.4f}<extra>" + _NAMES[role] + "</extra>",
        )
        for role, points in curves.items()
    ]  # fmt: skip
    figure = _figure(traces, height=380)
    figure.update_xaxes(title_text="documents read", tickformat=",", rangemode="tozero", showgrid=False)
    figure.update_yaxes(title_text="transport distance")
    return figure


def _reach(point: Point, end: str) -> float:
    return 0.0 if point[end] is None else abs(point[end] - point["value"])


def outcomes(names: Sequence[str], counts: Mapping[str, Mapping[str, int]]) -> go.Figure:
    """Share of the documents read that ended in each outcome.

    Args:
        names: the outcomes, from the top down.
        counts: run role -> outcome -> documents.
    """
    totals = {role: max(sum(by.values()), 1) for role, by in counts.items()}
    labels = [name.replace("_", " ") for name in names]
    traces = [
        go.Bar(
            y=labels, x=[by.get(name, 0) / totals[role] for name in names], orientation="h", name=_NAMES[role],
            meta=role, text=[f"{by.get(name, 0):,}" for name in names], textposition="outside", cliponaxis=False,
            hovertemplate="%{y}: %{x:.1%}<extra>" + _NAMES[role] + "</extra>",
        )
        for role, by in counts.items()
    ]  # fmt: skip
    figure = _figure(traces, height=90 + (24 * len(counts) + 14) * len(names))
    figure.update_layout(bargap=0.35)
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="", ticklabelstandoff=8)
    figure.update_xaxes(title_text="share of the documents read", tickformat=".0%", rangemode="tozero", nticks=6)
    return figure


def losses(curves: Mapping[str, Sequence[tuple[int, float]]]) -> go.Figure:
    """Training loss by optimiser step.

    Args:
        curves: run role -> (step, loss in nats per answer token).
    """
    traces = [
        go.Scatter(
            x=[step for step, _ in points], y=[loss for _, loss in points], name=_NAMES[role], meta=role,
            mode="lines" if len(points) > 30 else "lines+markers", line={"width": 2}, marker={"size": 5},
            hovertemplate="step %{x:,}: %{y:.3f}<extra>" + _NAMES[role] + "</extra>",
        )
        for role, points in curves.items()
    ]  # fmt: skip
    figure = _figure(traces, height=340)
    figure.update_xaxes(title_text="optimiser step", tickformat=",", showgrid=False)
    figure.update_yaxes(title_text="loss, nats per token")
    return figure


def plane(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """Project (n, d) vectors on their first two principal components.

    Returns:
        (n, 2) coordinates, the sign of each axis fixed by its largest entry, and the share of variance they hold.
    """
    centred = vectors - vectors.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(vectors), 2))
    width = min(2, left.shape[1])
    points[:, :width] = left[:, :width] * singular[:width]
    for axis in range(width):
        if points[np.abs(points[:, axis]).argmax(), axis] < 0:
            points[:, axis] *= -1
    total = float((singular**2).sum())
    return points, float((singular[:2] ** 2).sum()) / total if total > 0 else 1.0


def _figure(traces: Sequence[Any], *, height: int, legend: bool = True) -> go.Figure:
    layout = go.Layout(
        template="none", height=height, margin={"l": 8, "r": 16, "t": 36 if legend else 8, "b": 8}, autosize=True,
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", showlegend=legend, dragmode=False,
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"},
        font={"family": "system-ui, sans-serif", "size": 13},
        xaxis={"automargin": True, "zeroline": False, "title": {"font": {"size": 13}, "standoff": 12}},
        yaxis={"automargin": True, "zeroline": False, "title": {"font": {"size": 13}, "standoff": 12}},
    )  # fmt: skip
    return go.Figure(data=list(traces), layout=layout)

"""Line charts as SVG for a page: its style sheet colours them, so that they suit a light and a dark page."""

import io
import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

Values = Sequence[tuple[int, float]]  # iteration and value, in rising order of the iterations
COLOURS = ("#0072b2", "#d55e00", "#00875f", "#b8609a", "#a87400", "#3a9ad9", "#4d4d4d", "#8a3ffc")
TEXT, GRID, CARD = "#5b616b", "#e3e4e1", "#fefefe"
VARIABLES = {**{colour: f"s{n}" for n, colour in enumerate(COLOURS)}, TEXT: "soft", GRID: "rule", CARD: "card"}
"""Colours that matplotlib writes -> the variables of the style sheet that take their place."""


def line_style(number: int) -> tuple[str, str]:
    """Return the CSS colour and the ``stroke-dasharray`` of line ``number``; 24 lines differ."""
    return f"var(--s{number % len(COLOURS)})", ("", "7 4", "2 3")[number // len(COLOURS) % 3]


def running_mean(values: Values) -> Values:
    """Average over a twentieth of the values, each mean at the middle iteration; fewer than 40 values stay."""
    window = len(values) // 20
    if window < 2:
        return values
    means = np.convolve([value for _, value in values], np.full(window, 1 / window), "valid")
    middle = (window - 1) // 2
    return [(step, float(mean)) for (step, _), mean in zip(values[middle:], means, strict=False)]


def thin(values: Values, maximum: int = 300) -> Values:
    """Keep at most about ``maximum`` evenly spaced values, and the last one."""
    stride = math.ceil(len(values) / maximum)
    return [*values[: len(values) - 1 : stride], *values[-1:]]


def line_chart(lines: Sequence[tuple[str, int, Values]], scale: float = 1.0) -> tuple[str, bool]:
    """Draw values over iterations; return the ``<svg>`` element and whether the vertical axis is logarithmic.

    A line is a name, the number of its `line_style`, and at least one value; values are multiplied by ``scale``.
    Running means are drawn, and behind them the raw values, pale, if there are few lines. Names appear on hovering. The
    axis is logarithmic where all values are positive and span a wide range.
    """
    crowded = len(lines) > 4
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": repr(lines), "font.size": 9}):
        figure = Figure(figsize=(4.2, 2.5), layout="constrained")
        axis = figure.subplots()
        drawn: list[float] = []
        for name, style, unscaled in lines:
            values = [(step, scale * value) for step, value in unscaled]
            means = running_mean(values)
            drawn += [value for _, value in (means if crowded else values)]
            colour, dashes = COLOURS[style % len(COLOURS)], [float(n) * 0.5 for n in line_style(style)[1].split()]
            line: Any = {"color": colour, "clip_on": False}
            if means is not values and not crowded:
                axis.plot(*zip(*thin(values), strict=True), linewidth=0.75, alpha=0.3, **line)
            axis.plot(*zip(*thin(means), strict=True), linewidth=1.5, dashes=dashes, gid=f">{name}", **line)
            for step, value in values if len(values) <= 12 else ():  # few enough for a dot each
                title = f">{name}: {value:.4g} at iteration {step}"
                axis.plot(step, value, "o", markeredgecolor=CARD, markersize=5, gid=title, **line)
        low, high = min(drawn), max(drawn)
        logarithmic = low > 0 and high / low > 30
        if logarithmic:
            axis.set_yscale("log")
            axis.set_ylim(low / 1.15, high * 1.15)
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("")
        else:
            room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
            axis.set_ylim(max(0.0, low - room) if low >= 0 else low - room, high + room)
        axis.set_xlim(left=min(0, *(step for _, _, values in lines for step, _ in values)))
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.set_xlabel("iteration", color=TEXT, loc="right")
        axis.grid(axis="y", color=GRID, linewidth=0.75, clip_on=False)
        axis.tick_params(which="both", length=0, labelcolor=TEXT)
        axis.spines[["left", "top", "right"]].set_visible(False)
        axis.spines["bottom"].set_color(TEXT)
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return _for_page(file.getvalue()), logarithmic


def _for_page(svg: str) -> str:
    """Leave out what a page has once (prolog, style, sizes, ids), name lines on hovering, use the page's colours."""
    _, box, rest = re.split(r'(viewBox="[^"]*")', svg, maxsplit=1)
    body = re.sub(r"<style.*?</style>| font-family: [^;]*;", "", rest.partition(">")[2], flags=re.S)
    body = re.sub(r'<g id="&gt;([^"]*)">', r"<g><title>\1</title>", body)
    body = re.sub(r'<(g|text) id="[^"]*"', r"<\1", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    body = re.sub(r"\s*\n\s*", " ", body.replace("<g/>", ""))
    return f'<svg class="chart" {box}>{body.strip()}'

"""Line charts as SVG, drawn for a page: colours and fonts come from its style sheet."""

import math
from dataclasses import dataclass

from tag2mask.report.logs import Series
from tag2mask.report.markup import Markup, el, join

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 12, 34
COLOURS = 8
"""Colours of the style sheet; further lines are dashed."""
DASHES = (None, "7 4", "2 3")
MOST_POINTS = 300
MOST_RAW = 4
"""Lines of a chart up to which values are drawn as logged, beside their running means."""
LOG_FROM = 30.0
"""Ratio of largest to smallest value from which an axis is logarithmic."""


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: shown in the legend and on hovering.
        style: number of its colour and dashes, the same in every chart of a page.
        values: by iteration.
    """

    name: str
    style: int
    values: Series

    @property
    def look(self) -> dict[str, str | None]:
        """Attributes of its strokes."""
        dash = DASHES[self.style // COLOURS % len(DASHES)]
        return {"class_": f"line s{self.style % COLOURS}", "stroke_dasharray": dash}


@dataclass(frozen=True)
class Axis:
    """A scale from values to pixels."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high = (math.log10(v) if self.logarithmic else v for v in (self.low, self.high))
        share = ((math.log10(value) if self.logarithmic else value) - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Return round values on it."""
        if not self.logarithmic:
            return steps(self.low, self.high)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        factors = (1, 2, 5) if len(powers) <= 3 else (1,)
        found = [factor * 10.0**power for power in powers for factor in factors]
        return [value for value in found if self.low <= value <= self.high]


def steps(low: float, high: float, about: int = 5) -> list[float]:
    """Return about that many round values in [low, high], evenly spaced."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def smooth(values: Series) -> Series:
    """Return running means over a twentieth of the values, each at the middle iteration; few values stay."""
    window = len(values) // 20
    if window < 2:
        return values
    sums = [0.0]
    for _, value in values:
        sums.append(sums[-1] + value)
    ends = range(window, len(values) + 1)
    return [(values[end - 1 - window // 2][0], (sums[end] - sums[end - window]) / window) for end in ends]


def thin(values: Series, most: int = MOST_POINTS) -> Series:
    """Leave out points beyond what can be seen; the last one stays."""
    stride = math.ceil(len(values) / most)
    return [point for number, point in enumerate(values) if number % stride == 0 or number == len(values) - 1]


def legend(lines: list[Line]) -> Markup:
    """Return the names of the lines beside their strokes."""
    items = []
    for line in lines:
        stroke = el("line", x1=1, y1=6, x2=27, y2=6, **line.look)
        sample = el("svg", stroke, viewBox="0 0 28 12", width=28, height=12, aria_hidden="true")
        items.append(el("li", sample, line.name))
    return el("ul", *items, class_="legend")


def chart(title: str, lines: list[Line], as_percent: bool = False) -> Markup:
    """Return a figure with one chart: iterations to the right, values upwards.

    Of many values running means are drawn, and pale the values as logged, if there are few lines. An axis over more
    than a power of ten or so is logarithmic.

    Args:
        title: above the chart.
        lines: at least one value in all.
        as_percent: values are fractions.
    """
    scale = 100.0 if as_percent else 1.0
    lines = [Line(line.name, line.style, [(step, v * scale) for step, v in line.values]) for line in lines]
    crowded = len(lines) > MOST_RAW
    across, up = _axes([Line(line.name, line.style, smooth(line.values)) for line in lines] if crowded else lines)
    last = "; ".join(f"{line.name} {line.values[-1][1]:.4g} at {line.values[-1][0]}" for line in lines if line.values)
    drawing = el(
        "svg",
        _grid(across, up),
        *(_draw(line, across, up, crowded) for line in lines if line.values),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title}. Last values: {last}",
        class_="chart",
    )
    unit = ", percent" if as_percent else ", logarithmic" if up.logarithmic else ""
    return el("figure", el("figcaption", el("b", title), unit), drawing)


def _axes(lines: list[Line]) -> tuple[Axis, Axis]:
    iterations = [step for line in lines for step, _ in line.values]
    values = [value for line in lines for _, value in line.values]
    low, high = min(values), max(values)
    logarithmic = low > 0 and high / low > LOG_FROM
    if logarithmic:
        low, high = low / 1.15, high * 1.15
    else:
        room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        low, high = (max(0.0, low - room) if low >= 0 else low - room), high + room
    left, right = min(0, *iterations), max(iterations)
    across = Axis(left, right if right > left else left + 1, LEFT, WIDTH - RIGHT)
    return across, Axis(low, high, HEIGHT - BOTTOM, TOP, logarithmic)


def _grid(across: Axis, up: Axis) -> Markup:
    parts = []
    for value in up.ticks():
        y = up.at(value)
        parts.append(el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(el("text", f"{value:g}", x=LEFT - 7, y=y + 4, text_anchor="end"))
    for value in across.ticks():
        if value == int(value):
            anchor = "end" if across.at(value) > WIDTH - 40 else "middle"
            parts.append(el("text", f"{value:.0f}", x=across.at(value), y=HEIGHT - BOTTOM + 16, text_anchor=anchor))
    base = el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM, class_="base")
    name = el("text", "iteration", x=WIDTH - RIGHT, y=HEIGHT - 3, text_anchor="end", class_="unit")
    return join(*parts, base, name)


def _draw(line: Line, across: Axis, up: Axis, crowded: bool) -> Markup:
    means = smooth(line.values)
    parts = [] if means is line.values or crowded else [_path(line, line.values, across, up, " raw")]
    parts.append(_path(line, means, across, up))
    if len(line.values) <= 12:
        parts += [
            el("circle", el("title", f"{line.name}: {value:.4g} at iteration {step}"), cx=x, cy=y, r=3.5, class_=dot)
            for step, value in line.values
            for x, y, dot in [(across.at(step), up.at(value), f"dot s{line.style % COLOURS}")]
        ]
    return el("g", el("title", line.name), *parts)


def _path(line: Line, values: Series, across: Axis, up: Axis, kind: str = "") -> Markup:
    points = " ".join(f"{across.at(step)},{up.at(value)}" for step, value in thin(values))
    return el("polyline", points=points, **{**line.look, "class_": f"{line.look['class_']}{kind}"})

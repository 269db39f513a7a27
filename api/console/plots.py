"""Charts as shapes of SVG, with the table behind each: `plots.html` draws them.

The arithmetic of every chart of the console is here. A chart has no colours: its shapes have classes, which the
stylesheet paints in light and dark.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Write = Callable[[float | None], str]  # a number as its reader's language has it
Point = tuple[float, float]

WIDTH, HEIGHT = 340.0, 190.0  # of a chart with axes, in units of its own
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 10.0, 26.0  # what the axes and their numbers take
GAUGE_WIDTH, GAUGE_HEIGHT = 300.0, 48.0  # of bars over time, without axes
STYLES = 6  # series that look different
SHOWN_POINTS = 40  # a line of more has no marks


@dataclass(frozen=True, slots=True)
class Shape:
    """An element of SVG."""

    tag: str
    attributes: dict[str, str | float]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """A line: its name, and its points in the order of x."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Chart:
    """Shapes in a box from (0, 0) to (width, height), the names of the series, and the table of what is drawn."""

    width: float
    height: float
    shapes: list[Shape]
    names: list[str] = field(default_factory=list)
    head: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Gauge:
    """Bars over time: what they show, the present value and the highest one in words, and the bars."""

    title: str
    now: str
    top: str  # of the highest bar; empty where every value is 0, or there is none
    bars: list[Shape]
    is_bad: bool
    width: float = GAUGE_WIDTH
    height: float = GAUGE_HEIGHT


# ── over the last minutes ────────────────────────────────────────────────────────────────────────────────────────


def gauge(
    title: str,
    spans: Sequence[tuple[tuple[float, float], float | None]],
    now: str,
    write: Callable[[float], str],
    *,
    is_bad: bool = False,
) -> Gauge:
    """Return bars of values over time.

    Each value stands with its begin and its end, as shares of the width (0 to 1); a value of None has no bar.
    `write` says the highest value in words.
    """
    top = max((value for _, value in spans if value is not None), default=0.0)
    bars = []
    for (begin, end), value in spans:
        left, right = max(begin, 0.0) * GAUGE_WIDTH, min(end, 1.0) * GAUGE_WIDTH
        if value and right > left:
            height = max(value / top * GAUGE_HEIGHT, 1.0)
            width = max(right - left - 0.6, 0.4)  # a hair of space between two
            bars.append(_rect(left, GAUGE_HEIGHT - height, width, height, "now"))
    return Gauge(title, now, write(top) if top else "", bars, is_bad)


# ── small ones, inside a row of a table ──────────────────────────────────────────────────────────────────────────


def spark(reference: Sequence[float], now: Sequence[float]) -> Chart:
    """Return the shares of n bins as columns: pale ones of the reference, narrow ones of now before them."""
    width, height = 120.0, 30.0
    before, after = shares(reference), shares(now)
    top = max([*before, *after, 1e-9])
    step = width / max(len(before), len(after), 1)
    shapes = []
    for values, part, name in ((before, 0.9, "then"), (after, 0.4, "now")):
        for place, value in enumerate(values):
            tall = height * value / top
            if tall > 0:
                left = step * (place + (1 - part) / 2)
                shapes.append(_rect(left, height - tall, step * part, tall, name))
    return Chart(width, height, shapes)


def pair(reference: float, now: float, top: float) -> Chart:
    """Return two bars from the left, the pale one of the reference and the narrow one of now; `top` fills the width."""
    width, height = 160.0, 14.0
    scale = width / top if top > 0 else 0.0
    shapes = [_rect(0, 0, reference * scale, height, "then"), _rect(0, 4, now * scale, height - 8, "now")]
    return Chart(width, height, [shape for shape in shapes if shape.attributes["width"]])


def interval(
    value: float | None,
    low: float | None,
    high: float | None,
    *,
    start: float = 0.0,
    end: float = 1.0,
    mark: float | None = None,
) -> Chart:
    """Return a value with its interval on a scale from `start` to `end`; `mark` is a value to compare with."""
    width, height = 160.0, 16.0

    def place(number: float) -> float:
        share = (number - start) / (end - start) if end > start else 0.5
        return 4 + (width - 8) * min(max(share, 0.0), 1.0)

    shapes = [_line(0, height / 2, width, height / 2, "axis")]
    if start < 0 < end:
        shapes.append(_line(place(0), 1, place(0), height - 1, "axis"))
    if low is not None and high is not None:
        shapes.append(_rect(place(low), height / 2 - 2, max(place(high) - place(low), 1.0), 4, "range"))
    if mark is not None:
        shapes.append(_line(place(mark), 1, place(mark), height - 1, "mark"))
    if value is not None:
        shapes.append(_circle(place(value), height / 2, 3.5, "point"))
    return Chart(width, height, shapes)


# ── with axes ────────────────────────────────────────────────────────────────────────────────────────────────────


def lines(
    series: Sequence[Series],
    labels: Sequence[str],
    write: Write,
    *,
    column: str,
    top: float | None = None,
) -> Chart:
    """Return lines over places from 0 to n - 1 with these labels, from 0 up to `top` or the largest value.

    `column` is the head of the labels in the table; a series without a value at a place has a dash there.
    """
    largest = max((y for one in series for _, y in one.points), default=0.0)
    ceiling = top if top is not None else _ceiling(largest)
    frame = _Frame(0.0, max(float(len(labels) - 1), 1.0), 0.0, ceiling)
    shapes = frame.grid([0.0, ceiling / 2, ceiling], write)
    if labels:
        shapes.append(_text(frame.x(0), HEIGHT - 8, labels[0], "tick start"))
    if len(labels) > 1:
        shapes.append(_text(frame.x(len(labels) - 1), HEIGHT - 8, labels[-1], "tick end"))
    for place, one in enumerate(series):
        shapes += frame.line(one.points, f"s{place % STYLES}")
    values = [dict(one.points) for one in series]
    rows = [[label, *(write(of_one.get(float(place))) for of_one in values)] for place, label in enumerate(labels)]
    return Chart(WIDTH, HEIGHT, shapes, [one.name for one in series], [column, *(one.name for one in series)], rows)


def curves(
    series: Sequence[Series],
    write: Write,
    *,
    head: Sequence[str],
    rows: Sequence[Sequence[str]] | None = None,
    top: float | None = 1.0,
    diagonal: bool = False,
    bars: Sequence[tuple[float, float, float]] = (),
) -> Chart:
    """Return lines over x from 0 to 1, up to `top` (None: the largest value); `bars` are (x, low, high) of intervals.

    `head` and `rows` are the table; without rows it has the points.
    """
    ceiling = _ceiling(max((y for one in series for _, y in one.points), default=0.0)) if top is None else top
    frame = _Frame(0.0, 1.0, 0.0, ceiling)
    shapes = frame.grid([0.0, ceiling / 2, ceiling], write)
    shapes += [_text(frame.x(x), HEIGHT - 8, write(x), f"tick {where}") for x, where in _ENDS]
    if diagonal:
        shapes.append(_line(frame.x(0), frame.y(0), frame.x(1), frame.y(ceiling), "diagonal"))
    shapes += [_line(frame.x(x), frame.y(low), frame.x(x), frame.y(high), "range") for x, low, high in bars]
    for place, one in enumerate(series):
        shapes += frame.line(one.points, f"s{place % STYLES}")
    cells = [[write(x), write(y)] for one in series for x, y in one.points] if rows is None else map(list, rows)
    return Chart(WIDTH, HEIGHT, shapes, [one.name for one in series], list(head), list(cells))


_ENDS = ((0.0, "start"), (0.5, "middle"), (1.0, "end"))


@dataclass(frozen=True, slots=True)
class _Frame:
    """The axes of a chart: what stands where."""

    left: float
    right: float
    low: float
    high: float

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - self.left) / (self.right - self.left)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(share, 0.0), 1.0)

    def grid(self, steps: Sequence[float], write: Write) -> list[Shape]:
        shapes = []
        for step in steps:
            shapes.append(_line(LEFT, self.y(step), WIDTH - RIGHT, self.y(step), "axis"))
            shapes.append(_text(LEFT - 6, self.y(step) + 4, write(step), "tick end"))
        return shapes

    def line(self, points: Sequence[Point], name: str) -> list[Shape]:
        if not points:
            return []
        places = [(self.x(x), self.y(y)) for x, y in points]
        path = "M" + "L".join(f"{_short(x)} {_short(y)}" for x, y in places)
        shapes = [Shape("path", {"d": path, "class": f"line {name}"})]
        if len(places) <= SHOWN_POINTS:
            shapes += [_circle(x, y, 2.6, f"dot {name}") for x, y in places]
        return shapes


def shares(values: Sequence[float]) -> list[float]:
    """Return n counts as shares of their sum; zeros where there are none."""
    total = sum(values)
    return [value / total for value in values] if total > 0 else [0.0] * len(values)


def thinned(points: Sequence[Point], most: int = 200) -> list[Point]:
    """Return at most so many points of a line in even steps, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(place * (len(points) - 1) / (most - 1))] for place in range(most)]


def _ceiling(value: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten, from a value up."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if value <= step * power * (1 + 1e-9))


def _short(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _rect(x: float, y: float, width: float, height: float, name: str) -> Shape:
    sides = {"x": x, "y": y, "width": width, "height": height}
    return Shape("rect", {**{side: round(value, 2) for side, value in sides.items()}, "class": name})


def _line(x1: float, y1: float, x2: float, y2: float, name: str) -> Shape:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return Shape("line", {**{end: round(value, 2) for end, value in ends.items()}, "class": name})


def _circle(x: float, y: float, radius: float, name: str) -> Shape:
    return Shape("circle", {"cx": round(x, 2), "cy": round(y, 2), "r": radius, "class": name})


def _text(x: float, y: float, text: str, name: str) -> Shape:
    return Shape("text", {"x": round(x, 2), "y": round(y, 2), "class": name}, text)

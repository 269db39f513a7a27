"""Charts as SVG, made on the server: small bars over time, with the numbers in words beside them."""

from collections.abc import Callable
from dataclasses import dataclass

WIDTH, HEIGHT = 300.0, 48.0


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle in units of the chart, from its upper left corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart: what it shows, its present value and its highest one in words, and its bars."""

    title: str
    now: str
    top: str  # of the highest bar; empty where every value is 0, or there is none
    bars: list[Bar]
    is_bad: bool
    view: str = f"0 0 {WIDTH:.0f} {HEIGHT:.0f}"


def bar_chart(
    title: str,
    spans: list[tuple[tuple[float, float], float | None]],
    now: str,
    write: Callable[[float], str],
    *,
    is_bad: bool = False,
) -> Chart:
    """Return a chart of values over time.

    Each value stands with its begin and its end, as shares of the chart's width (0 to 1); a value of None has no bar.
    `write` says the highest value in words.
    """
    top = max((value for _, value in spans if value is not None), default=0.0)
    bars = []
    for (begin, end), value in spans:
        left, right = max(begin, 0.0) * WIDTH, min(end, 1.0) * WIDTH
        if value and right > left:
            height = max(value / top * HEIGHT, 1.0)
            width = max(right - left - 0.6, 0.4)  # a hair of space between two
            bars.append(Bar(round(left, 2), round(HEIGHT - height, 2), round(width, 2), round(height, 2)))
    return Chart(title, now, write(top) if top else "", bars, is_bad)

"""The arithmetic of plots, and the pages in Markdown that cards are read from."""

import re

import pytest

from api.console import plots
from api.console.language import Words
from api.console.pages.model_card import read_markdown
from api.console.plots import GAUGE_HEIGHT, GAUGE_WIDTH, Chart, Series, gauge
from api.console.rendering import environment

NUMBER = Words("en").number


def numbers_of(chart: Chart) -> list[float]:
    """Return every coordinate of a chart's shapes."""
    numbers = []
    for shape in chart.shapes:
        for name, value in shape.attributes.items():
            if name == "d":
                numbers += [float(number) for number in re.findall(r"[\d.]+", str(value))]
            elif name != "class":
                numbers.append(float(value))
    return numbers


def test_spark_compares_shares_and_not_counts() -> None:
    chart = plots.spark([10, 10], [1_000, 1_000])
    heights = {shape.attributes["height"] for shape in chart.shapes}
    assert len(chart.shapes) == 4
    assert heights == {chart.height}


@pytest.mark.parametrize(
    "chart",
    [
        plots.spark([], []),
        plots.spark([0, 0], [0, 0]),
        plots.pair(0, 0, 0),
        plots.interval(None, None, None),
        plots.interval(0.5, 0.4, 0.6, start=0.5, end=0.5),
        plots.interval(7.0, -3.0, 9.0, mark=5.0),
        plots.lines([], [], NUMBER, column="day"),
        plots.lines([Series("@1", [])], ["a"], NUMBER, column="day"),
        plots.lines([Series("@1", [(0.0, 0.0), (1.0, 0.0)])], ["a", "b"], NUMBER, column="day"),
        plots.lines([Series("@1", [(0.0, 3.0), (1.0, 70_000.0)])], ["a", "b"], NUMBER, column="day"),
        plots.curves([Series("roc", [(0.0, 0.0), (1.0, 1.0)])], NUMBER, head=["x", "y"], diagonal=True),
        plots.curves([Series("cost", [(0.1, 12.0)])], NUMBER, head=["x", "y"], top=None, bars=[(0.1, 0.0, 20.0)]),
    ],
    ids=lambda chart: f"{len(chart.shapes)}-shapes",
)
def test_shapes_stay_inside_the_box(chart: Chart) -> None:
    assert all(0 <= number <= max(chart.width, chart.height) for number in numbers_of(chart))


def test_table_has_what_the_lines_have_and_a_dash_where_there_is_nothing() -> None:
    chart = plots.lines(
        [Series("@2", [(0.0, 0.5), (1.0, 0.25)]), Series("@1", [(1.0, 1.0)])], ["Mon", "Tue"], NUMBER, column="Day"
    )
    assert chart.head == ["Day", "@2", "@1"]
    assert chart.rows == [["Mon", "0.5", "–"], ["Tue", "0.25", "1"]]
    first, second = (shape for shape in chart.shapes if shape.tag == "path")
    assert first.attributes["class"] != second.attributes["class"]


def test_long_line_keeps_its_ends() -> None:
    points = [(float(place), float(place)) for place in range(10_000)]
    thin = plots.thinned(points)
    assert len(thin) == 200
    assert (thin[0], thin[-1]) == (points[0], points[-1])
    assert plots.thinned(points[:50]) == points[:50]


def test_names_in_a_plot_are_escaped() -> None:
    chart = plots.lines([Series("<b>", [(0.0, 1.0)]), Series("x", [])], ["<i>"], NUMBER, column="<u>")
    text = environment().get_template("plots.html").module.figure(chart, '"<s>', Words("en"))  # type: ignore[attr-defined]
    assert not re.search(r"<[bius]>", text)
    assert "&lt;i&gt;" in text


def test_page_in_markdown_becomes_headings_texts_lists_and_tables() -> None:
    page = (
        "# Model card of x\n\nPredicts \\_y, by `sha`.\n\n## Data\n\n- one\n- two\n\n- three\n\n"
        "| a | b |\n| --- | --- |\n| 1\\|2 | - |\n"
    )
    blocks = [(block.kind, block.text, block.rows) for block in read_markdown(page)]
    assert blocks == [
        ("heading", "Model card of x", []),
        ("text", "Predicts _y, by sha.", []),
        ("heading", "Data", []),
        ("list", "", [["one"], ["two"]]),
        ("list", "", [["three"]]),
        ("table", "", [["a", "b"], ["1|2", "-"]]),
    ]


def test_bars_stand_in_their_time_and_none_is_without_a_bar() -> None:
    spans = [((0.0, 0.5), 1.0), ((0.5, 0.75), None), ((0.75, 1.0), 4.0), ((-1.0, -0.5), 2.0)]
    chart = gauge("Rows", spans, "4", lambda value: f"{value:.0f}!", is_bad=True)
    assert (chart.now, chart.top, chart.is_bad) == ("4", "4!", True)
    bars = [[float(bar.attributes[side]) for side in ("x", "y", "width", "height")] for bar in chart.bars]
    first, second = bars
    assert (first[0], first[3]) == (0, GAUGE_HEIGHT / 4)
    assert first[1] + first[3] == GAUGE_HEIGHT
    assert (second[0], second[1], second[3]) == (0.75 * GAUGE_WIDTH, 0, GAUGE_HEIGHT)
    assert all(x + width <= GAUGE_WIDTH for x, _, width, _ in bars)


def test_chart_without_values_has_no_bars() -> None:
    chart = gauge("Rows", [((0.0, 1.0), None), ((0.5, 1.0), 0.0)], "–", str)
    assert (chart.bars, chart.top) == ([], "")

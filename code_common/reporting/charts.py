"""Line charts as SVG, made without a plotting package.

The colours are those of Okabe and Ito, which colour-blind people tell apart. Series differ in
their dashes and marks as well.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ((), (7, 4), (2, 3), (9, 3, 2, 3))
MARKS = ("circle", "square", "triangle", "diamond")
CORNERS = {"square": 4, "diamond": 4, "triangle": 3, "circle": 16}  # of the polygon of a mark
TURNS = {"square": math.pi / 4, "triangle": -math.pi / 2}  # where its first corner lies
MARK_RADIUS, TICK, CAP = 3.6, 4, 4  # pixels; CAP is half the width of an error bar's end
INK, GRID = "#222222", "#dddddd"
WIDTH, HEIGHT, FONT = 480, 300, 13
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 34, 46  # margins around the plot area, in pixels
LEGEND_ROW, RULE_ROW = 20, 14  # heights in pixels of rows of the legend, and of words of rules
LETTER = 7.0  # width of a letter in pixels, about

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line of a chart; `low` and `high` are the ends of error bars."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    marked: bool = True  # a mark at each point
    filled: bool = False  # the area under the line is filled, as of a histogram


@dataclass(frozen=True)
class Chart:
    """A title, two axes and lines."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    rules: Sequence[tuple[float, str]] = ()  # vertical lines: their x, and a word beside each
    x_ticks: Sequence[tuple[float, str]] = ()  # instead of round numbers: their x and text
    from_zero: bool = False  # the y axis begins at 0, or below


@dataclass(frozen=True)
class _PlotArea:
    """Where the data lie: limits of the data, and the top edge of the area in pixels."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    top: float
    left: float = LEFT
    right: float = WIDTH - RIGHT
    bottom: float = HEIGHT - BOTTOM

    def place(self, x: float, y: float) -> Point:
        """Pixels of a point of the data."""
        return (
            self.left
            + (x - self.x_low) / (self.x_high - self.x_low or 1) * (self.right - self.left),
            self.bottom - (y - self.y_low) / (self.y_high - self.y_low) * (self.bottom - self.top),
        )


def to_svg(chart: Chart) -> str:
    """The chart as an SVG element that scales with its place; its marks have tool tips."""
    legend, rows = _legend(chart.series) if len(chart.series) > 1 else ([], 1)
    area = _plot_area(chart, TOP + LEGEND_ROW * (rows - 1))
    parts = [*_axes(chart, area), *_rules(chart, area)]
    for number, series in enumerate(chart.series):
        parts += _series(series, number, chart, area)
    parts.append(_text((area.left + area.right) / 2, HEIGHT - 8, chart.x_label))
    parts.append(_text(14, (area.top + area.bottom) / 2, chart.y_label, turned=True))
    parts += legend
    title = html.escape(chart.title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{title}" font-family="system-ui, sans-serif" font-size="{FONT}">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>{"".join(parts)}</svg>'
    )


def round_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers from `low` to `high`, about `most` of them or fewer."""
    span = high - low or 1.0
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if span / (step * factor) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _plot_area(chart: Chart, top: float) -> _PlotArea:
    points = _finite_points(chart.series) or [(0.0, 0.0), (1.0, 1.0)]
    xs = [x for x, _ in points]
    xs += [x for x, _ in chart.x_ticks] + [x for x, _ in chart.rules]
    filled = any(series.filled for series in chart.series)
    x_low, x_high = (min(xs), max(xs)) if filled else _limits(xs)
    y_low, y_high = _limits([y for _, y in points], chart.from_zero)
    if chart.rules:
        y_high += 0.1 * (y_high - y_low)  # room for their words
    return _PlotArea(x_low, x_high, y_low, y_high, top)


def _finite_points(all_series: Sequence[Series]) -> list[Point]:
    """The points of all series and the ends of their error bars, without NaN and infinity."""
    points = []
    for series in all_series:
        for values in (series.y, series.low, series.high):
            if len(values):
                points += zip(series.x, values, strict=True)
    return [(x, y) for x, y in points if math.isfinite(y)]


def _limits(values: list[float], from_zero: bool = False) -> tuple[float, float]:
    """Ends of an axis: those of the values, with some room, except at a zero it begins from."""
    low, high = min(values), max(values)
    if from_zero:
        low = min(low, 0.0)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return (low if from_zero and low == 0 else low - room), high + room


def _axes(chart: Chart, area: _PlotArea) -> list[str]:
    parts = []
    for value in round_ticks(area.y_low, area.y_high):
        _, y = area.place(area.x_low, value)
        parts.append(_line([(area.left, y), (area.right, y)], GRID))
        parts.append(_text(area.left - 6, y + 4, f"{value:g}", anchor="end"))
    ticks = chart.x_ticks or [(v, f"{v:g}") for v in round_ticks(area.x_low, area.x_high)]
    for value, text in ticks:
        x, _ = area.place(value, area.y_low)
        parts.append(_line([(x, area.bottom), (x, area.bottom + TICK)]))
        parts.append(_text(x, area.bottom + 18, text))
    parts.append(_line([(area.left, area.bottom), (area.right, area.bottom)]))
    return parts


def _rules(chart: Chart, area: _PlotArea) -> list[str]:
    """Each rule with its word, which stands on the side where there is more room, and below those
    that stand in its way.
    """
    parts: list[str] = []
    rows: list[list[tuple[float, float]]] = []  # left and right end of the words in each row
    for value, word in chart.rules:
        x, _ = area.place(value, area.y_low)
        parts.append(_line([(x, area.top), (x, area.bottom)], "#666666", dash=(3, 3)))
        anchor, gap = ("end", -4) if x > (area.left + area.right) / 2 else ("start", 4)
        left, right = sorted((x + gap, x + gap + math.copysign(LETTER * len(word), gap)))
        free = (k for k, row in enumerate(rows) if all(right < a or left > b for a, b in row))
        number = next(free, len(rows))
        if number == len(rows):
            rows.append([])
        rows[number].append((left, right))
        parts.append(_text(x + gap, area.top + 11 + number * RULE_ROW, word, "#444444", anchor))
    return parts


def _series(series: Series, number: int, chart: Chart, area: _PlotArea) -> list[str]:
    """A series as its line with marks and error bars, or as a filled area."""
    colour, dash = _look(number)
    points = [(x, y) for x, y in zip(series.x, series.y, strict=True) if math.isfinite(y)]
    places = [area.place(x, y) for x, y in points]
    if not places:
        return []
    line = _line(places, colour, 2, dash)
    if series.filled:
        ground = [area.place(points[-1][0], 0), area.place(points[0][0], 0)]
        return [_filled([*places, *ground], colour, opacity=0.18), line]
    parts = [line, *_error_bars(series, colour, area)]
    if series.marked or len(points) == 1:
        for (x, y), place in zip(points, places, strict=True):
            tip = f"{series.name}: {chart.x_label} {x:g}, {chart.y_label} {y:.4g}"
            parts.append(_mark(place, number, tip))
    return parts


def _error_bars(series: Series, colour: str, area: _PlotArea) -> list[str]:
    parts = []
    if not len(series.low):
        return parts
    for x, low, high in zip(series.x, series.low, series.high, strict=True):
        if math.isfinite(low) and math.isfinite(high):
            ends = [area.place(x, low), area.place(x, high)]
            parts.append(_line(ends, colour, 1.5))
            for end_x, end_y in ends:
                parts.append(_line([(end_x - CAP, end_y), (end_x + CAP, end_y)], colour, 1.5))
    return parts


def _legend(all_series: Sequence[Series]) -> tuple[list[str], int]:
    """Names above the plot area, each behind a piece of its line, and how many rows they take."""
    parts: list[str] = []
    x, y, rows = float(LEFT), 18.0, 1
    for number, series in enumerate(all_series):
        width = 44 + LETTER * len(series.name)
        if x > LEFT and x + width > WIDTH - RIGHT:
            x, y, rows = float(LEFT), y + LEGEND_ROW, rows + 1
        colour, dash = _look(number)
        parts.append(_line([(x, y), (x + 26, y)], colour, 2.5, dash))
        if series.marked and not series.filled:
            parts.append(_mark((x + 13, y), number))
        parts.append(_text(x + 31, y + 4, series.name, anchor="start"))
        x += width
    return parts, rows


def _look(number: int) -> tuple[str, tuple[int, ...]]:
    """Colour and dashes of a chart's series of that number."""
    return COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]


def _mark(place: Point, number: int, tip: str = "") -> str:
    """The mark of the series of that number."""
    kind, (colour, _) = MARKS[number % len(MARKS)], _look(number)
    corners = CORNERS[kind]
    radius = MARK_RADIUS if kind == "circle" else MARK_RADIUS * 1.25
    x, y = place
    angles = [TURNS.get(kind, 0.0) + 2 * math.pi * k / corners for k in range(corners)]
    points = [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]
    return _filled(points, colour, tip=tip)


def _line(
    points: Sequence[Point], colour: str = INK, width: float = 1.0, dash: Sequence[int] = ()
) -> str:
    dashes = f' stroke-dasharray="{" ".join(map(str, dash))}"' if dash else ""
    return (
        f'<polyline points="{_coordinates(points)}" fill="none" stroke="{colour}" '
        f'stroke-width="{width:g}"{dashes}></polyline>'
    )


def _filled(points: Sequence[Point], colour: str, opacity: float = 1.0, tip: str = "") -> str:
    title = f"<title>{html.escape(tip)}</title>" if tip else ""
    return (
        f'<polygon points="{_coordinates(points)}" fill="{colour}" fill-opacity="{opacity:g}">'
        f"{title}</polygon>"
    )


def _coordinates(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _text(
    x: float, y: float, text: str, colour: str = INK, anchor: str = "middle", turned: bool = False
) -> str:
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{turn}>'
        f"{html.escape(text)}</text>"
    )

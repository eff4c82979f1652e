"""Charts as SVG for a page and as pixels for a PNG, from one list of strokes; no package needed.

Colours are those of Okabe and Ito, which colour-blind people tell apart; marks and dashes differ,
too.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ((), (7, 4), (2, 3), (9, 3, 2, 3))
MARKS = ("circle", "square", "triangle", "diamond")
INK, GRID = "#222222", "#dddddd"
WIDTH, HEIGHT, FONT = 480, 300, 13
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 34, 46
ROW = 20  # pixels of a row of the legend


@dataclass(frozen=True)
class Series:
    """One line of a chart; `low` and `high` draw error bars, `filled` the area of a histogram."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    marked: bool = True
    filled: bool = False


@dataclass(frozen=True)
class Chart:
    """A title, two axes, lines, and vertical rules with a word each (where the CRF starts, say)."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    rules: Sequence[tuple[float, str]] = ()
    x_ticks: Sequence[tuple[float, str]] = ()  # in place of round numbers
    from_zero: bool = False


@dataclass(frozen=True)
class _Stroke:
    """A line, a closed area, or a word: what both SVG and pixels know how to draw."""

    points: tuple[tuple[float, float], ...]
    colour: str = INK
    width: float = 1.0
    dash: tuple[int, ...] = ()
    fill: bool = False
    opacity: float = 1.0
    text: str = ""
    anchor: str = "middle"  # start, middle or end
    turned: bool = False
    tip: str = ""  # told when the mouse rests on it


def round_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers from `low` to `high`, at most about `most` of them."""
    span = high - low or 1.0
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(f for f in (1, 2, 5, 10, 20) if span / (step * f) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _limits(values: list[float], from_zero: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    low = min(low, 0.0) if from_zero else low
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return (low if from_zero and low == 0 else low - room), high + room


def _mark(x: float, y: float, kind: str, colour: str, tip: str) -> _Stroke:
    r = 3.6
    corners = {"square": 4, "diamond": 4, "triangle": 3}.get(kind, 16)
    start = {"square": math.pi / 4, "triangle": -math.pi / 2}.get(kind, 0.0)
    angles = [start + 2 * math.pi * k / corners for k in range(corners)]
    grown = r * (1.25 if corners < 16 else 1.0)
    points = tuple((x + grown * math.cos(a), y + grown * math.sin(a)) for a in angles)
    return _Stroke(points, colour, fill=True, tip=tip)


def _strokes(chart: Chart) -> list[_Stroke]:
    """Everything that a chart shows, in the order in which it is drawn."""
    finite = [
        (x, v)
        for s in chart.series
        for x, *own in zip(s.x, s.y, *([s.low, s.high] if len(s.low) else []), strict=True)
        for v in own
        if math.isfinite(v)
    ]
    if not finite:
        finite = [(0.0, 0.0), (1.0, 1.0)]
    known = [x for x, _ in finite] + [x for x, _ in chart.x_ticks] + [x for x, _ in chart.rules]
    filled = any(s.filled for s in chart.series)
    x0, x1 = (min(known), max(known)) if filled else _limits(known, False)
    y0, y1 = _limits([y for _, y in finite], chart.from_zero)
    y1 += 0.1 * (y1 - y0) * bool(chart.rules)  # room for their words
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    legend, rows = _legend(chart.series, right) if len(chart.series) > 1 else ([], 1)
    top = TOP + ROW * (rows - 1)

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x0) / (x1 - x0 or 1) * (right - LEFT),
            bottom - (y - y0) / (y1 - y0) * (bottom - top),
        )

    out = []
    for y in round_ticks(y0, y1):
        here = at(x0, y)[1]
        out.append(_Stroke(((LEFT, here), (right, here)), GRID))
        out.append(_Stroke(((LEFT - 6, here + 4),), text=f"{y:g}", anchor="end"))
    for x, text in chart.x_ticks or [(x, f"{x:g}") for x in round_ticks(x0, x1)]:
        here = at(x, y0)[0]
        out.append(_Stroke(((here, bottom), (here, bottom + 4))))
        out.append(_Stroke(((here, bottom + 18),), text=text))
    out.append(_Stroke(((LEFT, bottom), (right, bottom))))
    for x, text in chart.rules:
        here = at(x, y0)[0]
        out.append(_Stroke(((here, top), (here, bottom)), "#666666", 1, (3, 3)))
        side = "end" if here > (LEFT + right) / 2 else "start"
        out.append(_Stroke(((here + (-4 if side == "end" else 4), top + 11),), "#444444",
                           text=text, anchor=side))  # fmt: skip
    for k, s in enumerate(chart.series):
        out += _series(s, k, at, chart)
    out.append(_Stroke((((LEFT + right) / 2, HEIGHT - 8),), text=chart.x_label))
    out.append(_Stroke(((14, (top + bottom) / 2),), text=chart.y_label, turned=True))
    return out + legend


def _series(s: Series, k: int, at, chart: Chart) -> list[_Stroke]:
    colour, dash, mark = COLOURS[k % 6], DASHES[k % 4], MARKS[k % 4]
    points = [(x, y) for x, y in zip(s.x, s.y, strict=True) if math.isfinite(y)]
    places = tuple(at(x, y) for x, y in points)
    if not places:
        return []
    if s.filled:
        ground = (at(points[-1][0], 0), at(points[0][0], 0))
        area = _Stroke((*places, *ground), colour, fill=True, opacity=0.18)
        return [area, _Stroke(places, colour, 2, dash)]
    out = [_Stroke(places, colour, 2, dash)]
    if len(s.low):
        for x, low, high in zip(s.x, s.low, s.high, strict=True):
            if math.isfinite(low) and math.isfinite(high):
                a, b = at(x, low), at(x, high)
                out.append(_Stroke((a, b), colour, 1.5))
                out += [_Stroke(((p[0] - 4, p[1]), (p[0] + 4, p[1])), colour, 1.5) for p in (a, b)]
    if s.marked or len(points) == 1:
        tips = [f"{s.name}: {chart.x_label} {x:g}, {chart.y_label} {y:.4g}" for x, y in points]
        out += [_mark(*p, mark, colour, t) for p, t in zip(places, tips, strict=True)]
    return out


def _legend(series: Sequence[Series], right: float) -> tuple[list[_Stroke], int]:
    """Names above the plot, each behind a piece of its line, and how many rows they take."""
    out: list[_Stroke] = []
    x, y = float(LEFT), 18.0
    for k, s in enumerate(series):
        wide = 44 + 7.0 * len(s.name)
        if x > LEFT and x + wide > right:
            x, y = float(LEFT), y + ROW
        out.append(_Stroke(((x, y), (x + 26, y)), COLOURS[k % 6], 2.5, DASHES[k % 4]))
        if s.marked and not s.filled:
            out.append(_mark(x + 13, y, MARKS[k % 4], COLOURS[k % 6], ""))
        out.append(_Stroke(((x + 31, y + 4),), text=s.name, anchor="start"))
        x += wide
    return out, 1 + round((y - 18) / ROW)


def to_svg(chart: Chart) -> str:
    """The chart as an SVG element that scales with its place, with tips on its marks."""
    parts = []
    for s in _strokes(chart):
        if s.text:
            (x, y), *_ = s.points
            turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if s.turned else ""
            parts.append(
                f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{s.anchor}" fill="{s.colour}"{turn}>'
                f"{html.escape(s.text)}</text>"
            )
            continue
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in s.points)
        if s.fill:
            look = f'fill="{s.colour}" fill-opacity="{s.opacity:g}"'
        else:
            dash = f' stroke-dasharray="{" ".join(map(str, s.dash))}"' if s.dash else ""
            look = f'fill="none" stroke="{s.colour}" stroke-width="{s.width:g}"{dash}'
        tag = "polygon" if s.fill else "polyline"
        tip = f"<title>{html.escape(s.tip)}</title>" if s.tip else ""
        parts.append(f'<{tag} points="{places}" {look}>{tip}</{tag}>')
    title = html.escape(chart.title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{title}" font-family="system-ui, sans-serif" font-size="{FONT}">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>{"".join(parts)}</svg>'
    )


def to_pixels(chart: Chart, scale: int = 3) -> np.ndarray:
    """The chart as an RGB picture [HEIGHT * scale, WIDTH * scale, 3]."""
    fine = 2 * scale  # drawn at twice the size: Pillow's lines have no soft edges
    size = WIDTH * fine, HEIGHT * fine
    picture = Image.new("RGB", size, "white")
    font = ImageFont.load_default(FONT * fine)
    for s in _strokes(chart):
        places = [(x * fine, y * fine) for x, y in s.points]
        layer = Image.new("L", size, 0)
        draw = ImageDraw.Draw(layer)
        if s.text:
            _write(layer, draw, places[0], s, font)
        elif s.fill:
            draw.polygon(places, fill=round(255 * s.opacity))
        else:
            for piece in _dashed(places, [d * fine for d in s.dash]):
                draw.line(piece, fill=255, width=round(s.width * fine), joint="curve")
        picture.paste(Image.new("RGB", size, s.colour), mask=layer)
    return np.asarray(picture.reduce(2))


def _write(layer: Image.Image, draw: ImageDraw.ImageDraw, place, s: _Stroke, font) -> None:
    if not s.turned:
        draw.text(place, s.text, 255, font, anchor={"start": "ls", "end": "rs"}.get(s.anchor, "ms"))
        return
    side = 2 * round(draw.textlength(s.text, font))
    word = Image.new("L", (side, side), 0)
    ImageDraw.Draw(word).text((side / 2, side / 2), s.text, 255, font, anchor="ms")
    x, y = (round(v - side / 2) for v in place)
    layer.paste(word.rotate(90), (x, y))


def _dashed(places: list[tuple[float, float]], dash: list[int]) -> list[list[tuple]]:
    """The pieces of a line that a dash pattern leaves."""
    if not dash or len(places) < 2:
        return [places]
    ends = np.cumsum([0.0] + [math.dist(a, b) for a, b in zip(places, places[1:], strict=False)])
    pattern = [*dash, *dash] if len(dash) % 2 else dash
    pieces, at, k = [], 0.0, 0
    while at < ends[-1]:
        stop = min(at + pattern[k % len(pattern)], ends[-1])
        if k % 2 == 0:
            inner = [p for p, e in zip(places, ends, strict=True) if at < e < stop]
            pieces.append([_along(places, ends, at), *inner, _along(places, ends, stop)])
        at, k = stop, k + 1
    return pieces


def _along(places: list[tuple[float, float]], ends: np.ndarray, at: float) -> tuple[float, float]:
    x, y = zip(*places, strict=True)
    return float(np.interp(at, ends, x)), float(np.interp(at, ends, y))

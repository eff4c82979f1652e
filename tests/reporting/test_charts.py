"""Charts hold what they were given, as SVG and as pixels."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_common.reporting.charts import (
    COLOURS,
    HEIGHT,
    WIDTH,
    Chart,
    Series,
    round_ticks,
    to_pixels,
    to_svg,
)

NAME = "{http://www.w3.org/2000/svg}"


def chart(*series, **more):
    return Chart("title", "epoch", "score", series, **more)


def lines(svg, colour):
    """The points of each polyline of a colour."""
    found = [e for e in ET.fromstring(svg).iter(f"{NAME}polyline") if e.get("stroke") == colour]
    return [[tuple(map(float, p.split(","))) for p in e.get("points").split()] for e in found]


def test_a_line_goes_through_its_points():
    svg = to_svg(chart(Series("a", [0, 1, 2], [0.0, 1.0, 0.5])))
    ((first, second, third),) = lines(svg, COLOURS[0])
    assert first[0] < second[0] < third[0]
    assert second[0] - first[0] == pytest.approx(third[0] - second[0], abs=0.2)
    assert first[1] - second[1] == pytest.approx(2 * (third[1] - second[1]), abs=0.2)
    tips = [e.text for e in ET.fromstring(svg).iter(f"{NAME}title")]
    assert "a: epoch 1, score 1" in tips


def test_what_is_not_finite_is_left_out_and_one_value_is_a_mark():
    nan = float("nan")
    svg = to_svg(chart(Series("a", [0, 1, 2], [0.0, nan, 0.5]), Series("b", [0, 1], [nan, 0.2])))
    assert [len(line) for line in lines(svg, COLOURS[0]) if len(line) > 1][-1] == 2
    assert "b: epoch 1, score 0.2" in svg and "nan" not in svg
    ET.fromstring(to_svg(chart(Series("empty", [], []))))


def test_series_differ_in_colour_dash_and_mark():
    svg = to_svg(chart(*(Series(str(k), [0, 1], [k, k + 1.0]) for k in range(4))))
    polylines = list(ET.fromstring(svg).iter(f"{NAME}polyline"))
    own = [e for e in polylines if e.get("stroke") in COLOURS]
    assert len({(e.get("stroke"), e.get("stroke-dasharray")) for e in own}) == 4
    corners = {len(e.get("points").split()) for e in ET.fromstring(svg).iter(f"{NAME}polygon")}
    assert corners == {16, 4, 3}


def test_error_bars_and_rules():
    bars = Series("a", [5, 10], [0.4, 0.5], [0.3, 0.5], [0.5, 0.5])
    svg = to_svg(chart(bars, rules=[(7, "CRF starts")], x_ticks=[(5, "5"), (10, "10")]))
    tall = [b for b in lines(svg, COLOURS[0]) if len(b) == 2 and b[0][0] == b[1][0]]
    assert tall[0][0][1] - tall[0][1][1] > 50 and tall[1][0][1] == tall[1][1][1]
    assert "CRF starts" in svg


def test_words_are_escaped():
    assert "<script>" not in to_svg(chart(Series("<script>", [0], [1]), Series("b", [0], [1])))


def test_pixels_show_what_the_svg_shows():
    picture = to_pixels(chart(Series("a", [0, 1], [0, 1]), Series("b", [0, 1], [1, 0])), scale=2)
    assert picture.shape == (2 * HEIGHT, 2 * WIDTH, 3) and (picture[0] == 255).all()
    for colour in COLOURS[:2]:
        rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
        assert (np.abs(picture.astype(int) - rgb).max(-1) < 12).sum() > 300
    rows, cols = np.nonzero((np.abs(picture.astype(int) - (0, 0x72, 0xB2)).max(-1) < 12)[80:])
    assert np.corrcoef(rows, cols)[0, 1] < -0.99  # rises


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_and_inside(low, span):
    ticks = round_ticks(low, low + span)
    assert all(low - 1e-3 * span <= t <= low + span * 1.001 for t in ticks) and len(ticks) <= 8
    if len(ticks) > 1:
        step = np.diff(ticks)[0]
        assert f"{step:.0e}"[0] in "125"


def test_a_long_legend_takes_several_rows_and_stays_inside():
    names = [f"a rather long name of a series, number {k}" for k in range(4)]
    svg = to_svg(chart(*(Series(name, [0, 1], [0, 1]) for name in names)))
    texts = [e for e in ET.fromstring(svg).iter(f"{NAME}text") if e.text in names]
    rows = [float(e.get("y")) for e in texts]
    assert len(set(rows)) == 4 and all(float(e.get("x")) < 100 for e in texts)
    plot = [p for line in lines(svg, COLOURS[0]) for p in line if p[0] > 90]
    assert min(y for _, y in plot) > max(rows)

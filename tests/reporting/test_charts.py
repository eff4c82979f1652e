"""Charts hold what they were given."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_common.reporting.charts import COLOURS, CORNERS, Chart, Series, round_ticks, to_svg

NAMESPACE = "{http://www.w3.org/2000/svg}"
NAN = float("nan")


def chart(*series, **more):
    return to_svg(Chart("title", "epoch", "score", series, **more))


def elements(svg, tag):
    return list(ET.fromstring(svg).iter(NAMESPACE + tag))


def corners(element):
    """The points of a polyline or polygon."""
    return [tuple(map(float, point.split(","))) for point in element.get("points").split()]


def lines(svg, colour):
    """The points of each polyline of a colour."""
    return [corners(e) for e in elements(svg, "polyline") if e.get("stroke") == colour]


def test_a_line_goes_through_its_points():
    svg = chart(Series("a", [0, 1, 2], [0.0, 1.0, 0.5]))
    ((first, second, third),) = lines(svg, COLOURS[0])
    assert first[0] < second[0] < third[0]
    assert second[0] - first[0] == pytest.approx(third[0] - second[0], abs=0.2)
    assert first[1] - second[1] == pytest.approx(2 * (third[1] - second[1]), abs=0.2)
    assert "a: epoch 1, score 1" in [e.text for e in elements(svg, "title")]


def test_what_is_not_finite_is_left_out_and_one_value_is_a_mark():
    svg = chart(Series("a", [0, 1, 2], [0.0, NAN, 0.5]), Series("b", [0, 1], [NAN, 0.2]))
    assert [len(line) for line in lines(svg, COLOURS[0]) if len(line) > 1][-1] == 2
    assert "b: epoch 1, score 0.2" in svg and "nan" not in svg


def test_a_chart_without_points_has_axes():
    assert elements(chart(Series("empty", [], [])), "polyline")


def test_series_differ_in_colour_dash_and_mark():
    svg = chart(*(Series(str(k), [0, 1], [k, k + 1.0]) for k in range(4)))
    of_series = [e for e in elements(svg, "polyline") if e.get("stroke") in COLOURS]
    assert len({(e.get("stroke"), e.get("stroke-dasharray")) for e in of_series}) == 4
    assert {len(corners(e)) for e in elements(svg, "polygon")} == set(CORNERS.values())


def test_a_filled_series_is_an_area_down_to_zero():
    svg = chart(Series("a", [0, 1, 2], [1, 3, 2], marked=False, filled=True), from_zero=True)
    (area,) = elements(svg, "polygon")
    (axis,) = [line for line in lines(svg, "#222222") if line[0][1] == line[1][1]]
    points = corners(area)
    assert len(points) == 3 + 2 and {y for _, y in points[-2:]} == {axis[0][1]}
    assert {x for x, _ in points[-2:]} == {axis[0][0], axis[1][0]}


def test_error_bars_end_where_they_are_told():
    svg = chart(Series("a", [5, 10], [0.4, 0.5], [0.3, 0.5], [0.5, 0.5]))
    upright = [
        line for line in lines(svg, COLOURS[0]) if len(line) == 2 and line[0][0] == line[1][0]
    ]
    (low, high), (same, also) = upright
    assert low[1] - high[1] > 50 and same == also


def test_rules_and_ticks_have_their_words():
    svg = chart(Series("a", [5, 10], [0.4, 0.5]), rules=[(7, "CRF starts")], x_ticks=[(5, "five")])
    assert {"CRF starts", "five"} <= {e.text for e in elements(svg, "text")}


def test_words_are_escaped():
    assert "<script>" not in chart(Series("<script>", [0], [1]), Series("b", [0], [1]))


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_and_inside(low, span):
    ticks = round_ticks(low, low + span)
    assert all(low - 1e-3 * span <= tick <= low + span * 1.001 for tick in ticks)
    assert len(ticks) <= 8
    if len(ticks) > 1:
        assert f"{np.diff(ticks)[0]:.0e}"[0] in "125"


def test_a_long_legend_takes_several_rows_and_stays_inside():
    names = [f"a rather long name of a series, number {k}" for k in range(4)]
    svg = chart(*(Series(name, [0, 1], [0, 1]) for name in names))
    texts = [e for e in elements(svg, "text") if e.text in names]
    rows = [float(e.get("y")) for e in texts]
    assert len(set(rows)) == 4 and all(float(e.get("x")) < 100 for e in texts)
    in_plot = [y for line in lines(svg, COLOURS[0]) for x, y in line if x > 90]
    assert min(in_plot) > max(rows)


def test_words_of_rules_that_are_near_stand_below_each_other():
    rules = [(10.0, "far"), (60.5, "second network"), (62.5, "CRF starts")]
    svg = to_svg(Chart("t", "x", "y", [Series("a", range(1, 65), range(1, 65))], rules=rules))
    heights = [float(re.search(rf'y="([\d.]+)"[^>]*>{word}<', svg).group(1)) for _, word in rules]
    assert heights[0] == heights[1] and heights[2] - heights[1] >= 13

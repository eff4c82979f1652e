"""Figures are written and read again; panels are laid side by side."""

import numpy as np
import pytest

from code_common.errors import InputError
from code_common.reporting.album import (
    BAND,
    GAP,
    INDEX,
    Figure,
    Panel,
    middle,
    read_album,
    shrink,
    strip,
    write_album,
)

WIDE, TALL = np.zeros((10, 20, 3), np.uint8), np.zeros((40, 20, 3), np.uint8)


def test_an_album_comes_back(tmp_path):
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    figures = [Figure("one", "One", "how", [Panel("a", image), Panel("b", image[::-1])])]
    assert write_album(tmp_path, figures) == 1
    (figure,) = read_album(tmp_path)
    assert (figure.name, figure.title, figure.caption) == ("one", "One", "how")
    assert [panel.label for panel in figure.panels] == ["a", "b"]
    assert (figure.panels[1].image == image[::-1]).all()


def test_a_folder_without_an_album_has_no_figures(tmp_path):
    assert read_album(tmp_path / "none") == []


def test_another_file_of_that_name_is_refused(tmp_path):
    (tmp_path / INDEX).write_text('[{"name": 1}]')
    with pytest.raises(InputError, match="expected a list of several"):
        read_album(tmp_path)


def test_panels_of_a_strip_have_one_height():
    sheet = strip([Panel("a", WIDE), Panel("b", TALL)], height=20)
    assert sheet.shape == (20 + BAND, 40 + GAP + 10, 3)


def test_the_label_of_a_narrow_panel_does_not_reach_its_neighbour():
    """The letters shrink until they fit."""
    sheet = strip([Panel("nine letters", np.zeros((20, 70, 3), np.uint8)), Panel("", WIDE)], 20)
    assert (sheet[:BAND, :70] < 255).any() and (sheet[:BAND, 70:] == 255).all()


def test_pictures_shrink_and_never_grow():
    assert shrink(TALL, 10).shape == (10, 5, 3)
    assert shrink(TALL, 100) is TALL


def test_the_middle_is_cut_at_the_border_of_a_small_image():
    assert middle((10, 30), 20) == (slice(0, 10), slice(5, 25))

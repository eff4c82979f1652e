"""What a first look at predictions tells, and where an image is unlike the training."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from code_common.inference.first_look import (
    first_look,
    unlike_in_colour,
    unlike_in_size,
    unsure,
    unsure_share,
)

MEAN, STD = (0.8, 0.6, 0.8), (0.1, 0.12, 0.1)


def tissue_of(colour, glass=0):
    """A picture of tissue of one mean colour (0..1), with rows of glass below."""
    picture = np.random.default_rng(1).normal(colour, 0.05, (40, 40, 3))
    picture[40 - glass :] = 0.95
    return (picture.clip(0, 1) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def stage():
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return SimpleNamespace(network=SimpleNamespace(mean=mean, std=std))


@pytest.mark.parametrize("glass", [0, 30, 40])
def test_tissue_of_the_trained_colours_is_not_told_however_much_glass_there_is(stage, glass):
    assert unlike_in_colour(tissue_of(MEAN, glass), stage) == []


@pytest.mark.parametrize("channel", range(3))
@pytest.mark.parametrize("glass", [0, 30])
def test_tissue_of_other_colours_is_told(stage, channel, glass):
    colour = np.array(MEAN)
    colour[channel] -= 2.5 * STD[channel]
    (line,) = unlike_in_colour(tissue_of(colour, glass), stage)
    assert "colours are far" in line and "annotate" in line


@pytest.mark.parametrize(("radius", "words"), [(4, "much smaller"), (10, ""), (30, "much larger")])
def test_nuclei_far_from_the_trained_size_are_told(radius, words):
    areas = [np.pi * radius**2] * 12
    lines = unlike_in_size(areas, 11)
    assert (words in lines[0]) if words else lines == []
    assert unlike_in_size(areas[:5], 11) == []  # few nuclei say nothing


def test_many_nuclei_of_low_probability_are_told():
    assert unsure([0.6] * 5 + [0.9] * 7) and not unsure([0.6] * 3 + [0.9] * 9)
    assert not unsure([0.6] * 9)
    assert unsure_share([0.7, 0.9, 0.9, 0.9]) == 0.25 and unsure_share([]) == 0


def test_the_table_has_a_line_for_each_of_the_first_images():
    rows = {f"T{k:03}": {"nuclei": k, "radius": 7.25, "unsure": 0.125} for k in range(30)}
    lines = first_look(rows)
    assert lines[0].split() == ["image", "nuclei", "radius", "unsure"]
    assert lines[2].split() == ["T001", "1", "7.2", "12.5%"]
    assert len(lines) == 22 and lines[-1] == "... and 10 more images: summary.csv"


def test_a_table_of_detections_has_no_radius_and_one_of_nothing_a_head():
    assert first_look({"a": {"nuclei": 3}})[0].split() == ["image", "nuclei"]
    assert len(first_look({})) == 1

"""Tiled inference agrees with the whole image, at any size."""

import numpy as np
import pytest
import torch
from torch import nn

from code_common.inference.tiling import blend_weight, predict_image, predict_rows


class Blur(nn.Module):
    """A 'network' with a small receptive field: a 9 x 9 mean of the grey value."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.full((1, 3, 9, 9), 1 / 243))

    def forward(self, x):
        padded = nn.functional.pad(x, (4, 4, 4, 4), mode="replicate")
        return nn.functional.conv2d(padded, self.kernel)


def predict(image, **tiling):
    return predict_image(Blur(), image, lambda logits: logits, **tiling)


@pytest.mark.parametrize("shape", [(64, 64), (65, 100), (130, 97), (33, 200)])
def test_tiles_and_the_whole_image_agree_where_the_context_allows(shape):
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    whole = predict(image, tile=max(shape), overlap=0)
    tiled = predict(image, tile=48, overlap=32, batch_size=3)
    assert tiled.shape == (1, *shape)
    inner = (slice(None), slice(8, -8), slice(8, -8))
    assert np.abs(tiled - whole)[inner].max() < 1e-5  # what lacks context weighs 1e-6


def test_an_image_smaller_than_a_tile():
    image = np.random.default_rng(0).integers(0, 255, (20, 31, 3), np.uint8)
    assert predict(image, tile=64, overlap=16).shape == (1, 20, 31)


def test_a_constant_stays_constant_without_seams():
    """D28: no zero padding, no hard seams."""
    image = np.full((150, 90, 3), 51, np.uint8)
    assert np.abs(predict(image, tile=40, overlap=16) - 0.2).max() < 1e-6


def test_batches_change_nothing():
    image = np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8)
    one, many = (predict(image, tile=40, overlap=16, batch_size=b) for b in (1, 7))
    assert np.abs(one - many).max() < 1e-6


class Slope(nn.Module):
    """A 'network' that knows its left from its right, also after a turn."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.arange(75.0).view(1, 3, 5, 5).sin() / 30)

    def forward(self, x):
        padded = nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")
        return nn.functional.conv2d(padded, self.kernel)


@pytest.mark.parametrize("views", [1, 4, 8])
def test_views_make_the_result_turn_with_the_image(views):
    image = np.random.default_rng(0).integers(0, 255, (72, 72, 3), np.uint8)

    def seen(image):
        own = predict_image(Slope(), np.ascontiguousarray(image), lambda y: y,
                            tile=40, overlap=8, views=views)  # fmt: skip
        return own[0]

    def same(one, other):
        return np.abs(one - other).max() < 1e-5

    assert same(seen(np.rot90(image)), np.rot90(seen(image))) == (views > 1)
    assert same(seen(image[:, ::-1]), seen(image)[:, ::-1]) == (views == 8)


@pytest.mark.parametrize("overlap", [0, 8, 20])
def test_weights_are_positive_and_symmetric(overlap):
    weight = blend_weight(20 + overlap, overlap)
    assert weight.min() > 0 and weight.max() == 1
    assert np.allclose(weight, weight.T) and np.allclose(weight, weight[::-1])


def rows(image, **keywords):
    def read(row, col, height, width):
        assert height == 40  # a row of tiles at a time
        return image[row : row + height, col : col + width]

    options = {"tile": 40, "overlap": 16, "batch_size": 3} | keywords
    return list(predict_rows(Blur(), read, image.shape[:2], lambda logits: logits, **options))


def test_rows_come_from_top_to_bottom_and_make_the_map():
    image = np.random.default_rng(0).integers(0, 255, (203, 50, 3), np.uint8)
    parts = rows(image)
    assert len(parts) > 3
    assert [row for row, _ in parts] == [0, *np.cumsum([p.shape[1] for _, p in parts])[:-1]]
    whole = np.concatenate([p for _, p in parts], 1)
    assert np.array_equal(whole, predict(image, tile=40, overlap=16, batch_size=3))


@pytest.mark.parametrize("first_row", [1, 37, 100, 202])
def test_rows_from_the_middle_have_the_same_bits(first_row):
    image = np.random.default_rng(0).integers(0, 255, (203, 90, 3), np.uint8)
    whole = np.concatenate([p for _, p in rows(image)], 1)
    parts = rows(image, first_row=first_row)
    assert parts[0][0] == first_row
    assert np.array_equal(np.concatenate([p for _, p in parts], 1), whole[:, first_row:])


def test_tiles_that_nobody_wants_are_zero_and_not_computed():
    image = np.full((200, 90, 3), 51, np.uint8)
    whole = np.concatenate([p for _, p in rows(image, wanted=lambda row, col: row < 80)], 1)
    assert whole.shape == (1, 200, 90)
    assert np.abs(whole[:, :80] - 0.2).max() < 1e-6 and (whole[:, 120:] == 0).all()
    nothing = np.concatenate([p for _, p in rows(image, wanted=lambda *_: False)], 1)
    assert nothing.shape == (1, 200, 90) and (nothing == 0).all()

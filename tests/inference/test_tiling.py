"""Tiled inference agrees with the whole image, at any size."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from code_common.errors import InputError
from code_common.inference.tiling import (
    VIEWS,
    RowBlender,
    Tiling,
    blend_weight,
    in_order,
    predict_image,
    predict_rows,
    reader,
)

SMALL = Tiling(tile=40, overlap=16, batch_size=3)


class Filter(nn.Module):
    """A 'network' that is one convolution of an image that goes on beyond its borders."""

    def __init__(self, kernel):
        super().__init__()
        self.kernel = nn.Parameter(kernel)
        self.margin = [kernel.shape[-1] // 2] * 4

    def forward(self, x):
        return nn.functional.conv2d(nn.functional.pad(x, self.margin, "replicate"), self.kernel)


# The mean of 9 x 9 pixels: how far a tile has to see.
BLUR = Filter(torch.full((1, 3, 9, 9), 1 / 243))
# It knows its left from its right, also after a turn.
SLOPE = Filter(torch.arange(75.0).view(1, 3, 5, 5).sin() / 30)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)


def flat(*shape):
    """An image that is 0.2 everywhere."""
    return np.full((*shape, 3), 51, np.uint8)


def logits_as_they_are(logits):
    return logits


def predict(image, tiling=SMALL, network=BLUR):
    return predict_image(network, np.ascontiguousarray(image), logits_as_they_are, tiling)


@pytest.mark.parametrize("shape", [(64, 64), (65, 100), (130, 97), (33, 200)])
def test_tiles_and_the_whole_image_agree_where_the_context_allows(shape):
    image = noise(*shape)
    whole = predict(image, Tiling(tile=max(shape), overlap=0))
    tiled = predict(image, Tiling(tile=48, overlap=32, batch_size=3))
    assert tiled.shape == (1, *shape)
    inner = (slice(None), slice(8, -8), slice(8, -8))
    assert np.abs(tiled - whole)[inner].max() < 1e-5  # what lacks context weighs 1e-6


def test_an_image_smaller_than_a_tile():
    assert predict(noise(20, 31), Tiling(tile=64, overlap=16)).shape == (1, 20, 31)


def test_a_constant_stays_constant_without_seams():
    """D28: no zero padding, no hard seams."""
    assert np.abs(predict(flat(150, 90)) - 0.2).max() < 1e-6


def test_batches_change_nothing():
    one, many = (predict(noise(100, 100), replace(SMALL, batch_size=b)) for b in (1, 7))
    assert np.abs(one - many).max() < 1e-6


def test_the_key_of_a_tiling_tells_what_a_result_depends_on():
    keys = [
        SMALL.key(),
        replace(SMALL, tile=48).key(),
        replace(SMALL, overlap=8).key(),
        replace(SMALL, views=VIEWS[4]).key(),
        replace(SMALL, precision=torch.bfloat16).key(),
    ]
    assert len({tuple(key) for key in keys}) == len(keys)
    assert replace(SMALL, batch_size=7).key() == SMALL.key()


def test_a_tiling_of_one_view_is_the_same_otherwise():
    assert replace(SMALL, views=VIEWS[8]).one_view() == SMALL


@pytest.mark.parametrize("views", [1, 2, 4, 8])
def test_views_make_the_result_turn_with_the_image(views):
    image, tiling = noise(72, 72), Tiling(tile=40, overlap=8, views=VIEWS[views])

    def turns_as_the_image(turn):
        of_turned = predict(turn(image), tiling, SLOPE)[0]
        turned = turn(predict(image, tiling, SLOPE)[0])
        return np.abs(of_turned - turned).max() < 1e-5

    assert turns_as_the_image(np.rot90) == (views in (4, 8))
    assert turns_as_the_image(np.fliplr) == (views == 8)
    assert turns_as_the_image(np.flipud) == (views in (2, 8))


@pytest.mark.parametrize("cores", ["1", "2", "5"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_number_of_cores_changes_no_bit(monkeypatch, cores, batch_size):
    image = noise(200, 90)
    tiling = replace(SMALL, batch_size=batch_size)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = predict(image, tiling)
    monkeypatch.setenv("OMP_NUM_THREADS", cores)
    assert np.array_equal(predict(image, tiling), alone)


def test_threads_that_compute_tiles_leave_the_others_as_they_were(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    before = torch.get_num_threads()
    seen = list(in_order(lambda _: torch.get_num_threads(), iter(range(5)), 2))
    assert seen == [1] * 5 and torch.get_num_threads() == before


def test_values_are_taken_only_a_few_ahead():
    """A slide has more tiles than the memory holds."""
    taken = []

    def tiles():
        for k in itertools.count():
            taken.append(k)
            yield k

    results = in_order(lambda k: -k, tiles(), 3)
    assert [next(results) for _ in range(10)] == [-k for k in range(10)]
    assert len(taken) <= 14
    results.close()


def test_an_error_in_a_thread_is_raised_here():
    def fail(k):
        raise InputError(f"tile {k}")

    with pytest.raises(InputError, match="tile 0"):
        list(in_order(fail, iter(range(9)), 2))


@pytest.mark.parametrize("overlap", [0, 8, 20])
def test_weights_are_positive_and_symmetric(overlap):
    weight = blend_weight(20 + overlap, overlap)
    assert weight.min() > 0 and weight.max() == 1
    assert np.allclose(weight, weight.T) and np.allclose(weight, weight[::-1])


def blended_at_once(tiles, shape, tiling):
    """The slow, obvious way: {(row, col): tile} added up over the whole image [C, H, W]."""
    weight = blend_weight(tiling.tile, tiling.overlap)
    total, norm = np.zeros(shape, np.float32), np.zeros(shape[1:], np.float32)
    for (row, col), prob in tiles.items():
        rows, cols = slice(row, row + tiling.tile), slice(col, col + tiling.tile)
        total[:, rows, cols] += prob * weight
        norm[rows, cols] += weight
    return total / np.maximum(norm, 1e-12)


@pytest.mark.parametrize("overlap", [0, 4, 12])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
def test_rows_that_are_blended_one_after_the_other_are_those_of_the_whole(overlap, share):
    """Of the tiles only a share is there; what none covers is 0."""
    rng, tiling = np.random.default_rng(0), Tiling(tile=16, overlap=overlap)
    rows, cols = range(0, 70, 16 - overlap), range(0, 50, 16 - overlap)
    shape = (2 if share else 1, rows[-1] + 16, cols[-1] + 16)
    corners = [(row, col) for row in rows for col in cols if rng.random() < share]
    tiles = {corner: rng.random((2, 16, 16), np.float32) for corner in corners}

    blender, parts = RowBlender(shape[2], tiling, first=0), []
    for row, end in zip(rows, [*rows[1:], shape[1]], strict=True):
        blender.reach(row + tiling.tile)
        for corner in corners:
            if corner[0] == row:
                blender.add(*corner, tiles[corner])
        parts.append(blender.finish(end))
        assert len(blender.norm) <= overlap  # it holds what the next tiles will be added to
    # Before the first tile nothing says how many channels there are.
    blended = np.concatenate([np.broadcast_to(p, (shape[0], *p.shape[1:])) for p in parts], 1)
    assert np.array_equal(blended, blended_at_once(tiles, shape, tiling))


def rows_of(image, **keywords):
    """What `predict_rows` gives of an image, which it reads a row of tiles at a time."""

    def read(row, col, height, width):
        assert height == SMALL.tile
        return reader(image)(row, col, height, width)

    shape = image.shape[:2]
    return list(predict_rows(BLUR, read, shape, logits_as_they_are, SMALL, **keywords))


def joined(parts):
    return np.concatenate([prob for _, prob in parts], axis=1)


def test_rows_come_from_top_to_bottom_and_make_the_map():
    image = noise(203, 50)
    parts = rows_of(image)
    assert len(parts) > 3
    assert [row for row, _ in parts] == [0, *np.cumsum([p.shape[1] for _, p in parts])[:-1]]
    assert np.array_equal(joined(parts), predict(image))


@pytest.mark.parametrize("first_row", [1, 37, 100, 202])
def test_rows_from_the_middle_have_the_same_bits(first_row):
    image = noise(203, 90)
    parts = rows_of(image, first_row=first_row)
    assert parts[0][0] == first_row
    assert np.array_equal(joined(parts), joined(rows_of(image))[:, first_row:])


def test_tiles_that_nobody_wants_are_zero_and_not_computed():
    image = flat(200, 90)
    whole = joined(rows_of(image, wanted=lambda row, _: row < 80))
    assert whole.shape == (1, 200, 90)
    assert np.abs(whole[:, :80] - 0.2).max() < 1e-6 and (whole[:, 120:] == 0).all()
    nothing = joined(rows_of(image, wanted=lambda *_: False))
    assert nothing.shape == (1, 200, 90) and (nothing == 0).all()

"""GeoJSON for QuPath: rings that an independent library finds valid, and what they enclose."""

import json

import numpy as np
import pytest
from scipy import ndimage

from code_common.annotations.formats import rasterise, read_geojson
from code_common.files.geojson import nuclei_geojson


def random_instances(seed, count=60, size=160):
    """Ragged, touching, holed and scattered shapes."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(size, size)), rng.uniform(0.6, 2.5))
    seeds = np.zeros((size, size), int)
    seeds[tuple(rng.integers(0, size, (2, count)))] = np.arange(1, count + 1)
    nearest = ndimage.distance_transform_edt(seeds == 0, return_indices=True)[1]
    return np.where(field > 0, seeds[tuple(nearest)], 0)


def test_a_square_and_its_measurements():
    instances = np.zeros((9, 12), int)
    instances[3:8, 2:6] = 4
    prob = np.where(instances > 0, 0.75, 0.1)
    (feature,) = nuclei_geojson(instances, prob)["features"]
    ring = np.array(feature["geometry"]["coordinates"][0])
    assert (ring[0] == ring[-1]).all()
    assert ring.min(0).tolist() == [2, 3] and ring.max(0).tolist() == [6, 8]
    properties = feature["properties"]
    assert properties["objectType"] == "detection"
    assert properties["measurements"] == {"Area px^2": 20, "Probability": 0.75}


@pytest.mark.parametrize("seed", range(20))
def test_rings_are_valid_and_enclose_their_pixels(tmp_path, seed):
    """20 x 60 shapes; read back by our importer they give the same map, but for filled holes."""
    shapely = pytest.importorskip("shapely.geometry")
    instances = random_instances(seed)
    content = nuclei_geojson(instances)
    ids = np.unique(instances[instances > 0])
    assert len(content["features"]) == len(ids)
    for feature, k in zip(content["features"], ids, strict=True):
        shape = shapely.shape(feature["geometry"])
        assert shape.is_valid and not shape.is_empty
        parts = ndimage.label(ndimage.binary_fill_holes(instances == k))[1]
        assert len(getattr(shape, "geoms", [shape])) == parts
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(content, allow_nan=False))
    assert json.loads(path.read_text()) == content == nuclei_geojson(instances)
    again = rasterise(read_geojson(path).outlines, instances.shape)
    same = np.concatenate([[0], ids])[again]
    assert (same[instances > 0] == instances[instances > 0]).mean() > 0.97


def test_no_nucleus_is_an_empty_collection():
    assert nuclei_geojson(np.zeros((4, 4), int)) == {"type": "FeatureCollection", "features": []}

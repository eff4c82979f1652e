"""Detect the nuclei of any images with a trained run: points as CSV and GeoJSON, overlays."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import parse
from code_common.errors import InputError, run_script
from code_common.files.geojson import Features, point_feature
from code_common.files.writing import whole_file, write_png, write_table
from code_common.inference.prediction import PredictOptions, detect_slide, predict_all, wanted_tiles
from code_common.inference.slides import reduced
from code_common.inference.trained_run import load
from code_common.reporting.drawing import GREEN, mark


def predict(options: PredictOptions) -> str:
    """Write NAME_points.csv, NAME_points.geojson and NAME_points.png of each image.

    row and col are pixels of the file, as x and y of the GeoJSON are, which counts from the corner.
    """
    device = options.choose_device()
    stage = load(options.model, device).get("detection")
    if stage is None:
        raise InputError(f"{options.model}: holds no detector")
    tiling, out = options.tiling(device), options.out

    def work(name, slide, folder, key):
        wanted = wanted_tiles(slide, options.tissue, options.tile)
        points, probs = detect_slide(stage, slide, folder, key, tiling, wanted)
        files = [out / f"{name}_points.{kind}" for kind in ("csv", "geojson", "png")]
        # The middle of a pixel, in pixels of the file.
        places = (points + 0.5) * slide.scale
        rows = [
            (round(r - 0.5), round(c - 0.5), f"{p:.4f}")
            for (r, c), p in zip(places.tolist(), probs.tolist(), strict=True)
        ]
        write_table(files[0], ("row", "col", "prob"), rows)
        with whole_file(files[1]) as file:
            features = Features(file)
            for (r, c), p in zip(places.tolist(), probs.tolist(), strict=True):
                features.add(point_feature(c, r, round(p, 4)))
            features.end()
        picture, _, by = reduced(slide)
        write_png(files[2], mark(picture, points // by, "circle", GREEN, max(1, 5 // by)))
        return files, {"nuclei": len(points)}

    return predict_all(options, options.key([stage], tiling), work)[0]


if __name__ == "__main__":
    run_script(lambda: parse(PredictOptions, __doc__).run(predict))

"""Stage 2: points -> Voronoi and cluster labels -> segmentation network -> instance maps."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import read_command_line
from code_seg.options import Options

if __name__ == "__main__":
    options = read_command_line(Options, __doc__)

from code_common.files.contents import files_fingerprint
from code_common.files.data_set import load_split
from code_common.files.run_folder import points_path
from code_common.launch import run
from code_common.steps import Run, refuse_other_data
from code_seg.plan import steps
from code_seg.points import detections_path


def main(options: Options) -> None:
    """All steps of stage 2; done ones are skipped."""
    split = load_split(options.data_dir)
    image_files = [files for part in ("train", "val", "test") for files in split[part]]
    stage_1 = options.detection_dir()
    detections = [detections_path(stage_1, files.name) for files in image_files]
    annotated = [points_path(stage_1, files.name) for files in split["train"]]
    inputs = files_fingerprint(image_files, detections, annotated)
    refuse_other_data(stage_1, inputs, options)
    Run(options.save_dir, options, inputs).do(steps(options, split))


if __name__ == "__main__":
    run(main, options)

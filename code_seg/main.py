"""Stage 2: points -> Voronoi and cluster labels -> segmentation network -> instance maps."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import read_command_line
from code_seg.options import Options

if __name__ == "__main__":
    options = read_command_line(Options, __doc__)

from code_common.files.data_set import load_split
from code_common.launch import run
from code_common.runs.same_run import inputs_of, refuse_other_data
from code_common.runs.steps import Run
from code_seg.plan import steps


def main(options: Options) -> None:
    """All steps of stage 2; done ones are skipped."""
    inputs = inputs_of(options)
    refuse_other_data(options.detection_dir(), inputs, options)
    Run(options.save_dir, options, inputs).do(steps(options, load_split(options.data_dir)))


if __name__ == "__main__":
    run(main, options)

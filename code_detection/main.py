"""Stage 1: partial points -> detector -> self-training rounds -> the positions of all nuclei."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import read_command_line
from code_detection.options import Options

if __name__ == "__main__":
    options = read_command_line(Options, __doc__)

from code_common.files.data_set import load_split
from code_common.launch import run
from code_common.runs.same_run import inputs_of
from code_common.runs.steps import Run
from code_detection.plan import steps


def main(options: Options) -> None:
    """All steps of stage 1; done ones are skipped."""
    Run(options.save_dir, options, inputs_of(options)).do(
        steps(options, load_split(options.data_dir))
    )


if __name__ == "__main__":
    run(main, options)

"""Prepare self-training: labels from the nuclei that the first network found."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import read_command_line
from code_seg.options import PrepareSelfTrainingOptions

if __name__ == "__main__":
    options = read_command_line(PrepareSelfTrainingOptions, __doc__)

from code_common.errors import run_script
from code_common.runs.steps import do_alone
from code_seg.self_training import write_self_training_labels

if __name__ == "__main__":
    print(run_script(lambda: do_alone(write_self_training_labels, options)))

"""Compare experiments: mean ± deviation over repeats, paired bootstrap, AJI against annotation.

python tools/compare.py --runs experiments/MO --out compared
python tools/compare.py --runs paper=experiments/MO points=other/MO/ratio_0.1 --out compared

Each DIR is a folder ratio_R, or one that holds several of them. NAME= gives it another name.
"""

import argparse
import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import Parser
from code_common.errors import run_script


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs",
        nargs="+",
        action="extend",
        required=True,
        metavar="[NAME=]DIR",
        help="the experiments; each is compared with the first one of its ratio",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    return parser.parse_args(argv)


if __name__ == "__main__":
    arguments = run_script(parse_arguments)

from code_common.reporting.comparison import write_comparison
from code_common.reporting.experiments import find_experiments
from code_seg.options import Options


def main(arguments: argparse.Namespace) -> None:
    """Compare the experiments. Raises InputError where a folder has no finished run."""
    experiments = [e for run in arguments.runs for e in find_experiments(run)]
    write_comparison(experiments, arguments.out, Options.NOT_IN_RESULT)


if __name__ == "__main__":
    run_script(lambda: main(arguments))

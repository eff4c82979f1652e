"""Compare experiments: mean ± deviation over repeats, paired bootstrap, AJI against annotation.

python tools/compare.py --runs experiments/MO --out compared
python tools/compare.py --runs paper=experiments/MO points=other/MO/ratio_0.1 --out compared

A run is a folder of repeats (ratio_R), or of several of those; NAME= calls it something.
"""

import argparse
import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.errors import run_script
from code_common.reporting.comparison import find, write_comparison


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", nargs="+", required=True, metavar="[NAME=]DIR",
                        help="folders of repeats or of several ratios; the others are compared "
                        "with the first")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    args = parser.parse_args()
    write_comparison([e for given in args.runs for e in find(given)], args.out)


if __name__ == "__main__":
    run_script(main)

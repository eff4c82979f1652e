"""Write report.html and summary.md of an experiment, and say where everything is."""

import argparse
import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root-save-dir", type=Path, required=True, help="all experiments")
    parser.add_argument("--dataset", required=True, help="name of the data set")
    parser.add_argument("--ratio", type=float, required=True, help="share of annotated nuclei")
    parser.add_argument("--repeats", type=int, default=1, help="number of repeats (default: 1)")
    parser.add_argument("--seconds", type=int, help="wall time to print")
    return parser.parse_args(argv)


if __name__ == "__main__":
    arguments = parse_arguments()

from code_common.errors import run_script
from code_common.files.run_folder import ratio_folder, repeat_folder
from code_common.reporting.report import write_report
from code_common.reporting.results import read_repeat, score_lines


def main(arguments: argparse.Namespace) -> None:
    """Write the report and print the scores. Raises InputError where a repeat is missing."""
    folder = ratio_folder(arguments.root_save_dir, arguments.dataset, arguments.ratio)
    numbers = range(1, arguments.repeats + 1)
    repeats = [read_repeat(repeat_folder(folder, number)) for number in numbers]
    title = f"{arguments.dataset}: {arguments.ratio:.0%} of the points, {len(repeats)} repeat"
    title += "s" if len(repeats) > 1 else ""
    places = write_report(folder, title, repeats)
    seconds = arguments.seconds
    duration = "" if seconds is None else f" in {seconds // 60}:{seconds % 60:02d}"
    print(f"\nDone{duration}. {title}")
    for line in [*score_lines(repeats), *places]:
        print("  " + line)


if __name__ == "__main__":
    run_script(lambda: main(arguments))

"""Write report.html and summary.md of an experiment, and say where everything is."""

import argparse
import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import Bounded, Parser
from code_common.errors import run_script


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--root-save-dir", type=Path, required=True, help="all experiments")
    parser.add_argument("--dataset", required=True, help="name of the data set")
    parser.add_argument(
        "--ratio", type=Bounded(float, 1e-9, 1), required=True, help="share of annotated nuclei"
    )
    parser.add_argument(
        "--repeats", type=Bounded(int, 1, 999_999), default=1, help="number of repeats (default: 1)"
    )
    parser.add_argument("--seconds", type=Bounded(int, 0, 10**9), help="wall time to print")
    return parser.parse_args(argv)


if __name__ == "__main__":
    arguments = run_script(parse_arguments)

from code_common.files.run_folder import ratio_folder, repeat_folder, repeat_folders
from code_common.reporting.report import write_report
from code_common.reporting.results import checked, read_repeat, score_lines, share
from code_seg.options import Options


def main(arguments: argparse.Namespace) -> None:
    """Write the report and print the scores. Raises InputError where a repeat is missing."""
    folder = ratio_folder(arguments.root_save_dir, arguments.dataset, arguments.ratio)
    taken = [repeat_folder(folder, number) for number in range(1, arguments.repeats + 1)]
    repeats, notes = checked([read_repeat(path) for path in taken], Options.NOT_IN_RESULT)
    title = f"{arguments.dataset}: {share(arguments.ratio)}, {len(repeats)} repeat"
    title += "s" if len(repeats) > 1 else ""
    if more := [path.name for path in repeat_folders(folder) if path not in taken]:
        notes.append(f"not in this report: {', '.join(more)}; --repeats says how many are")
    for note in notes:
        print(note)
    places = write_report(folder, title, repeats, notes)
    seconds = arguments.seconds
    duration = "" if seconds is None else f" in {seconds // 60}:{seconds % 60:02d}"
    print(f"\nDone{duration}. {title}")
    for line in [*score_lines(repeats), *places]:
        print("  " + line)


if __name__ == "__main__":
    run_script(lambda: main(arguments))

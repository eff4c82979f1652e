"""Write report.html and summary.md of an experiment, and say where everything is."""

import argparse
import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.errors import run_script
from code_common.files.writing import write_bytes, write_png
from code_common.reporting.page import to_html, to_markdown
from code_common.reporting.report import make_sections, overview
from code_common.reporting.results import read_repeat, told


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root-save-dir", type=Path, required=True, help="all experiments")
    parser.add_argument("--dataset", required=True, help="name of the data set")
    parser.add_argument("--ratio", type=float, required=True, help="share of annotated nuclei")
    parser.add_argument("--repeats", type=int, default=1, help="number of repeats (default: 1)")
    parser.add_argument("--seconds", type=int, help="wall time to print")
    args = parser.parse_args()
    root = args.root_save_dir / args.dataset / f"ratio_{args.ratio:g}"
    repeats = [read_repeat(root / f"repeat_{k}") for k in range(1, args.repeats + 1)]
    title = f"{args.dataset}: {args.ratio:.0%} of the points, {args.repeats} repeat"
    title += "s" * (args.repeats > 1)
    sections = make_sections(repeats)
    write_bytes(root / "report.html", to_html(title, sections).encode())
    write_bytes(root / "summary.md", to_markdown(title, sections).encode())
    picture = overview(repeats[0].folder)
    if picture is not None:
        write_png(root / "overview.png", picture)
    took = f" in {args.seconds // 60}:{args.seconds % 60:02d}" if args.seconds is not None else ""
    print(f"\nDone{took}. {title}")
    for line in told(repeats):
        print("  " + line)
    test = repeats[0].folder / "segmentation" / "test"
    print(f"  report        {root / 'report.html'} (and summary.md)")
    if picture is not None:
        print(f"  overview      {root / 'overview.png'}")
    print(f"  pictures      {test}/*_overlay.png")
    print(f"  instance maps {test}/*_instances.tif")


if __name__ == "__main__":
    run_script(main)

"""Make what the documentation takes from the program: options, figures, the picture of imports.

python docs/make.py                                      reference/options.md
python docs/make.py --rooms                              also figures/rooms.svg
python docs/make.py --run experiments/sample/ratio_0.1   also the figures of a run of the sample
"""

import argparse
import io
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import Parser
from code_common.errors import InputError, run_script
from code_common.files.run_folder import pictures_folder, repeat_folder
from code_common.files.writing import write_bytes
from code_common.reporting.album import Panel, read_album, strip
from code_common.reporting.report import OVERVIEW
from docs.options_page import make_options
from docs.rooms import make_rooms

HEIGHT = 240  # pixels of the panels of a figure
# Stage and figure of a run -> its name in docs/figures, and which of its panels.
FIGURES = {
    ("detection", "target"): ("target", slice(None)),
    ("detection", "batch"): ("detection_batch", slice(0, 4)),
    ("detection", "background"): ("background", slice(None)),
    ("detection", "rounds"): ("rounds", slice(None)),
    ("segmentation", "labels"): ("labels", slice(None)),
    ("segmentation", "methods"): ("methods", slice(None)),
}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run", type=Path, metavar="DIR", help="a finished run of the sample: its folder ratio_0.1"
    )
    parser.add_argument(
        "--rooms", action="store_true", help="draw which room imports which: figures/rooms.svg"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, metavar="DIR", help="(default: docs)"
    )
    return parser.parse_args(argv)


def make_figures(run: Path, out: Path) -> list[str]:
    """Write the figures of the documentation from a run's pictures; returns their names.

    Raises InputError where the run has not all of them.
    """
    repeat, figures = repeat_folder(run, 1), {}
    for stage in {stage for stage, _ in FIGURES}:
        for figure in read_album(pictures_folder(repeat / stage)):
            figures[stage, figure.name] = figure
    missing = [f"{stage}/{name}" for stage, name in FIGURES if (stage, name) not in figures]
    if missing or not (run / OVERVIEW).is_file():
        raise InputError(f"{run}: no finished run with pictures ({', '.join(missing)})")
    for key, (name, panels) in FIGURES.items():
        write_bytes(out / "figures" / f"{name}.jpg", jpeg(figures[key].panels[panels]))
    shutil.copyfile(run / OVERVIEW, out / "overview.png")
    return [name for name, _ in FIGURES.values()]


def jpeg(panels: Sequence[Panel]) -> bytes:
    """Panels in one row as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(strip(panels, HEIGHT)).save(buffer, "JPEG", quality=88, subsampling=0)
    return buffer.getvalue()


def main(arguments: argparse.Namespace) -> None:
    """Make what the command line asks for. Raises InputError."""
    out, made = arguments.out, ["reference/options.md"]
    if arguments.run:
        names = make_figures(arguments.run, out)
        made += ["overview.png", *(f"figures/{name}.jpg" for name in names)]
    if arguments.rooms:
        write_bytes(out / "figures" / "rooms.svg", make_rooms().encode())
        made.append("figures/rooms.svg")
    write_bytes(out / "reference" / "options.md", make_options().encode())
    print(f"{out}: {', '.join(made)}")


if __name__ == "__main__":
    run_script(lambda: main(parse_arguments()))

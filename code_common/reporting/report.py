"""The report of an experiment: a page, a summary and a strip of pictures, beside its repeats."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from code_common.files.run_folder import (
    STAGES,
    instances_path,
    overlay_path,
    pictures_folder,
    results_folder,
)
from code_common.files.writing import write_png, write_text
from code_common.reporting.album import Panel, read_album, strip
from code_common.reporting.page import to_html, to_markdown
from code_common.reporting.results import Repeat
from code_common.reporting.sections import make_sections

REPORT, SUMMARY, OVERVIEW = "report.html", "summary.md", "overview.png"
OVERVIEW_HEIGHT = 260  # pixels of its panels
# Label of a panel of the overview -> figure of the run, and the number of the figure's panel.
OVERVIEW_PANELS = {
    "points": ("segmentation", "labels", 0),
    "Voronoi label": ("segmentation", "labels", 1),
    "cluster label": ("segmentation", "labels", 2),
    "probability and detections": ("detection", "rounds", -1),
    "nuclei": ("segmentation", "methods", -1),
}


def write_report(
    folder: Path, title: str, repeats: Sequence[Repeat], notes: Sequence[str] = ()
) -> list[str]:
    """Write the report of an experiment into its folder.

    notes: see `make_sections`. Returns lines that say where the results are.
    """
    sections = make_sections(repeats, notes)
    write_text(folder / REPORT, to_html(title, sections))
    write_text(folder / SUMMARY, to_markdown(title, sections))
    lines = [f"report        {folder / REPORT} (and {SUMMARY})"]
    picture = overview(repeats[0].folder)
    if picture is not None:
        write_png(folder / OVERVIEW, picture)
        lines.append(f"overview      {folder / OVERVIEW}")
    results = results_folder(repeats[0].folder / "segmentation")
    if not results.is_dir():  # without test images nothing is segmented
        return lines
    lines.append(f"pictures      {overlay_path(results, '*')}")
    lines.append(f"instance maps {instances_path(results, '*')}")
    return lines


def overview(folder: Path) -> np.ndarray | None:
    """Points, Voronoi and cluster label, detections and nuclei of a repeat in one strip, uint8
    [H, W, 3]; None where one of them is missing.
    """
    albums = {stage: read_album(pictures_folder(folder / stage)) for stage in STAGES}
    figures = {(stage, f.name): f for stage, album in albums.items() for f in album}
    panels = []
    for label, (stage, name, number) in OVERVIEW_PANELS.items():
        if (stage, name) not in figures:
            return None
        panels.append(Panel(label, figures[stage, name].panels[number].image))
    return strip(panels, OVERVIEW_HEIGHT)

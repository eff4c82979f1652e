"""Gather the results of an experiment's repeats into one page and say where everything is."""

import argparse
import base64
import html
import sys
from pathlib import Path
from statistics import mean, stdev

import numpy as np

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.data import read_image, read_json, write_bytes, write_png
from code_common.errors import InputError, run_script

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
img { width: 56rem; max-width: 100%; height: auto }
td, th { padding: .25rem .75rem; border-bottom: 1px solid #ccc; text-align: right }
td:first-child, th:first-child { text-align: left } figcaption { color: #444 }
figure { margin: 1.5rem 0 }
"""


def spread(values: list[float]) -> str:
    """Mean, and the standard deviation where there are several values."""
    deviation = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{deviation}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """An HTML table; the first column holds names."""
    lines = [[f"<td>{html.escape(cell)}</td>" for cell in row] for row in rows]
    first = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in lines)
    return f"<table><tr>{first}</tr>{body}</table>"


def figure(path: Path, caption: str) -> str:
    """A picture, embedded, with its caption."""
    data = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{text}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def examples(images: dict[str, dict], score: str) -> dict[str, str]:
    """The best, the middle and the worst image by a score: how they rank -> name."""
    names = sorted(images, key=lambda n: images[n][score])
    ranks = {"worst": names[0], "median": names[len(names) // 2], "best": names[-1]}
    return {rank: name for rank, name in ranks.items() if name}


def make_report(folders: list[Path], title: str) -> tuple[str, list[str]]:
    """HTML page and the lines to print of the repeats' folders."""
    parts, lines = [f"<h1>{html.escape(title)}</h1>"], []
    detections = [f / "detection" / "test" / "metrics.json" for f in folders]
    if all(p.is_file() for p in detections):
        pooled = [read_json(p)["pooled"]["all"] for p in detections]
        rows = [[k, spread([p[k] for p in pooled])] for k in pooled[0]]
        parts += ["<h2>Detection, test images</h2>", table(["score", "pooled"], rows)]
        lines.append("detection     F1 " + spread([p["f1"] for p in pooled]))
    metrics = [f / "segmentation" / "test" / "metrics.json" for f in folders]
    own: dict = {}
    if all(p.is_file() for p in metrics):
        results = [read_json(p) for p in metrics]
        own = results[0]
        methods = [m for m in own["mean"] if all(m in r["mean"] for r in results)]
        names = list(own["mean"][methods[0]]["all"])
        values = {m: {n: [r["mean"][m]["all"][n] for r in results] for n in names} for m in methods}
        rows = [[n, *(spread(values[m][n]) for m in methods)] for n in names]
        chosen = ", ".join(sorted({r["instances"] for r in results}))
        parts += [
            "<h2>Segmentation, test images</h2>",
            f"<p>Instances by connected components and split by the detected points; "
            f"chosen on the validation images: {html.escape(chosen)}.</p>",
            table(["score", *methods], rows),
        ]
        for m in methods:
            shown = ("pixel_f1", "object_dice", "aji", "pq")
            told = "  ".join(f"{n} {spread(values[m][n])}" for n in shown)
            lines.append(f"{m:12s}  {told}")
    errors = folders[0] / "segmentation" / "label_errors.json"
    if errors.is_file():
        rows = [[k, f"{v:.1%}"] for k, v in read_json(errors)["mean_train"].items()]
        parts += ["<h2>How wrong the labels are, training images</h2>", table(["share", ""], rows)]
    ranked = examples(own["images"][own["instances"]], "aji") if own else {}
    write_overview(folders[0], ranked.get("median"), folders[0] / "overview.png")
    parts += pictures(folders[0], ranked)
    parts += ["<h2>Time</h2>", table(["step", *(f.name for f in folders)], times(folders))]
    page = "\n".join(parts)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    return (
        f"<!doctype html><html lang=en><head>{head}<title>{html.escape(title)}</title>"
        f"<style>{STYLE}</style></head><body>{page}</body></html>\n",
        lines,
    )


def write_overview(folder: Path, name: str | None, path: Path) -> None:
    """One strip: points, Voronoi and cluster label of a training image, results of a test image."""
    labels = sorted((folder / "segmentation" / "pictures").glob("*.png"))[:1]
    tests = [folder / s / "test" / f"{name}_overlay.png" for s in ("detection", "segmentation")]
    if not labels or not all(p.is_file() for p in tests):
        return
    panels = [read_image(p) for p in (*labels, *tests)]
    if len({p.shape[0] for p in panels}) == 1:
        write_png(path, np.hstack(panels))


def pictures(folder: Path, ranked: dict[str, str]) -> list[str]:
    """Figures of one repeat: labels of a training image, overlays of test images."""
    parts = ["<h2>Pictures</h2>"]
    labels = sorted((folder / "segmentation" / "pictures").glob("*.png"))
    if labels:
        caption = "points, Voronoi label, cluster label (orange background, green nuclei)"
        parts.append(figure(labels[0], f"{labels[0].stem}: {caption}"))
    for rank, name in ranked.items():
        path = folder / "segmentation" / "test" / f"{name}_overlay.png"
        parts.append(figure(path, f"{name} ({rank} AJI): yellow predicted, cyan true outlines"))
        path = folder / "detection" / "test" / f"{name}_overlay.png"
        caption = "detections: green circles right, orange crosses wrong, blue squares missed"
        if path.is_file():
            parts.append(figure(path, f"{name}: {caption}"))
    return parts


def times(folders: list[Path]) -> list[list[str]]:
    """Rows of seconds per step, a column for each repeat."""
    seconds: dict[str, list[str]] = {}
    for k, folder in enumerate(folders):
        markers = sorted(folder.glob("*/.done/*.json"), key=lambda p: p.stat().st_mtime)
        for path in markers:
            name = f"{path.parts[-3]}: {path.stem}"
            row = seconds.setdefault(name, [""] * len(folders))
            row[k] = f"{read_json(path)['seconds']:.1f} s"
    return [[name, *row] for name, row in seconds.items()]


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
    folders = [root / f"repeat_{k}" for k in range(1, args.repeats + 1)]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such run")
    repeats = f"{args.repeats} repeat{'s' * (args.repeats > 1)}"
    title = f"{args.dataset}: {args.ratio:.0%} of the points, {repeats}"
    page, lines = make_report(folders, title)
    write_bytes(root / "report.html", page.encode())
    took = f" in {args.seconds // 60}:{args.seconds % 60:02d}" if args.seconds is not None else ""
    print(f"\nDone{took}. {title}")
    for line in lines:
        print("  " + line)
    print(f"  report        {root / 'report.html'}")
    if (folders[0] / "overview.png").is_file():
        print(f"  overview      {folders[0] / 'overview.png'}")
    print(f"  pictures      {folders[0] / 'segmentation' / 'test'}/*_overlay.png")
    print(f"  instance maps {folders[0] / 'segmentation' / 'test'}/*_instances.tif")


if __name__ == "__main__":
    run_script(main)

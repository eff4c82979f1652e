"""Make what the documentation takes from the program: figures of a run, and the list of options.

python docs/make.py --run experiments/sample/ratio_0.1
"""

import argparse
import io
import shutil
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import field_comments
from code_common.errors import InputError, run_script
from code_common.files.writing import write_bytes
from code_common.options import CommonOptions, InferenceOptions
from code_common.reporting.album import Panel, read_album, strip
from code_detection.options import Options as DetectionOptions
from code_seg.options import Options as SegOptions
from code_seg.predict import SegPredictOptions

HERE = Path(__file__).resolve().parent
HEIGHT = 240
INFERENCE = [f.name for f in fields(InferenceOptions)]
# Figure of a run -> its name here, and how many of its panels from where on.
FIGURES = {
    "detection/target": ("target", slice(None)),
    "detection/batch": ("detection_batch", slice(0, 4)),
    "detection/background": ("background", slice(None)),
    "detection/rounds": ("rounds", slice(None)),
    "segmentation/labels": ("labels", slice(None)),
    "segmentation/methods": ("methods", slice(None)),
}


def jpeg(panels: Sequence[Panel]) -> bytes:
    """Panels in one row as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(strip(panels, HEIGHT)).save(buffer, "JPEG", quality=88, subsampling=0)
    return buffer.getvalue()


def make_figures(run: Path, out: Path) -> list[str]:
    """Write the figures of docs/method.md, and the README's, from a run's pictures; their names."""
    stages = {name.split("/")[0] for name in FIGURES}
    albums = {
        f"{s}/{f.name}": f for s in stages for f in read_album(run / "repeat_1" / s / "pictures")
    }
    missing = sorted(set(FIGURES) - set(albums))
    if missing or not (run / "overview.png").is_file():
        raise InputError(f"{run}: no finished run with pictures ({', '.join(missing)})")
    for name, (own, panels) in FIGURES.items():
        write_bytes(out / "figures" / f"{own}.jpg", jpeg(albums[name].panels[panels]))
    shutil.copyfile(run / "overview.png", out / "overview.png")
    return [own for own, _ in FIGURES.values()]


def shown(value: object) -> str:
    """A default as it is given on the command line."""
    if isinstance(value, tuple) or value is None:
        return " ".join(map(str, value or ())) or " "
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value}`" if value != "" else " "


def option_table(names: Sequence[str], options: type[InferenceOptions]) -> list[str]:
    """Rows of some options: flag, default, meaning.

    The default is that of MO; those of the sample and of the profile 'narrow' where they differ.
    """
    comments, defaults = field_comments(options), {f.name: f.default for f in fields(options)}
    lines = ["| option | default | |", "|---|---|---|"]
    for name in names:
        sets = getattr(options, "DATASETS", {"MO": {}, "sample": {}})
        default = usual = shown(sets["MO"].get(name, defaults[name]))
        narrow = getattr(options, "PROFILES", {"narrow": {}})["narrow"]
        for called, row in (("sample", sets["sample"]), ("narrow", narrow)):
            if name in row and shown(row[name]) != usual:
                default += f"; {called}: {shown(row[name])}"
        if "experiments" in default or default.endswith("/data`"):
            default = f"`{Path(default.strip('`')).name}`"
        flag = "--" + name.replace("_", "-")
        lines.append(f"| `{flag}` | {default} | {comments[name]} |".replace("  |", " |"))
    return [*lines, ""]


def make_options() -> str:
    """The text of docs/options.md."""
    common = [f.name for f in fields(CommonOptions)]
    lines = [
        "# Every option",
        "",
        "Made by `docs/make.py` from the comments in `options.py`, which are also the text of "
        "`--help`.",
        "Defaults are those of MO and of a set without a row in `DATASETS`; where they differ also "
        "those of",
        "the sample and of `--profile narrow`. `run.sh` gives options to both stages; what stands "
        "behind",
        "`--detection` or `--seg` goes to that stage alone. `--no-pretrained` is short for "
        "`--pretrained none`.",
        "",
        "## Of both stages",
        "",
    ]
    rows = {s: option_table(common, s) for s in (DetectionOptions, SegOptions)}
    for first, second in zip(*rows.values(), strict=True):
        if first == second:
            lines.append(first)
            continue
        flag, one, text = (cell.strip() for cell in first.split("|")[1:4])
        two = second.split("|")[2].strip()
        lines.append(f"| {flag} | stage 1: {one}<br>stage 2: {two} | {text} |")
    for title, options in (
        ("Stage 1, `code_detection`", DetectionOptions),
        ("Stage 2, `code_seg`", SegOptions),
        ("Prediction, `predict.py`", SegPredictOptions),
    ):
        inherited = common if issubclass(options, CommonOptions) else INFERENCE
        own = [f.name for f in fields(options) if f.name not in inherited]
        lines += [f"## {title}", "", *option_table(own, options)]
    lines += ["And of those above: " + ", ".join(f"`--{n.replace('_', '-')}`" for n in INFERENCE)]
    lines += [
        "(`--shard` and `--gpus` share the images out). `--coco` and `--instances` are those of"
    ]
    lines += ["`code_seg/predict.py` alone."]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, metavar="DIR", required=True,
                        help="a run of the sample: its folder ratio_0.1")  # fmt: skip
    parser.add_argument("--out", type=Path, default=HERE, metavar="DIR", help="(default: docs)")
    args = parser.parse_args()
    names = make_figures(args.run, args.out)
    write_bytes(args.out / "options.md", make_options().encode())
    print(f"{args.out}: options.md, overview.png and figures {', '.join(names)}")


if __name__ == "__main__":
    run_script(main)

"""Pack a trained run (weights, settings, scores) into one file for predict.py."""

import argparse
import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import Parser
from code_common.errors import InputError, run_script


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=f"{__doc__ or ''} The file holds no code and no training data.")
    parser.add_argument(
        "--run",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder that holds detection/ and segmentation/ (.../repeat_1), or a packed run, "
        "whose card is then printed",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the file to write (.pt)")
    parser.add_argument(
        "--onnx", type=Path, metavar="DIR", help="folder for detection.onnx and segmentation.onnx"
    )
    parser.add_argument(
        "--card", type=Path, metavar="FILE", help="write the model's card, too (.md)"
    )
    parser.add_argument(
        "--about",
        type=Path,
        metavar="FILE",
        help="Markdown that the card begins with: title, data, licence, limits",
    )
    parser.add_argument(
        "--scores",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=FILE",
        help="what was scored, and its metrics.json of tools/score.py: rows of the card",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    arguments = run_script(parse_arguments)

import torch

from code_common.annotations.text import read_text
from code_common.files.contents import refuse_in_run
from code_common.files.layout import EVERY
from code_common.files.reading import read_json
from code_common.files.run_folder import STAGES
from code_common.files.writing import write_bytes
from code_common.inference.onnx_export import onnx_bytes
from code_common.inference.trained_run import read_packed_run
from code_common.learning.checkpoints import checkpoint_bytes, network_of
from code_common.reporting.card import make_card
from code_common.reporting.results import SCORED, SHOWN


def card_of(packed: dict, arguments: argparse.Namespace) -> str:
    """The card of a packed run. Raises InputError for files that hold something else."""
    title = f"# {(arguments.out or arguments.run).name}"
    about = read_text(arguments.about) if arguments.about else title
    scores = {
        name: read_json(file, SCORED) for name, file in scored_files(arguments.scores).items()
    }
    return make_card(about, packed, scores)


def scored_files(given: list[str]) -> dict[str, Path]:
    """The files of --scores: what was scored -> metrics.json. Raises InputError."""
    files: dict[str, Path] = {}
    for text in given:
        name, equals, file = text.rpartition("=")
        if not equals:
            raise InputError(f"--scores {text}: expected NAME=FILE")
        if name in files:
            raise InputError(f"--scores {text}: {name} stands there twice")
        files[name] = Path(file)
    return files


def check_files(arguments: argparse.Namespace) -> None:
    """Raise InputError where a file would be lost that is read or written as another one, and for
    what only a card has where none is written.
    """
    if not arguments.card and (arguments.about or arguments.scores):
        raise InputError(
            f"{'--about' if arguments.about else '--scores'} is for --card; give it, too"
        )
    read = {"--run": arguments.run, "--about": arguments.about}
    read |= {f"--scores {name}": file for name, file in scored_files(arguments.scores).items()}
    known = {path.resolve(): flag for flag, path in read.items() if path}
    for flag, path in (("--out", arguments.out), ("--card", arguments.card)):
        if path:
            refuse_in_run(path, flag)
            other = known.setdefault(path.resolve(), flag)
            if other != flag:
                raise InputError(f"{flag} {path}: is {other}, too; give it a name of its own")


def in_words(value: object) -> str:
    """A value of a packed run; of scores the main ones, over all images."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if not isinstance(value, dict):
        return str(value)
    value = value.get(EVERY, value)
    shown = [(k, v) for k, v in value.items() if isinstance(v, dict) or k in (*SHOWN, "f1")]
    parts = (
        f"{k} ({in_words(v)})" if isinstance(v, dict) else f"{k} {in_words(v)}" for k, v in shown
    )
    return ", ".join(parts)


def main(arguments: argparse.Namespace) -> None:
    """Print the card of a run, and write the files that are asked for.

    Raises InputError where there is no finished run.
    """
    check_files(arguments)
    packed = read_packed_run(arguments.run)
    stages = [stage for stage in STAGES if stage in packed]
    for stage in STAGES:
        if stage not in packed:
            print(f"{arguments.run}: holds no finished {stage}; what is written holds none")
    cpu = torch.device("cpu")
    networks = {s: network_of(packed[s], arguments.run, cpu, s) for s in stages}
    for stage in stages:
        for name, value in packed[stage].get("card", {}).items():
            print(f"{stage} {name}: {in_words(value)}")
    if arguments.card:
        write_bytes(arguments.card, card_of(packed, arguments).encode())
        print(arguments.card)
    if arguments.out:
        write_bytes(arguments.out, checkpoint_bytes(packed))
        print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.0f} MB")
    if arguments.onnx:
        for stage, network in networks.items():
            path = arguments.onnx / f"{stage}.onnx"
            write_bytes(path, onnx_bytes(network))
            print(path)


if __name__ == "__main__":
    run_script(lambda: main(arguments))

"""Times of prediction and training on the cores of this machine, as medians; tables, and JSON.

python tests/benchmarks/speed.py [PART ...] [--before CHECKOUT] [--peers FOLDER] [--stardist PYTHON]
                                 [--out FILE.json]

PART: threads, peers, processes, training, jobs, slide; without any, all of them are measured.
--before measures another checkout of this project beside this one, in the same run. --peers and
--stardist name what peers.py needs for the networks of other projects.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import numpy as np
import tifffile

PROJECT = Path(__file__).resolve().parents[2]
if not __package__:
    sys.path.insert(0, str(PROJECT))

from code_common.errors import InputError, run_script
from code_common.files.data_set import load_split
from code_common.files.images import read_image
from code_common.files.writing import write_json
from code_common.threads import allotted_cores

SIDE = 1000  # of a tile in pixels
MO = PROJECT.parent / "shared" / "data" / "MO"
# Prints seconds of wall clock and of CPU for each tile, after one to warm up. It runs in any
# checkout: predict.py with its options, but without the start of Python and torch.
PREDICT = """
import os, sys, tempfile, time
from pathlib import Path
from code_common.config import read_command_line
from code_seg.options import SegPredictOptions
out, tiles, more = Path(tempfile.mkdtemp()), sys.argv[1].split(","), sys.argv[2:]
def options(k):
    sys.argv = ["predict.py", "--images", tiles[k], "--out", str(out / str(k)), *more]
    return read_command_line(SegPredictOptions, "")
first = options(0)
from code_seg.predict import predict
predict(first)
for k in range(1, len(tiles)):
    one = options(k)
    wall, cpu = time.perf_counter(), time.process_time()
    predict(one)
    print("took", time.perf_counter() - wall, time.process_time() - cpu)
"""


def run(command: list, folder: Path, threads: int | None) -> tuple[str, float]:
    """What a command prints, and its seconds. threads: None leaves the choice to it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    began = time.perf_counter()
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise InputError(f"{folder}: {' '.join(map(str, command))[:200]}\n{done.stderr[-2000:]}")
    return done.stdout, time.perf_counter() - began


def took(output: str) -> list[tuple[float, float]]:
    """Wall and CPU seconds of the lines that PREDICT and peers.py print."""
    lines = [line.split() for line in output.splitlines() if line.startswith("took ")]
    return [(float(wall), float(cpu)) for _, wall, cpu in lines]


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """Another program that keeps one core busy."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def shown(values: list[float]) -> str:
    """Median with the range."""
    return f"{statistics.median(values):8.2f}  [{min(values):.2f} .. {max(values):.2f}]"


def threads(args: argparse.Namespace, say: Callable[[str, list[float]], None]) -> None:
    """A tile by predict.py, alone and beside a busy program, on one thread and on all cores."""
    tiles = ",".join(map(str, args.tiles[:6]))
    for name, checkout, more in args.checkouts:
        command = [sys.executable, "-c", PREDICT, tiles, "--model", args.model, *more]
        for cores in (1, None):
            of = f"{name}, {'one thread' if cores else 'as it is'}"
            times = took(run(command, checkout, cores)[0])
            say(f"{of}: alone, seconds a tile", [wall for wall, _ in times])
            say(f"{of}: alone, CPU seconds a tile", [cpu for _, cpu in times])
            with busy_neighbour():
                times = took(run(command, checkout, cores)[0])
            say(f"{of}: beside a busy program, seconds a tile", [wall for wall, _ in times])


def peers(args: argparse.Namespace, say: Callable[[str, list[float]], None]) -> None:
    """The networks of other projects on a tile, on one core."""
    pythons = {
        "instanseg": args.peers and sys.executable,
        "hovernet": args.peers and sys.executable,
    }
    pythons["stardist"] = args.stardist
    # HoVer-Net does not run in bfloat16, and TensorFlow chooses by itself.
    for name, precision in (
        ("instanseg", "fp32"),
        ("instanseg", "bf16"),
        ("hovernet", "fp32"),
        ("stardist", "fp32"),
    ):
        if pythons[name]:
            command = [
                pythons[name],
                PROJECT / "tests" / "benchmarks" / "peers.py",
                name,
                args.peers,
                precision,
            ]
            times = took(run(command, PROJECT, 1)[0])
            say(f"{name}, {precision}: seconds a tile", [wall for wall, _ in times])


def processes(args: argparse.Namespace, say: Callable[[str, list[float]], None]) -> None:
    """predict.py on 14 tiles, from start to end, on one core and on all."""
    for cores in (1, None, 1, None):
        with tempfile.TemporaryDirectory() as out:
            command = ["code_seg/predict.py", "--model", args.model, "--images", *args.tiles[:14]]
            _, seconds = run([sys.executable, *command, "--out", out], PROJECT, cores)
        say(f"14 tiles, {'one core' if cores else 'all cores'}: seconds", [seconds])


def training(args: argparse.Namespace, say: Callable[[str, list[float]], None]) -> None:
    """Crops per second of both stages with the profile scratch, from the log of a short run."""
    alone = (("one thread", 1, nullcontext), ("all cores", None, nullcontext))
    cases = (*alone, ("all cores, beside a busy program", None, busy_neighbour))
    for name, checkout, _ in args.checkouts:
        for case, cores, beside in cases:
            for parts in (1, 2) if name == "now" else (1,):
                more = ["--batch-parts", parts] if name == "now" else []  # older code has one
                with beside(), tempfile.TemporaryDirectory() as out:
                    for stage, speeds in crops_per_second(checkout, Path(out), cores, more).items():
                        say(f"{name}, {case}, {parts} parts, {stage}: crops/s", speeds)


def crops_per_second(
    checkout: Path, out: Path, cores: int | None, options: list
) -> dict[str, list[float]]:
    """Stage -> crops per second in each epoch but the first. options: of both stages."""
    common = f"--dataset MO --data-dir {MO} --profile scratch --val-every 50".split()
    common += ["--root-save-dir", out, "--epochs", 4, "--views", 1, *options]
    of_seg, speeds = ["--self-training-epochs", 0], {}
    for stage, more, log in (
        ("code_detection", [], "detection/round_0/log.csv"),
        ("code_seg", of_seg, "segmentation/labels/log.csv"),
    ):
        run([sys.executable, f"{stage}/main.py", *common, *more], checkout, cores)
        lines = (out / "MO" / "ratio_0.1" / "repeat_1" / log).read_text().splitlines()
        column = lines[0].split(",").index("images_per_s")
        speeds[stage] = [float(line.split(",")[column]) for line in lines[2:]]
    return speeds


def jobs(args: argparse.Namespace, say: Callable[[str, list[float]], None]) -> None:
    """`run.sh --repeats 2` on the sample, one after the other and side by side."""
    for number in (1, 2):
        with tempfile.TemporaryDirectory() as out:
            command = ["bash", "run.sh", "--repeats", 2, "--jobs", number, "--root-save-dir", out]
            _, seconds = run(command, PROJECT, 1)
        say(f"run.sh --repeats 2 --jobs {number}, one thread each: seconds", [seconds])


SLIDE, PART = (80_000, 100_000), 20  # the slide in pixels, and what share of it is done: 1 / PART
TISSUE = 0.1  # share of the slide


def slide(args: argparse.Namespace, say: Callable[[str, list[float]], None]) -> None:
    """A part of a synthetic slide: MO tiles side by side in glass, as a tiled TIFF."""
    height, width = (round(n / PART**0.5 / 1024) * 1024 for n in SLIDE)
    tissue = round((TISSUE * height * width) ** 0.5 / SIDE)  # tiles in a row and in a column
    images = [read_image(path)[:SIDE, :SIDE] for path in args.tiles]
    whole = np.full((height, width, 3), 243, np.uint8)
    for k in range(tissue**2):
        row, col = (SIDE * n for n in divmod(k, tissue))
        whole[row : row + SIDE, col : col + SIDE] = images[k % len(images)]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        tifffile.imwrite(
            place / "slide.tif", whole, tile=(512, 512), compression="deflate", photometric="rgb"
        )
        command = ["code_seg/predict.py", "--model", args.model, "--images", place / "slide.tif"]
        with watched(place / "out") as most:
            _, seconds = run([sys.executable, *command, "--out", place / "out"], PROJECT, None)
        say(f"1/{PART} of a slide, {tissue**2} tiles of tissue: seconds", [seconds])
        say("memory of its processes, GB", [most["memory"] / 1e9])
        say("disk for unfinished maps, GB", [most["disk"] / 1e9])
        say("disk for results, GB", [size_of(place / "out") / 1e9])
        print((place / "out" / "times.csv").read_text())


@contextmanager
def watched(out: Path) -> Iterator[dict[str, int]]:
    """The most memory of all children, and the most disk under out/.work, in bytes."""
    most, done = {"memory": 0, "disk": 0}, threading.Event()

    def look() -> None:
        while not done.wait(1):
            most["disk"] = max(most["disk"], size_of(out / ".work"))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()
        most["memory"] = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def size_of(folder: Path) -> int:
    """Bytes on the disk of all files under a folder; some may go meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += 512 * path.stat().st_blocks
    return total


PARTS = {f.__name__: f for f in (threads, peers, processes, training, jobs, slide)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    parser.add_argument("--before-options", default="--views 8", help="of its predict.py")
    parser.add_argument("--peers", type=Path, help="folder with InstanSeg and HoVer-Net")
    parser.add_argument("--stardist", type=Path, help="Python that has StarDist and TensorFlow")
    parser.add_argument("--model", type=Path, default=PROJECT / "data" / "models" / "tnbc.pt")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        raise InputError(f"{', '.join(sorted(unknown))}: expected {', '.join(PARTS)}")
    if not MO.is_dir():
        raise InputError(f"{MO}: the benchmark needs the MO data set there")
    args.model = args.model.resolve()
    args.tiles = [files.image for files in load_split(MO)["test"]]
    args.checkouts = [("now", PROJECT, [])]
    if args.before:
        args.checkouts.insert(0, ("before", args.before.resolve(), args.before_options.split()))
    print(f"{allotted_cores()} cores; load of the machine {os.getloadavg()[0]:.1f}")
    figures: dict[str, list[float]] = {}

    def say(name: str, values: list[float]) -> None:
        figures.setdefault(name, []).extend(values)
        print(f"{name:62s}{shown(values)}", flush=True)

    for part in args.parts or PARTS:
        PARTS[part](args, say)
    if args.out:
        write_json(args.out, figures)


if __name__ == "__main__":
    run_script(main)

"""Run a table of experiments, ratio x variant x repeat, and write the table of their results.

python tools/sweep.py --table sweep.json --out experiments/sweep --minutes 10

The same command continues where it stopped: finished runs are skipped, and a run that was stopped
is continued. The table:

{"dataset": "MO", "ratios": [0.05, 0.1], "repeats": 3, "both": "--no-pretrained --epochs 20",
 "variants": {"points": {}, "smooth": {"seg": "--alpha 0.3", "detection of": "points"}}}

Options are as run.sh takes them: of `both` stages, or of `detection` or `seg` alone. A variant
with "detection of" takes the detections of another variant. The variant "paper" (connected
components, lattice CRF loss) is always run, first. Choose by the column of validation, not by the
test.
"""

import argparse
import io
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
if not __package__:
    sys.path.insert(0, str(PROJECT))

from code_common.config import Bounded, Parser, parse
from code_common.errors import PARENT_SAYS, InputError, run_script


def parse_arguments(argv: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The command line, and the options in it that are for both stages."""
    parser = Parser(
        description=__doc__,
        epilog="Other options go to both stages.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--table", type=Path, required=True, metavar="FILE", help="the experiments")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="their results")
    parser.add_argument(
        "--minutes",
        type=Bounded(float, 0, 1_000_000),
        default=float("inf"),
        help="stop after that time; the same command continues (default: no limit)",
    )
    return parser.parse_known_args(argv)


if __name__ == "__main__":
    arguments, stage_options = run_script(parse_arguments)

from code_common.files.reading import read_json
from code_common.files.run_folder import ratio_folder, repeat_folder, stage_folder
from code_common.reporting.comparison import write_comparison
from code_common.reporting.experiments import finished_experiments
from code_detection.options import Options as DetectionOptions
from code_seg.options import Options as SegOptions

SCRIPTS = {"detection": "code_detection/main.py", "seg": "code_seg/main.py"}
OPTIONS = {"detection": DetectionOptions, "seg": SegOptions}
SOURCE = "detection of"  # names the variant whose detections a variant takes
PAPER = {"both": "--profile paper", "seg": "--instances components --crf-backend lattice"}
TABLE = {
    "dataset": str,
    "ratios": [float],
    "repeats?": float,
    "both?": str,
    "variants": {str: {str: str}},
}
OWN = {"--dataset", "--ratio", "--repeat", "--root-save-dir", "--save-dir", "--restart"}
MOST_REPEATS = 1000
LONGEST_WAIT_S = 1e6  # what the system's timers take; it stands for no limit


@dataclass(frozen=True)
class Job:
    """One stage of one run: what to call it, and its options."""

    title: str
    stage: str  # one of SCRIPTS
    words: list[str]

    @property
    def command(self) -> list[str]:
        """The command that does it."""
        return [sys.executable, str(PROJECT / SCRIPTS[self.stage]), *self.words]


def read_sweep(path: Path) -> dict:
    """Read a table of experiments and put the variant "paper" first.

    Raises InputError, which says what is wrong with the table.
    """
    table = read_json(path, TABLE)
    if unknown := set(table) - {name.removesuffix("?") for name in TABLE}:
        raise InputError(f"{path}: {min(unknown)}: expected the form that --help shows")
    if table.setdefault("repeats", 1) not in range(1, MOST_REPEATS + 1):
        raise InputError(f"{path}: repeats: expected a whole number from 1 to {MOST_REPEATS}")
    if not table["ratios"] or not all(0 < ratio <= 1 for ratio in table["ratios"]):
        raise InputError(f"{path}: ratios: expected shares of annotated nuclei over 0, up to 1")
    if len(set(table["ratios"])) < len(table["ratios"]):
        raise InputError(f"{path}: ratios: one stands there twice")
    _check_words(path, "both", table.setdefault("both", ""))
    variants = table["variants"] = {"paper": PAPER, **table["variants"]}
    for name, variant in variants.items():
        check_variant(path, name, variant)
    for name, variant in variants.items():
        source = variant.get(SOURCE)
        if source is not None and (source not in variants or SOURCE in variants[source]):
            raise InputError(f"{path}: variant {name!r}: {source!r} runs no detection of its own")
    return table


def check_variant(path: Path, name: str, variant: dict[str, str]) -> None:
    """Raise InputError where a variant of a table has not the form that --help shows."""
    known = {"both", *SCRIPTS, SOURCE}
    if name in ("", "..") or Path(name).name != name or not name.isprintable():
        raise InputError(f"{path}: variant {name!r}: expected a name for a folder")
    if not set(variant) <= known:
        raise InputError(f"{path}: variant {name!r}: expected {', '.join(sorted(known))}")
    if {SOURCE, "detection"} <= set(variant):
        raise InputError(
            f"{path}: variant {name!r}: has no detection of its own, so no options of one"
        )
    for part in ("both", *SCRIPTS):
        _check_words(path, f"variant {name!r}, {part}", variant.get(part, ""))


def _check_words(path: Path, place: str, words: str) -> None:
    """Raise InputError, with their place in the table, for options of stages that are none, or that
    the sweep itself sets.
    """
    try:
        check_own(shlex.split(words))
    except (ValueError, InputError) as error:
        raise InputError(f"{path}: {place}: {words!r}: {error}") from None


def check_own(words: list[str]) -> None:
    """Raise InputError where options of stages hold one that the sweep itself sets."""
    own = OWN & {word.partition("=")[0] for word in words}
    if own:
        raise InputError(f"{min(own)}: the sweep gives each run its own")


def list_jobs(table: dict, out: Path, stage_options: list[str]) -> Iterator[Job]:
    """Every stage to run: all variants of a repeat before the next, so that they can be compared
    early; those that take the detections of another one after it.

    stage_options: further options of both stages.
    """
    names = sorted(table["variants"], key=lambda name: SOURCE in table["variants"][name])
    for repeat in range(1, int(table["repeats"]) + 1):
        for ratio in table["ratios"]:
            for name in names:
                yield from variant_jobs(table, out, stage_options, name, ratio, repeat)


def variant_jobs(
    table: dict, out: Path, stage_options: list[str], name: str, ratio: float, repeat: int
) -> Iterator[Job]:
    """The stages of one run of a variant."""
    variant, dataset = table["variants"][name], table["dataset"]
    run = ["--dataset", dataset, "--ratio", str(ratio), "--repeat", str(repeat)]
    run += ["--root-save-dir", str(out / name)]
    source = variant.get(SOURCE)
    for stage in SCRIPTS:
        if source and stage == "detection":
            continue
        words = [*run, *shlex.split(table["both"]), *stage_options]
        words += shlex.split(variant.get("both", "")) + shlex.split(variant.get(stage, ""))
        if source:
            detections = stage_folder(out / source, dataset, ratio, repeat, "detection")
            words += ["--detection-results-dir", str(detections)]
        yield Job(f"{name}, ratio {ratio:g}, repeat {repeat}: {stage}", stage, words)


def check_options(jobs: Iterable[Job]) -> None:
    """Raise InputError for options that a stage refuses: at once, not after hours of other jobs."""
    for job in jobs:
        said = io.StringIO()
        try:
            with redirect_stderr(said):
                parse(OPTIONS[job.stage], "", job.words)
        except (SystemExit, InputError) as error:
            reason = said.getvalue().strip().removeprefix("error: ") or error
            raise InputError(f"{job.title}: {reason}") from None


def run_for(command: list[str], seconds: float) -> int | None:
    """Run a command; its exit status, or None where it was stopped because the time was up."""
    process = subprocess.Popen(command, env={**os.environ, PARENT_SAYS: "1"})
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        process.wait()
        return None
    except BaseException:
        process.terminate()
        process.wait()
        raise


def run_jobs(jobs: list[Job], minutes: float) -> int:
    """Run jobs in order until the time is up; how many are done. Raises InputError if one fails."""
    end = time.monotonic() + 60 * minutes
    for number, job in enumerate(jobs):
        seconds_left = end - time.monotonic()
        if seconds_left <= 0:
            return number
        print(f"== [{number + 1}/{len(jobs)}] {job.title}", flush=True)
        status = run_for(job.command, min(seconds_left, LONGEST_WAIT_S))
        if status is None:
            return number
        if status:
            raise InputError(
                f"{job.title}: ended with status {status}; see above (a table with other options "
                "needs another --out)"
            )
    return len(jobs)


def compare_finished(table: dict, out: Path) -> None:
    """Compare the runs in `out` that are finished; a line names those of another table."""
    experiments, known = [], set()
    for name in table["variants"]:
        experiments += finished_experiments(out / name / table["dataset"], name)
        ratios = [ratio_folder(out / name, table["dataset"], ratio) for ratio in table["ratios"]]
        repeats = range(1, int(table["repeats"]) + 1)
        known |= {repeat_folder(folder, repeat) for folder in ratios for repeat in repeats}
    folders = [repeat.folder for e in experiments for repeat in e.repeats]
    if others := [folder for folder in folders if folder not in known]:
        print(f"{len(others)} runs that are not in the table are compared, too: {others[0]}, ...")
    if experiments:
        write_comparison(experiments, out, SegOptions.NOT_IN_RESULT)


def main(arguments: argparse.Namespace, stage_options: list[str]) -> None:
    """Run the table, and compare what is finished, also where a job fails."""
    table, out = read_sweep(arguments.table), arguments.out
    check_own(stage_options)
    check_options(list_jobs({**table, "repeats": 1}, out, stage_options))
    jobs = list(list_jobs(table, out, stage_options))
    try:
        done = run_jobs(jobs, arguments.minutes)
    except InputError:
        compare_finished(table, out)
        raise
    compare_finished(table, out)
    more = "" if done == len(jobs) else "; the same command continues"
    print(f"{done} of {len(jobs)} jobs are done{more}")


if __name__ == "__main__":
    run_script(lambda: main(arguments, stage_options))

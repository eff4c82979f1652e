"""Run a table of experiments, ratio x variant x repeat, and write the table of their results.

python tools/sweep.py --table sweep.json --out experiments/sweep --minutes 10

Goes on where it stopped: done runs are skipped, and one that was stopped is continued. The table:

{"dataset": "MO", "ratios": [0.05, 0.1], "repeats": 3, "both": "--no-pretrained --epochs 20",
 "variants": {"points": {}, "smooth": {"seg": "--alpha 0.3", "detection of": "points"}}}

Flags are as run.sh takes them: of `both` stages, or of `detection` or `seg` alone. A variant with
"detection of" takes the detections of another one. The variant "paper" (connected components,
lattice CRF loss) is always run, first. Choose by the column of validation, not by the test.
"""

import argparse
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.errors import InputError, run_script
from code_common.files.reading import read_json
from code_common.reporting.comparison import find, write_comparison

PROJECT = Path(__file__).resolve().parents[1]
PAPER = {"both": "--profile paper", "seg": "--instances components --crf-backend lattice"}
STAGES = {"detection": "code_detection/main.py", "seg": "code_seg/main.py"}


@dataclass(frozen=True)
class Job:
    """One stage of one run: what to call it, and its command."""

    title: str
    command: list[str]


def read_table(path: Path) -> dict:
    """Read a table of experiments. Raises InputError, saying what is wrong with it."""
    table = read_json(path)
    form = {"dataset": str, "ratios": list, "repeats": int, "both": str, "variants": dict}
    if not isinstance(table, dict) or not {"dataset", "ratios", "variants"} <= set(table):
        raise InputError(f"{path}: expected an object with dataset, ratios and variants")
    for name, value in table.items():
        if not isinstance(value, form.get(name, ())):
            raise InputError(
                f"{path}: {name}: expected {', '.join(form)} in their form, see --help"
            )
    table["variants"] = {"paper": PAPER, **table["variants"]}
    known = {*STAGES, "detection of"}
    for name, own in table["variants"].items():
        ok = isinstance(own, dict) and set(own) <= known | {"both"}
        if not ok or not all(isinstance(v, str) for v in own.values()) or Path(name).name != name:
            raise InputError(f"{path}: variant {name!r}: expected texts {', '.join(sorted(known))}")
        of = own.get("detection of")
        if of is not None and ("detection of" in table["variants"].get(of, {"detection of": 0})):
            raise InputError(f"{path}: variant {name!r}: {of!r} runs no detection of its own")
    return table


def jobs(table: dict, out: Path, more: list[str]) -> Iterator[Job]:
    """Every stage to run: all variants of a repeat before the next, to be compared early."""
    both = shlex.split(table.get("both", "")) + more
    for repeat in range(1, table.get("repeats", 1) + 1):
        for ratio in table["ratios"]:
            for name, own in table["variants"].items():
                place = ["--dataset", table["dataset"], "--ratio", str(ratio)]
                place += ["--repeat", str(repeat), "--root-save-dir", str(out / name)]
                for stage, script in STAGES.items():
                    command = [sys.executable, str(PROJECT / script), *place, *both]
                    command += shlex.split(own.get("both", "")) + shlex.split(own.get(stage, ""))
                    of = own.get("detection of")
                    if of and stage == "detection":
                        continue
                    if of:
                        run = f"{table['dataset']}/ratio_{ratio:g}/repeat_{repeat}/detection"
                        command += ["--detection-results-dir", str(out / of / run)]
                    yield Job(f"{name}, ratio {ratio:g}, repeat {repeat}: {stage}", command)


def run_for(command: list[str], seconds: float) -> int | None:
    """Run a command; its exit status, or None where it was stopped for want of time."""
    process = subprocess.Popen(command)
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


def main() -> None:
    """Command line; unknown options are given on to both stages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--table", type=Path, required=True, metavar="FILE", help="the experiments")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="their results")
    parser.add_argument("--minutes", type=float, default=float("inf"),
                        help="stop after that long; the same command goes on")  # fmt: skip
    args, more = parser.parse_known_args()
    table = read_table(args.table)
    every = list(jobs(table, args.out, more))
    end, done = time.monotonic() + 60 * args.minutes, 0
    for job in every:
        left = end - time.monotonic()
        if left <= 0:
            break
        print(f"== [{done + 1}/{len(every)}] {job.title}", flush=True)
        status = run_for(job.command, min(left, 1e6))
        if status is None:
            break
        if status:
            raise InputError(f"{job.title}: ended with status {status}; see above")
        done += 1
    folders = {name: args.out / name / table["dataset"] for name in table["variants"]}
    begun = {n: f for n, f in folders.items() if any(f.glob("*/repeat_*/*/test/metrics.json"))}
    experiments = [e for name, folder in begun.items() for e in find(f"{name}={folder}")]
    if experiments:
        write_comparison(experiments, args.out)
    more_to_do = "" if done == len(every) else "; the same command goes on"
    print(f"{done} of {len(every)} jobs are done{more_to_do}")


if __name__ == "__main__":
    run_script(main)

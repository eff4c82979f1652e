"""Check a data set before hours of training: each finding with its file and how to mend it.

python data/check.py --dataset MY
python data/check.py --dataset MY --ratio 0.1 --no-pretrained --seg --epochs 50

Also says how long that run takes on this machine, and how much it writes. Reads each image and
label once, in parallel. Exit status 0: all passed, 1: warnings, 2: failures. With a failure
training would stop, or its scores would mean nothing. run.sh runs this check first.
"""

import argparse
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import Bounded, Parser, fingerprint, make_parser, parse
from code_common.errors import InputError, run_script
from code_detection.options import Options as DetectionOptions
from code_seg.options import Options as SegOptions

BOTH = ""  # in front of the arguments of both stages stands nothing


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    detection: DetectionOptions
    seg: SegOptions
    repeats: int = 1
    jobs: int = 1  # repeats at a time
    json: bool = False
    brief: Path | None = None  # see --help


def by_stage(arguments: list[str]) -> dict[str, list[str]]:
    """Arguments as run.sh takes them: those of both stages, and those behind --detection, --seg."""
    parts: dict[str, list[str]] = {BOTH: [], "--detection": [], "--seg": []}
    current = BOTH
    for argument in arguments:
        if argument and argument in parts:
            current = argument
        else:
            parts[current].append(argument)
    return parts


def refuse_options_of_one_stage(both: list[str]) -> None:
    """Raise InputError for an option of one stage among those that are for both."""
    stages = {"--detection": DetectionOptions, "--seg": SegOptions}
    flags = {mark: set(make_parser(cls, "")._option_string_actions) for mark, cls in stages.items()}
    for flag in (word.partition("=")[0] for word in both):
        known = [mark for mark in stages if flag in flags[mark]]
        if len(known) == 1:
            raise InputError(f"{flag} is an option of one stage; give it behind {known[0]}")


def read_arguments(argv: list[str] | None = None) -> Request:
    """The command line. Raises InputError for an option of a stage that is out of bounds."""
    parser = Parser(
        usage="%(prog)s [options] [options of run.sh] [--detection OPTIONS...] [--seg OPTIONS...]",
        description=__doc__,
        epilog="All other options are those of run.sh: of both stages, or of one stage behind "
        "--detection or --seg.\nThey are listed by\n"
        "  bash run.sh --help; python code_detection/main.py --help; "
        "python code_seg/main.py --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument(
        "--brief",
        type=Path,
        metavar="FILE",
        help="print only warnings, failures and the plan of the run. FILE remembers the warnings "
        "of a set without failures: while no file has changed, nothing is read again",
    )
    parser.add_argument(
        "--repeats", type=Bounded(int, 1, 999_999), default=1, help="as of run.sh (default: 1)"
    )
    parser.add_argument(
        "--jobs", type=Bounded(int, 1, 64), default=1, help="as of run.sh (default: 1)"
    )
    parts = by_stage(sys.argv[1:] if argv is None else argv)
    arguments, both = parser.parse_known_args(parts[BOTH])
    refuse_options_of_one_stage(both)
    return Request(
        parse(DetectionOptions, "Options of stage 1.", both + parts["--detection"]),
        parse(SegOptions, "Options of stage 2.", both + parts["--seg"]),
        **vars(arguments),
    )


if __name__ == "__main__":
    request = run_script(read_arguments)

from code_common.annotations.labels import counted
from code_common.files.data_set import ImageFiles, load_split
from code_common.files.reading import read_json
from code_common.files.writing import write_json
from code_common.launch import choose_device, load_first_weights
from code_common.learning.network import OUTPUTS, ResUNet
from code_common.runs.estimate import estimate
from code_common.runs.same_run import inputs_of, refuse_other_data
from code_detection.plan import steps as detection_steps
from code_seg.plan import steps as seg_steps
from data.findings import FAIL, PASS, WARN, Finding, check_data_set


def check_named_files(request: Request) -> None:
    """Raise InputError where an option names what is not there, or will not do.

    Else a wrong option of stage 2 would stop a run after hours of stage 1.
    """
    detection, seg = request.detection, request.seg
    # Weights of both stages are missed at once, those of stage 2 alone after stage 1.
    late = [seg] if seg.pretrained == "imagenet" != detection.pretrained and seg.begins() else []
    for options in (detection, seg):
        if options.start_from or Path(options.pretrained).is_file() or options in late:
            network = ResUNet(
                options.model,
                OUTPUTS[options.STAGE],
                width=options.width,
                stem_stride=options.stem_stride,
            )
            load_first_weights(network, options, options.STAGE)
        if options.tensorboard and not find_spec("tensorboard"):
            raise InputError("--tensorboard: not installed (pip install tensorboard)")
    stage_1 = seg.detection_results_dir
    if stage_1 and stage_1.resolve() != detection.save_dir.resolve():
        refuse_other_data(stage_1, inputs_of(seg), seg)


def plan_run(image_files: dict[str, list[ImageFiles]], request: Request) -> list[Finding]:
    """What a run of both stages takes from here on, in time and on the disk."""
    detection, seg = request.detection, request.seg
    stages = [
        (detection, detection_steps(detection, image_files)),
        (seg, seg_steps(seg, image_files)),
    ]
    by_name = {files.name: files for part in image_files.values() for files in part}
    need = estimate(stages, list(by_name.values()), request.repeats, bool(request.brief))
    at_a_time = min(request.jobs, request.repeats)
    minutes = need.seconds / 60 / at_a_time
    duration = f"{minutes / 60:.1f} h" if minutes > 90 else f"{max(1, minutes):.0f} min"
    repeats = f"{request.repeats} repeats" if request.repeats > 1 else "a repeat"
    repeats += f", {at_a_time} at a time" if at_a_time > 1 else ""
    done = f"; {need.done} of {need.steps} steps are done" if need.done else ""
    message = f"about {duration} for {repeats}{done}"
    timing = Finding(PASS, str(choose_device(detection)), message)
    out = detection.experiment_folder()
    existing = next(p for p in (out, *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    message = f"takes up to {need.size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
    if free < need.size and not need.done:
        fix = "make room, or another --root-save-dir"
        return [timing, Finding(FAIL, str(out), message, fix)]
    if not os.access(existing, os.W_OK | os.X_OK):
        fix = "give yourself the right to write there, or another --root-save-dir"
        return [timing, Finding(FAIL, str(existing), "results cannot be written here", fix)]
    return [timing, Finding(PASS, str(out), message)]


def print_findings(findings: list[Finding], plan: list[Finding], request: Request) -> None:
    """Print the worst first: as JSON, in full, or in brief. plan: which of them are of the run."""
    ordered = [f for level in (FAIL, WARN, PASS) for f in findings if f.level == level]
    if request.json:
        print(json.dumps([asdict(finding) for finding in ordered], indent=1))
        return
    for finding in ordered:
        if request.brief and finding in plan:
            print(f"[plan] {finding.file}: {finding.message}")
        elif not request.brief or finding.level != PASS:
            print(finding.line())
    failures, warnings = (count(findings, level) for level in (FAIL, WARN))
    if not request.brief or failures or warnings:
        totals = f"{counted(failures, 'failure')}, {counted(warnings, 'warning')}"
        print(f"{request.detection.data_dir}: {totals}")


def count(findings: list[Finding], level: str) -> int:
    """How many findings are of a level."""
    return sum(finding.level == level for finding in findings)


def warnings_of(brief: Path, state: str) -> list[Finding] | None:
    """The warnings that --brief FILE remembers of a data set; None if it is of another state."""
    form = {"state": str, "warnings": [dict.fromkeys(("level", "file", "message", "fix"), str)]}
    try:
        noted = read_json(brief, form)
    except InputError:  # not there, damaged, or of an older version
        return None
    return [Finding(**values) for values in noted["warnings"]] if noted["state"] == state else None


def main(request: Request) -> int:
    """Check the data set and plan the run; returns the exit status."""
    detection, seg, brief = request.detection, request.seg, request.brief
    folder = detection.data_dir
    # Its folders may be links, into which rglob does not go.
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [*inside, *(p for f in inside if f.is_dir() for p in sorted(f.iterdir()))]
    settings = detection.ratio, detection.r1, max(detection.patch_size, seg.patch_size)
    stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files if p.exists()]
    state = fingerprint(stats, settings)
    known = warnings_of(brief, state) if brief else None
    if known is None:
        image_files, findings = check_data_set(folder, *settings)
    else:
        image_files, findings = load_split(folder), known
    warnings = [asdict(finding) for finding in findings if finding.level == WARN]
    plan = []
    if not count(findings, FAIL):
        check_named_files(request)
        plan = plan_run(image_files, request)
    findings += plan
    print_findings(findings, plan, request)
    if count(findings, FAIL):
        return 2
    if brief:
        write_json(brief, {"state": state, "warnings": warnings})
        return 0
    return 1 if count(findings, WARN) else 0


if __name__ == "__main__":
    sys.exit(run_script(lambda: main(request)))

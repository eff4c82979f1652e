"""Check a data set before hours of training: every finding, with the file and how to mend it.

python data/check.py --dataset MY
python data/check.py --dataset MY --ratio 0.1 --no-pretrained --seg --epochs 50

Takes run.sh's options, and says how long that run takes on this machine and what it writes. Reads
every image and label once, in parallel. Exit status 0: all passed, 1: warnings, 2: failures with
which training would stop or its scores would mean nothing. run.sh runs it first.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import fingerprint, parse
from code_common.errors import InputError, run_script
from code_common.files.data_set import Sample, find_samples, is_image, load_split, read_split
from code_common.files.reading import image_shape, read_image, read_instances, read_label
from code_common.files.writing import write_bytes
from code_common.learning.hardware import choose_precision
from code_common.learning.network import ResUNet
from code_common.options import CommonOptions
from code_detection.labels import points_from_instances, points_from_map
from code_detection.main import plan as plan_detection
from code_detection.options import Options as DetectionOptions
from code_seg.main import plan as plan_seg
from code_seg.options import Options as SegOptions

PASS, WARN, FAIL = "PASS", "WARN", "FAIL"
ALIKE = 20  # of 256 bits of the difference hash: two pictures of one piece of tissue
FEW, SPECK = 0.1, 20  # share of ids that may be odd; square pixels of what is hardly a nucleus
BESIDE = 1.3  # time of a run over that of its networks alone: crops, labels, files, imports
BYTES_PER_PIXEL = 30  # of what a repeat writes for an image, at most


@dataclass(frozen=True)
class Finding:
    """What was found, where, and what to do about it."""

    level: str
    file: str
    message: str
    fix: str = ""

    def line(self) -> str:
        """The finding as a line to print."""
        mend = f" -> {self.fix}" if self.fix else ""
        return f"{self.level}  {self.file}: {self.message}{mend}"


@dataclass(frozen=True)
class Looked:
    """What one image and its labels hold."""

    name: str
    findings: list[Finding]
    shape: tuple[int, int] | None = None
    pixels: str = ""  # hash of the decoded image
    likeness: np.ndarray | None = None  # [256] bool: difference hash
    areas: np.ndarray | None = None  # of the nuclei of an instance map, in square pixels
    points: np.ndarray | None = None  # [N, 2]


def difference_hash(image: np.ndarray) -> np.ndarray:
    """Which of 16 x 16 fields are brighter than the next: [256] bool, alike for alike images."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (17, 16), interpolation=cv2.INTER_AREA).astype(int)
    return (small[:, 1:] > small[:, :-1]).ravel()


def look_at(sample: Sample) -> Looked:
    """Read an image and its labels."""
    findings: list[Finding] = []

    def attempt(read, path, fix):
        try:
            return read(path)
        except InputError as error:
            message = str(error).removeprefix(f"{path}: ")
            findings.append(Finding(FAIL, str(path), message, fix))
            return None

    image = attempt(read_image, sample.image, "export the image again")
    if image is None:
        return Looked(sample.name, findings)
    shape, areas, points = image.shape[:2], None, None
    if sample.instances:
        instances = attempt(
            lambda path: read_instances(path, shape),
            sample.instances,
            "one id per nucleus, in the image's size and orientation (data/import_labels.py)",
        )
        if instances is not None:
            areas, points = look_at_instances(sample, instances, findings)
    if sample.points:
        label = attempt(
            lambda path: read_label(path, shape),
            sample.points,
            "a dot per nucleus, in the image's size (data/import_labels.py points)",
        )
        points = points if label is None else points_from_map(label)
    digest = hashlib.sha256(image.tobytes()).hexdigest()
    return Looked(sample.name, findings, shape, digest, difference_hash(image), areas, points)


def look_at_instances(
    sample: Sample, instances: np.ndarray, findings: list[Finding]
) -> tuple[np.ndarray, np.ndarray]:
    """Areas and points of an instance map; adds what is odd about it to the findings."""
    path, boxes = str(sample.instances), ndimage.find_objects(instances)
    masks = [(instances[box] == k).astype(np.uint8) for k, box in enumerate(boxes, 1) if box]
    areas = np.array([int(mask.sum()) for mask in masks])
    if not masks:
        findings.append(Finding(WARN, path, "no nucleus"))
    # Annotated tiles have a few of both; many are an error of the export.
    split = sum(cv2.connectedComponents(mask)[0] > 2 for mask in masks)
    if split > FEW * len(masks):
        message = f"{split} of {len(masks)} ids lie in several pieces"
        findings.append(Finding(WARN, path, message, "give every nucleus its own id"))
    small = int((areas < SPECK).sum())
    if small > FEW * len(masks):
        message = f"{small} of {len(masks)} nuclei have less than {SPECK} square pixels"
        findings.append(Finding(WARN, path, message, "remove specks"))
    return areas, points_from_instances(instances)


def check_files(folder: Path) -> tuple[dict[str, list[Sample]], list[Finding]]:
    """The samples of each set, and what is missing, double or left over. Raises InputError where
    there is no split to speak of.
    """
    split, findings, used = read_split(folder), [], set()
    labels = folder / "labels_instance", folder / "labels_point"
    samples: dict[str, list[Sample]] = defaultdict(list)
    for part, names in split.items():
        try:
            samples[part] = find_samples(folder / "images", names, *labels)
            continue
        except InputError:
            pass  # which of them it is, all of them, costs a listing of the folders for each name
        for name in names:
            try:
                samples[part] += find_samples(folder / "images", [name], *labels)
            except InputError as error:
                fix = "correct the name in train_val_test.json, or add the file"
                findings.append(Finding(FAIL, name, str(error), fix))
    for own in samples.values():
        used |= {p for s in own for p in (s.image, s.instances, s.points) if p}
    for directory in (folder / "images", *labels):
        there = set(filter(is_image, directory.iterdir())) if directory.is_dir() else set()
        extra = sorted(p.name for p in there - used)
        if extra:
            shown = ", ".join(extra[:3]) + (", ..." if len(extra) > 3 else "")
            findings.append(Finding(WARN, str(directory), f"{len(extra)} files of no set: {shown}",
                                    "name the images in train_val_test.json"))  # fmt: skip
    for part in ("train", "val", "test"):
        if not samples[part] and part != "train":
            what = {"val": "the last epoch is taken as the best", "test": "nothing is scored"}
            findings.append(Finding(WARN, "train_val_test.json", f"no {part} images: {what[part]}"))
    return samples, findings


def check_sets(looked: dict[str, list[Looked]]) -> list[Finding]:
    """Images that are in two sets, or nearly."""
    main = [(p, one) for p in ("train", "val", "test") for one in looked.get(p, []) if one.pixels]
    findings = []
    for k, (part, one) in enumerate(main):
        for other_part, other in main[:k]:
            if one.pixels == other.pixels:
                level = FAIL if part != other_part else WARN
                findings.append(Finding(level, one.name, f"the same pixels as {other.name} "
                                        f"({part} and {other_part})", "keep one"))  # fmt: skip
            elif (one.likeness != other.likeness).sum() <= ALIKE and part != other_part:
                findings.append(Finding(WARN, one.name, f"nearly the same as {other.name} "
                                        f"({part} and {other_part})", "look at both"))  # fmt: skip
    return findings


def check_points(looked: dict[str, list[Looked]], ratio: float) -> list[Finding]:
    """Training images without points, or with points that say little."""
    findings = []
    for one in looked.get("train", []):
        if one.shape is None or any(f.level == FAIL for f in one.findings):
            continue
        count = 0 if one.points is None else len(one.points)
        if count == 0:
            findings.append(Finding(FAIL, one.name, "a training image without any point",
                                    "annotate some nuclei, or take it out"))  # fmt: skip
            continue
        kept = max(1, round(count * ratio))
        spread = np.linalg.matrix_rank(one.points - one.points[0]) if count > 2 else 2
        if kept < 3:
            findings.append(Finding(WARN, one.name, f"{kept} of {count} points at ratio {ratio:g}",
                                    "annotate more, or a larger --ratio"))  # fmt: skip
        elif spread < 2:
            findings.append(Finding(WARN, one.name, f"all {count} points lie on one line"))
    for part in ("val", "test"):
        bare = [one.name for one in looked.get(part, []) if one.areas is None and one.shape]
        if bare:
            findings.append(Finding(WARN, bare[0], f"{len(bare)} {part} images without masks",
                                    "only scores need them"))  # fmt: skip
    return findings


def check_sizes(looked: dict[str, list[Looked]], r1: float, patch: int) -> list[Finding]:
    """Nuclei against r1, images against the patch."""
    findings = []
    every = list({one.name: one for own in looked.values() for one in own}.values())
    areas = [one.areas for one in every if one.areas is not None and len(one.areas)]
    if areas:
        radius = float(np.sqrt(np.concatenate(areas).mean() / np.pi))
        options = f"--r1 {radius:.0f} --r2 {2 * radius:.0f} --sigma {radius / 4:.2g}"
        message = f"a nucleus of mean area has radius {radius:.1f} px; r1 is {r1:g}"
        fits = 0.7 < radius / r1 < 1.4
        findings.append(Finding(PASS if fits else WARN, "nuclei", message,
                                "" if fits else f"--detection {options}"))  # fmt: skip
    small = [one.name for one in every if one.shape and min(one.shape) < patch]
    if small:
        findings.append(Finding(WARN, small[0], f"{len(small)} images are smaller than the patch "
                                f"of {patch} px", "they are mirrored; a smaller --patch-size "
                                "--input-size avoids that"))  # fmt: skip
    return findings


def seconds_per_megapixel(options: CommonOptions, network: ResUNet) -> float:
    """What a megapixel through the network takes on this machine, of three in a training step."""
    device = options.choose_device()
    network.to(device, memory_format=torch.channels_last)
    precision = choose_precision(options.precision, device)
    image = torch.rand(min(4, options.batch_size), 3, *2 * [options.input_size], device=device)
    for _ in range(2):  # the first one makes memory and kernels ready
        began = time.perf_counter()
        with torch.autocast(device.type, precision, precision != torch.float32):
            loss = network(image).float().square().mean()
        loss.backward()
        loss.item()
        step = time.perf_counter() - began
    return step / (3e-6 * len(image) * options.input_size**2)


def check_run(
    split: dict[str, list[Sample]], stages: list[CommonOptions], repeats: int
) -> list[Finding]:
    """What a run of both stages takes from here on, in time and on the disk."""
    every = list({s.name: s for own in split.values() for s in own}.values())
    size = sum(int(np.prod(image_shape(s.image))) for s in every) * BYTES_PER_PIXEL * repeats
    seconds, done, steps = 0.0, 0, 0
    for options, plan in zip(stages, (plan_detection, plan_seg), strict=True):
        network = ResUNet(options.model, 2, width=options.width, stem_stride=options.stem_stride)
        speed = seconds_per_megapixel(options, network)
        work = plan(options, split)
        weights = sum(4 * p.numel() for p in network.parameters())
        trainings = sum("train" in name for name in work)
        if options.members > 1:  # each is kept beside the checkpoint of all
            trainings *= 2 * options.members
        size += repeats * (trainings + 3) * weights  # the one in progress has Adam's moments
        for repeat in range(options.repeat, options.repeat + repeats):
            folder = replace(options, save_dir=None, repeat=repeat).resolved().save_dir / ".done"
            for name, megapixels in work.items():
                there = (folder / f"{name}.json").is_file() and not options.restart
                done, steps = done + there, steps + 1
                seconds += 0 if there else megapixels * speed
    seconds *= BESIDE
    long = f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{max(1, seconds / 60):.0f} min"
    before = f"; {done} of {steps} steps are done" if done else ""
    number = f"{repeats} repeats" if repeats > 1 else "a repeat"
    device = stages[0].choose_device()
    timing = Finding(PASS, str(device), f"about {long} for {number}{before}")
    out = stages[0].root_save_dir / stages[0].dataset / f"ratio_{stages[0].ratio:g}"
    existing = next(p for p in (out, *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free / 1e9
    message = f"takes up to {size / 1e9:.1f} GB, {free:.1f} GB are free"
    full = free < size / 1e9 and not done
    fix = "make room, or another --root-save-dir" if full else ""
    return [timing, Finding(FAIL if full else PASS, str(out), message, fix)]


def check(folder: Path, ratio: float, r1: float, patch: int
          ) -> tuple[dict[str, list[Sample]], list[Finding]]:  # fmt: skip
    """The sets of a data set's folder and all findings about them."""
    try:
        samples, findings = check_files(folder)
    except InputError as error:
        return {}, [Finding(FAIL, str(folder), str(error), "see data/README.md")]
    # A group of the split may name images of the test set again.
    every = list({s.name: s for own in samples.values() for s in own}.values())
    workers = min(os.cpu_count() or 1, max(1, len(every) // 4))
    if workers > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
            results = list(pool.map(look_at, every, chunksize=4))
    else:
        results = [look_at(s) for s in every]
    by_name = {one.name: one for one in results}
    looked = {part: [by_name[s.name] for s in own] for part, own in samples.items()}
    for one in results:
        findings += one.findings
    findings += check_sets(looked)
    findings += check_points(looked, ratio)
    findings += check_sizes(looked, r1, patch)
    if not any(f.level == FAIL for f in findings):
        counts = ", ".join(f"{len(samples[p])} {p}" for p in ("train", "val", "test"))
        findings.append(Finding(PASS, str(folder), f"{len(every)} images read: {counts}"))
    return samples, findings


def by_stage(arguments: list[str]) -> dict[str, list[str]]:
    """Arguments as run.sh takes them: those of both stages, and those behind --detection, --seg."""
    parts: dict[str, list[str]] = {"": [], "--detection": [], "--seg": []}
    current = ""
    for argument in arguments:
        if argument in parts:
            current = argument
        else:
            parts[current].append(argument)
    return parts


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--brief", type=Path, metavar="FILE",
                        help="print warnings, failures and the plan alone, and read nothing where "
                        "FILE says that the same files passed before")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=1, help="as of run.sh (default: 1)")
    given = by_stage(sys.argv[1:])
    arguments, common = parser.parse_known_args(given[""])
    detection = parse(DetectionOptions, __doc__, common + given["--detection"])
    seg = parse(SegOptions, __doc__, common + given["--seg"])
    folder, brief = detection.data_dir, arguments.brief
    files = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []
    patch = max(detection.patch_size, seg.patch_size)
    about = detection.ratio, detection.r1, patch
    state = fingerprint([(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files], about)
    if brief and brief.is_file() and brief.read_text() == state:
        samples, findings = load_split(folder), []
    else:
        samples, findings = check(folder, *about)
    failed = sum(f.level == FAIL for f in findings)
    warned = sum(f.level == WARN for f in findings)
    plan = check_run(samples, [detection, seg], arguments.repeats) if not failed else []
    findings += plan
    failed += sum(f.level == FAIL for f in plan)
    order = [f for level in (FAIL, WARN, PASS) for f in findings if f.level == level]
    if arguments.json:
        print(json.dumps([asdict(f) for f in order], indent=1))
    else:
        for finding in order:
            if brief and finding in plan:
                print(f"[plan] {finding.file}: {finding.message}")
            elif not brief or finding.level != PASS:
                print(finding.line())
        if not brief or failed or warned:
            print(f"{folder}: {failed} failures, {warned} warnings")
    if failed:
        sys.exit(2)
    if brief:
        write_bytes(brief, state.encode())
    sys.exit(1 if warned and not brief else 0)


if __name__ == "__main__":
    run_script(main)

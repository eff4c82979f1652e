"""Check a data set before hours of training: every finding, with the file and how to mend it.

python data/check.py --dataset MY
python data/check.py --dataset MY --ratio 0.1 --json

Reads every image and label once, in parallel. Exit status 0: all passed, 1: warnings, 2: failures
with which training would stop or its scores would mean nothing. run.sh runs it first.
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
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import fingerprint
from code_common.data import (
    Sample,
    find_samples,
    image_shape,
    is_image,
    read_image,
    read_instances,
    read_label,
    read_split,
    write_bytes,
)
from code_common.errors import InputError, run_script
from code_common.model import ResUNet
from code_common.patches import windows
from code_common.training import choose_precision
from code_detection.labels import points_from_instances, points_from_map
from code_detection.options import Options as DetectionOptions
from code_seg.options import Options as SegOptions

PASS, WARN, FAIL = "PASS", "WARN", "FAIL"
ALIKE = 20  # of 256 bits of the difference hash: two pictures of one piece of tissue
FEW, SPECK = 0.1, 20  # share of ids that may be odd; square pixels of what is hardly a nucleus
BYTES_PER_PIXEL = 30  # of what a run writes for an image, at most


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


def check_time(train: list[Sample], detection: DetectionOptions, seg: SegOptions) -> Finding:
    """How long training takes on this machine, from two steps of each stage's network."""
    device, total = detection.choose_device(), 0.0
    rounds = {
        detection: (detection.rounds + 1) * detection.epochs,
        seg: seg.epochs + seg.crf_epochs,
    }
    for options, epochs in rounds.items():
        network = ResUNet(options.model, 2).to(device, memory_format=torch.channels_last)
        precision = choose_precision(options.precision, device)
        side = options.input_size
        image = torch.rand(options.batch_size, 3, side, side, device=device)
        for _ in range(2):  # the first one makes memory and kernels ready
            began = time.perf_counter()
            with torch.autocast(device.type, precision, precision != torch.float32):
                loss = network(image).float().square().mean()
            loss.backward()
            loss.item()
            step = time.perf_counter() - began
        patches = sum(len(windows(image_shape(s.image), options.patch_size)) for s in train)
        total += epochs * -(-patches // options.batch_size) * step
    long = f"{total / 3600:.1f} h" if total > 3600 else f"{total / 60:.0f} min"
    message = f"about {long} of training a repeat with the options as they are"
    return Finding(PASS, str(device), message)


def check_disk(samples: list[Sample], out: Path, rounds: int) -> Finding:
    """Whether what a run writes fits."""
    pixels = sum(int(np.prod(image_shape(s.image))) for s in samples)
    needed = (pixels * BYTES_PER_PIXEL + (rounds + 4) * 300e6) / 1e9
    existing = next(p for p in (out, *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free / 1e9
    message = f"a run takes up to {needed:.1f} GB, {free:.1f} GB are free"
    if free < needed:
        return Finding(FAIL, str(existing), message, "make room, or another --root-save-dir")
    return Finding(PASS, str(existing), message)


def check(folder: Path, detection: DetectionOptions, seg: SegOptions, timed: bool) -> list[Finding]:
    """All findings about a data set's folder; `timed` takes two training steps of each stage."""
    try:
        samples, findings = check_files(folder)
    except InputError as error:
        return [Finding(FAIL, str(folder), str(error), "see data/README.md")]
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
    findings += check_points(looked, detection.ratio)
    patch = max(detection.patch_size, seg.patch_size)
    findings += check_sizes(looked, detection.r1, patch)
    if not any(f.level == FAIL for f in findings):
        findings.append(check_disk(every, detection.root_save_dir, detection.rounds))
        if timed:
            findings.append(check_time(samples["train"], detection, seg))
        counts = ", ".join(f"{len(samples[p])} {p}" for p in ("train", "val", "test"))
        findings.append(Finding(PASS, str(folder), f"{len(every)} images read: {counts}"))
    return findings


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True, metavar="NAME", help="name of the data set")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder of the data sets")
    parser.add_argument("--data-dir", type=Path, metavar="DIR",
                        help="the data set's own folder, if not DATA_ROOT/NAME")  # fmt: skip
    parser.add_argument("--root-save-dir", type=Path, metavar="DIR", help="where runs will go")
    parser.add_argument("--ratio", type=float, default=0.1, help="share of annotated nuclei")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--brief", type=Path, metavar="FILE",
                        help="print warnings and failures alone, and nothing where FILE says that "
                        "the same files passed before")  # fmt: skip
    arguments = parser.parse_args()
    given = {k: v for k in ("data_root", "data_dir", "root_save_dir") if (v := vars(arguments)[k])}
    place = {"dataset": arguments.dataset, "ratio": arguments.ratio, **given}
    detection, seg = DetectionOptions(**place).resolved(), SegOptions(**place).resolved()
    folder = detection.data_dir
    files = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []
    state = fingerprint([(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files],
                        arguments.ratio, detection.r1)  # fmt: skip
    brief = arguments.brief
    if brief and brief.is_file() and brief.read_text() == state:
        return
    findings = check(folder, detection, seg, timed=not brief)
    order = [f for level in (FAIL, WARN, PASS) for f in findings if f.level == level]
    failed = sum(f.level == FAIL for f in findings)
    warned = sum(f.level == WARN for f in findings)
    if arguments.json:
        print(json.dumps([asdict(f) for f in order], indent=1))
    else:
        for finding in order:
            if finding.level != PASS or not brief:
                print(finding.line())
        print(f"{folder}: {failed} failures, {warned} warnings")
    if failed:
        sys.exit(2)
    if brief:
        write_bytes(brief, state.encode())
    sys.exit(1 if warned and not brief else 0)


if __name__ == "__main__":
    run_script(main)

"""What is wrong with a data set, or may be: its files, images, labels, sets and sizes."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from difflib import get_close_matches
from multiprocessing import get_context
from pathlib import Path
from shlex import quote

import cv2
import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from code_common.annotations.labels import count_split, counted, nucleus_masks
from code_common.annotations.sources import keys_of
from code_common.annotations.text import first_names, told_of_masks
from code_common.arrays import points_from_instances
from code_common.errors import InputError
from code_common.files.data_set import (
    INSTANCE_ENDINGS,
    POINT_ENDING,
    ImageFiles,
    find_each,
    is_image,
    label_names,
    labels_of_no_image,
    masks_beside,
    read_split,
    unread_images,
)
from code_common.files.images import (
    grouped,
    read_image,
    read_instances,
    read_point_label,
    why_no_tissue,
)
from code_common.files.layout import (
    IMAGES,
    INSTANCE_LABELS,
    POINT_LABELS,
    SPLIT,
    label_folders,
)
from code_common.files.names import stem
from code_common.threads import cores
from code_detection.labels import dots_of

PASS, WARN, FAIL = "PASS", "WARN", "FAIL"
PARTS = ("train", "val", "test")
# Other names of these sets, which nothing reads.
LIKE = {
    "train": ("training", "trainset"),
    "val": ("validation", "valid", "dev"),
    "test": ("testing", "testset"),
}
ALIKE = 20  # of the 256 bits of the difference hash: two pictures of one piece of tissue
# Standard deviations that the inside of nuclei is darker than the rest. Of 104 real tiles the least
# is 0.46; with their labels mirrored nine in ten have less than 0.3. Around the points
# of 73 real tiles the least is 0.59; with x and y swapped nine in ten have less than 0.3.
DARKER = 0.3
AROUND = 21, 21  # pixels around a point: a nucleus at 40x with its rim, as its middle may be pale
ENOUGH = 10  # points of a tile, to tell how dark nuclei are
FEW = 0.1  # share of the ids of an instance map, or of points, that may be odd
SPECK = 20  # square pixels under which a nucleus is hardly one
IMAGE_FIX = "export it again: an image of 8-bit RGB as PNG or TIFF"
LABEL_FIX = "move it elsewhere; export one id or outline per nucleus of the whole image, then: "
SMALLEST_PATCH = 64  # side of a patch that --input-size takes
LARGEST = 0.5  # share of an image that no nucleus covers
LONGER = 1.5  # than the median of the dots of a label: two dots that touch


@dataclass(frozen=True)
class Finding:
    """What was found, where, and what to do about it."""

    level: str  # PASS, WARN or FAIL
    file: str
    message: str
    fix: str = ""

    def line(self) -> str:
        """The finding as a line to print."""
        fix = f" -> {self.fix}" if self.fix else ""
        return f"{self.level}  {self.file}: {self.message}{fix}"


def failure(error: InputError, fix: str) -> Finding:
    """The failure that an error is; it begins with its file."""
    file, _, message = str(error).partition(": ")
    if Path(file).exists() and not os.access(file, os.R_OK):
        fix = "give yourself the right to read it"
    return Finding(FAIL, file, message, fix)


def import_command(labels: Path, source: object = "EXPORTED") -> str:
    """The command that imports a source into a folder of labels."""
    kind = "points" if labels.name == POINT_LABELS else "masks"
    script = f"python data/import_labels.py {kind}"
    return f"{script} --data-dir {quote(str(labels.parent))} --source {quote(str(source))}"


@dataclass(frozen=True)
class ImageCheck:
    """What one image and its labels hold; None for what could not be read, or is not there."""

    name: str
    findings: list[Finding] = field(default_factory=list)
    shape: tuple[int, int] | None = None
    pixels: str = ""  # hash of the decoded image
    likeness: np.ndarray | None = None  # [256] bool: difference hash
    areas: np.ndarray | None = None  # of the nuclei of an instance map, in square pixels
    points: np.ndarray | None = None  # [N, 2]
    dots: np.ndarray | None = None  # the longer sides of the boxes of its dots, in pixels
    notes: list[str] = field(default_factory=list)  # how the image was read


def check_data_set(
    folder: Path, ratio: float, r1: float, patch_size: int
) -> tuple[dict[str, list[ImageFiles]], list[Finding]]:
    """The images of each set of a data set, and all findings about them.

    ratio: share of the points that a run keeps; r1: radius of a nucleus, patch_size: side of a
    patch, both in pixels.
    """
    try:
        image_files, findings = check_files(folder)
    except InputError as error:
        return {}, [failure(error, split_fix(folder))]
    # Further groups of the split may name images of the test set again.
    by_name = {files.name: files for part in image_files.values() for files in part}
    checks = check_images(list(by_name.values()))
    by_part = {part: [checks[f.name] for f in files] for part, files in image_files.items()}
    for check in checks.values():
        findings += check.findings
    findings += check_reading(checks.values())
    findings += check_sets(by_part)
    findings += check_points(by_part["train"], ratio)
    findings += check_masks(by_part) + check_dots(checks.values(), r1)
    findings += check_twice([c for c in checks.values() if c.dots is not None], r1)
    findings += check_sizes(list(checks.values()), r1, patch_size)
    if all(finding.level != FAIL for finding in findings):
        counts = ", ".join(f"{len(image_files[part])} {part}" for part in PARTS)
        findings.append(Finding(PASS, str(folder), f"{len(by_name)} images read: {counts}"))
    return image_files, findings


def split_fix(folder: Path) -> str:
    """What makes a split that can be read."""
    if not folder.is_dir():
        return "correct --dataset or --data-root; images belong into its folder images/"
    command = f"python data/make_split.py --data-dir {quote(str(folder))}"
    return f"correct it, or: {command} --overwrite" if (folder / SPLIT).exists() else command


def check_files(folder: Path) -> tuple[dict[str, list[ImageFiles]], list[Finding]]:
    """The images of each set, and findings about what is missing, surplus or empty.

    Raises InputError where the split cannot be read.
    """
    split, findings = read_split(folder), []
    labels = label_folders(folder)
    image_files: dict[str, list[ImageFiles]] = defaultdict(list)
    for part, names in split.items():
        image_files[part], missing = find_part(folder / IMAGES, names, labels)
        findings += missing
    in_sets = [files for part in image_files.values() for files in part]
    named = {name for names in split.values() for name in names}
    findings += check_surplus(folder / IMAGES, {files.image for files in in_sets}, named)
    if unread := unread_images(folder / IMAGES):
        held = counted(len(unread), "image of a kind that is not read")
        message = f"{held}: {first_names(unread)}"
        findings.append(Finding(WARN, str(folder / IMAGES), message, "save them as PNG or TIFF"))
    findings += check_subfolders(folder / IMAGES)
    findings += check_groups(image_files) + check_folders(folder)
    is_missing = any(not (files.instances or files.points) for files in in_sets)
    for directory in labels:
        findings += check_labels(directory, folder / IMAGES, is_missing)
    for part, effect in (
        ("val", "the last epoch is taken as the best"),
        ("test", "nothing is scored"),
    ):
        if not image_files[part]:
            findings.append(Finding(WARN, SPLIT, f"no {part} images: {effect}"))
    return image_files, findings


def find_part(
    images: Path, names: list[str], labels: tuple[Path, Path]
) -> tuple[list[ImageFiles], list[Finding]]:
    """The images of a set that are there, and a finding for each one that is not."""
    image_files, errors = find_each(images, names, *labels)
    findings = []
    for message, _, fix in (error.partition("; ") for error in errors):
        fix = fix or f"correct the name in {SPLIT}, or add the file"
        findings.append(failure(InputError(message), fix))
    return image_files, findings


def check_groups(image_files: dict[str, list[ImageFiles]]) -> list[Finding]:
    """Sets beside train, val and test that are hardly meant as groups of test images."""
    findings, test = [], {files.name for files in image_files["test"]}
    for name in (name for name in image_files if name not in PARTS):
        plain = name.strip().casefold()
        part = next((part for part in PARTS if plain in (part, *LIKE[part])), None)
        others = [files.name for files in image_files[name] if files.name not in test]
        if part:
            message = f"the list '{name}' is taken for a group of test images"
            findings.append(Finding(WARN, SPLIT, message, f"call it '{part}', if it is that set"))
        elif others:
            outside = "is" if len(others) == 1 else "are"
            message = f"{counted(len(others), 'image')} of the group '{name}' {outside} not in "
            message += "'test', so not scored"
            fix = f"name them in 'test', too, or take them out: {first_names(others)}"
            findings.append(Finding(WARN, SPLIT, message, fix))
    return findings


def check_folders(folder: Path) -> list[Finding]:
    """Folders that are not read, though their names are nearly those of images or labels."""
    known = (IMAGES, INSTANCE_LABELS, POINT_LABELS)
    findings = []
    for path in sorted(folder.iterdir()):
        near = get_close_matches(path.name.lower(), known, n=1, cutoff=0.85)
        if near and path.name not in known and path.is_dir():
            message = f"a folder that is not read; labels and images lie in {', '.join(known)}"
            findings.append(Finding(WARN, str(path), message, f"did you mean {near[0]}?"))
    return findings


def check_subfolders(images: Path) -> list[Finding]:
    """Folders among the images that hold images, too: none of these is read."""
    folders = sorted(f for f in images.iterdir() if f.is_dir()) if images.is_dir() else []
    inside = {f: count_images(f) for f in folders if not f.name.startswith(".")}
    inside = {f: number for f, number in inside.items() if number}
    if not inside:
        return []
    number, where = counted(sum(inside.values()), "image"), counted(len(inside), "folder")
    message = f"{number} in {where}, not read"
    message += f": {first_names(list(inside))}"
    return [Finding(WARN, str(images), message, f"move them into {IMAGES}/ itself")]


def count_images(folder: Path) -> int:
    """How many images and slides lie in a folder and its subfolders."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    return sum(len(unread_images(f)) + sum(map(is_image, f.iterdir())) for f in folders)


def check_surplus(directory: Path, used: set[Path], named: set[str]) -> list[Finding]:
    """Images in a folder that are of no set: neither found by the split, nor named in it."""
    present = filter(is_image, directory.iterdir()) if directory.is_dir() else ()
    surplus = {p for p in set(present) - used if not {p.name, stem(p.name)} & named}
    masks, findings = sorted(surplus.intersection(masks_beside(directory, named))), []
    if masks:
        fix = import_command(directory.parent / INSTANCE_LABELS, directory)
        findings.append(Finding(WARN, str(directory), told_of_masks(masks), fix))
    if others := sorted(surplus.difference(masks)):
        message = f"{counted(len(others), 'file of no set')}: {first_names(others)}"
        fix = f"name the images in {SPLIT}, or move them"
        findings.append(Finding(WARN, str(directory), message, fix))
    return findings


def check_labels(directory: Path, images: Path, is_missing: bool) -> list[Finding]:
    """Files in a folder of labels that are of no image, or of a kind that is imported first.

    is_missing: whether an image has no label.
    """
    findings = []
    surplus = sorted(labels_of_no_image(images, directory))
    if surplus:
        ending = POINT_ENDING if directory.name == POINT_LABELS else INSTANCE_ENDINGS[-1]
        fix = f"name each as its image is, in the same letters: TILE or TILE{ending}"
        message = f"{counted(len(surplus), 'label of no image')}: {first_names(surplus)}"
        findings.append(Finding(WARN, str(directory), message, fix))
    looked_at = is_missing or directory.name == POINT_LABELS
    files = directory.iterdir() if looked_at and directory.is_dir() else ()
    others = sorted(f for f in files if keys_of(f) and not is_image(f))
    if others:
        held = counted(len(others), "file of another kind")
        message = f"{held}, not read: {first_names(others)}"
        fix = import_command(directory, directory)
        findings.append(Finding(WARN, str(directory), message, fix))
    return findings


def check_images(image_files: list[ImageFiles]) -> dict[str, ImageCheck]:
    """Read images and their labels, in parallel where there are many; by name.

    Raises InputError where the system kills a process that reads them.
    """
    workers = min(cores(), max(1, len(image_files) // 4))
    if workers > 1:
        try:
            with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
                checks = list(pool.map(check_image, image_files, chunksize=4))
        except BrokenProcessPool:
            raise InputError(
                f"{image_files[0].image.parent}: a process that read these images was killed, most "
                "likely for want of memory; close other programs, or give OMP_NUM_THREADS=1"
            ) from None
    else:
        checks = [check_image(files) for files in image_files]
    return {check.name: check for check in checks}


def check_image(files: ImageFiles) -> ImageCheck:
    """Read an image and its labels."""
    findings: list[Finding] = []
    notes: list[str] = []
    image = attempt(findings, IMAGE_FIX, read_image, files.image, notes)
    if image is None:
        return ImageCheck(files.name, findings)
    if why := why_no_tissue(image):
        notes.append(f"{files.image}: {why}")
    shape, areas, points, instances, dots = image.shape[:2], None, None, None, None
    if files.instances:
        fix = LABEL_FIX + import_command(files.instances.parent)
        instances = attempt(findings, fix, read_instances, files.instances, shape, files.image)
        if instances is not None:
            masks = nucleus_masks(instances)
            areas = np.array([int(mask.sum()) for mask in masks])
            points = points_from_instances(instances)
            findings += check_nuclei(files.instances, masks, areas, instances.size)
            findings += check_darkness(files.instances, image, instances > 0)
    if files.points:
        fix = "move it elsewhere, then: " + import_command(files.points.parent)
        label = attempt(findings, fix, read_point_label, files.points, shape, files.image)
        if label is not None:
            in_label = dots_of(label)
            points, dots = points_from_instances(in_label), dot_sides(in_label)
            if len(points) >= ENOUGH:
                spots = np.zeros(shape, bool)
                spots[tuple(points.T)] = True
                findings += check_darkness(files.points, cv2.blur(image, AROUND), spots)
            if instances is not None:
                findings += check_beside(files.points, points, instances)
    return ImageCheck(
        files.name,
        findings,
        shape,
        hashlib.sha256(image.tobytes()).hexdigest(),
        difference_hash(image),
        areas,
        points,
        dots,
        notes,
    )


def attempt(
    findings: list[Finding], fix: str, read: Callable, path: Path, *arguments: object
) -> np.ndarray | None:
    """`read(path, *arguments)`; where it raises InputError, None and one more of the findings."""
    try:
        return read(path, *arguments)
    except InputError as error:
        findings.append(failure(error, fix))
        return None


def check_reading(checks: Iterable[ImageCheck]) -> list[Finding]:
    """What the reader says of the images: a line for each kind of note, with the first image."""
    lines = grouped(note for check in checks for note in check.notes)
    return [Finding(WARN, file, note) for file, _, note in (line.partition(": ") for line in lines)]


def check_darkness(path: Path, image: np.ndarray, nuclei: np.ndarray) -> list[Finding]:
    """Whether nuclei [H, W] bool are darker than the rest of an image [H, W, 3], as they should."""
    grey = image.mean(2)
    if not nuclei.any() or nuclei.all() or grey.std() == 0:
        return []
    if (grey[~nuclei].mean() - grey[nuclei].mean()) / grey.std() >= DARKER:
        return []
    message = "its nuclei are hardly darker than the rest of the image"
    return [Finding(WARN, str(path), message, "is it the label of this image, and not turned?")]


def check_beside(path: Path, points: np.ndarray, instances: np.ndarray) -> list[Finding]:
    """Whether the points [N, 2] of a tile lie on the nuclei of its instance map [H, W]."""
    beside = int((instances[tuple(points.T)] == 0).sum())
    if beside <= FEW * len(points):
        return []
    message = f"{beside} of {len(points)} points lie beside the nuclei of its instance map"
    return [Finding(WARN, str(path), message, "are both labels of this image?")]


def difference_hash(image: np.ndarray) -> np.ndarray:
    """Which of 16 x 16 fields are brighter than their left neighbour: [256] bool.

    Images that look alike have nearly the same hash.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (17, 16), interpolation=cv2.INTER_AREA).astype(int)
    return (small[:, 1:] > small[:, :-1]).ravel()


def check_nuclei(
    path: Path, masks: list[np.ndarray], areas: np.ndarray, pixels: int
) -> list[Finding]:
    """What is odd about the nuclei of an instance map of some pixels; areas in square pixels."""
    findings = []
    if not masks:
        findings.append(Finding(WARN, str(path), "no nucleus"))
    # A few of both occur in annotated tiles; many are an error of the export.
    split = count_split(masks)
    if split > FEW * len(masks):
        message = f"{split} of {len(masks)} ids lie in several pieces"
        fix = "give every nucleus its own id in the tool that made it"
        findings.append(Finding(WARN, str(path), message, fix))
    small = int((areas < SPECK).sum())
    if small > FEW * len(masks):
        message = f"{small} of {len(masks)} nuclei have less than {SPECK} square pixels"
        fix = "remove specks in the tool that made it"
        findings.append(Finding(WARN, str(path), message, fix))
    if len(masks) and areas.max() > LARGEST * pixels:
        message = f"one nucleus covers {areas.max() / pixels:.0%} of the image"
        findings.append(Finding(WARN, str(path), message, "the background has to be 0"))
    return findings


def check_sets(by_part: dict[str, list[ImageCheck]]) -> list[Finding]:
    """Images that are in two sets, or nearly; and those that are twice in one."""
    images = [(part, c) for part in PARTS for c in by_part.get(part, []) if c.pixels]
    findings = []
    for number, (part, image) in enumerate(images):
        for other_part, other in images[:number]:
            sets = f"({part} and {other_part})"
            if image.pixels == other.pixels:
                level = FAIL if part != other_part else WARN
                message = f"the same pixels as {other.name} {sets}"
                findings.append(Finding(level, image.name, message, f"take one out of {SPLIT}"))
            elif part != other_part and (image.likeness != other.likeness).sum() <= ALIKE:
                message = f"nearly the same as {other.name} {sets}"
                findings.append(Finding(WARN, image.name, message, "look at both"))
    return findings


def check_points(checks: list[ImageCheck], ratio: float) -> list[Finding]:
    """Training images without points, or with points that say little."""
    findings = []
    for check in checks:
        if check.shape is None or any(f.level == FAIL for f in check.findings):
            continue
        count = 0 if check.points is None else len(check.points)
        if count == 0:
            fix = f"annotate some nuclei, or take it out of {SPLIT}"
            message = "a training image without any point"
            if check.points is None:
                message += f"; looked for {label_names(check.name)}"
            else:
                message += "; its label is empty"
            findings.append(Finding(FAIL, check.name, message, fix))
            continue
        kept = max(1, round(count * ratio))
        if kept < 3:
            message = f"{kept} of {count} points at ratio {ratio:g}"
            fix = "annotate more" + (", or a larger --ratio" if ratio < 1 else "")
            findings.append(Finding(WARN, check.name, message, fix))
        elif on_one_line(check.points):
            findings.append(Finding(WARN, check.name, f"all {count} points lie on one line"))
    return findings


def on_one_line(points: np.ndarray) -> bool:
    """Whether three or more points [N, 2] lie on one line, so that Voronoi cells are stripes."""
    return len(points) > 2 and np.linalg.matrix_rank(points - points[0]) < 2


def check_masks(by_part: dict[str, list[ImageCheck]]) -> list[Finding]:
    """Validation and test images without instance maps."""
    findings = []
    for part in ("val", "test"):
        checks = by_part.get(part, [])
        read = [c for c in checks if all(f.level != FAIL for f in c.findings)]
        bare = [c.name for c in read if c.areas is None and c.shape is not None]
        masked = len(read) - len(bare)
        if bare and masked and part == "val":
            message = f"{masked} of {len(read)} val images have masks; none is used to choose "
            message += "until all have one"
            fix = f"give the others masks, too, or take them out of 'val': {first_names(bare)}"
            findings.append(Finding(WARN, bare[0], message, fix))
        elif bare:
            message = f"{counted(len(bare), f'{part} image')} without masks"
            findings.append(Finding(WARN, bare[0], message, "only scores need them"))
    return findings


def dot_sides(dots: np.ndarray) -> np.ndarray:
    """The longer side of the box of each dot in pixels. dots: [H, W], their ids are 1, 2, ..."""
    boxes = ndimage.find_objects(dots)
    return np.array([max(side.stop - side.start for side in box) for box in boxes])


def check_dots(checks: Iterable[ImageCheck], r1: float) -> list[Finding]:
    """Dots of a point label that are hardly of one nucleus, whose radius is r1 pixels.

    They are longer than a nucleus, or clearly longer than the other dots and than r1: dots that are
    nearer than that are hardly of two nuclei.
    """
    findings = []
    for check in checks:
        if check.dots is None or not len(check.dots):
            continue
        longest = np.clip(LONGER * np.median(check.dots), r1, 2 * r1 + 1)
        odd = int((check.dots > longest).sum())
        if odd:
            message = f"{odd} of {len(check.dots)} dots are longer than {longest:.0f} px"
            message += "; each counts as one point, also where dots touch"
            fix = "draw one small dot on each nucleus, apart from the others"
            findings.append(Finding(WARN, check.name, message, fix))
    return findings


def check_twice(checks: list[ImageCheck], r1: float) -> list[Finding]:
    """Points of a set, drawn as dots, of which many lie nearer to another than nuclei can."""
    near = {check.name: count_near(check.points, r1 / 2) for check in checks}
    number, total = sum(near.values()), sum(len(check.points) for check in checks)
    if number <= FEW * total:
        return []
    message = f"{number} of {total} points of the set lie nearer than {r1 / 2:g} px to another"
    fix = "mark each nucleus once; or correct --detection --r1, its radius"
    return [Finding(WARN, max(near, key=near.get), message, fix)]


def count_near(points: np.ndarray, distance: float) -> int:
    """How many points [N, 2] lie nearer to another one than some pixels."""
    if len(points) < 2:
        return 0
    return int((KDTree(points).query(points, k=2)[0][:, 1] < distance).sum())


def check_sizes(checks: list[ImageCheck], r1: float, patch_size: int) -> list[Finding]:
    """Nuclei against r1, images against the patch."""
    findings = []
    areas = [check.areas for check in checks if check.areas is not None and len(check.areas)]
    if areas:
        radius = float(np.sqrt(np.concatenate(areas).mean() / np.pi))
        message = f"a nucleus of mean area has radius {radius:.1f} px; r1 is {r1:g}"
        whole = max(1, round(radius))
        options = f"--r1 {whole} --r2 {2 * whole} --sigma {max(radius / 4, 0.5):.2g}"
        options += f" --seg --merge-radius {whole}"
        if 0.7 < radius / r1 < 1.4:
            findings.append(Finding(PASS, "nuclei", message))
        else:
            findings.append(Finding(WARN, "nuclei", message, f"--detection {options}"))
    small = [check.name for check in checks if check.shape and min(check.shape) < patch_size]
    if small:
        are = "is" if len(small) == 1 else "are"
        message = f"{counted(len(small), 'image')} {are} smaller than the patch of {patch_size} px"
        side = min(min(check.shape) for check in checks if check.shape)
        fix = f"they are mirrored; --patch-size {side} --input-size {side} avoids that"
        fix = fix if side >= SMALLEST_PATCH else "they are mirrored; larger images are better"
        findings.append(Finding(WARN, small[0], message, fix))
    return findings

"""Make the embedded sample: synthetic H&E tiles with exact instance masks, from a seed.

Two stains are mixed by the Beer-Lambert law: haematoxylin in the nuclei, eosin in the cytoplasm
and in the fibres of the stroma. The lumen is glass. Nuclei are round, spindle-shaped or irregular;
pale with clumped chromatin, or dense; in nests and strands. Some touch or overlap. The tiles are
the project's own, under its licence.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.annotations.labels import counted
from code_common.config import Bounded, Parser
from code_common.errors import InputError, run_script
from code_common.files.data_set import is_image
from code_common.files.images import read_image, read_label
from code_common.files.layout import IMAGES, INSTANCE_LABELS, SPLIT, label_folders
from code_common.files.writing import write_instances, write_json, write_png

MARGIN = 24  # pixels that are cut off: nuclei are cut by the border, as in a real tile
# Optical density per unit of stain in R, G, B (Ruifrok & Johnston 2001).
HAEMATOXYLIN = np.array([0.65, 0.70, 0.29])
EOSIN = np.array([0.07, 0.99, 0.11])


def noise(rng: np.random.Generator, size: int, grain: float) -> np.ndarray:
    """Smooth noise [size, size] with mean 0 and deviation 1; grain is its length in pixels."""
    field = cv2.GaussianBlur(rng.normal(size=(size, size)), (0, 0), grain)
    return (field - field.mean()) / field.std()


def nucleus_outline(
    rng: np.random.Generator, radius: float, elongation: float, angle: float
) -> np.ndarray:
    """Polygon [64, 2] (x, y) of a nucleus around 0: an ellipse with a few low harmonics."""
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    bumps = sum(rng.normal(0, 0.07 / k) * np.cos(k * t + rng.uniform(0, 6.3)) for k in (2, 3, 4, 5))
    r = radius * (1 + bumps)
    x, y = r * np.cos(t) * np.sqrt(elongation), r * np.sin(t) / np.sqrt(elongation)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c * x - s * y, s * x + c * y], 1)


def place_nuclei(
    rng: np.random.Generator, density: np.ndarray, count: int, direction: np.ndarray
) -> np.ndarray:
    """Instance map int32 [size, size] of about `count` nuclei.

    density [size, size]: 0..1, how likely a nucleus is. direction [size, size]: in radians, along
    which the stroma runs and spindle-shaped nuclei lie.
    """
    size = len(density)
    instances = np.zeros((size, size), np.int32)
    centres, radii = [], []
    for _ in range(count * 6):
        if len(centres) == count:
            break
        centre = rng.uniform(0, size, 2)
        row, col = centre.astype(int)
        if rng.random() > density[row, col]:
            continue
        spindle = density[row, col] < 0.35
        radius = rng.normal(7.0, 0.8) if spindle else rng.normal(9.5, 1.3)
        radius = np.clip(radius, 5, 14)
        if centres:
            gap = np.linalg.norm(np.array(centres) - centre, axis=1) - np.array(radii) - radius
            allowed = -0.35 * radius if rng.random() < 0.12 else 1.0  # some overlap or touch
            if gap.min() < allowed:
                continue
        elongation = rng.uniform(2.0, 3.2) if spindle else rng.uniform(1.0, 1.6)
        angle = direction[row, col] + rng.normal(0, 0.2) if spindle else rng.uniform(0, np.pi)
        polygon = nucleus_outline(rng, radius, elongation, angle) + centre[::-1]
        mask = np.zeros((size, size), np.uint8)
        cv2.fillPoly(mask, [np.rint(polygon * 16).astype(np.int32)], 1, shift=4)
        mask[instances > 0] = 0  # the earlier nucleus lies on top
        # An overlap may cut a nucleus into pieces: the largest one stays.
        _, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        if len(stats) < 2 or stats[1:, cv2.CC_STAT_AREA].max() < 60:
            continue
        instances[parts == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()] = len(centres) + 1
        centres.append(centre)
        radii.append(radius)
    return instances


def stain_nuclei(rng: np.random.Generator, instances: np.ndarray) -> np.ndarray:
    """Haematoxylin [size, size] of the nuclei: chromatin texture, rim, nucleoli."""
    size = len(instances)
    fine, coarse = noise(rng, size, 1.0), noise(rng, size, 2.2)
    stain = np.zeros((size, size))
    for label in range(1, instances.max() + 1):
        mask = instances == label
        depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)[mask]
        dense = rng.normal(0.95, 0.17)
        vesicular = rng.random() < 0.3  # pale centre, dark rim, nucleoli
        body = dense * (0.62 if vesicular else 1.0)
        rim = (0.5 if vesicular else 0.12) * dense * np.exp(-np.square(depth - 1) / 1.5)
        texture = 0.10 * fine[mask] + 0.14 * coarse[mask]
        if vesicular:
            texture += 0.45 * (coarse[mask] > 1.2)
        stain[mask] = np.clip(body + rim + texture, 0.25, 1.7)
    return stain


def stain_tissue(
    rng: np.random.Generator, epithelium: np.ndarray, direction: np.ndarray
) -> np.ndarray:
    """Eosin [size, size] of the cytoplasm and of the fibres of the stroma.

    epithelium: 1 in nests, 0 in stroma; direction: in radians, along which the fibres run.
    """
    size = len(epithelium)
    row, col = np.mgrid[:size, :size]
    across = col * np.sin(direction) - row * np.cos(direction)
    wave = np.sin(across / 2.3 + 2.0 * noise(rng, size, 9)) + 0.5 * noise(rng, size, 1.5)
    stroma = 0.36 + 0.13 * wave
    cytoplasm = 0.30 + 0.05 * noise(rng, size, 3) + 0.03 * noise(rng, size, 1)
    eosin = epithelium * cytoplasm + (1 - epithelium) * stroma
    gaps = (noise(rng, size, 5) + 0.6 * wave > 1.9) & (epithelium < 0.5)
    return eosin * (1 - 0.85 * cv2.GaussianBlur(gaps.astype(np.float64), (0, 0), 1))


def render(rng: np.random.Generator, haematoxylin: np.ndarray, eosin: np.ndarray) -> np.ndarray:
    """The RGB image [size, size, 3], 0..255, of two stains [size, size] (Beer-Lambert law)."""
    strength = rng.normal(1, 0.08, 2)
    tilt = rng.normal(0, 0.02, (2, 3))  # stains differ between slides
    stains = np.stack([haematoxylin * strength[0], eosin * strength[1]], -1)
    optical_density = np.clip(stains, 0, None) @ (np.stack([HAEMATOXYLIN, EOSIN]) + tilt)
    image = 243 * np.exp(-optical_density)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.7, 1.0))
    image += rng.normal(0, 2.0, image.shape) + 1.5 * noise(rng, len(eosin), 1)[..., None]
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def renumber(instances: np.ndarray) -> np.ndarray:
    """The instance map int32 [H, W] with ids from 1 without gaps; 0 stays background."""
    ids, numbers = np.unique(instances, return_inverse=True)
    if ids[0] != 0:
        numbers += 1
    return numbers.reshape(instances.shape).astype(np.int32)


def make_tile(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One RGB tile [size, size, 3] uint8 and its instance map [size, size] int32."""
    full = size + 2 * MARGIN
    regions = noise(rng, full, 34)
    epithelium = 1 / (1 + np.exp(-4 * (regions + 0.25)))  # 1 in nests, 0 in stroma
    direction = np.pi * np.tanh(noise(rng, full, 60)) / 2
    lumen = (noise(rng, full, 20) > 1.9) & (epithelium > 0.7)
    near_lumen = cv2.dilate(lumen.astype(np.uint8), np.ones((9, 9))) > 0
    density = (0.16 + 0.84 * epithelium) * ~near_lumen
    per_area = rng.uniform(0.0011, 0.0017)
    instances = place_nuclei(rng, density, int(per_area * full**2), direction)

    haematoxylin = stain_nuclei(rng, instances)
    eosin = stain_tissue(rng, epithelium, direction)
    glass = cv2.GaussianBlur(lumen.astype(np.float64), (0, 0), 1.2)
    nuclei = instances > 0
    eosin = np.where(nuclei, 0.22 + 0.3 * eosin, eosin) * (1 - glass * ~nuclei)
    haematoxylin = np.where(nuclei, haematoxylin, 0.10 * epithelium + 0.05)
    haematoxylin = np.where(nuclei, haematoxylin, haematoxylin * (1 - glass))
    inner = slice(MARGIN, MARGIN + size)
    image = render(rng, haematoxylin, eosin)
    return image[inner, inner], renumber(instances[inner, inner])


@dataclass(frozen=True)
class Tile:
    """A tile of the sample: the set it belongs to, its name, and the seed that makes it."""

    part: str
    name: str
    seed: tuple[int, int, int]

    def paths(self, out: Path) -> tuple[Path, Path]:
        """Its image and its instance map in the folder of the sample."""
        return out / IMAGES / f"{self.name}.png", out / INSTANCE_LABELS / f"{self.name}_label.tif"

    def make(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Its image and its instance map, `size` pixels wide."""
        return make_tile(np.random.default_rng(self.seed), size)


def tiles_of(train: int, val: int, test: int, seed: int) -> list[Tile]:
    """All tiles of a sample with so many in each set."""
    counts = {"train": train, "val": val, "test": test}
    return [
        Tile(part, f"{part}_{index + 1}", (seed, number, index))
        for number, (part, count) in enumerate(counts.items())
        for index in range(count)
    ]


def holds(path: Path, array: np.ndarray) -> bool:
    """Whether a file is the image [H, W, 3] or the instance map [H, W] of an array."""
    try:
        found = read_image(path) if array.ndim == 3 else read_label(path, array.shape)
    except InputError:
        return False
    return np.array_equal(found, array)


def refuse_others(out: Path, tiles: list[Tile], size: int) -> None:
    """Raise InputError where a folder holds images or labels that are not those of the sample.

    Those that a stopped call left are the same.
    """
    folders = (out / IMAGES, *label_folders(out))
    present = {p for folder in folders if folder.is_dir() for p in folder.iterdir() if is_image(p)}
    for tile in tiles:
        paths = tile.paths(out)
        if not present.isdisjoint(paths):
            arrays = tile.make(size)
            present -= {p for p, a in zip(paths, arrays, strict=True) if holds(p, a)}
    if present:
        raise InputError(
            f"{min(present)}: there already, and not of this sample; give another --out"
        )


def make_sample(out: Path, train: int, val: int, test: int, size: int, seed: int) -> int:
    """Write a data set in the project's layout; returns the number of nuclei.

    train, val, test: numbers of tiles; size: side of a tile in pixels. The split file comes last,
    so a data set that has one is whole. Raises InputError where the folder holds other images.
    """
    tiles = tiles_of(train, val, test, seed)
    refuse_others(out, tiles, size)
    split, nuclei = {"train": [], "val": [], "test": []}, 0
    for tile in tiles:
        image, instances = tile.make(size)
        image_path, label_path = tile.paths(out)
        write_png(image_path, image)
        write_instances(label_path, instances)
        split[tile.part].append(image_path.name)
        nuclei += len(np.unique(instances)) - 1
    write_json(out / SPLIT, split)
    return nuclei


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent / "sample",
        help="folder of the new data set (default: %(default)s)",
    )
    for part, count in (("train", 8), ("val", 2), ("test", 4)):
        text = f"number of {part} tiles (default: %(default)s)"
        least = 1 if part == "train" else 0
        parser.add_argument(f"--{part}", type=Bounded(int, least, 10_000), default=count, help=text)
    parser.add_argument(
        "--size", type=Bounded(int, 32, 2048), default=256, help="side in pixels (default: 256)"
    )
    parser.add_argument("--seed", type=Bounded(int, 0, 2**31), default=1, help="seed (default: 1)")
    return parser.parse_args(argv)


def main(arguments: argparse.Namespace) -> None:
    """Make the sample. Raises InputError where there is a data set already."""
    out, size = arguments.out, arguments.size
    counts = arguments.train, arguments.val, arguments.test
    if (out / SPLIT).exists():
        raise InputError(f"{out}: there is a data set already; give another --out")
    if min(counts) < 0 or arguments.train < 1 or size < 32:
        raise InputError("expected --train of at least 1, no negative number, --size from 32")
    nuclei = make_sample(out, *counts, size, arguments.seed)
    print(f"{out}: {counted(sum(counts), 'tile')}, {nuclei} nuclei")


if __name__ == "__main__":
    run_script(lambda: main(parse_arguments()))

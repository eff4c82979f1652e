"""What was drawn on an image: outlines, points, boxes and masks, and what pixels they cover.

Coordinates are x to the right and y down, in pixels from the top left corner of the image. The
first pixel covers 0..1.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from skimage.draw import polygon
from skimage.measure import points_in_poly

from code_common.annotations.choice import Choice
from code_common.errors import InputError, reason
from code_common.files.images import AROUND_SHARE, TILE_SHARE, component_areas, covers_tile

FARTHEST = 1e7  # pixels; a coordinate beyond is an error of the file
MAX_PIXELS = 1 << 26  # of the mask of one object; more is an error of the file
SPECK = 0.1  # of the largest piece of a mask; smaller ones are not counted
MAX_RINGS = 1000  # of the outline of a nucleus; a tissue that a threshold found has more
ELLIPSE_VERTICES = 64
HAIR = np.array([1e-6, 0.6e-6])  # pixels along x and y; hardly any edge has this direction
Polygon = list[np.ndarray]  # rings [K, 2] (x, y); inside is what an odd number of rings encloses
Outline = list[Polygon]  # the parts of one nucleus; it covers what any of them covers

# A region that nuclei lie in is no nucleus. It covers the tile, or holds the middles of others.
HELD = 2  # middles of other objects that no nucleus holds, if it is large
# Than the median of the other outlines. What is far larger and holds even one is no nucleus.
TIMES_LARGER, TIMES_FAR_LARGER = 4, 10


@dataclass
class Annotations:
    """What was drawn on one image, and what of its file is no nucleus."""

    outlines: list[Outline] = field(default_factory=list)
    points: list[tuple[float, float]] = field(default_factory=list)  # (x, y)
    left_out: Counter = field(default_factory=Counter)  # reason -> number of objects
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)  # x0, y0, x1, y1
    masks: list[np.ndarray] = field(default_factory=list)  # pixels [N, 2] (row, column)
    kinds: list[str] = field(default_factory=list)  # of outlines: "annotation", "detection", ...
    shape: tuple[int, int] | None = None  # rows, columns of the image, where the file says them
    planes: set[tuple[int, ...]] = field(default_factory=set)  # that objects taken lie in, from 1
    names_planes: bool = False  # whether any object says in which plane it lies
    classes: set[str] = field(default_factory=set)  # of all objects, taken or not
    unwanted: int = 0  # objects that are left out because the user asks for other classes
    notes: list[str] = field(default_factory=list)  # what was guessed
    error: InputError | None = None  # what is wrong with this image in a file of several

    def takes(
        self, choice: Choice, names: Sequence[str], plane: tuple[int, ...] = (), number: int = 1
    ) -> bool:
        """Whether an object of these class names is taken; else it is counted as left out.

        plane: where it lies in a stack, from 1, one number for each axis; () for none. number: how
        many nuclei it is, as a set of points is several.
        """
        names = [name for name in names if name]
        self.classes.update(names)
        of_class = choice.class_left_out(names)
        why = of_class or choice.plane_left_out(plane)
        self.names_planes |= bool(plane)
        if why:
            self.left_out[why] += max(number, 1)
            self.unwanted += bool(of_class and choice.classes is not None)
        elif plane:
            self.planes.add(plane)
        return not why

    def add_outline(self, outline: Outline, kind: str = "") -> None:
        """Add an outline. kind: what its program calls it ("annotation", "detection", ...)."""
        outline = [[ring for ring in rings if len(ring) >= 3] for rings in outline]
        outline = [rings for rings in outline if rings]
        if sum(map(len, outline)) > MAX_RINGS:
            self.left_out[f"region (outline of more than {MAX_RINGS} rings)"] += 1
        elif outline:
            self.outlines.append(outline)
            self.kinds.append(kind)
        else:
            self.left_out["outline of fewer than three vertices"] += 1

    def add_mask(self, pixels: np.ndarray) -> None:
        """Add the mask of an object, pixels [N, 2] (row, column)."""
        if len(pixels):
            self.masks.append(pixels)
        else:
            self.left_out["empty mask"] += 1

    def count(self) -> int:
        """How many objects there are, without those that are left out."""
        return len(self.outlines) + len(self.points) + len(self.boxes) + len(self.masks)


class Groups:
    """Outlines and masks whose parts are apart in a file, by what the parts of each share."""

    def __init__(self) -> None:
        self.outlines: dict[Hashable, list[Polygon]] = {}
        self.masks: dict[Hashable, list[np.ndarray]] = {}

    def add_outline(self, key: Hashable, rings: Polygon) -> None:
        """Add a part of the outline that the key stands for."""
        self.outlines.setdefault(key, []).append(rings)

    def add_mask(self, key: Hashable, pixels: np.ndarray) -> None:
        """Add a part, pixels [N, 2], of the mask that the key stands for."""
        self.masks.setdefault(key, []).append(pixels)

    def add_to(self, annotations: Annotations) -> None:
        """Add each as one object, and a note of how many parts were joined."""
        for parts in self.outlines.values():
            annotations.add_outline(parts)
        for parts in self.masks.values():
            annotations.add_mask(
                np.unique(np.concatenate(parts), axis=0) if parts[1:] else parts[0]
            )
        groups = [*self.outlines.values(), *self.masks.values()]
        joined = [len(parts) for parts in groups if len(parts) > 1]
        if joined:
            nuclei = "1 nucleus" if len(joined) == 1 else f"{len(joined)} nuclei"
            annotations.notes.append(f"{sum(joined)} shapes that share a group_id are {nuclei}")


@contextmanager
def error_of(annotations: Annotations) -> Iterator[None]:
    """Keep an InputError as that of these annotations alone, so that the other images are read."""
    try:
        yield
    except InputError as error:
        annotations.error = annotations.error or error


@contextmanager
def named_errors(where: Path | str, what: str) -> Iterator[None]:
    """Turn what a malformed file raises while it is taken apart into an InputError.

    where: the file, or the object in it.
    """
    try:
        yield
    except InputError:
        raise
    except (
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as e:
        problem = f"{type(e).__name__}: {reason(e)}"
        raise InputError(f"{where}: not readable as {what} ({problem})") from None


def ring(where: Path | str, vertices: Iterable) -> np.ndarray:
    """A ring [K, 2] of finite numbers. Raises InputError, which names the file or its object."""
    try:
        result = np.array([[float(v[0]), float(v[1])] for v in vertices], dtype=np.float64)
    except (TypeError, ValueError, LookupError, OverflowError):
        raise InputError(f"{where}: an outline has a vertex that is no pair of numbers") from None
    if not (np.abs(result) < FARTHEST).all():  # so NaN is refused, too
        raise InputError(f"{where}: an outline has a vertex that is not finite or far away")
    return result.reshape(-1, 2)


def check_size(where: Path | str, number: float) -> None:
    """Raise InputError if the mask of one object has so many pixels that it can't be meant."""
    if number > MAX_PIXELS:
        raise InputError(f"{where}: a mask of {number:.0f} pixels; expected one for each nucleus")


def place(coordinates: Sequence) -> tuple[float, float]:
    """A point (x, y) from x, y and what else a tool writes; ValueError where it is far away."""
    x, y, *_ = coordinates
    x, y = float(x), float(y)
    if not (abs(x) < FARTHEST and abs(y) < FARTHEST):
        raise ValueError("a place that is not finite or far away")
    return x, y


def box_ring(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    """The vertices of a box."""
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def ellipse_ring(
    centre_x: float, centre_y: float, radius_x: float, radius_y: float, angle: float = 0.0
) -> list[tuple[float, float]]:
    """Vertices on an ellipse. angle: radians from the x axis towards y. ValueError for a radius
    below 0.
    """
    if min(radius_x, radius_y) < 0:
        raise ValueError(f"a radius of {min(radius_x, radius_y):g}")
    turn = np.arange(ELLIPSE_VERTICES) * (2 * np.pi / ELLIPSE_VERTICES)
    # A polygon on the ellipse is a little smaller; with these radii its area is the ellipse's.
    step = 2 * np.pi / ELLIPSE_VERTICES
    scale = np.sqrt(step / np.sin(step))
    along, across = radius_x * scale * np.cos(turn), radius_y * scale * np.sin(turn)
    x = centre_x + along * np.cos(angle) - across * np.sin(angle)
    y = centre_y + along * np.sin(angle) + across * np.cos(angle)
    return np.stack([x, y], 1).tolist()


def polygon_pixels(rings: Polygon, shape: tuple[int, int]) -> np.ndarray:
    """Pixels [N, 2] (row, column) whose middle an odd number of rings encloses.

    A middle on a right or lower edge counts, one on a left or upper edge does not. So outlines side
    by side share no pixel, and those of MoNuSeg give its published masks.
    """
    pixels = np.zeros((0, 2), np.int64)
    for vertices in rings:
        # Moved a little, since `polygon` takes all that lies on an edge.
        x, y = (vertices - (0.5 - HAIR)).T
        rows, cols = polygon(y, x, shape)
        pixels = np.concatenate([pixels, np.stack([rows, cols], 1)])
    if len(rings) > 1:
        pixels, times = np.unique(pixels, axis=0, return_counts=True)
        pixels = pixels[times % 2 == 1]
    return pixels


def filled(path: Path, vertices: np.ndarray) -> np.ndarray:
    """Pixels [N, 2] (row, column) within a contour [K, 2] (x, y) of pixels, and on it."""
    contour = np.rint(vertices).astype(np.int32)
    low = contour.min(0)
    check_size(path, float(np.prod(contour.max(0) - low + 1.0)))
    canvas = np.zeros((contour.max(0) - low + 1)[::-1], np.uint8)
    cv2.fillPoly(canvas, [contour - low], 1)
    return np.argwhere(canvas) + low[::-1]


def outline_pixels(outline: Outline, shape: tuple[int, int]) -> np.ndarray:
    """Pixels [N, 2] (row, column) that any part of an outline covers."""
    parts = [polygon_pixels(rings, shape) for rings in outline]
    return parts[0] if len(parts) == 1 else np.unique(np.concatenate(parts), axis=0)


def rasterise(outlines: list[Outline], shape: tuple[int, int]) -> np.ndarray:
    """Instance map int32 [H, W]: k + 1 where the middle of a pixel lies in outline k.

    Where outlines overlap the smaller nucleus is on top; ids are set, never added up.
    """
    return draw([outline_pixels(outline, shape) for outline in outlines], shape)


def draw(nuclei: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Instance map int32 [H, W] of nuclei, pixels [N, 2] each, the smaller ones on top."""
    largest_first = sorted(range(len(nuclei)), key=lambda k: -len(nuclei[k]))
    instances = np.zeros(shape, np.int32)
    for k in largest_first:
        instances[nuclei[k][:, 0], nuclei[k][:, 1]] = k + 1
    return instances


def in_its_box(pixels: np.ndarray) -> np.ndarray:
    """The mask uint8 [h, w] of pixels [N, 2] (row, column), at least one, within their box."""
    low = pixels.min(0)
    mask = np.zeros(pixels.max(0) - low + 1, np.uint8)
    mask[tuple((pixels - low).T)] = 1
    return mask


def count_pieces(mask: np.ndarray) -> int:
    """How many 8-connected pieces a mask [H, W] bool has, specks beside them aside."""
    areas = component_areas(mask)
    return int((areas >= SPECK * areas.max(initial=0)).sum())


def signed_area(vertices: np.ndarray) -> float:
    """Area of a ring [K, 2]; the sign says which way round it goes."""
    x, y = (vertices - vertices[0]).T  # near 0, so that nothing cancels
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def largest_ring(outline: Outline) -> np.ndarray:
    """The outer ring of the largest part of an outline."""
    return max((rings[0] for rings in outline), key=lambda vertices: abs(signed_area(vertices)))


def centre(outline: Outline) -> tuple[float, float]:
    """Centroid (x, y) of the area of an outline's largest ring.

    It is the middle of its box if there is no area, or hardly any because the ring crosses itself:
    then the centroid of the area may lie anywhere.
    """
    vertices = largest_ring(outline)
    first, area = vertices[0], signed_area(vertices)
    low, high = vertices.min(0), vertices.max(0)
    if abs(area) >= 1e-9:
        x, y = (vertices - first).T
        cross = x * np.roll(y, -1) - np.roll(x, -1) * y
        centre_x = ((x + np.roll(x, -1)) * cross).sum() / (6 * area)
        centre_y = ((y + np.roll(y, -1)) * cross).sum() / (6 * area)
        middle = np.array([centre_x, centre_y]) + first
        if (low - 1 <= middle).all() and (middle <= high + 1).all():
            return tuple(middle.tolist())
    return tuple(((low + high) / 2).tolist())


def object_centres(annotations: Annotations) -> list[tuple[float, float]]:
    """A place (x, y) for each object: points, then the middles of outlines, boxes and masks."""
    boxes = [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in annotations.boxes]
    masks = [tuple((pixels.mean(0)[::-1] + 0.5).tolist()) for pixels in annotations.masks]
    return annotations.points + [centre(o) for o in annotations.outlines] + boxes + masks


def object_places(annotations: Annotations, shape: tuple[int, int]) -> list[tuple[float, float]]:
    """The place (x, y) of each object in an image of `shape`, in the order of `object_centres`.

    It is the object's centre or, where that lies beside a bent nucleus, the nearest pixel of it.
    """
    places = object_centres(annotations)
    first = len(annotations.points)
    for k, outline in enumerate(annotations.outlines, first):
        if not _within(outline, places[k]):
            places[k] = _nearest_of(outline_pixels(outline, shape), places[k])
    first = len(places) - len(annotations.masks)
    for k, pixels in enumerate(annotations.masks, first):
        places[k] = _nearest_of(pixels, places[k])
    return places


def _within(outline: Outline, middle: tuple[float, float]) -> bool:
    """Whether an odd number of the rings of any part encloses a place (x, y)."""
    return any(sum(points_in_poly([middle], r)[0] for r in rings) % 2 for rings in outline)


def _nearest_of(pixels: np.ndarray, middle: tuple[float, float]) -> tuple[float, float]:
    """The middle (x, y) of the pixel [N, 2] that is nearest to a place, unless that is in one."""
    own = np.floor(middle[::-1])
    if not len(pixels) or (pixels == own).all(1).any():
        return middle
    nearest = np.square(pixels + 0.5 - middle[::-1]).sum(1).argmin()
    return tuple((pixels[nearest][::-1] + 0.5).tolist())


def shifted(annotations: Annotations, shift: tuple[float, float]) -> Annotations:
    """The annotations moved by (dx, dy) pixels. Masks must not be moved."""
    dx, dy = shift
    return replace(
        annotations,
        outlines=[[[r + shift for r in rings] for rings in o] for o in annotations.outlines],
        points=[(x + dx, y + dy) for x, y in annotations.points],
        left_out=Counter(annotations.left_out),
        boxes=[(a + dx, b + dy, c + dx, d + dy) for a, b, c, d in annotations.boxes],
        notes=list(annotations.notes),
    )


def without_regions(annotations: Annotations, shape: tuple[int, int]) -> Annotations:
    """The annotations without outlines and masks of regions that nuclei lie in; these are counted.

    A region covers the tile, or it is much larger than the other outlines and holds the middles of
    several of them. What QuPath calls an annotation is a region, too, if it lies among detections
    and is much larger than they are, since nuclei drawn by hand are annotations as well.
    """
    annotations = _without_large_masks(annotations, shape)
    outlines, kinds = annotations.outlines, annotations.kinds
    if not outlines:
        return annotations
    areas = np.array([abs(signed_area(largest_ring(outline))) for outline in outlines])
    centres = np.array(object_centres(annotations)).reshape(-1, 2)
    number = len(annotations.points)  # the centre of outline k is number + k
    found = {kind for kind in kinds if kind in ("detection", "cell", "tile")}
    typical = float(np.median(areas))
    if found:
        typical = float(
            np.median([a for a, kind in zip(areas, kinds, strict=True) if kind in found])
        )
    keep, left_out = [], Counter(annotations.left_out)
    for k, outline in enumerate(outlines):
        why = ""
        name = kinds[k] if kinds[k] and kinds[k] not in found else "outline"
        if _inside_area(outline, shape) >= TILE_SHARE * shape[0] * shape[1]:
            why = f"region ({name} that covers the tile)"
        elif areas[k] > TIMES_LARGER * typical or len(outlines) <= 2:
            others = np.delete(centres, number + k, axis=0)
            held = held_by(outline, others)
            around_one = held == 1 and len(outlines) == 2 and areas[k] > TIMES_LARGER * min(areas)
            far_larger = areas[k] > TIMES_FAR_LARGER * typical
            if held >= HELD or (held and far_larger) or (around_one and len(others) == 1):
                why = f"region ({name} that holds {held} other{'s' if held > 1 else ''})"
            elif found and kinds[k] not in found and areas[k] > TIMES_LARGER * typical:
                why = f"region ({name} among {' and '.join(sorted(found))}s)"
        if why:
            left_out[why] += 1
        else:
            keep.append(k)
    return replace(
        annotations,
        outlines=[outlines[k] for k in keep],
        left_out=left_out,
        kinds=[kinds[k] for k in keep],
    )


def _without_large_masks(annotations: Annotations, shape: tuple[int, int]) -> Annotations:
    """The annotations without masks that cover the tile; these are counted."""
    keep = [pixels for pixels in annotations.masks if not _covering(pixels, shape)]
    number = len(annotations.masks) - len(keep)
    regions = Counter({"region (mask that covers the tile)": number})
    return replace(annotations, masks=keep, left_out=annotations.left_out + regions)  # no zeros


def _covering(pixels: np.ndarray, shape: tuple[int, int]) -> bool:
    """Whether pixels [N, 2] cover a tile. Few are told by their number."""
    if len(pixels) < AROUND_SHARE * shape[0] * shape[1]:
        return False
    mask = np.zeros(shape, bool)
    inside = pixels[((pixels >= 0) & (pixels < shape)).all(1)]
    mask[inside[:, 0], inside[:, 1]] = True
    return covers_tile(mask)


def held_by(outline: Outline, places: np.ndarray) -> int:
    """How many places [N, 2] lie within the outer rings of an outline."""
    inside = np.zeros(len(places), bool)
    for rings in outline:
        inside |= points_in_poly(places, rings[0])
    return int(inside.sum())


def _inside_area(outline: Outline, shape: tuple[int, int]) -> float:
    """Area of an outline's box inside of a tile, or of the outline itself if that is less."""
    vertices = largest_ring(outline)
    low = np.clip(vertices.min(0), 0, shape[::-1])
    high = np.clip(vertices.max(0), 0, shape[::-1])
    return min(float(np.prod(high - low)), abs(signed_area(vertices)))

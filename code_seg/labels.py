"""Labels of stage 2 from points: Voronoi label and cluster label (Qu et al. 2020, Sec. III-B-1)."""

import cv2
import numpy as np
from scipy import ndimage
from scipy.cluster.vq import kmeans2, vq
from scipy.spatial import cKDTree

from code_seg.morphology import dilated_points, disk, fill_holes, remove_small

BACKGROUND, NUCLEUS, IGNORED = 0, 1, 2
DOUBTFUL = 0.4  # probability under which a network is sure of the background
GAP = 2  # pixels around a nucleus that no other one has in a mask label
MANY = 0.75  # of the points of the cluster with most: as good a claim to be the nuclei
_COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 0]], np.uint8)  # of the three, on disk


def merge_points(annotated: np.ndarray, detected: np.ndarray, merge_radius: float) -> np.ndarray:
    """Annotated points and the detections of other nuclei, [N, 2] each: row, column.

    A detection is the same nucleus as an annotated point where each is the other's nearest and
    they are at most `merge_radius` pixels apart; of points closer than half of that, the first
    is kept (D12: a neighbour within the radius is not lost, and nothing is there twice).
    """
    points = np.concatenate([annotated, detected]).astype(np.int64).reshape(-1, 2)
    if len(annotated) and len(detected):
        distance, nearest = cKDTree(annotated).query(detected)
        _, back = cKDTree(detected).query(annotated)
        same = (back[nearest] == np.arange(len(detected))) & (distance <= merge_radius)
        points = np.concatenate([annotated, detected[~same]]).astype(np.int64)
    if len(points) < 2:
        return points
    keep = np.ones(len(points), bool)
    pairs = cKDTree(points).query_pairs(merge_radius / 2, output_type="ndarray")
    for first, second in pairs[np.lexsort(pairs.T[::-1])]:
        # An annotated point is always kept, and so are two annotated neighbours.
        if keep[first] and second >= len(annotated):
            keep[second] = False
    return points[keep]


def voronoi_cells(points: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Number (1..N) of the nearest point and the distance to it in pixels, [H, W] each.

    Without a point the cells are 0 and the distance infinite; one or two points, or points on a
    line, are nothing special (D33).
    """
    if len(points) == 0:
        return np.zeros(shape, np.int32), np.full(shape, np.inf, np.float32)
    number = np.zeros(shape, np.int32)
    number[points[:, 0], points[:, 1]] = np.arange(1, len(points) + 1)
    distance, nearest = ndimage.distance_transform_edt(number == 0, return_indices=True)
    return number[tuple(nearest)], distance.astype(np.float32)


def voronoi_label(points: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Voronoi label [H, W] uint8: cell edges are background, disks around points nuclei.

    points [N, 2]; cells [H, W] from `voronoi_cells`. Everything else is ignored.
    """
    edge = np.zeros(cells.shape, np.uint8)
    edge[:-1] |= cells[:-1] != cells[1:]
    edge[:, :-1] |= cells[:, :-1] != cells[:, 1:]
    edge = cv2.morphologyEx(edge, cv2.MORPH_CLOSE, disk(1)) > 0
    label = np.full(cells.shape, IGNORED, np.uint8)
    label[dilated_points(points, cells.shape, 2)] = NUCLEUS
    label[edge] = BACKGROUND  # over the disks: close points stay two nuclei
    label[points[:, 0], points[:, 1]] = NUCLEUS
    return label


def cluster(features: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k-means [N] of features [N, D]: ten starts on a sample, the best refined on a larger one."""

    def sample(size: int) -> np.ndarray:
        if len(features) <= size:
            return features
        return features[rng.choice(len(features), size, replace=False)]

    small, large = sample(4096), sample(65536)
    starts = [kmeans2(small, k, iter=8, minit="++", missing="warn", rng=rng)[0] for _ in range(10)]
    best = min(starts, key=lambda centres: np.square(vq(small, centres)[1]).sum())
    centres, _ = kmeans2(large, best, iter=12, minit="matrix", missing="warn")
    return vq(features, centres)[0]


def cluster_label(
    image: np.ndarray,
    points: np.ndarray,
    cells: np.ndarray,
    distance: np.ndarray,
    rng: np.random.Generator,
    clusters: int = 3,
    colour_scale: float = 10.0,
    distance_limit: float = 20.0,
) -> np.ndarray:
    """Cluster label [H, W] uint8 of an image [H, W, C] (RGB, say), its points and Voronoi cells.

    k-means on (colour / colour_scale, min(distance to a point, distance_limit)). The nuclei are the
    cluster with most points (of those with nearly as many, the one where they are densest),
    cleaned up within each Voronoi cell; the background is, of the others, the one that overlaps
    least with disks of 5 px around the points (of equals the one least like them in colour),
    except within 10 px of a point; the rest is ignored.
    """
    shape = image.shape[:2]
    if len(points) == 0:
        return np.full(shape, IGNORED, np.uint8)
    colour = image.reshape(shape[0] * shape[1], -1).astype(np.float32) / np.float32(colour_scale)
    clipped = np.minimum(distance, np.float32(distance_limit)).reshape(-1, 1)
    group = cluster(np.hstack([colour, clipped]), clusters, rng).reshape(shape)

    votes = np.bincount(group[points[:, 0], points[:, 1]], minlength=clusters)
    sizes = np.maximum(np.bincount(group.ravel(), minlength=clusters), 1)
    # Where many points lie on pale nuclei, a pale cluster of twice the size may win by one point.
    many = votes >= MANY * votes.max()
    nuclei = int(np.where(many, votes / sizes, -1).argmax())
    near = dilated_points(points, shape, 5)
    overlap = np.bincount(group[near], minlength=clusters) / sizes
    # Of large nuclei the outer part is a cluster of its own, as far from the points as the
    # background is: of clusters that hardly overlap, the one least like the points' colour is it.
    sums = [np.bincount(group.ravel(), weights=c, minlength=clusters) for c in colour.T]
    contrast = np.linalg.norm(
        np.stack(sums, 1) / sizes[:, None] - colour[near.ravel()].mean(0), axis=1
    )
    others = np.arange(clusters) != nuclei
    hardly = others & (overlap <= overlap[others].min() + 0.01)
    background = group == np.where(hardly, contrast, -1).argmax()
    background &= ~dilated_points(points, shape, 10)

    mask = refine_in_cells(group == nuclei, cells)
    label = np.full(shape, IGNORED, np.uint8)
    label[background] = BACKGROUND
    label[mask] = NUCLEUS
    return label


def mask_label(nuclei: np.ndarray, prob: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Label [H, W] uint8 of a network's own nuclei [H, W] and probability map [H, W].

    Self-training, filtered by points [N, 2] of nuclei: what holds one is a nucleus; what holds
    none, or several and so may be several nuclei, is ignored, and so are pixels of no nucleus
    where the network is in doubt. What of a nucleus is within GAP pixels of another is background,
    so that the next network learns them apart.
    """
    label = np.full(nuclei.shape, IGNORED, np.uint8)
    label[(nuclei == 0) & (prob < DOUBTFUL)] = BACKGROUND
    held = np.bincount(nuclei[points[:, 0], points[:, 1]], minlength=nuclei.max(initial=0) + 1)
    label[(nuclei > 0) & (held == 1)[nuclei]] = NUCLEUS
    none, side = np.iinfo(np.int32).max, 2 * GAP + 1
    lowest = ndimage.minimum_filter(np.where(nuclei > 0, nuclei, none), side)
    label[(nuclei > 0) & (lowest < ndimage.maximum_filter(nuclei, side))] = BACKGROUND
    return label


def refine_in_cells(
    mask: np.ndarray, cells: np.ndarray, grow: int = 5, shrink: int = 7, min_area: int = 30
) -> np.ndarray:
    """Within each Voronoi cell: dilate, fill holes, erode; then drop small components.

    mask [H, W] bool, cells [H, W] from 1; radii in pixels. No nucleus leaves its cell.
    """
    refined = np.zeros(mask.shape, np.uint8)
    pad, growing, shrinking = grow + 1, disk(grow), disk(shrink)
    for number, box in enumerate(ndimage.find_objects(cells), start=1):
        if box is None:
            continue
        own = cells[box] == number
        part = np.pad((mask[box] & own).astype(np.uint8), pad)
        part = fill_holes(cv2.dilate(part, growing))
        # Beyond the image there is nothing to erode from: 'constant' border of OpenCV's erosion.
        part = cv2.erode(part, shrinking)[pad:-pad, pad:-pad]
        refined[box] |= part & own
    return remove_small(refined, min_area) > 0


def label_errors(voronoi: np.ndarray, clusters: np.ndarray, instances: np.ndarray) -> dict:
    """How wrong the labels are against an instance map [H, W]: shares in 0..1.

    edge_on_nuclei: Voronoi edges that lie on nuclei; cluster_wrong and the rest: `errors_of` the
    cluster label.
    """
    errors = errors_of(clusters, instances)
    edges = _share(instances > 0, voronoi == BACKGROUND)
    return {"edge_on_nuclei": edges, "cluster_wrong": errors.pop("wrong"), **errors}


def errors_of(label: np.ndarray, instances: np.ndarray) -> dict:
    """How wrong one label is against an instance map [H, W]: shares in 0..1.

    wrong: of the labelled pixels those that are so; nucleus_wrong, background_wrong: pixels
    labelled thus that are not; nuclei_found: nuclei pixels labelled as such; ignored: pixels
    without a label.
    """
    true, nucleus, background = instances > 0, label == NUCLEUS, label == BACKGROUND
    return {
        "wrong": _share(nucleus != true, nucleus | background),
        "nucleus_wrong": _share(~true, nucleus),
        "background_wrong": _share(true, background),
        "nuclei_found": _share(nucleus, true),
        "ignored": float((label == IGNORED).mean()),
    }


def _share(part: np.ndarray, of: np.ndarray) -> float:
    return float((part & of).sum() / max(1, of.sum()))


def to_colours(label: np.ndarray) -> np.ndarray:
    """Label [H, W] as RGB [H, W, 3]: red background, green nuclei, black ignored."""
    return _COLOURS[label]


def from_colours(picture: np.ndarray) -> np.ndarray:
    """The inverse of `to_colours`; any other colour is ignored."""
    label = np.full(picture.shape[:2], IGNORED, np.uint8)
    for value in (BACKGROUND, NUCLEUS):
        label[(picture == _COLOURS[value]).all(-1)] = value
    return label

"""Labels of stage 2: Voronoi label and cluster label (Qu et al. 2020, Sec. III-B-1).

The label for self-training is also made here. It is not part of the paper.
"""

import cv2
import numpy as np
from scipy import ndimage
from scipy.cluster.vq import kmeans2, vq

from code_common.arrays import fill_holes
from code_seg.morphology import dilated_points, disk, remove_small

BACKGROUND, NUCLEUS, IGNORED = 0, 1, 2  # values of a label
_COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 0]], np.uint8)  # of these values, on disk
DOUBTFUL = 0.4  # background is certain where the probability of a nucleus is below this
GAP = 2  # pixels between two nuclei of a label for self-training
# Of the clusters with at least this share of the most points, the densest one is the nuclei.
MANY = 0.75
NEAR = 5  # radius in pixels of the disks around points that the background overlaps least
SIMILAR = 0.01  # overlaps with these disks that differ by at most this count as equal
FAR = 10  # no pixel within this distance in pixels from a point is background


def voronoi_cells(points: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Voronoi cells of the points [N, 2] (row, column) in an image of shape [H, W].

    Returns the number 1..N of the nearest point [H, W] int32 and the distance to it in pixels
    [H, W] float32. Without a point the numbers are 0 and the distances inf. One or two points, or
    points on a line, need no special treatment (D33).
    """
    if len(points) == 0:
        return np.zeros(shape, np.int32), np.full(shape, np.inf, np.float32)
    number = np.zeros(shape, np.int32)
    number[points[:, 0], points[:, 1]] = np.arange(1, len(points) + 1)
    distance, nearest = ndimage.distance_transform_edt(number == 0, return_indices=True)
    return number[tuple(nearest)], distance.astype(np.float32)


def voronoi_label(points: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Voronoi label [H, W] uint8: edges of cells are background, disks around points are nuclei.

    points [N, 2]: row, column; cells [H, W]: from `voronoi_cells`. Disks have a radius of 2 pixels.
    All other pixels are ignored (value 2).

    >>> points = np.array([[0, 0], [0, 8]])
    >>> cells, _ = voronoi_cells(points, (1, 9))
    >>> print(voronoi_label(points, cells))
    [[1 1 1 2 0 2 1 1 1]]
    """
    edge = np.zeros(cells.shape, np.uint8)
    edge[:-1] |= cells[:-1] != cells[1:]
    edge[:, :-1] |= cells[:, :-1] != cells[:, 1:]
    edge = cv2.morphologyEx(edge, cv2.MORPH_CLOSE, disk(1)) > 0
    label = np.full(cells.shape, IGNORED, np.uint8)
    label[dilated_points(points, cells.shape, 2)] = NUCLEUS
    label[edge] = BACKGROUND  # also within the disks, so that close points stay two nuclei
    label[points[:, 0], points[:, 1]] = NUCLEUS
    return label


def cluster(features: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k-means of features [N, D]: the cluster 0..k - 1 of each, [N].

    It starts ten times on a small sample. The best start is refined on a larger sample.
    """
    small, large = _sample(features, 4096, rng), _sample(features, 65536, rng)
    starts = [kmeans2(small, k, iter=8, minit="++", missing="warn", rng=rng)[0] for _ in range(10)]
    errors = [np.square(vq(small, centres)[1]).sum() for centres in starts]
    best = starts[errors.index(min(errors))]
    centres, _ = kmeans2(large, best, iter=12, minit="matrix", missing="warn")
    return vq(features, centres)[0]


def _sample(features: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """At most `size` of the features [N, D], drawn without replacement."""
    if len(features) <= size:
        return features
    return features[rng.choice(len(features), size, replace=False)]


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
    """Cluster label [H, W] uint8: nuclei and background by colour and distance to the points.

    image [H, W, C]: RGB, for example; points [N, 2]: row, column; cells, distance [H, W]: from
    `voronoi_cells`. The features of k-means are colour / colour_scale and the distance in pixels,
    clipped at distance_limit. `choose_nuclei` and `choose_background` choose two of the clusters.
    The nuclei are cleaned up within each Voronoi cell. Background within FAR pixels of a point and
    all other pixels are ignored. Without points all pixels are ignored.
    """
    shape = image.shape[:2]
    if len(points) == 0:
        return np.full(shape, IGNORED, np.uint8)
    colour = image.reshape(shape[0] * shape[1], -1).astype(np.float32) / np.float32(colour_scale)
    clipped = np.minimum(distance, np.float32(distance_limit)).reshape(-1, 1)
    group = cluster(np.hstack([colour, clipped]), clusters, rng).reshape(shape)
    sizes = np.maximum(np.bincount(group.ravel(), minlength=clusters), 1)
    nuclei = choose_nuclei(group, sizes, points)
    background = choose_background(group, sizes, colour, points, nuclei)
    label = np.full(shape, IGNORED, np.uint8)
    label[(group == background) & ~dilated_points(points, shape, FAR)] = BACKGROUND
    label[refine_in_cells(group == nuclei, cells)] = NUCLEUS
    return label


def choose_nuclei(group: np.ndarray, sizes: np.ndarray, points: np.ndarray) -> int:
    """The number of the cluster that is the nuclei: the one with most points.

    group [H, W]: cluster of each pixel; sizes [K]: pixels of each cluster; points [N, 2]. Of
    several clusters with nearly as many points (see MANY), the one with most points per pixel is
    chosen. If many points lie on pale nuclei, a pale cluster of twice the size could otherwise win
    by one point.
    """
    votes = np.bincount(group[points[:, 0], points[:, 1]], minlength=len(sizes))
    many = votes >= MANY * votes.max()
    return int(np.where(many, votes / sizes, -1).argmax())


def choose_background(
    group: np.ndarray, sizes: np.ndarray, colour: np.ndarray, points: np.ndarray, nuclei: int
) -> int:
    """The number of the cluster that is the background: the one that overlaps least with disks.

    The disks have a radius of NEAR pixels around the points. group [H, W]: cluster of each pixel;
    sizes [K]: pixels of each cluster; colour [H * W, C]; points [N, 2]; nuclei: the cluster of the
    nuclei, which is not chosen. Of several clusters that overlap as little (see SIMILAR), the one
    whose mean colour differs most from that of the disks is chosen. The outer part of large nuclei
    can be a cluster that is as far from the points as the background.
    """
    count = len(sizes)
    disks = dilated_points(points, group.shape, NEAR)
    overlap = np.bincount(group[disks], minlength=count) / sizes
    sums = [np.bincount(group.ravel(), weights=c, minlength=count) for c in colour.T]
    difference = np.stack(sums, 1) / sizes[:, None] - colour[disks.ravel()].mean(0)
    contrast = np.linalg.norm(difference, axis=1)
    others = np.arange(count) != nuclei
    least = others & (overlap <= overlap[others].min() + SIMILAR)
    return int(np.where(least, contrast, -1).argmax())


def self_training_label(nuclei: np.ndarray, prob: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Label [H, W] uint8 for self-training, from the prediction of a network.

    nuclei [H, W]: its instance map; prob [H, W]: its probability map; points [N, 2]: points of
    nuclei. An instance with exactly one point is a nucleus. An instance without a point is
    ignored, and so is one with several, which may be several nuclei. Outside the instances,
    pixels under a probability of DOUBTFUL are background, and the others are ignored. Pixels of an
    instance within GAP pixels of another one are background, so that the next network learns to
    separate them.
    """
    label = np.full(nuclei.shape, IGNORED, np.uint8)
    label[(nuclei == 0) & (prob < DOUBTFUL)] = BACKGROUND
    id_of_point = nuclei[points[:, 0], points[:, 1]]
    points_in = np.bincount(id_of_point, minlength=nuclei.max(initial=0) + 1)
    label[(nuclei > 0) & (points_in == 1)[nuclei]] = NUCLEUS
    highest, side = np.iinfo(np.int32).max, 2 * GAP + 1
    lowest_near = ndimage.minimum_filter(np.where(nuclei > 0, nuclei, highest), side)
    highest_near = ndimage.maximum_filter(nuclei, side)
    label[(nuclei > 0) & (lowest_near < highest_near)] = BACKGROUND
    return label


def refine_in_cells(
    mask: np.ndarray, cells: np.ndarray, grow: int = 5, shrink: int = 7, min_area: int = 30
) -> np.ndarray:
    """Clean up a mask within each Voronoi cell: dilate, fill holes, erode, drop small components.

    mask [H, W] bool; cells [H, W]: numbers from 1; grow, shrink: radii in pixels; min_area: of a
    component in pixels. Returns a mask [H, W] bool. No nucleus leaves its cell.
    """
    refined = np.zeros(mask.shape, np.uint8)
    pad, growing, shrinking = grow + 1, disk(grow), disk(shrink)
    for number, box in enumerate(ndimage.find_objects(cells), start=1):
        if box is None:
            continue
        cell = cells[box] == number
        part = np.pad((mask[box] & cell).astype(np.uint8), pad)
        part = fill_holes(cv2.dilate(part, growing))
        # OpenCV's erosion takes nothing away at the border of the array.
        part = cv2.erode(part, shrinking)[pad:-pad, pad:-pad]
        refined[box] |= part & cell
    return remove_small(refined, min_area) > 0


def label_errors(voronoi: np.ndarray, clusters: np.ndarray, instances: np.ndarray) -> dict:
    """Errors of a Voronoi and a cluster label [H, W] against an instance map [H, W].

    Returns shares in 0..1. edge_on_nuclei: of the Voronoi edges, the pixels on nuclei.
    cluster_wrong and all others: `errors_of` the cluster label.
    """
    errors = errors_of(clusters, instances)
    edges = _share(instances > 0, voronoi == BACKGROUND)
    return {"edge_on_nuclei": edges, "cluster_wrong": errors.pop("wrong"), **errors}


def errors_of(label: np.ndarray, instances: np.ndarray) -> dict:
    """Errors of one label [H, W] against an instance map [H, W].

    Returns shares in 0..1. wrong: of the labelled pixels, those with the wrong label.
    nucleus_wrong, background_wrong: the same for the pixels of one label. nuclei_found: of the
    pixels of nuclei, those labelled as nuclei. ignored: of all pixels, those without a label.
    """
    true, nucleus, background = instances > 0, label == NUCLEUS, label == BACKGROUND
    return {
        "wrong": _share(nucleus != true, nucleus | background),
        "nucleus_wrong": _share(~true, nucleus),
        "background_wrong": _share(true, background),
        "nuclei_found": _share(nucleus, true),
        "ignored": float((label == IGNORED).mean()),
    }


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    """Share of the pixels of `whole` that are in `part`, two masks [H, W] bool."""
    return float((part & whole).sum() / max(1, whole.sum()))


def to_colours(label: np.ndarray) -> np.ndarray:
    """Label [H, W] as RGB [H, W, 3] uint8: background red, nuclei green, ignored black."""
    return _COLOURS[label]


def from_colours(picture: np.ndarray) -> np.ndarray:
    """Label [H, W] uint8 of a picture [H, W, 3] from `to_colours`. Other colours are ignored."""
    label = np.full(picture.shape[:2], IGNORED, np.uint8)
    for value in (BACKGROUND, NUCLEUS):
        label[(picture == _COLOURS[value]).all(-1)] = value
    return label

"""Options of stage 2, nuclei segmentation. Edit a default here, or give it as a flag."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from code_common.options import BIG, NARROW, CommonOptions
from code_seg.instances import METHODS

# What depends on the data set; lengths in pixels. A new data set is one row; 'default' serves the
# sets without a row (40x, as MO).
_PAPER = dict(
    epochs=100, crf_epochs=20, batch_size=8, patch_size=250, input_size=224, lr=1e-4,
    model="resnet34", width=1.0, pretrained="imagenet",
)  # fmt: skip
DATASETS = {
    "default": dict(merge_radius=11, crf_weight=0.005, crf_sigma_rgb=0.1, **_PAPER),
    "MO": dict(merge_radius=11, crf_weight=0.005, crf_sigma_rgb=0.1, **_PAPER),
    "LC": dict(merge_radius=8, crf_weight=0.001, crf_sigma_rgb=0.2, **_PAPER),
    # The embedded sample: from random weights, in minutes, on a CPU.
    "sample": dict(
        merge_radius=10, crf_weight=0.005, crf_sigma_rgb=0.1,
        epochs=40, crf_epochs=8, batch_size=4, patch_size=128, input_size=128, lr=2e-3,
        model="resnet18", width=0.25, pretrained="none",
    ),
}  # fmt: skip
PROFILES = {
    "narrow": NARROW
    | dict(
        epochs=60, mask_epochs=60, crf_epochs=0, cluster_colours="red", stain_augmentation=0.4,
        magnify_to=13.5, views=8,
    ),
}  # fmt: skip

COLOUR_SCALE = {"rgb": 10.0, "red": 4.0}


@dataclass(frozen=True)
class Options(CommonOptions):
    """Options of code_seg."""

    # --- points
    detection_results_dir: Path | None = None  # run folder of stage 1, if not
    #   root_save_dir/DATASET/ratio_RATIO/repeat_REPEAT/detection
    merge_radius: float | None = None  # a detection this near (pixels) to an annotated point, each
    #   other's nearest, is the same nucleus
    # --- labels
    clusters: int = 3  # k of the k-means clustering
    cluster_colours: str = "rgb"  # what clustering sees of the colour: rgb (as published), or red:
    #   haematoxylin absorbs it and eosin hardly does
    colour_scale: float | None = None  # colours (0..255) are divided by it before clustering; none:
    #   10 for rgb (as published), 4 for red
    distance_limit: float = 20.0  # largest distance to a point, in pixels, that clustering sees
    # --- self-training
    mask_epochs: int = 0  # epochs of training another network, from the first weights, on the
    #   nuclei that the first one found in the training images; 0: none
    mask_points: str = "all"  # which of these nuclei count: all with an annotated point or a
    #   detection, or only those with an annotated one, where every nucleus is annotated
    magnify_to: float = 0.0  # median radius in pixels of nuclei; images of smaller ones are seen
    #   magnified up to that, at most twofold, by the network of --mask-epochs in its training and
    #   by any in the test; 0: none (as published)
    # --- loss
    alpha: float = 0.5  # weight of the Voronoi label; the cluster label has 1 - alpha
    crf_epochs: int | None = None  # epochs of fine-tuning with the CRF loss at lr / 10; 0: none
    crf_weight: float | None = None  # weight of the dense CRF loss, as published (lattice)
    crf_sigma_xy: float = 9.0  # spatial deviation of its kernel in pixels
    crf_sigma_rgb: float | None = None  # colour deviation of its kernel, for colours in 0..1
    crf_backend: str = "lattice"  # lattice (as published), exact, or torch (needs no compiler)
    elastic: float = 15.0  # deviation in pixels of the B-spline control points; 0: no deformation
    # --- instances
    min_area: int = 20  # smallest nucleus in square pixels
    instances: str = "auto"  # components (the paper's), points (split by the detections), convex
    #   (cut where they are not, completed, and those dropped that too little speaks for), or auto:
    #   the best on the validation images, convex where these have no masks
    # --- test.py on images of your own
    model_path: Path | None = None  # checkpoint; none: the run's selected one
    img_dir: Path | None = None  # folder of images; none: the data set's test images
    label_dir: Path | None = None  # folder of their instance maps, where scores are wanted
    points_dir: Path | None = None  # folder of their detections (NAME_points.csv), if any

    STAGE: ClassVar[str] = "segmentation"
    DATASETS: ClassVar[dict] = DATASETS
    PROFILES: ClassVar[dict] = CommonOptions.PROFILES | PROFILES
    NOT_IN_RESULT: ClassVar[frozenset] = CommonOptions.NOT_IN_RESULT | {
        "detection_results_dir", "model_path", "img_dir", "label_dir", "points_dir",
    }  # fmt: skip
    BOUNDS: ClassVar[dict] = CommonOptions.BOUNDS | {
        "merge_radius": (0, BIG),
        "magnify_to": (0, 100),
        "clusters": (2, 10),
        "colour_scale": (1e-3, BIG),
        "distance_limit": (0, BIG),
        "alpha": (0, 1),
        "mask_epochs": (0, BIG),
        "crf_epochs": (0, BIG),
        "crf_weight": (0, BIG),
        "crf_sigma_xy": (0.1, BIG),
        "crf_sigma_rgb": (1e-3, BIG),
        "elastic": (0, BIG),
        "min_area": (0, BIG),
    }
    CHOICES: ClassVar[dict] = {
        "cluster_colours": tuple(COLOUR_SCALE),
        "mask_points": ("all", "annotated"),
        "crf_backend": ("lattice", "exact", "torch"),
        "instances": ("auto", *METHODS),
    }

    def detection_dir(self) -> Path:
        """Run folder of the stage 1 that this run goes on from."""
        run = f"ratio_{self.ratio:g}/repeat_{self.repeat}/detection"
        return self.detection_results_dir or self.root_save_dir / self.dataset / run

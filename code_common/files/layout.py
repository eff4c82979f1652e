"""Every name in the folder of a data set, once."""

from pathlib import Path

SPLIT = "train_val_test.json"
TCGA_PATIENT = "TCGA-..-[^-]+"  # what the names of TCGA's images have in common for one patient
EVERY = "all"  # what scores call all test images together, beside the groups of the split
IMAGES, INSTANCE_LABELS, POINT_LABELS = "images", "labels_instance", "labels_point"  # folders


def label_folders(data_dir: Path) -> tuple[Path, Path]:
    """The folders of a data set's labels: instance maps, point labels."""
    return data_dir / INSTANCE_LABELS, data_dir / POINT_LABELS

"""Every name inside a run folder, once: root/DATASET/ratio_R/repeat_K/STAGE, and what it holds."""

STAGES = ("detection", "segmentation")

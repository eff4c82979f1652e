"""Paired differences of experiments: the same repeats, on the images that both scored."""

import math
from collections.abc import Sequence

from code_common.reporting.bootstrap import paired, patients
from code_common.reporting.experiments import Experiment
from code_common.reporting.page import Section, Table
from code_common.reporting.results import SHOWN

NO_PATIENT = "(?!)"  # a pattern that matches nothing: each image is a patient of its own
TEXT = (
    "An experiment minus the first one of its ratio; that one minus the first ratio of its name. "
    "Means over the test images that both scored. Images of another data set are none of them, "
    "whatever their names. Instances are those of the method that the validation images chose. "
    "Each image counts with its mean over the repeats that both have. Where they share no repeat, "
    "all of each count. In brackets: 95 % interval of a paired bootstrap over patients. Then: the "
    "share of resamples in which the difference has this sign. Both say how much depends on the "
    "choice of images, not on the seed."
)


def difference_section(experiments: Sequence[Experiment]) -> Section:
    """Each experiment against the one that `compared_with` names."""
    rows = []
    for position in range(1, len(experiments)):
        before, after = compared_with(experiments, position), experiments[position]
        numbers = common_repeats(before, after)
        earlier, later = before.image_scores(numbers), after.image_scores(numbers)
        same_set = before.option("dataset") == after.option("dataset")
        images = [name for name in earlier if name in later] if same_set else []
        groups = patients(images, str(before.option("patient") or NO_PATIENT))
        cells = []
        for score in SHOWN:
            pair = [[scores[name][score] for name in images] for scores in (earlier, later)]
            cells.append(difference(groups, *pair) if images else "")
        repeats = ", ".join(map(str, sorted(numbers))) or "all, none is shared"
        rows.append([after.label, before.label, repeats, str(len(images)), *cells])
    return Section(
        "Differences", TEXT, [Table(["run", "minus", "repeats", "images", *SHOWN], rows)]
    )


def compared_with(experiments: Sequence[Experiment], position: int) -> Experiment:
    """What the experiment at a position > 0 is compared with, among those before it.

    The first of its ratio; where it is that itself, the first of its name; else the first of all.
    """
    experiment, earlier = experiments[position], experiments[:position]
    of_ratio = [e for e in earlier if e.ratio == experiment.ratio]
    of_name = [e for e in earlier if e.name == experiment.name]
    return [*of_ratio, *of_name, *earlier][0]


def common_repeats(first: Experiment, second: Experiment) -> set[int]:
    """The numbers of the repeats whose segmentation both scored."""
    return set.intersection(
        *({repeat.number for repeat in e.repeats if repeat.method} for e in (first, second))
    )


def difference(groups: Sequence[str], first: Sequence[float], second: Sequence[float]) -> str:
    """Mean of `second` - `first` over images, its interval by group, and how sure its sign is."""
    change, interval, same_sign = paired(groups, first, second)
    if math.isnan(change):
        return ""
    if not interval:
        return f"{change:+.3f}"
    low, high = interval
    return f"{change:+.3f} [{low:+.3f}, {high:+.3f}], {same_sign:.0%}"

"""Bootstrap over test images, by patient where patients are known: how uncertain scores are."""

import re
import signal
from collections.abc import Callable, Sequence
from unicodedata import normalize

import numpy as np

from code_common.errors import InputError
from code_common.files.layout import TCGA_PATIENT

DRAWS, SEED = 2000, 0
TAILS = (2.5, 97.5)  # percentiles that a 95 % interval lies between


LONGEST_SEARCH_S = 5.0  # in one name, which takes microseconds by a sound pattern


def _search(pattern: str, name: str) -> re.Match | None:
    """`re.search` that gives up: some patterns, (a+)+$ say, would take longer than the universe."""

    def give_up(*_: object) -> None:
        raise InputError(
            f"the pattern {pattern} takes too long on the name {name}; write it without repeats of "
            "repeats, as in (a+)+"
        )

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_SEARCH_S)
    try:
        return re.search(pattern, name)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def patient_of(name: str, pattern: str) -> str | None:
    """The part of an image's name that `pattern` matches: its first group, where it has groups.

    That is the first one that holds something: of '(A.)|(B.)' only one does. None where nothing
    is matched. Letters are composed first: macOS writes an umlaut as two characters, others as
    one. Raises InputError where the search takes too long.
    """
    match = _search(normalize("NFC", pattern), normalize("NFC", name))
    parts = (match.groups() or (match[0],)) if match else ()
    return next(filter(None, parts), None)


def patients(names: Sequence[str], pattern: str) -> list[str]:
    """The patient of each image; the image's own name where `pattern` does not match."""
    known = [patient_of(name, pattern) for name in names]
    return [
        name if patient is None else patient for patient, name in zip(known, names, strict=True)
    ]


def told_alone(names: Sequence[str], pattern: str) -> str:
    """What to tell where `pattern` finds no patient in some names: each of these images is then a
    patient of its own. Nothing is told of the default pattern where no name is of TCGA.
    """
    alone = sum(patient_of(name, pattern) is None for name in names)
    if not alone or (pattern == TCGA_PATIENT and alone == len(names)):
        return ""
    return f"; --patient {pattern} finds none in {alone} of {len(names)} names, which count alone"


def resamples(groups: Sequence[str], count: int = DRAWS, seed: int = SEED) -> list[np.ndarray]:
    """Indices of the images in each of `count` resamples: groups are drawn with replacement.

    groups: the group (patient) of each image. All images of a group come together, because they
    are alike.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    indices = [np.array(images) for images in members.values()]
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(indices), size=(count, len(indices)))
    return [np.concatenate([indices[k] for k in row]) for row in chosen]


def intervals(
    groups: Sequence[str], statistic: Callable[[np.ndarray], dict[str, float]]
) -> dict[str, list[float]]:
    """95 % percentile interval [low, high] of each score of `statistic(indices of the images)`.

    Empty where there are fewer than two groups, which allow no interval.
    """
    if len(set(groups)) < 2:
        return {}
    scores = [statistic(indices) for indices in resamples(groups)]
    return {k: np.percentile([s[k] for s in scores], TAILS).tolist() for k in scores[0]}


def mean_of(rows: Sequence[dict[str, float]]) -> Callable[[np.ndarray], dict[str, float]]:
    """The statistic that averages each score over images; `rows` holds the scores of each image."""
    names = list(rows[0])
    table = np.array([[row[name] for name in names] for row in rows])

    def statistic(indices: np.ndarray) -> dict[str, float]:
        return dict(zip(names, table[indices].mean(0).tolist(), strict=True))

    return statistic


def paired(
    groups: Sequence[str], first: Sequence[float], second: Sequence[float]
) -> tuple[float, list[float], float]:
    """Compare two scores of the same images: the mean of second - first, its 95 % interval, and
    the share of resamples in which the mean has the same sign.

    The interval is empty, and the share NaN, where there are fewer than two groups.
    """
    rows = [{"difference": b - a} for a, b in zip(first, second, strict=True)]
    mean = float(np.mean([row["difference"] for row in rows]))
    if len(set(groups)) < 2:
        return mean, [], float("nan")
    statistic = mean_of(rows)
    means = np.array([statistic(indices)["difference"] for indices in resamples(groups)])
    same_sign = float((means * np.sign(mean) > 0).mean()) if mean else 0.0
    return mean, np.percentile(means, TAILS).tolist(), same_sign

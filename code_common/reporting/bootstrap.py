"""Bootstrap over images, by patient where patients are known: how far scores could be off."""

import re
from collections.abc import Callable, Sequence

import numpy as np

DRAWS, SEED = 2000, 0
TAILS = (2.5, 97.5)  # percentiles that a 95 % interval lies between


def patient_of(name: str, pattern: str) -> str | None:
    """What `pattern` finds in a name: its first bracket, if it has any; None where it does not."""
    found = re.search(pattern, name)
    return found.group(1 if found.re.groups else 0) if found else None


def patients(names: Sequence[str], pattern: str) -> list[str]:
    """The patient of each name, or the name itself where `pattern` finds none."""
    found = [patient_of(name, pattern) for name in names]
    return [name if own is None else own for own, name in zip(found, names, strict=True)]


def draws(groups: Sequence[str], count: int = DRAWS, seed: int = SEED) -> list[np.ndarray]:
    """Indices of the images in each of `count` resamples: groups are drawn with replacement.

    All images of a group (a patient) come together, for they are alike.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    every = [np.array(m) for m in members.values()]
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(every), size=(count, len(every)))
    return [np.concatenate([every[k] for k in row]) for row in chosen]


def intervals(
    groups: Sequence[str], statistic: Callable[[np.ndarray], dict[str, float]]
) -> dict[str, list[float]]:
    """95 % percentile interval [low, high] of each score of `statistic(indices of the images)`.

    Empty where there are fewer than two groups: nothing can be said then.
    """
    if len(set(groups)) < 2:
        return {}
    scores = [statistic(indices) for indices in draws(groups)]
    return {k: np.percentile([s[k] for s in scores], TAILS).tolist() for k in scores[0]}


def mean_of(rows: Sequence[dict[str, float]]) -> Callable[[np.ndarray], dict[str, float]]:
    """The statistic that averages each score over images; `rows` holds the scores of each."""
    names = list(rows[0])
    table = np.array([[row[name] for name in names] for row in rows])
    return lambda indices: dict(zip(names, table[indices].mean(0).tolist(), strict=True))


def paired(
    groups: Sequence[str], first: Sequence[float], second: Sequence[float]
) -> tuple[float, list[float], float]:
    """Mean of second - first over the same images, its 95 % interval, and how sure its sign is:
    the share of resamples that have it.

    The interval is empty where there are fewer than two groups.
    """
    rows = [{"difference": b - a} for a, b in zip(first, second, strict=True)]
    mean = float(np.mean([row["difference"] for row in rows]))
    if len(set(groups)) < 2:
        return mean, [], float("nan")
    statistic = mean_of(rows)
    every = np.array([statistic(indices)["difference"] for indices in draws(groups)])
    sure = float((every * np.sign(mean) > 0).mean()) if mean else 0.0
    return mean, np.percentile(every, TAILS).tolist(), sure

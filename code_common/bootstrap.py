"""Bootstrap over images, by patient where patients are known: how far scores could be off."""

import re
from collections.abc import Callable, Sequence

import numpy as np

DRAWS, SEED = 2000, 0


def patients(names: Sequence[str], pattern: str) -> list[str]:
    """What `pattern` finds in each name (its first bracket, if any), or the name itself."""
    found = [re.search(pattern, name) for name in names]
    return [
        f.group(1 if f.re.groups else 0) if f else name
        for f, name in zip(found, names, strict=True)
    ]


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
    groups: Sequence[str], statistic: Callable[[np.ndarray], dict[str, float]], level: float = 0.95
) -> dict[str, list[float]]:
    """Percentile interval [low, high] of each score of `statistic(indices of the images)`.

    Empty where there are fewer than two groups: nothing can be said then.
    """
    if len(set(groups)) < 2:
        return {}
    scores = [statistic(indices) for indices in draws(groups)]
    tails = [50 * (1 - level), 50 * (1 + level)]
    return {k: np.percentile([s[k] for s in scores], tails).tolist() for k in scores[0]}


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
    return mean, np.percentile(every, [2.5, 97.5]).tolist(), sure

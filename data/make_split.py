"""Write train_val_test.json of a data set: by shares, or as one of k folds, with patients whole.

python data/make_split.py --data-dir data/MY
python data/make_split.py --data-dir data/MY --group '(TCGA-..-....)' --shares 0.6 0.2 0.2
python data/make_split.py --data-dir data/MY --folds 5 --fold 1

With k folds, fold I is the test set, the next fold is for validation and the others are for
training. The same seed gives the same split. The images of a group (patient) stay together, so the
sets are near their shares, not exactly at them.
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.annotations.labels import counted
from code_common.annotations.text import short, some_names, told_of_masks
from code_common.config import Bounded, Parser
from code_common.errors import InputError, run_script
from code_common.files.data_set import find_images, masks_beside, split_before, unread_images
from code_common.files.layout import IMAGES, SPLIT
from code_common.files.names import stem
from code_common.files.writing import write_json
from code_common.reporting.bootstrap import patient_of

PARTS = ("train", "val", "test")
SHARES = [0.6, 0.2, 0.2]


def group_names(names: list[str], pattern: str | None) -> list[list[str]]:
    """Image names by their patient, which `pattern` finds; each alone where there is no pattern.

    Raises InputError for a name in which the pattern finds nothing.
    """
    if pattern is None:
        return [[name] for name in names]
    groups: dict[str, list[str]] = {}
    for name in names:
        patient = patient_of(name, pattern)
        if patient is None:
            raise InputError(f"{short(name, 255)}: --group {pattern} finds nothing in this name")
        groups.setdefault(patient, []).append(name)
    return list(groups.values())


def share_out(
    groups: list[list[str]], shares: list[float], rng: np.random.Generator
) -> list[list[str]]:
    """Distribute groups to sets: the largest first, each to the set that lacks most of its share.

    Groups of one size go in random order. Each set with a share gets a group while there are
    enough. Returns the names of each set.
    """
    order = sorted(rng.permutation(len(groups)), key=lambda k: -len(groups[k]))
    wanted = np.array(shares) / sum(shares) * sum(map(len, groups))
    sets: list[list[str]] = [[] for _ in shares]
    for groups_left, k in zip(range(len(order), 0, -1), order, strict=True):
        empty = [i for i, share in enumerate(shares) if share and not sets[i]]
        candidates = empty if len(empty) >= groups_left else range(len(shares))
        lacking = {i: wanted[i] - len(sets[i]) for i in candidates}
        sets[max(lacking, key=lacking.get)] += groups[k]
    return [sorted(names) for names in sets]


def choose_fold(
    groups: list[list[str]], folds: int, fold: int, rng: np.random.Generator
) -> list[list[str]]:
    """Names of training, validation and test set where fold number `fold` (from 1) is the test.

    Raises InputError where there are not so many folds.
    """
    if not 3 <= folds <= len(groups):
        raise InputError(f"--folds {folds}: expected 3 to {len(groups)}, the groups here")
    if not 1 <= fold <= folds:
        raise InputError(f"--fold {fold}: expected 1 to {folds}")
    parts = share_out(groups, [1.0] * folds, rng)
    test = parts.pop(fold - 1)
    val = parts.pop((fold - 1) % (folds - 1))  # the next one, or the first after the last
    return [sorted(name for part in parts for name in part), val, test]


def told_of_changes(before: dict[str, list[str]], split: dict[str, list[str]]) -> str:
    """What a new split leaves of the one before: groups that are gone, images that move."""
    groups = [short(name) for name in before if name not in PARTS]
    old, new = (
        {stem(name): part for part in PARTS for name in sets.get(part, ())}
        for sets in (before, split)
    )
    moved = sum(name in new and new[name] != part for name, part in old.items())
    gone = len(old.keys() - new.keys())
    told = [
        f"without its groups {', '.join(groups)}" * bool(groups),
        f"{counted(moved, 'image')} in another set" * bool(moved),
        f"{counted(gone, 'image')} in none" * bool(gone),
    ]
    return "in place of the split before: " + ", ".join(filter(None, told)) if any(told) else ""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data-dir", type=Path, required=True, help="the data set, with its images/"
    )
    parser.add_argument(
        "--shares",
        type=Bounded(float, 0, 1_000_000),
        nargs=3,
        metavar=("TRAIN", "VAL", "TEST"),
        help="(default: 0.6 0.2 0.2)",
    )
    parser.add_argument(
        "--folds", type=Bounded(int, 3, 10_000), help="number of folds, from 3; instead of shares"
    )
    parser.add_argument(
        "--fold",
        type=Bounded(int, 1, 10_000),
        help="the test fold of --folds, from 1 (default: 1)",
    )
    parser.add_argument(
        "--group", help="regular expression of what the image names of one patient have in common"
    )
    parser.add_argument("--seed", type=Bounded(int, 0, 2**31), default=1, help="(default: 1)")
    parser.add_argument("--overwrite", action="store_true", help="replace a split that is there")
    return parser.parse_args(argv)


def main(arguments: argparse.Namespace) -> None:
    """Write the split and print the size of its sets. Raises InputError."""
    path = arguments.data_dir / SPLIT
    if path.exists() and not arguments.overwrite:
        raise InputError(f"{path}: is there already; --overwrite replaces it")
    if arguments.folds is None and arguments.fold is not None:
        raise InputError("--fold needs --folds, the number of folds")
    if arguments.folds is not None and arguments.shares is not None:
        raise InputError("--shares means nothing to --folds; give one of them")
    shares = arguments.shares or SHARES
    if min(shares) < 0 or shares[0] <= 0:
        raise InputError("--shares: expected numbers from 0, and some for training")
    images, (before, damage) = arguments.data_dir / IMAGES, split_before(arguments.data_dir)
    names = [files.image.name for files in find_images(images, None)]
    pattern = arguments.group
    try:
        groups = group_names(names, pattern)
    except re.error as error:
        raise InputError(f"--group {pattern}: not a regular expression ({error})") from None
    rng = np.random.default_rng(arguments.seed)
    if arguments.folds is None:
        sets = share_out(groups, shares, rng)
    else:
        sets = choose_fold(groups, arguments.folds, arguments.fold or 1, rng)
    if not sets[0]:
        raise InputError(f"{images}: too few images for a training set")
    linked = f", in place of the link to {path.readlink()}" if path.is_symlink() else ""
    split = dict(zip(PARTS, sets, strict=True))
    write_json(path, split)
    counts = ", ".join(f"{len(s)} {part}" for part, s in zip(PARTS, sets, strict=True))
    asked = zip(PARTS, shares, sets, strict=True)
    empty = [part for part, share, names in asked if share and not names]
    note = f", too few to have any for {' and '.join(empty)}" if empty else ""
    print(f"{path}: {counts}; {counted(len(groups), 'group')}{note}{linked}")
    if damage:
        print(f"in place of a split that could not be used: {damage}")
    if changes := told_of_changes(before, split):
        print(changes)
    if masks := masks_beside(images):
        print(f"{told_of_masks(masks)}; to use one, name it in {path.name} by hand")
    if unread := unread_images(images):
        print(f"in no set, since only PNG, TIFF, BMP and JPEG are read: {some_names(unread)}")


if __name__ == "__main__":
    run_script(lambda: main(parse_arguments()))

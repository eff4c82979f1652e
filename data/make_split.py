"""Write train_val_test.json of a data set: shares, or one of k folds; a patient is in one set only.

python data/make_split.py --data-dir data/MY
python data/make_split.py --data-dir data/MY --group '(TCGA-..-....)' --shares 0.6 0.2 0.2
python data/make_split.py --data-dir data/MY --folds 5 --fold 1

With k folds fold I is the test set, the next one validation, the others training. The same seed
gives the same split; groups keep together, so that sets come out near their shares, not exactly.
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.errors import InputError, run_script
from code_common.files.data_set import find_samples
from code_common.files.writing import write_json
from code_common.reporting.bootstrap import patient_of

PARTS = ("train", "val", "test")


def grouped(names: list[str], pattern: str | None) -> list[list[str]]:
    """Names by what the pattern finds in them (its first bracket, if any), each alone without one.

    Raises InputError for a name in which the pattern finds nothing.
    """
    if pattern is None:
        return [[name] for name in names]
    groups: dict[str, list[str]] = {}
    for name in names:
        patient = patient_of(name, pattern)
        if patient is None:
            raise InputError(f"{name}: --group {pattern} finds nothing in this name")
        groups.setdefault(patient, []).append(name)
    return list(groups.values())


def share_out(
    groups: list[list[str]], shares: list[float], rng: np.random.Generator
) -> list[list[str]]:
    """Groups to sets: the largest first, each to the set that lacks most of its share.

    Equal groups go in random order. Every set with a share gets a group while there are enough.
    """
    order = sorted(rng.permutation(len(groups)), key=lambda k: -len(groups[k]))
    wanted = np.array(shares) / sum(shares) * sum(map(len, groups))
    sets: list[list[str]] = [[] for _ in shares]
    for left, k in zip(range(len(order), 0, -1), order, strict=True):
        empty = [i for i, share in enumerate(shares) if share and not sets[i]]
        among = empty if len(empty) >= left else range(len(shares))
        target = max(among, key=lambda i: wanted[i] - len(sets[i]))
        sets[target] += groups[k]
    return [sorted(each) for each in sets]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-dir", type=Path, required=True, help="the data set, with its images/"
    )
    parser.add_argument(
        "--shares", type=float, nargs=3, default=[0.6, 0.2, 0.2], metavar=("TRAIN", "VAL", "TEST"),
        help="(default: 0.6 0.2 0.2)",
    )  # fmt: skip
    parser.add_argument("--folds", type=int, help="number of folds, from 3; in place of shares")
    parser.add_argument("--fold", type=int, default=1, help="the test fold, from 1 (default: 1)")
    parser.add_argument(
        "--group", help="regular expression of what names of one patient have in common"
    )
    parser.add_argument("--seed", type=int, default=1, help="(default: 1)")
    parser.add_argument("--overwrite", action="store_true", help="replace a split that is there")
    args = parser.parse_args()
    path = args.data_dir / "train_val_test.json"
    if path.exists() and not args.overwrite:
        raise InputError(f"{path}: is there already; --overwrite replaces it")
    if min(args.shares) < 0 or args.shares[0] <= 0:
        raise InputError("--shares: expected numbers from 0, and some for training")
    names = [sample.image.name for sample in find_samples(args.data_dir / "images", None)]
    try:
        groups = grouped(names, args.group)
    except re.error as error:
        raise InputError(f"--group {args.group}: not a regular expression ({error})") from None
    rng = np.random.default_rng(args.seed)
    if args.folds is None:
        sets = share_out(groups, args.shares, rng)
    else:
        if not 3 <= args.folds <= len(groups):
            raise InputError(f"--folds {args.folds}: expected 3 to {len(groups)}, the groups here")
        if not 1 <= args.fold <= args.folds:
            raise InputError(f"--fold {args.fold}: expected 1 to {args.folds}")
        folds = share_out(groups, [1.0] * args.folds, rng)
        test, val = folds.pop(args.fold - 1), folds.pop((args.fold - 1) % (args.folds - 1))
        sets = [sorted(sum(folds, [])), val, test]
    if not sets[0]:
        raise InputError(f"{args.data_dir / 'images'}: too few images for a training set")
    write_json(path, dict(zip(PARTS, sets, strict=True)))
    counts = ", ".join(f"{len(s)} {part}" for part, s in zip(PARTS, sets, strict=True))
    print(f"{path}: {counts}; {len(groups)} groups")


if __name__ == "__main__":
    run_script(main)

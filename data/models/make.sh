#!/usr/bin/env bash
# Makes tnbc.pt and its card: five folds for the scores, one run on all tiles, then scores of others.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash data/models/make.sh DATA_ROOT OUT [MODEL]

DATA_ROOT/TNBC holds images/ and labels_instance/ of Naylor et al. (data/README.md tells how to
import them). Data sets MO and DSB beside it are scored as well: their test tiles, or all without a
split. OUT takes the runs, about 5 GB. MODEL is the file to write (default: data/models/tnbc.pt).
Takes two to three hours of one CPU core. The same command goes on.
TEXT
}

case "${1:-}" in -h | --help | "") usage; exit 0 ;; esac
if [[ $# -lt 2 ]]; then usage >&2; exit 2; fi
HERE="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)"
DATA_ROOT="$(cd -- "$1" && pwd)"
mkdir -p -- "$2"
OUT="$(cd -- "$2" && pwd)"
MODEL="${3:-$HERE/data/models/tnbc.pt}"
RATIO=0.10 RUN=ratio_0.1/repeat_1
source "$HERE/tools/setup.sh"
setup_environment "$HERE/requirements.txt"

# data_set NAME: a data set with the tiles of TNBC, for a split of its own.
data_set() {
  mkdir -p "$OUT/data/$1"
  ln -sfnT "$DATA_ROOT/TNBC/images" "$OUT/data/$1/images"
  ln -sfnT "$DATA_ROOT/TNBC/labels_instance" "$OUT/data/$1/labels_instance"
}

# One part of a batch, as it was when tnbc.pt was made.
train() {
  bash "$HERE/run.sh" --dataset "$1" --data-root "$OUT/data" --root-save-dir "$OUT/runs" \
    --ratio "$RATIO" --profile scratch --batch-parts 1
}

# score NAME PATIENT: what OUT/predicted/NAME holds, against the masks of DATA_ROOT/NAME.
score() {
  "$PYTHON" "$HERE/tools/score.py" --images "$DATA_ROOT/$1/images" \
    --labels "$DATA_ROOT/$1/labels_instance" --predicted "$OUT/predicted/$1" \
    --out "$OUT/scores/$1" --patient "$2"
}

# predict NAME: with the packed model, the test tiles of DATA_ROOT/NAME, or all without a split.
predict() {
  local images="$OUT/tiles/$1" places=("$OUT/predicted/$1" "$OUT/points/$1")
  mkdir -p "$images"
  "$PYTHON" - "$DATA_ROOT/$1" "$images" <<'CODE'
import json, os, sys
from pathlib import Path
folder, links = map(Path, sys.argv[1:])
split, images = folder / "train_val_test.json", sorted((folder / "images").iterdir())
test = {Path(name).stem for name in json.loads(split.read_text())["test"]} if split.is_file() else None
for image in images:
    link = links / image.name
    if (test is None or image.stem in test) and not link.is_symlink():
        os.symlink(image, link)
CODE
  local views=(--views 8 --overlap 80)
  "$PYTHON" "$HERE/code_seg/predict.py" --model "$MODEL" --images "$images" \
    --out "${places[0]}" "${views[@]}"
  "$PYTHON" "$HERE/code_detection/predict.py" --model "$MODEL" --images "$images" \
    --out "${places[1]}" "${views[@]}"
  cp "${places[1]}"/*_points.csv "${places[0]}"
}

mkdir -p "$OUT/predicted/TNBC"
for fold in 1 2 3 4 5; do
  data_set "TNBC$fold"
  if [[ ! -f "$OUT/data/TNBC$fold/train_val_test.json" ]]; then
    "$PYTHON" "$HERE/data/make_split.py" --data-dir "$OUT/data/TNBC$fold" --group '^(..)_' \
      --folds 5 --fold "$fold"
  fi
  train "TNBC$fold"
  for map in "$OUT/runs/TNBC$fold/$RUN/segmentation/test/"*_instances.tif; do
    name="$(basename -- "$map" _instances.tif)"
    cp "$map" "$OUT/runs/TNBC$fold/$RUN/detection/detections/${name}_points.csv" \
      "$OUT/predicted/TNBC"
  done
done
score TNBC '^(..)_'
ROWS=("TNBC, held-out patients (five folds, networks of their own)=$OUT/scores/TNBC/metrics.json")

data_set TNBCall
if [[ ! -f "$OUT/data/TNBCall/train_val_test.json" ]]; then
  # Two patients choose the best epoch.
  "$PYTHON" - "$OUT/data/TNBCall" <<'CODE'
import json, sys
from pathlib import Path
folder = Path(sys.argv[1])
names = sorted(path.name for path in (folder / "images").iterdir())
val = [name for name in names if name[:2] in ("07", "08")]
split = {"train": [name for name in names if name not in val], "val": val, "test": []}
(folder / "train_val_test.json").write_text(json.dumps(split))
CODE
fi
train TNBCall
pack() {
  "$PYTHON" "$HERE/tools/export_model.py" --run "$OUT/runs/TNBCall/$RUN" --out "$MODEL" "$@"
}
pack
for set in MO DSB; do
  if [[ ! -d "$DATA_ROOT/$set" ]]; then continue; fi
  predict "$set"
  score "$set" 'TCGA-..-[^-]+'
  ROWS+=("$set, other tissue, as it is=$OUT/scores/$set/metrics.json")
done
pack --about "$HERE/data/models/tnbc.about.md" --card "${MODEL%.pt}.md" --scores "${ROWS[@]}"

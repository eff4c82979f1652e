#!/usr/bin/env bash
# The whole pipeline: detection with self-training, then segmentation, for each repeat.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # sh cannot read the rest
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash run.sh [options] [--detection OPTIONS...] [--seg OPTIONS...]

Without options: the embedded synthetic sample, on any computer, in minutes.

  --dataset NAME         data set: a folder under the data root (default: sample)
  --ratio R              share of annotated nuclei, 0..1 (default: 0.10)
  --profile NAME         paper (default), or scratch: small networks trained from scratch,
                         without a GPU or ImageNet weights
  --repeats N            number of repeats, each with other points (default: 1)
  --jobs J               repeats at a time, 1 to 64 (default: 1). Each takes its share of the cores,
                         or OMP_NUM_THREADS threads. Meant for CPUs: on GPUs the jobs share them
  --data-root DIR        folder that holds the data sets (default: data)
  --data-dir DIR         the data set's own folder, if not DATA_ROOT/NAME
  --root-save-dir DIR    folder of all results (default: experiments)
  --restart              throw earlier results of these runs away and begin anew
  --help                 this text

Any other option goes to both stages (--no-pretrained, --epochs 20, --gpus 0 1 2 3, ...).
Options behind --detection or --seg go to that stage alone, but for --dataset, --ratio, --repeats,
--jobs and the folders, which count for both. The options of the stages:
  python code_detection/main.py --help        python code_seg/main.py --help

The same command continues a run that was stopped; finished steps are skipped.
TEXT
}

[[ -e /dev/fd/1 ]] || exec >/dev/null # where nobody reads what is printed
HERE="$(CDPATH= cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)"
DATASET= RATIO=0.10 REPEATS=1 JOBS=1
DATA_ROOT="$HERE/data" ROOT_SAVE_DIR="$HERE/experiments"
DATA_DIR=() COMMON=() DETECTION=() SEG=() TARGET=COMMON

ASKED="$(printf ' %q' "$@")"
if [[ $# == 0 ]]; then ASKED=""; fi
COMMAND_TO_GO_ON="bash $(printf '%q' "$0")$ASKED"
source "$HERE/tools/children.sh"

refuse() {
  echo "error: $1" >&2
  exit 2
}

need_value() {
  if [[ $# -lt 2 || -z "$2" || "$2" == --* ]]; then refuse "$1 needs a value (--help explains)"; fi
}

# stage MARK SCRIPT OPTIONS...: one stage of one repeat. A restart that was stopped goes on: what it
# has finished, which is noted by its mark, is not thrown away again, unless its input has changed.
stage() {
  local mark="$1" word words=() restart=false kept=false status=0
  shift
  for word in "$@"; do
    if [[ "$word" == --restart ]]; then
      restart=true
      if grep -qxF "$mark" "$RESTARTED" 2>/dev/null; then
        kept=true
        continue
      fi
    fi
    words+=("$word")
  done
  child "$PYTHON" "${words[@]}" || status=$?
  if [[ $status == 2 ]] && $kept; then
    rm -f "$RESTARTED"
    echo "${LABEL}the same command throws away what this restart has finished, and begins anew" >&2
  fi
  if [[ $status != 0 ]]; then exit "$status"; fi
  if $restart; then printf '%s\n' "$mark" >>"$RESTARTED"; fi
}

# one_repeat K: both stages.
one_repeat() {
  local title="$LABEL== $DATASET, ratio $RATIO, repeat $1 of $REPEATS"
  echo "$title: detection"
  stage "detection $1" "$HERE/code_detection/main.py" "${COMMON[@]}" --repeat "$1" \
    ${DETECTION[@]+"${DETECTION[@]}"}
  echo "$title: segmentation"
  stage "segmentation $1" "$HERE/code_seg/main.py" "${COMMON[@]}" --repeat "$1" \
    ${SEG[@]+"${SEG[@]}"}
}

# side_by_side: all repeats, up to JOBS at a time. One that fails does not stop the others.
side_by_side() {
  local k running=() pids=() failed=() status=""
  for ((k = 1; k <= REPEATS; k++)); do
    while running=($(jobs -pr)) && ((${#running[@]} >= JOBS)); do wait -n || true; done
    (end_with_children; LABEL="[repeat $k] "; one_repeat "$k") &
    pids[k]=$!
  done
  for k in "${!pids[@]}"; do
    wait "${pids[k]}" || { status="${status:-$?}"; failed+=("$k"); }
  done
  if [[ -n "$status" ]]; then
    echo "error: of $REPEATS repeats failed: ${failed[*]}. The same command goes on" >&2
    exit "$status"
  fi
}

while [[ $# -gt 0 ]]; do
  case "$1" in
    --dataset=* | --ratio=* | --repeats=* | --jobs=* | --data-root=* | --data-dir=* | \
      --root-save-dir=*)
      set -- "${1%%=*}" "${1#*=}" "${@:2}"
      continue
      ;;
    --help | -h) usage; exit 0 ;;
    --save-dir | --save-dir=*)
      refuse "--save-dir: run.sh makes a folder for each stage; give --root-save-dir" ;;
    --repeat | --repeat=*)
      refuse "--repeat: run.sh does the repeats from 1 on; give --repeats N" ;;
    --dataset) need_value "$@"; DATASET="$2"; shift ;;
    --ratio) need_value "$@"; RATIO="$2"; shift ;;
    --repeats) need_value "$@"; REPEATS="$2"; shift ;;
    --jobs) need_value "$@"; JOBS="$2"; shift ;;
    --data-root) need_value "$@"; DATA_ROOT="$2"; shift ;;
    --data-dir) need_value "$@"; DATA_DIR=("--data-dir=$2"); shift ;;
    --root-save-dir) need_value "$@"; ROOT_SAVE_DIR="$2"; shift ;;
    --detection) TARGET=DETECTION ;;
    --seg) TARGET=SEG ;;
    *) declare -n LIST="$TARGET"; LIST+=("$1"); unset -n LIST ;;
  esac
  shift
done
if [[ ! "$REPEATS" =~ ^[1-9][0-9]{0,5}$ ]]; then
  refuse "--repeats must be a whole number from 1 to 999999, not $REPEATS"
fi
if [[ -z "$DATASET" && ${#DATA_DIR[@]} != 0 ]]; then
  refuse "--data-dir needs --dataset: the name of the results, and of the row with the constants"
fi
DATASET="${DATASET:-sample}"
if [[ ! "$JOBS" =~ ^([1-9]|[1-5][0-9]|6[0-4])$ ]]; then
  refuse "--jobs must be a whole number from 1 to 64, not $JOBS"
fi

# A name that begins with a dash would be an option of rm and head.
for place in DATA_ROOT ROOT_SAVE_DIR; do
  if [[ "${!place}" == -* ]]; then printf -v "$place" './%s' "${!place}"; fi
done

source "$HERE/tools/setup.sh"
setup_environment "$HERE/requirements.txt"

if [[ "$DATASET" == sample && ${#DATA_DIR[@]} == 0 && ! -e "$DATA_ROOT/sample/train_val_test.json" ]]; then
  printf '[sample] '
  child "$PYTHON" "$HERE/data/make_sample.py" "--out=$DATA_ROOT/sample"
fi

BEGAN=$SECONDS
PLACE=("--dataset=$DATASET" "--ratio=$RATIO" "--data-root=$DATA_ROOT"
  "--root-save-dir=$ROOT_SAVE_DIR" ${DATA_DIR[@]+"${DATA_DIR[@]}"})
COMMON=("${PLACE[@]}" ${COMMON[@]+"${COMMON[@]}"})
if ((JOBS > 1)) && [[ -z "${OMP_NUM_THREADS:-}" ]]; then
  CORES="$(in_folder "$HERE" "$PYTHON" -c \
    'from code_common.threads import allotted_cores; print(allotted_cores())')"
  export OMP_NUM_THREADS=$((CORES > JOBS ? CORES / JOBS : 1))
fi
# Checks all options as well: a wrong one of stage 2 would stop the run after hours of stage 1.
child "$PYTHON" "$HERE/data/check.py" "${COMMON[@]}" --repeats "$REPEATS" --jobs "$JOBS" \
  --brief="$ROOT_SAVE_DIR/$DATASET/.checked_$RATIO" \
  --detection ${DETECTION[@]+"${DETECTION[@]}"} --seg ${SEG[@]+"${SEG[@]}"}
RESTARTED="$ROOT_SAVE_DIR/$DATASET/.restarted_$RATIO"
if [[ "$(head -n 1 "$RESTARTED" 2>/dev/null)" != "$ASKED" ]]; then
  printf '%s\n' "$ASKED" >"$RESTARTED"
fi
if ((JOBS > 1)); then
  side_by_side
else
  for ((repeat = 1; repeat <= REPEATS; repeat++)); do one_repeat "$repeat"; done
fi
child "$PYTHON" "$HERE/tools/report.py" "--root-save-dir=$ROOT_SAVE_DIR" "--dataset=$DATASET" \
  "--ratio=$RATIO" --repeats "$REPEATS" --seconds $((SECONDS - BEGAN))
rm -f "$RESTARTED"

#!/usr/bin/env bash
# Set up what is needed and run the checks: style, then tests. Arguments go to pytest.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # sh cannot read the rest
set -euo pipefail
HERE="$(CDPATH= cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)"
source "$HERE/../tools/setup.sh"
setup_environment "$PROJECT/requirements.txt" "$HERE/requirements.txt"
cd "$PROJECT"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
# One process for each core, each of one thread.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$PYTHON" -m pytest -n auto --dist worksteal "$@"

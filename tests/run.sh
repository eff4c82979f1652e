#!/usr/bin/env bash
# Set up what is needed and run the checks: style, then tests. Arguments go to pytest.
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$HERE/../code_common/setup.sh"
setup_environment "$PROJECT/requirements.txt" "$HERE/requirements.txt"
cd "$PROJECT"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
exec "$PYTHON" -m pytest "$@"

# Sourced by run.sh and tests/run.sh: installs the packages and builds the CRF extension.
# usage: setup_environment REQUIREMENTS_FILE...
# Sets PYTHON. Uses an active virtual or conda environment as it is; else makes .venv. Where
# everything is there already it takes a moment.

PROJECT="$(CDPATH= cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd)"
: "${COMMAND_TO_GO_ON:=the same command}"
source "$PROJECT/tools/children.sh"

# in_folder DIR COMMAND...: Python finds modules where it is started, so not in the user's folder.
in_folder() { CDPATH= cd -- "$1" && exec "${@:2}"; }

find_python() {
  if [[ -n "${VIRTUAL_ENV:-}" && -x "$VIRTUAL_ENV/bin/python" ]]; then
    PYTHON="$VIRTUAL_ENV/bin/python"
  elif [[ -n "${CONDA_PREFIX:-}" && -x "$CONDA_PREFIX/bin/python" ]]; then
    PYTHON="$CONDA_PREFIX/bin/python"
  else
    PYTHON="$PROJECT/.venv/bin/python"
    if ! (in_folder "$PROJECT" "$PYTHON" -c "import pip") 2>/dev/null; then
      local base
      if [[ ! -w "$PROJECT" ]]; then
        echo "error: $PROJECT cannot be written, and no environment is active; activate one" >&2
        exit 2
      fi
      for base in python3 python3.13 python3.12 python3.11 python3.10; do
        if "$base" -c "import sys; sys.exit(sys.version_info < (3, 10))" 2>/dev/null; then
          echo "[setup] making a virtual environment in .venv"
          (in_folder "$PROJECT" "$base" -m venv "$PROJECT/.venv") || break
          return
        fi
      done
      echo "error: Python 3.10 or newer with its venv module is needed" \
        "(Debian, Ubuntu: apt install python3 python3-venv)" >&2
      exit 2
    fi
  fi
  if ! "$PYTHON" -c "import sys; sys.exit(sys.version_info < (3, 10))"; then
    echo "error: $PYTHON is older than Python 3.10" >&2
    exit 2
  fi
}

# Exit status 0 where every requirement of the files is installed in a fitting version.
requirements_met() {
  (in_folder "$PROJECT" "$PYTHON" - "$@") <<'PY'
import re, sys
from importlib.metadata import PackageNotFoundError, version

def numbers(text):
    return [int(n) for n in re.findall(r"\d+", text)[:3]]

def installed(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None

# Other builds of OpenCV bring the same module.
same = {"opencv-python": ["opencv-python-headless", "opencv-contrib-python"]}
for path in sys.argv[1:]:
    for line in open(path):
        requirement = re.match(r"([\w.-]+)(?:>=([\d.]+))?\s*$", line)
        if not requirement:
            continue
        name, least = requirement.groups()
        versions = [installed(package) for package in (name, *same.get(name, []))]
        present = next(filter(None, versions), None)
        if present is None or (least and numbers(present) < numbers(least)):
            sys.exit(1)
PY
}

install_requirements() {
  local file arguments=()
  for file in "$@"; do arguments+=(-r "$file"); done
  requirements_met "$@" && return
  echo "[setup] installing packages into $(dirname "$(dirname "$PYTHON")") (several GB the first time)"
  if ! child in_folder "$PROJECT" "$PYTHON" -m pip install --quiet --disable-pip-version-check "${arguments[@]}"; then
    echo "error: the packages could not be installed; see above" >&2
    exit 2
  fi
}

build_once() {
  child in_folder "$1" "$PYTHON" setup.py build_ext --inplace --force >>"$1/build/log.txt" 2>&1
}

# Builds once for each version of the sources, of torch and of Python. Without a compiler the run
# uses the pure PyTorch loss, and says so.
build_extension() {
  local folder="$PROJECT/code_seg/crf_loss" stamp key
  stamp="$folder/build/stamp"
  key="$(cat "$folder"/setup.py "$folder"/csrc/* | cksum)"
  key+=" $(in_folder "$PROJECT" "$PYTHON" -c 'import sys; from importlib.metadata import version
print(sys.executable, sys.version.split()[0], version("torch"))')"
  [[ -f "$stamp" && "$(cat "$stamp")" == "$key" ]] && return
  echo "[setup] building the CRF extension (a minute or two)"
  if ! { mkdir -p "$folder/build" && : >"$folder/build/log.txt"; } 2>/dev/null; then
    echo "[setup] $folder cannot be written; the slower pure PyTorch loss is used"
    return 0
  fi
  # Where the CUDA kernels cannot be built, the C++ kernels still can.
  if build_once "$folder" || { [[ -z "${FORCE_CUDA:-}" ]] && FORCE_CUDA=0 build_once "$folder"; }; then
    echo "$key" >"$stamp"
  else
    echo "[setup] the CRF extension could not be built (see code_seg/crf_loss/build/log.txt);" \
      "the slower pure PyTorch loss is used. A C++ compiler and the Python headers are needed."
  fi
}

setup_environment() {
  find_python
  install_requirements "$@"
  build_extension
  export PYTHON
}

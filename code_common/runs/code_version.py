"""Which version of the code makes the results."""

import subprocess
from pathlib import Path

from code_common.config import fingerprint
from code_common.files.contents import contents_of
from code_common.options import PROJECT

CODE_SUFFIXES = (".py", ".h", ".cpp", ".cu")


def code_version() -> str:
    """The version of the code: its commit, and a hash of the code where that does not tell it."""
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        commit = done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    is_whole = commit != "unknown" and not commit.endswith("-dirty")
    return commit if is_whole else f"{commit}-{_hash_of_code(PROJECT)}"


def _hash_of_code(project: Path) -> str:
    """Short hash of the code that makes the results."""
    files = [path for path in project.glob("code_*/**/*") if path.suffix in CODE_SUFFIXES]
    return fingerprint(contents_of(project, [path.relative_to(project) for path in files]))[:8]

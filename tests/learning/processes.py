"""Commands as processes of their own, on one thread each."""

import os
import subprocess
import sys

from conftest import PROJECT


def run(command, **keywords) -> subprocess.CompletedProcess:
    """Run a command; what it prints comes back as text."""
    return subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
        **keywords,
    )


def script(name: str, *arguments: object) -> list[str]:
    """The command line of a script of the project."""
    return [sys.executable, str(PROJECT / name), *map(str, arguments)]

"""The shape of the project: who imports whom, safe loading, no machine's paths."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("code_common", "code_detection", "code_seg")
SOURCES = [p for package in PACKAGES for p in sorted((PROJECT / package).rglob("*.py"))]
SCRIPTS = {
    "main",
    "prepare_data",
    "prepare_masks",
    "train",
    "test",
    "oracles",
    "pictures",
    "prediction",
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PROJECT)))
def test_the_stages_never_import_each_other(path):
    own = path.relative_to(PROJECT).parts[0]
    others = {name.split(".")[0] for name in imported(path)} & set(PACKAGES)
    assert others <= {own, "code_common"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PROJECT)))
def test_only_scripts_know_the_options(path):
    knows = any(name.endswith(".options") for name in imported(path))
    assert not knows or path.stem in SCRIPTS | {"options"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PROJECT)))
def test_loading_never_runs_code(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            keywords = {k.arg: k.value for k in node.keywords}
            if ast.unparse(node.func) == "torch.load":
                assert ast.literal_eval(keywords["weights_only"]) is True
            assert "allow_pickle" not in keywords


def test_only_the_declared_packages_are_needed():
    """D32."""
    declared = {"torch", "torchvision", "numpy", "scipy", "skimage", "PIL", "cv2", "tqdm"}
    declared |= {"tifffile"}  # scikit-image brings it along
    setup = {"setuptools", "crf_loss_native"}
    for path in SOURCES:
        names = {name.split(".")[0] for name in imported(path)}
        others = names - set(sys.stdlib_module_names) - declared - set(PACKAGES) - setup
        assert not others, f"{path}: {others}"


def test_public_functions_say_what_they_do():
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree) or path.name == "setup.py", path
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                nested = not any(node in getattr(p, "body", []) for p in [tree])
                assert nested or ast.get_docstring(node), f"{path}: {node.name}"


def test_deprecated_calls_are_errors():
    """D30: what NumPy or scikit-image will remove fails here before it fails a user."""
    with pytest.raises(DeprecationWarning):
        exec("import warnings; warnings.warn('gone', DeprecationWarning)",
             {"__name__": "code_common.labels"})  # fmt: skip


def test_there_is_a_licence():
    """D34."""
    assert "Permission is hereby granted" in (PROJECT / "LICENSE").read_text()
    assert "cff-version" in (PROJECT / "CITATION.cff").read_text()


def test_the_oldest_packages_are_those_that_are_allowed():
    """tests/oldest.txt pins what requirements.txt gives as the least versions."""
    pinned = dict(
        re.findall(r"^([\w-]+)==([\d.]+)$", (PROJECT / "tests/oldest.txt").read_text(), re.M)
    )
    least = dict(
        re.findall(r"^([\w-]+)>=([\d.]+)$", (PROJECT / "requirements.txt").read_text(), re.M)
    )
    assert set(pinned) == set(least)
    for name, version in least.items():
        assert f"{pinned[name]}.".startswith(f"{version}."), name


def test_no_paths_of_a_machine():
    """D25."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not listed:
        pytest.skip("not a git checkout")
    for name in listed:
        path = PROJECT / name
        if path.suffix in {".py", ".sh", ".md", ".toml", ".txt", ".cpp", ".h", ".cu"}:
            found = re.search(r"(?<![\w.])(/home/|/root/|/work/|~/Research)", path.read_text())
            assert not found or name == "tests/test_structure.py", name

"""The shape of the project: who imports whom, safe loading, no machine's paths."""

import ast
import graphlib
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("code_common", "code_detection", "code_seg")
SOURCES = [p for package in PACKAGES for p in sorted((PROJECT / package).rglob("*.py"))]
# Room of code_common -> the rooms that it imports. A room stands below those that it imports, so
# there is no circle. Whoever needs another import adds it here, knowingly.
COMMON_IMPORTS = {
    "errors": "",
    "arrays": "",
    "detection_scores": "arrays",
    "old_runs": "errors",
    "threads": "",
    "config": "errors old_runs threads",
    "files": "errors arrays config",
    "annotations": "errors files",
    "learning": "errors threads files",
    "reporting": "errors old_runs files",
    "options": "errors old_runs config files learning",
    "inference": "errors old_runs threads config files annotations learning options",
    "launch": "errors config files learning options inference",
    "runs": "errors old_runs config files learning options launch",
}
# Folders of the project -> those that they may import.
FOLDER_IMPORTS = {
    "code_common": "",
    "code_detection": "code_common",
    "code_seg": "code_common",
    "tools": "code_common code_detection code_seg",
    "data": "code_common code_detection code_seg",
    "docs": "code_common code_detection code_seg",
}
# What of a stage, beside its scripts, is made for its options; the rest takes arrays and numbers.
KNOW_OPTIONS = {
    "api", "options", "dataset", "detect", "plan", "preparation", "selection", "self_training",
}  # fmt: skip


def module_name(path: Path) -> str:
    """code_common/files/reading.py -> code_common.files.reading."""
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module_name(path): path
    for folder in FOLDER_IMPORTS
    for path in sorted((PROJECT / folder).rglob("*.py"))
}


def imported(path: Path) -> set[str]:
    """What a file imports, also within a function; of the project, modules by their full names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= full & set(MODULES) or {node.module}
    return names


IMPORTS = {name: imported(path) & set(MODULES) for name, path in MODULES.items()}


def is_script(path: Path) -> bool:
    """Whether a file does something where it is run: if __name__ == "__main__"."""
    tests = [node.test for node in ast.parse(path.read_text()).body if isinstance(node, ast.If)]
    return any(ast.unparse(test) == "__name__ == '__main__'" for test in tests)


def room_of(module: str) -> str:
    """The room of a module of code_common, one of its folders or files; '' for other modules."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] if package == "code_common" else ""


def test_the_rooms_of_code_common_import_as_the_table_says():
    found: dict[str, set[str]] = {room: set() for room in COMMON_IMPORTS}
    for module, others in IMPORTS.items():
        if room := room_of(module):
            found[room] |= {room_of(other) for other in others} - {room}
    assert found == {room: set(others.split()) for room, others in COMMON_IMPORTS.items()}


def test_the_tables_have_no_circle():
    for table in (COMMON_IMPORTS, FOLDER_IMPORTS):
        above: set[str] = set()
        for room, others in table.items():
            assert set(others.split()) <= above, room
            above.add(room)


@pytest.mark.parametrize("module", MODULES)
def test_folders_import_as_the_table_says(module):
    """Stages never import each other, code_common imports no stage, and nothing the commands."""
    folder = module.partition(".")[0]
    others = {other.partition(".")[0] for other in IMPORTS[module]} - {folder}
    assert others <= set(FOLDER_IMPORTS[folder].split())


def test_no_module_imports_itself_by_a_detour():
    tuple(graphlib.TopologicalSorter(IMPORTS).static_order())


def test_no_script_imports_a_script():
    scripts = {module for module, path in MODULES.items() if is_script(path)}
    assert {"code_detection.main", "code_seg.predict", "data.check", "tools.report"} <= scripts
    for module in scripts:
        assert not IMPORTS[module] & scripts, module


@pytest.mark.parametrize("stage", ["code_detection", "code_seg"])
def test_arrays_and_numbers_know_no_options(stage):
    for module, path in MODULES.items():
        known = {name for name in IMPORTS[module] if name.endswith(".options")}
        if module.startswith(f"{stage}.") and known:
            assert path.stem in KNOW_OPTIONS or is_script(path), module


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
    setup |= {"imagecodecs", "roifile"}  # are asked for by name where a file needs them
    for path in SOURCES:
        names = {name.partition(".")[0] for name in imported(path)}
        others = names - set(sys.stdlib_module_names) - declared - set(PACKAGES) - setup
        assert not others, f"{path}: {others}"


def test_public_functions_say_what_they_do():
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree) or path.name == "setup.py", path
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"


def test_deprecated_calls_are_errors():
    """D30: what NumPy or scikit-image will remove fails here before it fails a user.

    pyproject.toml says so of the modules by their names. Here are the names that they really have.
    """
    for category in (DeprecationWarning, FutureWarning):
        for module in (m for m in MODULES if m.startswith(PACKAGES)):
            with pytest.raises(category, match="will be removed"):
                warnings.warn_explicit("will be removed", category, "file.py", 1, module=module)
        with warnings.catch_warnings(record=True):  # of others it is none of our business
            warnings.warn_explicit("will be removed", category, "file.py", 1, module="scipy.signal")


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
            local = re.search(r"(?<![\w.])(/home/|/root/|/work/|~/Research)", path.read_text())
            assert not local or name == "tests/test_structure.py", name

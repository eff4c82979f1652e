"""The documentation tells the truth: its commands run, its files, options and tests are there."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, make_dataset

from code_common import config, old_runs
from code_common.files.images import read_image
from code_common.files.reading import read_json
from code_common.files.writing import write_json, write_points, write_table

PROJECT = Path(__file__).resolve().parents[1]
PAGES = [
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md")),
    *sorted((PROJECT / "docs").rglob("*.md")),
]
README = PROJECT / "README.md"
OPTIONS = PROJECT / "docs/reference/options.md"
FORMATS = PROJECT / "docs/reference/formats.md"
METHOD = PROJECT / "docs/explanation/method.md"
DIFFERENCES = PROJECT / "docs/reference/differences.md"
CHANGES = PROJECT / "docs/reference/changes.md"  # the one page that names what is gone
STARTS = ("bash ", "python ", "pip ", "sbatch ", "torchrun ", "python3 ")
# Commands that another test runs, or that cannot run inside of the tests.
ELSEWHERE = {
    "bash tests/run.sh": "what runs this test",
    "sbatch docs/predict_array.sbatch": "test_predict.py::test_a_job_array_of_the_docs",
    "torchrun --nproc_per_node 4": (
        "test_distributed.py::test_a_stage_on_two_processes_and_one_after_it"
    ),
    "pip install ./code_seg/crf_loss": "builds what tools/setup.sh builds",
    "pip install tiffslide imagecodecs": "tests/requirements.txt installs tiffslide",
    "pip install roifile": "tests/requirements.txt installs it",
    "pip install openslide-python openslide-bin": "a second reader, not needed by the tests",
    "python setup.py build_ext --inplace": "what tools/setup.sh does",
    "python tests/benchmarks/crf_loss.py": "times MO, which is no part of the project",
    "python tests/benchmarks/speed.py": "times MO, too",
    "bash run.sh": "the sample takes minutes; conftest.py runs a smaller one",
}
SMALL = [a for a in TINY if a not in ("--dataset", "tiny", "--ratio", "0.5")]


def commands(page: Path) -> list[str]:
    """Commands of a page: lines of its code blocks, and what stands in backticks."""
    text = page.read_text()
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    indented = ["\n".join(re.findall(r"^    (.*)$", text, re.M))]
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    inline = [" ".join(own.split()) for own in re.findall(r"`([^`]+)`", text)]
    lines = "\n".join(fenced + indented).replace("\\\n", " ").splitlines() + inline
    found = []
    for line in lines:
        for part in re.split(r"&&|;", re.sub(r"\s#.*", "", line)):
            part = " ".join(part.split())
            if part.startswith(STARTS) and not part.endswith(".py"):
                found.append(part)
    return list(dict.fromkeys(found))


EVERY = {page: commands(page) for page in PAGES if page != CHANGES}


def file_of_test(name: str) -> Path:
    """The file of tests of that name, in whichever room."""
    (found,) = (PROJECT / "tests").rglob(name)
    return found


def elsewhere(command: str) -> str | None:
    """Why a command is not run here: the longest beginning that ELSEWHERE knows."""
    if command == "bash run.sh":
        return ELSEWHERE[command]
    known = [start for start in ELSEWHERE if start != "bash run.sh" and command.startswith(start)]
    return ELSEWHERE[max(known, key=len)] if known else None


def test_commands_that_run_elsewhere_do():
    every = [command for own in EVERY.values() for command in own]
    assert len(every) > 35
    for start, why in ELSEWHERE.items():
        assert any(command.startswith(start) for command in every), start
        if "::" in why:
            file, name = why.split("::")
            assert f"def {name}(" in file_of_test(file).read_text()


def link_tree(source: Path, target: Path) -> None:
    """A copy that takes no room: results are replaced, never written into."""
    shutil.copytree(source, target, copy_function=os.link)


@pytest.fixture
def place(tmp_path, experiment, monkeypatch):
    """A folder in which the names of the documentation mean something small."""
    make_dataset(tmp_path / "data" / "MO", test=3)
    make_dataset(tmp_path / "plain", test=3)
    split = {}
    for part, names in read_json(tmp_path / "plain/train_val_test.json").items():
        split[part] = [f"PATIENT0{k}_{name}" for k, name in enumerate(names)]
        for old, new in zip(names, split[part], strict=True):
            old, new = Path(old).stem, Path(new).stem
            for source in (f"images/{old}.png", f"labels_instance/{old}_label.tif"):
                target = tmp_path / "data/MINE" / source.replace(old, new)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(tmp_path / "plain" / source, target)
    write_json(tmp_path / "data/MINE/train_val_test.json", split)
    for dataset, ratio in (("MINE", 1), ("MO", 0.1), ("sample", 0.1)):
        run = tmp_path / "experiments" / dataset / f"ratio_{ratio}"
        link_tree(experiment.root, run)
        for saved in run.glob("repeat_*/*/options.json"):
            value = read_json(saved)
            value["options"] |= {"dataset": dataset, "ratio": ratio}
            write_json(saved, value)
    for folder in ("MY_IMAGES", "MY_TILES", "NEW"):
        (tmp_path / folder).mkdir()
        shutil.copy(tmp_path / "plain/images/test0.png", tmp_path / folder)
    (tmp_path / "MY_MASKS").mkdir()
    shutil.copy(tmp_path / "plain/labels_instance/test0_label.tif", tmp_path / "MY_MASKS")
    for folder in ("MY_POINTS", "DETECTIONS"):
        link_tree(experiment.root / "repeat_1/detection/detections", tmp_path / folder)
    places = np.array([[10, 10], [30, 30], [50, 10]])
    for name in split["train"]:
        write_points(tmp_path / "MY_ANNOTATIONS" / f"{Path(name).stem}.csv", places)
    rows = [(x, y, name) for name in split["train"] for y, x in places.tolist()]
    write_table(tmp_path / "all_points.csv", ("x", "y", "image"), rows)
    corners = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in ((5, 5), (15, 5), (15, 15), (5, 15)))
    region = f"<Region><Vertices>{corners}</Vertices></Region>"
    (tmp_path / "MONUSEG_XML").mkdir()
    for path in (tmp_path / "data/MO/images").iterdir():
        text = f"<Annotations><Annotation><Regions>{region}</Regions></Annotation></Annotations>"
        (tmp_path / "MONUSEG_XML" / f"{path.stem}.xml").write_text(text)
    table = re.findall(
        r"```json\n(.*?)```", (PROJECT / "docs/guides/experiments.md").read_text(), re.S
    )
    (tmp_path / "sweep.json").write_text(table[0])
    monkeypatch.chdir(tmp_path)
    return tmp_path


WHERE = ["--data-root", "data", "--root-save-dir", "experiments"]
QUICK = "--device cpu --tile 64 --overlap 16 --precision fp32".split()


CHECKED = [*WHERE, *"--model resnet18 --input-size 64 --patch-size 64 --batch-size 1".split()]


def both(words: list[str], more: list[str]) -> list[str]:
    """The words of a command with more options of both stages."""
    at = next((k for k, w in enumerate(words) if w in ("--detection", "--seg")), len(words))
    return words[:at] + more + words[at:]


def adapted(command: str, home: Path) -> list[str]:
    """The words of a command, with what makes it small and keeps it in the folder `home`."""
    words = shlex.split(command.replace("$ratio", "0.10").replace("--gpus 0 1 2 3", ""))
    script = words[1]
    if script == "run.sh":  # what it says before it begins; the test below runs it
        return both(["python", "data/check.py", *words[2:]], CHECKED)
    if "--help" in words:
        return words
    if script == "data/make_split.py":
        (home / "data/MINE/train_val_test.json").unlink()
    if script == "data/check.py":
        return both(words, CHECKED)
    if script.endswith("/predict.py"):
        return words + QUICK
    if script in ("code_seg/test.py", "code_seg/oracles.py"):
        return words + WHERE + QUICK
    if script == "tools/sweep.py":
        return [*words, "--minutes", "0"]  # test_sweep.py runs one
    if script == "docs/make.py":
        return [*words, "--out", "docs_out"]
    if "labels.py" in script and len(words) < 4:  # named in passing
        return [*words, "--data-dir", "data/MINE", "--source", "MY_ANNOTATIONS", "--overwrite"]
    return words


@pytest.mark.parametrize("page", EVERY, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_command_runs(page, place, monkeypatch, capsys):
    """One after the other, as a reader does; run.sh's by what it checks before it begins."""
    for command in EVERY[page]:
        if elsewhere(command):
            continue
        words = adapted(command, place)
        monkeypatch.setattr("sys.argv", words[1:])
        try:
            runpy.run_path(str(PROJECT / words[1]), run_name="__main__")
            status = 0
        except SystemExit as stopped:
            status = stopped.code or 0
        told = capsys.readouterr()
        # The check's warnings are about images of 64 pixels.
        assert status == 0 or (status == 1 and "check.py" in words[1]), f"{command}: {told.err}"


RUNS = [c for own in EVERY.values() for c in own if c.startswith("bash run.sh -")]


@pytest.mark.slow
@pytest.mark.parametrize("command", list(dict.fromkeys(RUNS)))
def test_every_run_runs(command, place):
    shutil.rmtree("experiments")
    words = shlex.split(command.replace("$ratio", "0.10").replace("--gpus 0 1 2 3", ""))
    if "--restart" in words:
        words.remove("--restart")  # of a run that is there
    words = both(words, [*WHERE, *SMALL])
    words += [*([] if "--seg" in words else ["--seg"]), "--crf-sigma-xy", "3"]
    done = subprocess.run(["bash", PROJECT / "run.sh", *words[2:]], capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0 and "report.html" in done.stdout, done.stdout + done.stderr


def test_formats_begin_as_the_page_says(experiment):
    """The files that the page on formats names are there, and begin with the lines it shows."""
    page = FORMATS.read_text()
    sections = re.split(r"^### ", page, flags=re.M)[1:]
    assert len(sections) >= 12
    for section in sections:
        title, _, body = section.partition("\n")
        named = re.findall(r"`([^`]+)`", title)
        lines = re.findall(r"^    (.*)$", body, re.M)
        for name in named:
            pattern = name.replace("repeat_K", "repeat_1").replace("TILE", "*")
            found = sorted(experiment.root.glob(pattern)) if name != "--out" else [page]
            assert found, name
            if lines and name.endswith(".csv"):
                own = found[0].read_text().splitlines()
                assert own[len(lines) - 1].startswith(lines[-1]), name
                assert len(lines) == 1 or own[0][:10] == lines[0][:10]


def test_the_table_of_nuclei_begins_as_the_page_says(place, monkeypatch):
    shown = re.findall(r"^    (id,.*)$", FORMATS.read_text(), re.M)[0]
    words = "predict.py --model experiments/MO/ratio_0.1/repeat_1 --images MY_IMAGES --out OUT"
    monkeypatch.setattr("sys.argv", [*words.split(), *QUICK, "--instances", "components"])
    runpy.run_path(str(PROJECT / "code_seg/predict.py"), run_name="__main__")
    header = (place / "OUT/test0_nuclei.csv").read_text().splitlines()[0]
    assert header == "id" or header.startswith(shown)


def test_every_defect_has_a_row_and_a_test():
    """D1 to D34."""
    rows = re.findall(r"^\| (D\d+) \|.*\| `(\S+)::(\w+)` \|$",
                      DIFFERENCES.read_text(), re.M)  # fmt: skip
    assert [row[0] for row in rows] == [f"D{k}" for k in range(1, 35)]
    for _, file, name in rows:
        assert f"def {name}(" in file_of_test(file).read_text(), name
    for file, name in re.findall(r"`(test_\w+\.py)::(\w+)`",
                                 DIFFERENCES.read_text()):  # fmt: skip
        assert f"def {name}(" in file_of_test(file).read_text(), name


def test_the_list_of_options_is_that_of_the_program():
    namespace = runpy.run_path(str(PROJECT / "docs/make.py"))
    assert OPTIONS.read_text() == namespace["make_options"](), "run python docs/make.py"


def test_figures_are_made_from_a_run(place, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["make.py", "--run", "experiments/MO", "--out", "out"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(PROJECT / "docs/make.py"), run_name="__main__")
    assert stopped.value.code == 2 and "no finished run" in capsys.readouterr().err
    monkeypatch.setattr(
        "sys.argv", ["make.py", "--run", "experiments/MO/ratio_0.1", "--out", "out"]
    )
    runpy.run_path(str(PROJECT / "docs/make.py"), run_name="__main__")
    shown = re.findall(
        r"\]\(\.\./figures/(\w+\.jpg)\)", (PROJECT / "docs/explanation/method.md").read_text()
    )
    assert {p.name for p in (place / "out/figures").iterdir()} == set(shown)
    assert read_image(place / "out/figures/labels.jpg").shape[0] == 266


def anchors(page: Path) -> set[str]:
    """What the headings of a page are linked by, as GitHub makes it."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    heads = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_links_and_pictures_are_there():
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([\w-]+))?\)", page.read_text()):
            if target.startswith("http"):
                continue
            linked = page.parent / target if target else page
            assert linked.exists(), (page.name, target)
            if anchor:
                assert anchor in anchors(linked), (page.name, target, anchor)


def known_flags() -> set[str]:
    """Every flag that some script or run.sh has."""
    folders = ("code_common", "code_detection", "code_seg", "data", "docs", "tools",
               "tests/benchmarks")  # fmt: skip
    scripts = [path for folder in folders for path in (PROJECT / folder).rglob("*.py")]
    source = "".join(path.read_text() for path in [*scripts, PROJECT / "run.sh"])
    of_options = re.findall(r"`(--[\w-]+)`", OPTIONS.read_text())
    of_others = {"--nproc_per_node", "--inplace", "--flag", "--no-flag"}
    return {*of_options, *re.findall(r"(?<![\w-])(--[a-z][\w-]+)", source), *of_others}


def test_pages_name_files_and_options_that_exist():
    """`code_seg/labels.py` and `--ratio` in backticks or in a command."""
    known = known_flags()
    for page in EVERY:
        text = page.read_text()
        for name in re.findall(r"`((?:code_|data/|docs/|tests/|tools/)[\w/]+\.\w+)`", text):
            assert "data/M" in name or (PROJECT / name).exists(), (page.name, name)
        flags = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", text))
        assert flags <= known, (page.name, flags - known)


def test_functions_that_pages_name_are_in_the_file_beside_them():
    """Rows of tables: | what | `file.py` | `function` |."""
    rows = re.findall(r"^\|[^|]*\| `([\w/]+\.py)`[^|]*\|([^|]*)\|$", METHOD.read_text(), re.M)
    assert len(rows) >= 15
    for file, functions in rows:
        for name in re.findall(r"`(\w+)`", functions):
            assert re.search(rf"(def|class) {name}\(", (PROJECT / file).read_text()), (file, name)


def test_the_table_of_changes_names_what_is_there():
    """The new names exist, and the old ones are those that the code knows of."""
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", CHANGES.read_text(), re.M)
    old = " ".join(row[1] for row in rows)
    for name in [*old_runs.RENAMED, *old_runs.REMOVED]:
        assert config.flag_of(name) in old, name
    new = " ".join(row[2] for row in rows)
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]+", new)) <= known_flags()
    for name in re.findall(r"`((?:code_|tests/|tools/)[\w/]+\.\w+)", new):
        assert (PROJECT / name).exists(), name


def test_the_front_door_is_short():
    assert len(README.read_text().splitlines()) <= 120
    assert len((PROJECT / "docs/guides/experiments.md").read_text().splitlines()) <= 150

"""The list of all options, docs/reference/options.md, from the dataclasses of the options."""

import ast
import sys
from collections.abc import Sequence
from dataclasses import Field, fields
from itertools import groupby
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

import code_detection.options
import code_seg.options
from code_common.config import field_help, flag_of, shown_fields
from code_common.options import CommonOptions, PredictOptions

INTRODUCTION = """\
# Every option

`python docs/make.py` makes this page from the comments in the files `options.py`, which are also
the text of `--help`. Each script lists the options that it takes, in the same sections.

- `run.sh` gives options to both stages. Options behind `--detection` or `--seg` go to that stage
  alone, but for `--dataset`, `--ratio`, `--repeats`, `--jobs` and folders, which are of both.
- *MO* is the default for MO and for data sets without a row in `DATASETS`. *sample* is the default
  for the embedded sample, and *scratch* that of `--profile scratch`, where they differ from MO.
- Two values, as in `16` / `8`, are those of stage 1 and of stage 2.
- A switch is *on* or *off*: `--flag` and `--no-flag`.
- `--no-pretrained` is the same as `--pretrained none`.
"""
STAGES = {
    "Stage 1": code_detection.options,
    "Stage 2": code_seg.options,
}


def make_options() -> str:
    """The text of the page."""
    both = [options.Options for options in STAGES.values()]
    shared = {field.name for field in fields(CommonOptions)}
    lines = [INTRODUCTION, "## Both stages", ""]
    lines += stage_tables(both, [f for f in shown_fields(both[0]) if f.name in shared])
    for title, options in STAGES.items():
        package = options.__name__.partition(".")[0]
        stage = options.Options
        lines += [f"## {title}, `{package}`", ""]
        lines += stage_tables([stage], [f for f in shown_fields(stage) if f.name not in shared])
        lines += script_table(package, options)
    lines += prediction_tables()
    return "\n".join(lines).rstrip() + "\n"


def stage_tables(stages: Sequence[type], shown: Sequence[Field]) -> list[str]:
    """A table for each section of some options.

    stages: the options of the stages that have these fields.
    """
    help_of, lines = field_help(stages[0]), []
    for section, members in groupby(shown, key=lambda field: help_of[field.name].section):
        lines += head(section, "option", "MO", "sample", "scratch")
        for field in members:
            cells = [flag(field.name), *defaults(stages, field), help_of[field.name].comment]
            lines.append(row(cells))
        lines.append("")
    return lines


def defaults(stages: Sequence[type], field: Field) -> list[str]:
    """Defaults of a field: for MO, and where they differ for the sample and the profile scratch."""
    columns: list[list[str]] = [[], [], []]
    for stage in stages:
        mo = stage.DATASETS["MO"].get(field.name, field_default(stage, field.name))
        sample = stage.DATASETS["sample"].get(field.name, mo)
        scratch = stage.PROFILES["scratch"].get(field.name, mo)
        for column, value in zip(columns, (mo, sample, scratch), strict=True):
            column.append(as_given(value))
    cells = [" / ".join(dict.fromkeys(column)) for column in columns]
    return [cells[0], *(cell if cell != cells[0] else "" for cell in cells[1:])]


def field_default(cls: type, name: str) -> object:
    """The default of a field in the dataclass itself."""
    return next(field.default for field in fields(cls) if field.name == name)


def script_table(package: str, options: object) -> list[str]:
    """The options that only single scripts of a stage have. options: the stage's module."""
    of_stage = {field.name for field in fields(options.Options)}
    scripts: dict[tuple[str, str, str], list[str]] = {}  # flag, default, comment -> scripts
    for script, name in script_classes(package).items():
        cls = getattr(options, name, None)
        if cls is None or not issubclass(cls, CommonOptions):
            continue  # predict.py, which has tables of its own
        for field in shown_fields(cls):
            if field.name not in of_stage:
                comment = field_help(cls)[field.name].comment
                key = flag(field.name), as_given(field.default), comment
                scripts.setdefault(key, []).append(f"`{script}`")
    lines = head("options of single scripts", "option", "scripts", "default")
    for (option, default, comment), of in scripts.items():
        lines.append(row([option, ", ".join(of), default, comment]))
    return [*lines, ""]


def script_classes(package: str) -> dict[str, str]:
    """The scripts of a stage -> the name of the dataclass that each reads its command line into."""
    classes = {}
    for path in sorted((PROJECT / package).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "read_command_line":
                classes[path.name] = ast.unparse(node.args[0])
    return classes


def prediction_tables() -> list[str]:
    """The options of predict.py of both stages, and which of them only one takes."""
    of_both = {field.name for field in fields(PredictOptions)}
    lines = ["## Prediction, `predict.py`", ""]
    sections: dict[str, dict[str, list[str]]] = {}
    for options in STAGES.values():
        package = options.__name__.partition(".")[0]
        cls = getattr(options, script_classes(package)["predict.py"])
        only = ", ".join(flag(f.name) for f in fields(cls) if f.name not in of_both)
        lines += [f"Only `{package}/predict.py` takes {only}.", ""]
        for field in shown_fields(cls):
            section, comment = field_help(cls)[field.name]
            cells = [flag(field.name), as_given(field.default), comment]
            sections.setdefault(section, {})[field.name] = cells
    for section, rows in sections.items():
        lines += [*head(section, "option", "default"), *map(row, rows.values()), ""]
    return lines


def flag(name: str) -> str:
    """The flag of a field, as code."""
    return f"`{flag_of(name)}`"


def as_given(value: object) -> str:
    """A default as it is given on the command line; empty where there is none."""
    if value is None or value in ("", ()):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Path):
        value = value.relative_to(PROJECT)
    return f"`{value}`"


def head(section: str, *columns: str) -> list[str]:
    """The heading of a section and the head of its table, whose last column has no name."""
    return [f"### {section}", "", row([*columns, ""]), "|---" * (len(columns) + 1) + "|"]


def row(cells: Sequence[str]) -> str:
    """A row of a table in Markdown."""
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"

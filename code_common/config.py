"""An options dataclass is the command line: a field is a flag, the comment behind it the help text.

A line `# --- name` in the dataclass begins a group of flags in --help.
"""

import argparse
import dataclasses
import difflib
import hashlib
import inspect
import json
import math
import re
import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path

from code_common.errors import InputError, run_script
from code_common.old_runs import REMOVED, RENAMED
from code_common.threads import respect_cores

_SECTION = re.compile(r"^    # --- (.+)$")
_FIELD = re.compile(r"^    (\w+):.*?  # (.+)$")
_CONTINUED = re.compile(r"^    # {3}(.+)$")


def flag_of(name: str) -> str:
    """The flag of a field: 'crf_weight' -> '--crf-weight'."""
    return "--" + name.replace("_", "-")


def _shown(bound: float) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


@dataclasses.dataclass(frozen=True)
class Bounded:
    """The `type` of a number of `Parser`, with inclusive bounds."""

    kind: type  # int or float
    low: float
    high: float

    def __call__(self, text: str) -> float:
        """The number that a text says; argparse.ArgumentTypeError names bounds and text."""
        must = f"must be from {_shown(self.low)} to {_shown(self.high)}, not {text[:40]}"
        try:
            value = self.kind(text)
        except ValueError:
            what = "a whole number" if self.kind is int else "a number"
            raise argparse.ArgumentTypeError(must.replace("be", f"be {what}", 1)) from None
        if not self.low <= value <= self.high:
            raise argparse.ArgumentTypeError(must)
        return value


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line and suggest the nearest flag.

    It refuses empty values, which are what an unset variable of a shell becomes, and values with
    line breaks or other control characters.
    """

    elsewhere: frozenset[str] = frozenset()  # flags of the stage that this script does not use

    def __init__(self, *args, **keywords):
        super().__init__(*args, **keywords)
        # -1e300 and -inf are values, too; argparse alone takes them for flags.
        self._negative_number_matcher = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace=None):
        """As argparse does it, for the command line or the words `args`."""
        words, flag = sys.argv[1:] if args is None else list(args), ""
        for word in words:
            value, given = word, True
            if word.startswith("--"):
                flag, given, value = word.partition("=")
            if given and not value:
                self.error(f"{flag} must not be empty")
            if re.search(r"[\x00-\x1f\x7f]", value):
                self.error(f"{flag} must be text on one line, not {value[:40]!r}")
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> typing.NoReturn:
        message = re.sub(r"^argument (--\S+): must be ", r"\1 must be ", message)
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            message = self._unknown(unknown.group(1).partition("=")[0])
        self.exit(2, f"error: {message} (--help lists every option)\n")

    def _unknown(self, flag: str) -> str:
        name = flag.removeprefix("--").replace("-", "_")
        if name in RENAMED:
            return f"no such option: {flag}; it is called {flag_of(RENAMED[name])} now"
        if name in REMOVED:
            return f"no such option: {flag}; it is gone (docs/reference/changes.md)"
        if flag in self.elsewhere:
            return f"{flag} means nothing to {self.prog}"
        near = difflib.get_close_matches(flag, self._option_string_actions, n=1)
        return f"no such option: {flag}" + (f"; did you mean {near[0]}?" if near else "")


class FieldHelp(typing.NamedTuple):
    """What the source of an options dataclass says of a field."""

    section: str
    comment: str


def field_help(cls: type) -> dict[str, FieldHelp]:
    """Section and help text of each field, base classes first.

    The text is the comment behind the field, and lines of '#   ...' that go on below it. In it
    {choices} stands for the field's row of `cls.COMMON_CHOICES`.
    """
    found: dict[str, FieldHelp] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        section, name = "options", None
        for line in inspect.getsource(base).splitlines():
            heading, field = _SECTION.match(line), _FIELD.match(line)
            continued = _CONTINUED.match(line)
            if heading:
                section, name = heading.group(1), None
            elif field:
                name = field.group(1)
                found[name] = FieldHelp(section, field.group(2))
            elif continued and name:
                found[name] = FieldHelp(section, f"{found[name].comment} {continued.group(1)}")
            else:
                name = None
    for name, (section, comment) in found.items():
        if "{choices}" in comment:
            *first, last = cls.COMMON_CHOICES[name]
            words = f"{', '.join(first)} or {last}"
            found[name] = FieldHelp(section, comment.replace("{choices}", words))
    return found


def shown_fields(cls: type) -> list[dataclasses.Field]:
    """The fields that are flags: those that `cls.USES` names, alone or by their section; else all.

    So a script shows what it uses and nothing else, though its options are those of the stage. The
    sections that `cls.LAST_SECTIONS` names come last.
    """
    described, last = field_help(cls), getattr(cls, "LAST_SECTIONS", ())
    every = sorted(dataclasses.fields(cls), key=lambda f: described[f.name].section in last)
    uses = getattr(cls, "USES", None)
    if uses is None:
        return every
    unknown = set(uses) - {f.name for f in every} - {h.section for h in described.values()}
    assert not unknown, f"{cls.__name__}.USES: {unknown}"
    return [f for f in every if f.name in uses or described[f.name].section in uses]


def _element_type(annotation: object) -> tuple[type, bool]:
    """Type of one value, and whether the option takes several, of an annotation."""
    if isinstance(annotation, types.UnionType):
        annotation = next(a for a in typing.get_args(annotation) if a is not types.NoneType)
    if typing.get_origin(annotation) is tuple:
        return typing.get_args(annotation)[0], True
    return annotation, False


def make_parser(cls: type, description: str) -> argparse.ArgumentParser:
    """Command line of an options dataclass, in groups; the help names each default.

    Flags that are not given are absent from what it returns.
    """
    parser = Parser(
        usage="%(prog)s [options]",
        description=description,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    described, hints = field_help(cls), typing.get_type_hints(cls)
    shown = shown_fields(cls)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for field in shown:
        section, comment = described[field.name]
        if section not in groups:
            groups[section] = parser.add_argument_group(section)
        kind, several = _element_type(hints[field.name])
        row = getattr(cls, "DATASETS", {}).get("default", {})
        of_none = "set by the data set" if field.name in row else "none"
        default = {None: of_none, (): "none", "": "none"}.get(field.default, field.default)
        text = f"{comment} (default: {default})".replace("%", "%%")
        if kind is bool:
            form = {"action": argparse.BooleanOptionalAction}
        else:
            form = {"type": kind, "metavar": kind.__name__.upper()}
            if several:  # given twice, the values of both count
                form |= {"action": "extend", "nargs": "+"}
        if kind in (int, float):
            bounds = getattr(cls, "BOUNDS", {}).get(field.name, (-math.inf, math.inf))
            form["type"] = Bounded(kind, *bounds)
        groups[section].add_argument(flag_of(field.name), help=text, **form)
        for flag, (name, value) in getattr(cls, "SHORTHANDS", {}).items():
            if name == field.name:
                text = f"the same as {flag_of(name)} {value}"
                groups[section].add_argument(
                    flag, dest=name, action="store_const", const=value, help=text
                )
    known = {*_all_flags(cls), *getattr(cls, "ELSEWHERE", ())}
    parser.elsewhere = frozenset(known - set(parser._option_string_actions))
    return parser


def _all_flags(cls: type) -> list[str]:
    """Every flag of an options dataclass, shown or not, with shorthands and those for no."""
    names, hints = [f.name for f in dataclasses.fields(cls)], typing.get_type_hints(cls)
    switches = [name for name in names if _element_type(hints[name])[0] is bool]
    nots = ["--no-" + flag_of(name).removeprefix("--") for name in switches]
    return [*map(flag_of, names), *nots, *getattr(cls, "SHORTHANDS", {})]


def parse(cls: type, description: str, argv: list[str] | None = None):
    """Options from the command line; what it leaves out takes the profile, then the data set's row.

    Where the class has `of_run`, what that gives comes before both. A line names each option that
    was given and has no effect beside another one (`cls.IDLE`: name -> that one and its value).
    Raises InputError where a value is out of its bounds (naming field, bound and value).
    """
    given = vars(make_parser(cls, description).parse_args(argv))
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    names = {field.name for field in dataclasses.fields(cls)}
    profile = getattr(cls, "PROFILES", {}).get(given.get("profile"), {})
    values = {k: v for k, v in profile.items() if k in names} | given
    options = cls(**values).resolved()
    of_run = options.of_run() if hasattr(cls, "of_run") else {}
    if of_run:
        options = cls(**values | of_run | given).resolved()
    for name, (other, why) in getattr(cls, "NEEDS", {}).items():
        if name in given and other not in {*given, *of_run}:
            raise InputError(f"{flag_of(name)} needs {flag_of(other)}: {why}")
    for name, (other, value) in getattr(cls, "IDLE", {}).items():
        if name in given and getattr(options, other) == value:
            shown = flag_of(other) if value is True else f"{flag_of(other)} {value}"
            print(f"{flag_of(name)} has no effect with {shown}", file=sys.stderr)
    return options


def read_command_line(cls: type, description: str):
    """`parse` of a script's command line, whose errors end the script in one line.

    A script calls it before it imports torch, so that --help and a wrong flag answer at once, and
    torch takes the cores that it shall.
    """
    respect_cores()
    return run_script(lambda: parse(cls, description, sys.argv[1:]))


def check_bounds(options: object, bounds: dict[str, tuple[float, float]]) -> None:
    """Raise InputError for the first field outside its inclusive bounds; None is not checked."""
    for name, (low, high) in bounds.items():
        value = getattr(options, name)
        for v in value if isinstance(value, tuple) else (value,):
            if v is not None and not low <= v <= high:
                raise InputError(
                    f"{flag_of(name)} must be from {_shown(low)} to {_shown(high)}, not {v}"
                )


def check_choices(options: object, choices: dict[str, tuple[object, ...]]) -> None:
    """Raise InputError for the first field that is none of its choices."""
    for name, known in choices.items():
        value = getattr(options, name)
        if value not in known:
            raise InputError(
                f"{flag_of(name)} must be one of {', '.join(map(str, known))}, not {value}"
            )


def as_json(options: object) -> dict:
    """The options as plain JSON values."""
    return {
        k: str(v) if isinstance(v, Path) else list(v) if isinstance(v, tuple) else v
        for k, v in dataclasses.asdict(options).items()
    }


def from_json(cls: type, values: dict) -> dict:
    """The fields of `cls` among plain JSON values, as they were before `as_json`."""
    hints, found = typing.get_type_hints(cls), {}
    for name in (field.name for field in dataclasses.fields(cls) if field.name in values):
        kind, several = _element_type(hints[name])
        value = values[name]
        if several:
            value = tuple(map(kind, value))
        elif value is not None:
            value = kind(value)
        found[name] = value
    return found


def fingerprint(*parts: object) -> str:
    """Short hash of JSON values: what a finished result is recognised by."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

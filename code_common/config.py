"""An options dataclass is the command line: a field is a flag, its comment the help text."""

import argparse
import dataclasses
import difflib
import hashlib
import inspect
import json
import re
import types
import typing
from pathlib import Path

from code_common.errors import InputError

_FIELD = re.compile(r"^    (\w+):.*?  # (.+)$")
_CONTINUED = re.compile(r"^    # {3}(.+)$")


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line and suggest the nearest flag."""

    def error(self, message: str) -> typing.NoReturn:
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            flag = unknown.group(1)
            near = difflib.get_close_matches(flag, self._option_string_actions, n=1)
            message = f"no such option: {flag}" + (f"; did you mean {near[0]}?" if near else "")
        self.exit(2, f"error: {message} (--help lists every option)\n")


def field_comments(cls: type) -> dict[str, str]:
    """Help text of each field: the comment behind it, and lines of '#   ...' that go on below."""
    comments: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        name = None
        for line in inspect.getsource(base).splitlines():
            field, continued = _FIELD.match(line), _CONTINUED.match(line)
            if field:
                name = field.group(1)
                comments[name] = field.group(2)
            elif continued and name:
                comments[name] += " " + continued.group(1)
            else:
                name = None
    return comments


def _element_type(annotation: object) -> tuple[type, bool]:
    """Type of one value, and whether the option takes several, of an annotation."""
    if isinstance(annotation, types.UnionType):
        annotation = next(a for a in typing.get_args(annotation) if a is not types.NoneType)
    if typing.get_origin(annotation) is tuple:
        return typing.get_args(annotation)[0], True
    return annotation, False


def make_parser(cls: type, description: str) -> argparse.ArgumentParser:
    """Command line of an options dataclass; the help names each default."""
    parser = _Parser(description=description, allow_abbrev=False)
    comments, hints = field_comments(cls), typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        flag = "--" + field.name.replace("_", "-")
        kind, several = _element_type(hints[field.name])
        default = {None: "set by the data set", (): "none"}.get(field.default, field.default)
        text = f"{comments[field.name]} (default: {default})".replace("%", "%%")
        if kind is bool:
            parser.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=field.default, help=text
            )
        else:
            parser.add_argument(
                flag,
                type=kind,
                nargs="+" if several else None,
                default=field.default,
                help=text,
                metavar=kind.__name__.upper(),
            )
    for flag, (name, value) in getattr(cls, "SHORTHANDS", {}).items():
        parser.add_argument(
            flag,
            dest=name,
            action="store_const",
            const=value,
            help=f"the same as --{name.replace('_', '-')} {value}",
        )
    return parser


def parse(cls: type, description: str, argv: list[str] | None = None):
    """Options from the command line; what it leaves out takes the profile, then the data set's row.

    Raises InputError where a value is out of its bounds (naming field, bound and value).
    """
    parser = make_parser(cls, description)
    given = parser.parse_args(argv)
    parser.set_defaults(**getattr(cls, "PROFILES", {}).get(getattr(given, "profile", ""), {}))
    values = vars(parser.parse_args(argv))
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return cls(**values).resolved()


def check_bounds(options: object, bounds: dict[str, tuple[float, float]]) -> None:
    """Raise InputError for the first field outside its inclusive bounds; None is not checked."""
    for name, (low, high) in bounds.items():
        value = getattr(options, name)
        for v in value if isinstance(value, tuple) else (value,):
            if v is not None and not low <= v <= high:
                flag = name.replace("_", "-")
                raise InputError(f"--{flag} must be from {low:g} to {high:g}, not {v}")


def check_choices(options: object, choices: dict[str, tuple[object, ...]]) -> None:
    """Raise InputError for the first field that is none of its choices."""
    for name, known in choices.items():
        value = getattr(options, name)
        if value not in known:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} must be one of {', '.join(map(str, known))}, not {value}")


def as_json(options: object) -> dict:
    """The options as plain JSON values."""
    return {
        k: str(v) if isinstance(v, Path) else list(v) if isinstance(v, tuple) else v
        for k, v in dataclasses.asdict(options).items()
    }


def fingerprint(*parts: object) -> str:
    """Short hash of JSON values: what a finished step is recognised by."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

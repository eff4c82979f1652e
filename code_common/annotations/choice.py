"""Which objects of a file are taken: those of some classes, and those of one plane of a stack."""

from collections.abc import Sequence
from dataclasses import dataclass

from code_common.annotations.text import short


@dataclass(frozen=True)
class Choice:
    """The classes and the plane that a user asks for.

    classes: None takes all but those that end with '*', as QuPath's Ignore*, which its own
    measurements leave out, too. plane: numbers from 1, one for each axis of the stack that the
    tool counts; None takes all of a file, which must lie in one plane.
    """

    classes: tuple[str, ...] | None = None
    plane: tuple[int, ...] | None = None

    def class_left_out(self, names: Sequence[str]) -> str:
        """Why an object of these class names is left out; "" if it is taken."""
        if self.classes is None:
            ignored = [name for name in names if name.endswith("*")]
            return f"object of class {short(ignored[0])}" if ignored else ""
        if parts_of(names) & {name.casefold() for name in self.classes}:
            return ""
        return f"object of class {short(names[0])}" if names else "object without a class"

    def plane_left_out(self, plane: tuple[int, ...]) -> str:
        """Why an object of a plane is left out; "" if it is taken, or lies in no plane."""
        if self.plane is None or not plane or plane == self.plane:
            return ""
        return f"object of plane {plane_name(plane)}"


ALL = Choice()


def parts_of(names: Sequence[str]) -> set[str]:
    """Classes and their parts in lower case: QuPath's 'Tumor: Positive' is a Tumor, too."""
    return {part.strip().casefold() for name in names for part in [name, *name.split(":")]}


def plane_name(plane: Sequence[int]) -> str:
    """'3', or '1 3' of two axes, as --plane takes it."""
    return " ".join(map(str, plane))

"""The picture of who imports whom, docs/figures/rooms.svg, from the imports in the code.

Rooms stand on a diagonal. A line leaves a room to the right and turns down into each room that it
imports; at the corner stands the number of imports. No line turns up.
"""

import ast
from collections import Counter
from collections.abc import Iterable
from html import escape
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("tools", "data", "code_detection", "code_seg", "code_common")
# From top to bottom: a room imports those below it.
ROOMS = (
    "tools",
    "data",
    "code_detection",
    "code_seg",
    "runs",
    "launch",
    "inference",
    "options",
    "reporting",
    "learning",
    "annotations",
    "files",
    "errors, config",
)
# The files of code_common that lie in no folder -> the room that they are drawn as.
FILES = {
    "launch": "launch",
    "options": "options",
    "errors": "errors, config",
    "config": "errors, config",
    "old_runs": "errors, config",
    "arrays": "errors, config",
    "detection_scores": "errors, config",
    "threads": "errors, config",
}
WIDTH, HEIGHT, FONT = 934, 586, 13
FIRST_X, FIRST_Y, STEP_X, STEP_Y = 66, 30, 67, 43  # centre of the first room, steps to the next
BOX_WIDTH, BOX_HEIGHT, RADIUS = 108, 28, 12  # of a room, and of the circle around a number
ARROW = 7  # length of an arrow's head
LINE, INK = "#0072B2", "#222222"
NOTE = (
    "Follow the line from a room to a number, and then down to",
    "another room: the first imports the second so many times.",
)

Pair = tuple[str, str]  # a room, and a room that it imports


def make_rooms() -> str:
    """The picture as SVG."""
    return draw(count_imports())


def count_imports() -> dict[Pair, int]:
    """How often modules of a room import modules of another: (room, other) -> number."""
    counts: Counter[Pair] = Counter()
    for package in PACKAGES:
        paths = sorted((PROJECT / package).rglob("*.py"))
        for path in (p for p in paths if p.name != "__init__.py"):
            room = room_of(".".join(path.relative_to(PROJECT).with_suffix("").parts))
            imported = [room_of(module) for module in imported_modules(path)]
            counts.update((room, other) for other in imported if other != room)
    return dict(counts)


def imported_modules(path: Path) -> set[str]:
    """The modules of the project that a file imports: 'code_common.errors', ..."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # `from package import module` names a module; `from module import function` does not.
            names |= {
                f"{node.module}.{alias.name}" if is_package(node.module) else node.module
                for alias in node.names
            }
    return {name for name in names if name.partition(".")[0] in PACKAGES}


def is_package(module: str) -> bool:
    """Whether a module of the project is a folder of modules."""
    return (PROJECT / module.replace(".", "/")).is_dir()


def room_of(module: str) -> str:
    """The room of a module: its package or, in code_common, its folder or its place in FILES."""
    package, *inner = module.split(".")
    if package != "code_common":
        return package
    return inner[0] if is_package(f"{package}.{inner[0]}") else FILES[inner[0]]


def draw(counts: dict[Pair, int]) -> str:
    """The picture of the numbers of `count_imports`."""
    unknown = {room for pair in counts for room in pair} - set(ROOMS)
    assert not unknown, f"ROOMS lacks {unknown}"
    centres = {room: (FIRST_X + STEP_X * k, FIRST_Y + STEP_Y * k) for k, room in enumerate(ROOMS)}
    parts = []
    for room in ROOMS:
        imported = [centres[other] for importer, other in counts if importer == room]
        importing = [centres[importer] for importer, other in counts if other == room]
        parts += row(centres[room], imported) + column(centres[room], importing)
    for (room, other), number in sorted(counts.items()):
        (x, _), (_, y) = centres[other], centres[room]
        assert ROOMS.index(other) > ROOMS.index(room), f"{room} imports {other}, which is above it"
        parts.append(f'<circle cx="{x}" cy="{y}" r="{RADIUS}" fill="white" stroke="{LINE}"/>')
        parts.append(text(x, y, str(number)))
    for room, (x, y) in centres.items():
        left, top = x - BOX_WIDTH // 2, y - BOX_HEIGHT // 2
        parts.append(
            f'<rect x="{left}" y="{top}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="4" '
            f'fill="#eef4f8" stroke="{INK}"/>'
        )
        parts.append(text(x, y, room))
    for number, line in enumerate(NOTE):
        parts.append(text(12, HEIGHT - 50 + 20 * number, line, "start"))
    lines = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'role="img" aria-label="imports between rooms" font-family="system-ui, sans-serif" '
        f'font-size="{FONT}">\n<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n'
        f"{lines}\n</svg>\n"
    )


def row(centre: tuple[int, int], imported: Iterable[tuple[int, int]]) -> list[str]:
    """The line from a room to the right, as far as the rooms that it imports."""
    x, y = centre
    end = max((other_x for other_x, _ in imported), default=x)
    return [line((x, y), (end, y))] if end > x else []


def column(centre: tuple[int, int], importing: Iterable[tuple[int, int]]) -> list[str]:
    """The arrow into a room from above, out of the rows of those that import it."""
    x, y = centre
    start, top = min((other_y for _, other_y in importing), default=y), y - BOX_HEIGHT // 2
    if start == y:
        return []
    head = f'<path d="M{x} {top}l-5 -{ARROW}h10Z" fill="{LINE}"/>'
    return [line((x, start), (x, top - ARROW)), head]


def line(start: tuple[int, int], end: tuple[int, int]) -> str:
    """A straight line."""
    (x1, y1), (x2, y2) = start, end
    return f'<path d="M{x1} {y1}L{x2} {y2}" stroke="{LINE}" stroke-width="1.5"/>'


def text(x: int, y: int, words: str, anchor: str = "middle") -> str:
    """Words around, or from, a place; y is their middle."""
    return f'<text x="{x}" y="{y + 5}" text-anchor="{anchor}" fill="{INK}">{escape(words)}</text>'

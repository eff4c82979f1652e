"""What docs/make.py makes of the program is what the documentation holds."""

import xml.etree.ElementTree as ET

import pytest
from conftest import PROJECT

from docs.make import main, parse_arguments
from docs.options_page import make_options, script_classes
from docs.rooms import HEIGHT, ROOMS, WIDTH, count_imports, imported_modules, make_rooms, room_of

SVG = "{http://www.w3.org/2000/svg}"


def rows(page, section):
    """Cells of the table under a heading, by option."""
    (text,) = [part for part in page.split("\n### ") if part.startswith(f"{section}\n")]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_the_picture_of_the_rooms_is_that_of_the_code():
    picture = PROJECT / "docs" / "figures" / "rooms.svg"
    assert picture.read_text() == make_rooms(), "run python docs/make.py --rooms"


def test_modules_are_in_the_room_of_their_folder():
    assert room_of("code_common.errors") == "errors, config"
    assert room_of("code_common.files.reading") == "files"
    assert room_of("code_seg.crf_loss.low_rank") == "code_seg"


def test_only_modules_of_the_project_are_counted(tmp_path):
    """A module that is imported from its package counts as itself, a function as its module."""
    (tmp_path / "a.py").write_text(
        "import json\nimport data.check\nfrom code_common.learning import distributed, hardware\n"
        "from code_common.errors import InputError, reason\n"
    )
    assert imported_modules(tmp_path / "a.py") == {
        "data.check",
        "code_common.learning.distributed",
        "code_common.learning.hardware",
        "code_common.errors",
    }


def test_every_room_is_drawn_and_every_number():
    counts = count_imports()
    texts = [e.text for e in ET.fromstring(make_rooms()).iter(f"{SVG}text")]
    assert set(ROOMS) <= set(texts)
    assert sorted(int(t) for t in texts if t.isdigit()) == sorted(counts.values())


def test_boxes_and_numbers_of_the_picture_do_not_overlap():
    root = ET.fromstring(make_rooms())
    _, *boxes = root.iter(f"{SVG}rect")  # the first one is the background
    places = [[float(box.get(side)) for side in ("x", "y", "width", "height")] for box in boxes]
    for circle in root.iter(f"{SVG}circle"):
        x, y, radius = (float(circle.get(name)) for name in ("cx", "cy", "r"))
        places.append([x - radius, y - radius, 2 * radius, 2 * radius])
    for number, (x, y, width, height) in enumerate(places):
        assert 0 <= x and x + width <= WIDTH and 0 <= y and y + height <= HEIGHT
        for other_x, other_y, other_width, other_height in places[:number]:
            beside = x >= other_x + other_width or other_x >= x + width
            assert beside or y >= other_y + other_height or other_y >= y + height


def test_defaults_of_both_stages_stand_side_by_side():
    training = rows(make_options(), "training")
    assert training["`--batch-size`"][:3] == ["`16` / `8`", "`4`", "`8`"]
    assert training["`--schedule`"][:3] == ["`constant`", "", "`cosine`"]
    assert training["`--compile`"][0] == "off"


def test_options_of_single_scripts_name_their_scripts():
    page = make_options().partition("## Stage 2")[0]
    scripts = rows(page, "options of single scripts")
    assert "\n| `--round` | `test.py` | | the round to test" in page  # its default is another one
    assert scripts["`--round`"][:2] == ["`train.py`", "`0`"]
    assert scripts["`--img-dir`"][0] == "`test.py`"


@pytest.mark.parametrize("package", ["code_detection", "code_seg"])
def test_every_script_of_a_stage_is_known(package):
    scripts = {p.name for p in (PROJECT / package).glob("*.py") if "__main__" in p.read_text()}
    assert set(script_classes(package)) == scripts


def test_the_command_writes_where_it_is_told(tmp_path, capsys):
    main(parse_arguments(["--rooms", "--out", str(tmp_path)]))
    assert (tmp_path / "reference" / "options.md").read_text() == make_options()
    assert (tmp_path / "figures" / "rooms.svg").read_text() == make_rooms()
    assert "figures/rooms.svg" in capsys.readouterr().out

"""The annotation page in a real browser, with real clicks; its files are read by the importers."""

import json
import re
from contextlib import contextmanager

import numpy as np
import pytest
from conftest import PROJECT
from PIL import Image

from code_common.annotations.formats import read_annotations, read_geojson, read_point_table
from code_common.errors import InputError
from code_common.files.image_kinds import IMAGE_SUFFIXES, OTHER_SUFFIXES, SLIDE_SUFFIXES
from code_common.files.images import read_image, read_label
from code_common.files.writing import write_json, write_png, write_points, write_table
from code_detection.annotate_page import Found, write_page
from data.import_labels import main, parse_arguments

PAGE = (PROJECT / "data" / "annotate.html").as_uri()


@contextmanager
def opened(browser, address, width=1000):
    """A page without network; whatever it complains of fails the test."""
    size = {"width": width, "height": 700}
    context = browser.new_context(viewport=size, accept_downloads=True)
    context.set_offline(True)
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.goto(address)
    yield page
    assert not problems
    context.close()


@pytest.fixture
def page(browser, tmp_path):
    for name in ("a", "b"):
        write_png(tmp_path / f"{name}.png", np.full((200, 300, 3), 230, np.uint8))
    with opened(browser, PAGE) as page:
        yield page


def test_the_page_and_the_import_know_the_same_suffixes():
    """What else stands behind a dot is a part of a name."""
    text = (PROJECT / "data" / "annotate.html").read_text()
    written = re.search(r"const SUFFIXES = .*?\(ome(.*?)\)\)\+", text, re.DOTALL)[1]
    names = re.findall(r"[a-z0-9?]+", written)
    every = {form for name in names for form in (name.replace("?", ""), re.sub(".\\?", "", name))}
    assert every == {s[1:] for s in (*IMAGE_SUFFIXES, *SLIDE_SUFFIXES, *OTHER_SUFFIXES)}


def open_files(page, *paths):
    page.set_input_files("#open", list(map(str, paths)))
    page.wait_for_selector("#csv:not([disabled])")


def where(page, x, y):
    """Where a point of the image is on the page."""
    return page.evaluate(
        "([x, y]) => { const b = canvas.getBoundingClientRect();"
        " return [b.left + view.x + x * view.zoom, b.top + view.y + y * view.zoom]; }",
        [x, y],
    )


def click(page, x, y, **options):
    page.mouse.click(*where(page, x, y), **options)


def drag(page, start, end):
    page.mouse.move(*where(page, *start))
    goal = where(page, *end)
    page.mouse.down()
    page.mouse.move(*goal, steps=5)
    page.mouse.up()


def saved(page, kind, folder):
    with page.expect_download() as waiting:
        page.click(f"#{kind}")
    path = folder / "saved" / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def status(page):
    return page.text_content("#status")


def points_of_all(page):
    return dict(page.evaluate("tiles.map(({ name, points }) => [name, points])"))


def hover(page, x, y):
    """Rest the mouse on a point."""
    left, top = where(page, x, y)
    page.mouse.move(left - 1, top)
    page.mouse.move(left, top)


def test_click_drag_remove_and_undo(page, tmp_path):
    open_files(page, tmp_path / "a.png")
    for x, y in ((50, 60), (200, 100), (250, 150)):
        click(page, x, y)
    assert status(page) == "3 points, not saved"
    drag(page, (200, 100), (120, 40))
    click(page, 250, 150, button="right")
    assert status(page).startswith("2 points")
    page.keyboard.press("Control+z")
    assert status(page).startswith("3 points")
    page.keyboard.press("Control+Shift+z")
    path = saved(page, "csv", tmp_path)
    assert path.name == "a.csv" and status(page) == "2 points"
    rows, cols = np.loadtxt(path, delimiter=",", skiprows=1).T
    assert np.abs(cols + 0.5 - [50, 120]).max() < 0.6 and np.abs(rows + 0.5 - [60, 40]).max() < 0.6


def test_both_files_are_read_by_the_importers_alike(page, tmp_path):
    open_files(page, tmp_path / "a.png")
    places = np.array([(50.3, 60.8), (299, 1), (7, 199)])
    for x, y in places.tolist():
        click(page, x, y)
    table = read_point_table(saved(page, "csv", tmp_path)).points
    geojson = saved(page, "geojson", tmp_path)
    content = json.loads(geojson.read_text())
    assert content["features"][0]["geometry"]["type"] == "MultiPoint"
    points = read_geojson(geojson).points
    for imported in (table, points):
        assert np.abs(np.array(imported) - places).max() < 0.6


def test_a_point_at_the_edge_stays_within(page, tmp_path):
    """Though it is rounded."""
    (tmp_path / "a.csv").write_text("x,y\n299.97,199.98\n")
    open_files(page, tmp_path / "a.png", tmp_path / "a.csv")
    for kind, read in (("csv", read_point_table), ("geojson", read_geojson)):
        ((x, y),) = read(saved(page, kind, tmp_path)).points
        assert (int(x), int(y)) == (299, 199)


def test_detections_are_loaded_and_corrected(page, tmp_path):
    points = np.array([[20, 30], [100, 200], [150, 90]])
    write_points(tmp_path / "b_points.csv", points)
    open_files(page, tmp_path / "a.png", tmp_path / "b.png", tmp_path / "b_points.csv")
    page.select_option("#images", label="b")
    assert status(page).startswith("3 points")
    click(page, 200.5, 100.5, button="right")
    click(page, 10, 10)
    rows = np.loadtxt(saved(page, "csv", tmp_path), delimiter=",", skiprows=1)
    assert rows[:2].tolist() == [[20, 30], [150, 90]] and np.abs(rows[2] - 9.5).max() < 0.6


def test_corrected_detections_become_training_points(page, tmp_path, run_script):
    """The way round: detections of a run -> corrected -> imported -> seen by the next training."""
    for name in ("a", "b"):
        write_png(
            tmp_path / "set" / "images" / f"{name}.png", np.full((200, 300, 3), 230, np.uint8)
        )
    write_json(tmp_path / "set" / "train_val_test.json", {"train": ["a.png", "b.png"]})
    detected = [(20, 30, "0.9"), (100, 200, "0.8"), (199, 299, "0.6")]
    write_table(tmp_path / "a_points.csv", ("row", "col", "prob"), detected)
    write_table(tmp_path / "b_points.csv", ("row", "col", "prob"), detected[:1])
    open_files(page, *(tmp_path / n for n in ("a.png", "b.png", "a_points.csv", "b_points.csv")))
    click(page, 60, 60)
    click(page, 200.5, 100.5, button="right")
    saved(page, "csv", tmp_path)
    page.keyboard.press("PageDown")
    click(page, 299.9, 0.1)
    saved(page, "geojson", tmp_path)
    place = ["--data-dir", tmp_path / "set"]
    run_script("data/import_labels.py", "points", *place, "--source", tmp_path / "saved")
    run = ["--dataset", "mine", "--ratio", 1, "--root-save-dir", tmp_path / "out"]
    printed = run_script("code_detection/prepare_data.py", *place, *run).stdout
    assert "5 of 5 points annotated in 2 training images" in printed
    points = np.loadtxt(next(tmp_path.rglob("points/b.csv")), delimiter=",", skiprows=2)
    assert {tuple(p) for p in points.tolist()} == {(20, 30), (0, 299)}


FIRST, SECOND = [(50, 50), (150, 50), (250, 50)], [(60, 150), (160, 150), (260, 150)]


@pytest.fixture
def two(page, tmp_path):
    """A page of two images with three points each, of which the first is shown."""
    paths = [tmp_path / f"{name}.{kind}" for name in "ab" for kind in ("png", "csv")]
    for path, points in zip(paths[1::2], (FIRST, SECOND), strict=True):
        write_table(path, ("x", "y"), points)
    open_files(page, *paths)
    return page


def rounded(page):
    return [[tuple(map(round, p)) for p in points] for points in points_of_all(page).values()]


@pytest.mark.parametrize("key", ["Delete", "Control+z", "PageDown", "Control+s"])
def test_keys_do_nothing_while_a_point_is_dragged(two, key):
    hover(two, 50, 50)
    two.mouse.down()
    two.mouse.move(*where(two, 70, 60), steps=3)
    two.keyboard.press(key)
    two.mouse.move(*where(two, 80, 70), steps=3)
    two.mouse.up()
    assert two.evaluate("current.name") == "a" and status(two) == "3 points, not saved"
    assert rounded(two) == [[(80, 70), *FIRST[1:]], SECOND]
    two.keyboard.press("Control+z")
    assert rounded(two) == [FIRST, SECOND]


def test_a_button_ends_a_drag(two):
    """As another finger may press it; the point stays where it was."""
    for button in ("undo", "next"):
        hover(two, 50, 50)
        two.mouse.down()
        two.mouse.move(*where(two, 70, 60), steps=3)
        two.evaluate("(id) => document.getElementById(id).click()", button)
        two.mouse.move(*where(two, 80, 70), steps=3)
        two.mouse.up()
        two.keyboard.press("PageUp" if button == "next" else "Control+Shift+z")
        assert rounded(two) == [FIRST, SECOND]


@pytest.mark.parametrize("how", ["PageDown", "0", "Control+z", "buttons", "file", "wheel"])
def test_what_was_under_the_mouse_is_forgotten(two, tmp_path, how):
    """When other points are shown, or others elsewhere."""
    two.mouse.move(*where(two, 0, 0))
    two.mouse.wheel(0, -100)
    hover(two, 150, 50)
    left = [FIRST, SECOND]
    if how == "buttons":
        two.mouse.move(300, 20)
    elif how == "file":
        write_table(tmp_path / "a.csv", ("x", "y"), FIRST[:2])
        two.set_input_files("#open", str(tmp_path / "a.csv"))
        two.locator("#status", has_text="2 points").wait_for()
        left = [FIRST[:2], SECOND]
    elif how == "wheel":
        x, y = where(two, 150, 50)
        two.mouse.move(x + 7, y)
        two.mouse.wheel(0, -400)
    else:
        two.keyboard.press(how)
        left = [[], SECOND] if how == "Control+z" else left
    two.keyboard.press("Delete")
    assert rounded(two) == left


def test_a_point_is_removed_where_it_was_just_put(two):
    """The mouse rests on it."""
    click(two, 200, 100)
    drag(two, (200, 100), (220, 120))
    two.keyboard.press("Delete")
    assert rounded(two) == [FIRST, SECOND]


@pytest.fixture
def touch(two):
    """A finger on `two` that begins or moves at a place of the image, or ends."""
    session = two.context.new_cdp_session(two)

    def send(kind, *place):
        points = [dict(zip("xy", where(two, *place), strict=True))] if place else []
        session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

    return send


def test_a_drag_that_the_system_ends_leaves_the_point(two, touch, tmp_path):
    saved(two, "csv", tmp_path)
    for end, first in (("Cancel", (50, 50)), ("End", (90, 90))):
        touch("Start", 50, 50)
        touch("Move", 70, 60)
        touch("Move", 90, 90)
        touch(end)
        assert rounded(two) == [[first, *FIRST[1:]], SECOND]
        assert status(two) == ("3 points" if end == "Cancel" else "3 points, not saved")


def test_a_long_touch_removes_a_point(two, touch):
    touch("Start", 50, 50)
    touch("End")
    assert rounded(two) == [FIRST, SECOND]
    touch("Start", 50, 50)
    two.locator("#status", has_text="2 points, not saved").wait_for()
    touch("End")
    assert rounded(two) == [FIRST[1:], SECOND]


def test_zoom_and_pan_leave_the_points_where_they_are(page, tmp_path):
    open_files(page, tmp_path / "a.png")
    click(page, 100, 100)
    page.mouse.move(*where(page, 100, 100))
    page.mouse.wheel(0, -600)
    before = page.evaluate("[view.x, view.y, view.zoom]")
    assert before[2] > 5
    drag(page, (90, 90), (95, 92))
    assert page.evaluate("[view.x, view.y]") != before[:2]
    click(page, 108, 104)
    points = np.array(read_point_table(saved(page, "csv", tmp_path)).points)
    assert np.abs(points - [(100, 100), (108, 104)]).max() < 0.6


def test_nothing_is_lost_when_the_page_is_closed(page, tmp_path):
    """Kept points are taken up, which is said; Undo drops them, also for the next visit."""
    open_files(page, tmp_path / "a.png")
    click(page, 100, 100)
    page.reload()
    open_files(page, tmp_path / "a.png")
    assert status(page) == "1 points, not saved, kept from an earlier visit, Undo drops them"
    click(page, 50, 50)
    assert status(page) == "2 points, not saved"
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert status(page).startswith("0 points")
    page.reload()
    open_files(page, tmp_path / "a.png")
    assert status(page) == "0 points"


def test_saved_points_are_not_called_unsaved(page, tmp_path):
    """On a later visit; what was changed after saving is."""
    open_files(page, tmp_path / "a.png", tmp_path / "b.png")
    click(page, 100, 100)
    saved(page, "csv", tmp_path)
    page.keyboard.press("PageDown")
    click(page, 100, 100)
    saved(page, "geojson", tmp_path)
    click(page, 50, 50)
    page.reload()
    open_files(page, tmp_path / "a.png", tmp_path / "b.png")
    assert status(page) == "1 points, kept from an earlier visit, Undo drops them"
    page.keyboard.press("PageDown")
    assert status(page) == "2 points, not saved, kept from an earlier visit, Undo drops them"


@pytest.mark.parametrize("kept", ["[null,[1,2]]", "[[5000,2]]", "5", "[[1,2]"])
def test_broken_places_in_the_storage_are_told(page, tmp_path, kept):
    """The image opens all the same."""
    open_files(page, tmp_path / "a.png")
    for name in ("", "seen ", "saved "):
        page.evaluate("([k, v]) => localStorage.setItem(k + current.key, v)", [name, kept])
    page.reload()
    open_files(page, tmp_path / "a.png")
    assert status(page) == "0 points, what this browser kept of it is not readable"
    click(page, 100, 100)
    assert status(page) == "1 points, not saved"


def test_a_full_storage_is_told(page, tmp_path):
    open_files(page, tmp_path / "a.png")
    page.evaluate(
        "() => { for (let size = 2 ** 20; size >= 1; size /= 2) try {"
        " for (let i = 0; ; i++) localStorage.setItem(`${size} ${i}`, 'x'.repeat(size));"
        " } catch { /* full */ } }"
    )
    click(page, 100, 100)
    assert status(page) == "1 points, not saved, nor kept in this browser"
    saved(page, "csv", tmp_path)
    assert status(page) == "1 points"


def test_kept_points_belong_to_the_content_of_an_image(page, tmp_path):
    """Another project has an image of the same name and size."""
    open_files(page, tmp_path / "a.png")
    click(page, 100, 100)
    page.reload()
    write_png(tmp_path / "other" / "a.png", np.full((200, 300, 3), 99, np.uint8))
    open_files(page, tmp_path / "other" / "a.png")
    assert status(page) == "0 points"


def test_a_file_of_points_comes_before_kept_ones(page, tmp_path):
    open_files(page, tmp_path / "a.png")
    click(page, 100, 100)
    click(page, 50, 50)
    page.reload()
    write_points(tmp_path / "a.csv", np.array([[20, 30]]))
    open_files(page, tmp_path / "a.png", tmp_path / "a.csv")
    assert status(page) == ("1 points, not saved, in place of 2 points, Undo brings these back")
    page.keyboard.press("Control+z")
    assert status(page).startswith("2 points")


def test_two_files_of_one_image_are_not_mixed(page, tmp_path):
    write_points(tmp_path / "a.csv", np.array([[20, 30]]))
    write_points(tmp_path / "a.png_POINTS.csv", np.array([[40, 50]]))
    open_files(page, tmp_path / "a.png", tmp_path / "a.csv", tmp_path / "a.png_POINTS.csv")
    said = "a.png_POINTS.csv: a.csv is of this image, too; open one of them"
    assert status(page) == f"{said}; 1 points, not saved"
    assert page.evaluate("current.points") == [[30.5, 20.5]]


def test_an_image_opened_twice_keeps_its_points(page, tmp_path):
    open_files(page, tmp_path / "a.png")
    click(page, 100, 100)
    open_files(page, tmp_path / "b.png", tmp_path / "a.png")
    page.locator("#images option >> nth=1").wait_for(state="attached")
    page.select_option("#images", label="a")
    assert status(page) == "1 points, not saved"
    page.keyboard.press("Control+z")
    assert status(page).startswith("0 points")
    write_png(tmp_path / "other" / "a.png", np.full((200, 300, 3), 99, np.uint8))
    page.set_input_files("#open", str(tmp_path / "other" / "a.png"))
    page.locator("#status", has_text="another image of this name").wait_for()
    assert page.evaluate("tiles.length") == 2


def test_files_of_an_image_that_is_not_open_are_not_taken(two, tmp_path):
    """It has the name of one that is open."""
    write_png(tmp_path / "other" / "a.png", np.full((200, 300, 3), 99, np.uint8))
    write_table(tmp_path / "a_points.csv", ("x", "y"), [(7, 8)])
    table = [(1, 2, "a.png"), (3, 4, "b.png")]
    write_table(tmp_path / "all_points.csv", ("x", "y", "image"), table)
    files = [tmp_path / name for name in ("other/a.png", "a_points.csv", "all_points.csv")]
    two.set_input_files("#open", list(map(str, files)))
    told = two.locator("#status", has_text="a.png: another image of this name is open")
    told.wait_for()
    assert "a_points.csv: not taken, as its image is not; " in status(two)
    assert "all_points.csv: 1 of its images are not open; 3 points, not saved" in status(two)
    assert rounded(two) == [FIRST, [(3, 4)]]


@pytest.mark.parametrize(
    ("suffix", "orientation"), [("jpg", 3), ("jpg", 6), ("png", 5), ("png", 8)]
)
def test_an_image_is_turned_as_the_readers_turn_it(page, tmp_path, suffix, orientation):
    """A nucleus is clicked where the page shows it, and found there by the readers."""
    stored = np.full((200, 300, 3), 230, np.uint8)
    stored[20:40, 250:270] = (90, 0, 120)
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(stored).save(path, exif=exif)
    image = read_image(path)
    row, col = np.argwhere(image[..., 1] < 100).mean(0)
    open_files(page, path)
    assert page.evaluate("[current.image.height, current.image.width]") == list(image.shape[:2])
    click(page, col + 0.5, row + 0.5)
    ((x, y),) = read_point_table(saved(page, "csv", tmp_path)).points
    assert abs(x - col) < 2 and abs(y - row) < 2
    shown = page.evaluate(
        "([x, y]) => { const c = document.createElement('canvas'), d = c.getContext('2d');"
        " d.drawImage(current.image, -x, -y); return [...d.getImageData(0, 0, 1, 1).data]; }",
        [int(x), int(y)],
    )
    assert np.abs(np.array(shown[:3]) - image[int(y), int(x)]).max() < 20


@pytest.mark.parametrize("name", ['"<b>&amp;', "'; alert(1)\nü %20#"])
def test_names_are_shown_as_they_are(page, tmp_path, name):
    (tmp_path / "a.png").rename(tmp_path / f"{name}.png")
    write_points(tmp_path / f"{name}_points.csv", np.array([[20, 30]]))
    open_files(page, tmp_path / f"{name}.png", tmp_path / f"{name}_points.csv")
    shown = page.evaluate("[at('images').options[0].text, document.querySelectorAll('b').length]")
    assert shown == [" ".join(name.split()), 0]
    assert status(page) == "1 points, not saved"
    path = saved(page, "csv", tmp_path)
    assert path.suffix == ".csv" and len(np.loadtxt(path, delimiter=",", skiprows=1)) == 2


def test_a_saved_table_is_opened_again(page, tmp_path):
    open_files(page, tmp_path / "a.png")
    for x, y in ((0, 0), (299.9, 199.9), (77.3, 12.8)):
        click(page, x, y)
    before = page.evaluate("current.points")
    path = saved(page, "csv", tmp_path)
    page.reload()
    open_files(page, tmp_path / "a.png", path)
    assert np.abs(np.array(page.evaluate("current.points")) - before).max() <= 0.051


def read_by_the_page(page, name, content):
    """The points that the page finds in a file for the image a.png, or its error."""
    text = content if isinstance(content, str) else json.dumps(content)
    return page.evaluate(
        "([name, text]) => { try {"
        " return parsePoints(name, text, { name: 'a', file: 'a.png' }).points;"
        " } catch (e) { return e.message; } }",
        [name, text],
    )


def read_by_the_import(folder, name, content):
    """The points that import_labels.py finds there, or its error."""
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    try:
        return [list(p) for p in read_annotations(folder / name, "a.png", (200, 300)).points]
    except InputError as error:
        return str(error)


def feature(kind="Point", coordinates=(5.5, 6.5), properties=None, **more):
    geometry = {"type": kind, "coordinates": coordinates, **more}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def collection(*features):
    return {"type": "FeatureCollection", "features": features}


OF_QUPATH = {"objectType": "annotation", "classification": {"name": "Tumor", "color": [1, 2, 3]}}
TAKEN = {
    "corner": ("a.csv", "x,y\n30.5,20\n1e1,7\n"),
    "middle": ("a.csv", "row,col\r\n20,30\r\n7,8"),
    "detections": ("a.csv", "# a note\n\nRow, Col ,prob\n20,30,0.9\n,,\n7,8,\n"),
    "none": ("a.csv", "x,y\n"),
    "all images": ("a.csv", 'x,y,image\n3,4,a.png\n5,6,"b ""1"", \n.png"\n7,8,a.png\n'),
    "names without suffixes": ("a.csv", "x,y,image\n3,4,a.7\n5,6,a\n"),
    "the name of a slide": ("a.csv", "x,y,image\n3,4,a.ome.tif\n"),
    "no nuclei": ("a.csv", "x,y,image\n,,a.png\n5,6,b.png\n"),
    "the middle of the first pixel": ("a.csv", "row,col\n0,0\n"),
    "points": ("a.geojson", collection(feature("MultiPoint", [[1, 2], [3.25, 4]], OF_QUPATH))),
    "a point": ("a.json", feature(properties={"object_type": "detection"})),
    "a list": ("a.json", [feature(), feature(plane={"c": -1, "z": 0, "t": 0})]),
    "no objects": ("a.geojson", collection()),
    "no points": ("a.geojson", collection(feature("MultiPoint", []))),
}
STAR = {"classification": {"names": ["Tumor", "Ignore*"]}}
BOX = [[[1, 1], [9, 1], [9, 9], [1, 9], [1, 1]]]
IMPORTED = {  # what the page leaves to import_labels.py
    "semicolons": ("a.csv", "row;col\n20;30,5\n"),
    "tabs": ("a.csv", "x\ty\n30\t20\n"),
    "napari": ("a.csv", "index,axis-0,axis-1\n0,20,30\n"),
    "ImageJ": ("a.csv", " ,Area,XM,YM\n1,5,10,20\n"),
    "scikit-image": ("a.csv", "column,row\n10,20\n"),
    "classes": ("a.csv", "x,y,class\n1,2,T\n3,4,Ignore*\n"),
    "microns": ("a.csv", "x,y,unit\n10,20,um\n"),
    "two places": ("a.csv", "row,col,x,y\n20,10,99,98\n"),
    "objects": ("a.csv", "Object type,x,y\nAnnotation,50,60\nDetection,10,20\n"),
    "columns twice": ("a.csv", "x,y,x,y\n1,2,30,40\n"),
    "boxes": ("a.csv", "x,y,w,h\n10,20,10,10\n"),
    "vertices": ("a.csv", "vertex,x,y\n0,10,20\n"),
    "other images": ("a.csv", "x,y,image\n3,4,b.png\n5,6,c.png\n"),
    "other folders": ("a.csv", "x,y,image\n3,4,1/a.png\n5,6,2/a.png\n"),
    "a quote": ("a.csv", 'x,y,image\n3,4,a"b.png\n'),
    "a longer name": ("a.csv", "x,y,image\n3,4,a.7\n"),
    "an open quote": ("a.csv", 'x,y,image\n3,4,"a.png\n5,6,a.png\n'),
    "a line of no image": ("a.csv", "x,y,image\n3,4,\n"),
    "outlines": ("a.geojson", collection(feature("Polygon", BOX))),
    "no vertices": ("a.geojson", collection(feature("Polygon", []))),
    "lines": ("a.geojson", collection(feature(), feature("LineString", [[1, 1], [9, 9]]))),
    "a class with a star": ("a.geojson", collection(feature(), feature(properties=STAR))),
    "tiles": ("a.geojson", collection(feature(properties={"objectType": "tile"}))),
    "planes": ("a.geojson", collection(feature(), feature(plane={"z": 1}))),
    "a plane": ("a.geojson", feature(plane={"z": 0, "t": 2})),
    "no geometry": ("a.geojson", collection({"type": "Feature", "geometry": None})),
    "labelme": ("a.json", {"shapes": [{"points": [[1, 2]]}]}),
    "COCO": ("a.json", {"images": [], "annotations": []}),
    "null": ("a.json", "null"),
    "no features": ("a.json", {"features": None}),
}
REFUSED = {
    "no number": ("a.csv", "x,y\n1,a\n", "no numbers"),
    "half a place": ("a.csv", "x,y\n1,\n", "no numbers"),
    "no decimal number": ("a.csv", "x,y\n0x10,2\n", "no numbers"),
    "no place": ("a.csv", "x,y,image\n,,a.png\n5,6,a.png\n", "no numbers"),
    "row names of R": ("a.csv", '"x","y"\n"1",10.5,20.5\n', "more or fewer cells"),
    "decimal commas": ("a.csv", "x,y\n10,5,20,5\n", "more or fewer cells"),
    "a share": ("a.csv", "x,y\n0.2,0.4\n", "from 0 to 1"),
    "shares": ("a.geojson", feature("MultiPoint", [[0.2, 0.4], [0.5, 1]]), "from 0 to 1"),
    "null in a place": ("a.json", feature(coordinates=[None, 2]), "no numbers"),
    "text in a place": ("a.json", feature(coordinates=["1", "2"]), "no numbers"),
    "no places": ("a.json", feature("MultiPoint", [1, 2]), "no numbers"),
    "no list": ("a.json", feature("MultiPoint", None), "no GeoJSON of points"),
    "no JSON": ("a.json", "{", "JSON"),
}


def test_what_the_page_takes_means_the_same_to_the_import(page, tmp_path):
    for what, given in TAKEN.items():
        places = read_by_the_page(page, *given)
        assert isinstance(places, list), what
        assert places == read_by_the_import(tmp_path, *given), what


def test_the_page_leaves_other_forms_to_the_import(page):
    for what, (name, content) in IMPORTED.items():
        said = str(read_by_the_page(page, name, content))
        assert said.endswith("; import it with data/import_labels.py"), what


def test_no_point_is_invented(page, tmp_path):
    for what, (name, content, message) in REFUSED.items():
        assert message in str(read_by_the_page(page, name, content)), what
        if what != "text in a place":
            assert isinstance(read_by_the_import(tmp_path, name, content), str), what


def test_what_is_not_taken_is_told(page, tmp_path):
    """Until the points are changed."""
    (tmp_path / "a.csv").write_text("x,y,image\n10.5,20,a.png\n40,60,b.png\n900,6,a.png\n")
    open_files(page, tmp_path / "a.png", tmp_path / "a.csv")
    said = "1 points, not saved, left out: 1 of another image"
    assert status(page) == f"a.csv: 1 points outside of a, left out; {said}"
    (tmp_path / "a.csv").write_bytes("x,y\n1,2\n".encode("utf-16"))
    page.set_input_files("#open", str(tmp_path / "a.csv"))
    told = page.locator("#status", has_text="no text in UTF-8; import it with data/import_labels")
    told.wait_for()
    assert page.evaluate("current.points") == [[10.5, 20]]
    hover(page, 10.5, 20)
    assert told.is_visible()
    page.keyboard.press("Delete")
    assert status(page) == "0 points, not saved"


def test_a_file_goes_to_the_image_of_its_own_name(page, tmp_path):
    """Though another one is called so but for the ending, which may be open or not."""
    (tmp_path / "b.png").rename(tmp_path / "a_points.png")
    (tmp_path / "a_points.csv").write_text("x,y\n10,20\n")
    open_files(page, *(tmp_path / name for name in ("a.png", "a_points.png", "a_points.csv")))
    assert points_of_all(page) == {"a": [], "a_points": [[10, 20]]}
    page.reload()
    (tmp_path / "a.png").write_text("no image")
    open_files(page, *(tmp_path / name for name in ("a.png", "a_points.png", "a_points.csv")))
    assert points_of_all(page) == {"a_points": [[10, 20]]}


def test_what_cannot_be_opened_is_named(page, tmp_path):
    broken = {"c.png": "no image", "a.csv": "u,v\n1,2\n", "z.csv": "x,y\n1,2\n", "a.geojson": "{"}
    for name, content in broken.items():
        (tmp_path / name).write_text(content)
    open_files(page, tmp_path / "a.png", *(tmp_path / name for name in broken))
    assert "c.png: no image" in status(page)
    assert "a.csv: expected the columns" in status(page)
    assert "z.csv: open its image" in status(page)
    assert "a.geojson: " in status(page)


# ---------------------------------------------------------------- the page of predict.py --annotate

ODD = 'b "1", <script>ü\n&amp;'
DETECTED = {  # name -> row, column, probability
    "a": [(20, 30, 0.3), (100, 200, 0.9), (150, 90, 0.95)],
    ODD: [(40, 50, 0.2)],
}
CANDIDATES = {"a": [(180, 250, 0.1)], "c": [(60, 70, 0.15)]}


def found(name):
    points, nearly = (
        np.array(places.get(name, []), float).reshape(-1, 3) for places in (DETECTED, CANDIDATES)
    )
    return Found(points[:, :2], points[:, 2], nearly[:, :2], nearly[:, 2])


def make_page(folder):
    """The page of three images of a data set: a, ODD and c, in which nothing was detected.

    Doubtful are a detection of a and that of ODD, and the candidates of a and c.
    """
    images = {name: folder / "set" / "images" / f"{name}.png" for name in ("a", ODD, "c")}
    for grey, path in enumerate(images.values(), 200):
        write_png(path, np.full((200, 300, 3), grey, np.uint8))
    left_out = write_page(folder / "out.html", images, {name: found(name) for name in images})
    assert not left_out
    return (folder / "out.html").as_uri()


def is_ready(page):
    page.wait_for_selector("#all:not([disabled])")
    return page


@pytest.fixture
def many_doubts(monkeypatch):
    """Half of the detections are doubtful, as a tenth of hundreds would be."""
    monkeypatch.setattr("code_detection.annotate_page.DOUBTFUL", 0.5)


@pytest.fixture
def embedded(browser, tmp_path, many_doubts):
    with opened(browser, make_page(tmp_path)) as page:
        yield is_ready(page)


def imported(folder, source):
    """Row, column of the points of each image of the data set, imported from one file."""
    main(parse_arguments(["points", "--data-dir", str(folder / "set"), "--source", str(source)]))
    labels = (folder / "set" / "labels_point").glob("*.png")
    return {
        path.name.removesuffix("_label_point.png"): {
            tuple(place) for place in np.argwhere(read_label(path, (200, 300))).tolist()
        }
        for path in labels
    }


def test_detections_of_all_images_are_corrected_and_saved_in_one_file(embedded, tmp_path):
    page = embedded
    assert status(page) == "3 points, 4 doubtful places left"
    click(page, 60.5, 90.5)
    click(page, 90.5, 150.5, button="right")
    page.keyboard.press("PageDown")
    assert page.evaluate("current.file") == f"{ODD}.png"
    click(page, 50.5, 40.5, button="right")
    path = saved(page, "all", tmp_path)
    assert status(page) == "0 points, 4 doubtful places left"
    assert imported(tmp_path, path) == {
        "a": {(20, 30), (100, 200), (90, 60)},
        ODD: set(),
        "c": set(),
    }


def test_keys_lead_through_the_doubtful_places_of_all_images(embedded, tmp_path):
    """N goes on and says how many are left, A makes a point, Del removes one; Undo as ever."""
    page, middle = embedded, []
    for left in (3, 2, 1, 0):
        page.keyboard.press("n")
        assert status(page).endswith(f"{left} doubtful places left")
        middle.append(page.evaluate("[current.name, doubt.y, doubt.x]"))
        assert page.evaluate(
            "() => { const { width, height } = canvas.getBoundingClientRect();"
            " return Math.hypot(view.x + doubt.x * view.zoom - width / 2,"
            " view.y + doubt.y * view.zoom - height / 2) < 1 && view.zoom > 2; }"
        )
        if left in (3, 0):  # a detection that is none, a candidate that is one
            page.keyboard.press("Delete" if left == 3 else "a")
            page.keyboard.press("Delete" if left == 3 else "a")
        elif left == 2:
            page.keyboard.press("a")
            page.keyboard.press("Delete")
            page.keyboard.press("Control+z")
            page.keyboard.press("Control+z")
    assert middle == [["a", 20.5, 30.5], ["a", 180.5, 250.5], [ODD, 40.5, 50.5], ["c", 60.5, 70.5]]
    page.keyboard.press("n")
    assert page.evaluate("current.name") == "c"
    assert imported(tmp_path, saved(page, "all", tmp_path)) == {
        "a": {(100, 200), (150, 90)},
        ODD: {(40, 50)},
        "c": {(60, 70)},
    }


def test_the_point_under_the_mouse_comes_before_the_doubtful_place(embedded):
    page = embedded
    page.keyboard.press("n")
    page.mouse.move(*where(page, 200.5, 100.5))
    page.mouse.move(*where(page, 200.5, 100.9))
    page.keyboard.press("Delete")
    assert page.evaluate("current.points") == [[30.5, 20.5], [90.5, 150.5]]


def test_another_image_is_not_where_the_doubtful_place_was(embedded):
    page = embedded
    page.keyboard.press("n")
    page.keyboard.press("PageDown")
    page.keyboard.press("Delete")
    page.keyboard.press("a")
    assert status(page) == "1 points, 3 doubtful places left"
    page.keyboard.press("n")  # the next one is of this image
    assert page.evaluate("[current.name, doubt.x]") == [ODD, 50.5]
    page.keyboard.press("n")
    page.keyboard.press("n")  # then what was left out before
    assert page.evaluate("[current.name, doubt.x]") == ["a", 250.5]


def test_corrections_and_what_was_seen_are_kept(embedded):
    """Also where an image has no point any more; Undo brings the detections back."""
    page = embedded
    page.keyboard.press("PageDown")
    page.keyboard.press("n")
    page.keyboard.press("Delete")
    page.reload()
    is_ready(page)
    assert status(page) == "3 points, 3 doubtful places left"
    page.keyboard.press("PageDown")
    kept = "kept from an earlier visit, Undo drops them"
    assert status(page) == f"0 points, not saved, 3 doubtful places left, {kept}"
    page.keyboard.press("Control+z")
    assert page.evaluate("current.points") == [[50.5, 40.5]]
    page.reload()
    assert status(is_ready(page)).startswith("3 points, 3 doubtful")
    page.keyboard.press("PageDown")
    assert status(page) == "1 points, 3 doubtful places left"


def test_places_that_were_seen_are_known_in_another_page(embedded, tmp_path, monkeypatch):
    """With more images, other places may be doubtful."""
    page = embedded
    page.keyboard.press("n")
    page.keyboard.press("n")
    monkeypatch.setitem(CANDIDATES, "a", [(5, 5, 0.4), (180, 250, 0.1)])
    make_page(tmp_path)
    page.reload()
    assert status(is_ready(page)) == "3 points, 3 doubtful places left"
    page.keyboard.press("n")
    assert page.evaluate("doubt.x") == 5.5


def test_corrections_belong_to_the_detections_they_were_made_of(embedded, tmp_path, monkeypatch):
    """Another model's detections of the same image are not replaced by them."""
    page = embedded
    click(page, 60.5, 90.5)
    monkeypatch.setitem(DETECTED, "a", [(30, 40, 0.9)])
    make_page(tmp_path)
    page.reload()
    assert status(is_ready(page)).startswith("1 points")


def test_unsaved_points_ask_before_the_page_is_closed(embedded, tmp_path):
    page = embedded
    click(page, 60.5, 90.5)
    with page.expect_event("dialog") as asked:
        page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()
    with page.expect_download() as waiting:
        page.keyboard.press("Control+s")
    assert waiting.value.suggested_filename == "all_points.csv"
    with page.expect_event("close"):
        page.close(run_before_unload=True)


def test_the_file_of_all_images_is_opened_again(embedded, browser, tmp_path):
    page = embedded
    click(page, 60.5, 90.5)
    path = saved(page, "all", tmp_path)
    click(page, 90.5, 90.5)
    page.keyboard.press("PageDown")
    click(page, 50.5, 40.5, button="right")
    page.set_input_files("#open", str(path))
    # Not by wait_for_function: it may evaluate a text in the page, which the page forbids.
    for _ in range(100):
        if page.evaluate("String(tiles.map(({ points }) => points.length))") == "4,1,0":
            break
        page.wait_for_timeout(50)
    else:
        raise AssertionError("the points of the file are not in the page")
    with opened(browser, PAGE) as alone:
        open_files(alone, *(tmp_path / "set" / "images").iterdir(), path)
        assert status(alone) == "4 points, not saved"
        assert alone.evaluate("tiles.map(({ points }) => points.length)") == [4, 1, 0]
        again = saved(alone, "all", tmp_path / "again")
    assert again.read_text() == path.read_text()


def test_a_wrong_line_of_the_file_of_all_images_is_told(embedded, tmp_path):
    """The other images get their points."""
    path = tmp_path / "saved" / "all_points.csv"
    path.parent.mkdir()
    path.write_text("x,y,image\n1,2,a.png\n1,900,a.png\n3,4,c.png\n")
    embedded.set_input_files("#open", str(path))
    told = embedded.locator("#status", has_text="1 points outside of a, left out")
    told.wait_for()
    assert embedded.evaluate("tiles.map(({ points }) => points.length)") == [1, 1, 1]


@pytest.mark.parametrize("more", ["", "1,2,b.png\n"])
def test_a_line_without_a_place_says_that_there_are_no_nuclei(page, tmp_path, more):
    (tmp_path / "a.csv").write_text(f"x,y,image\n,,a.png\n{more}")
    open_files(page, tmp_path / "a.png", tmp_path / "a.csv")
    assert status(page).startswith("0 points, not saved")
    assert read_point_table(tmp_path / "a.csv", image="a.png").points == []
    (tmp_path / "a.csv").write_text(f"x,y,image\n,,a.png\n5,6,a.png\n{more}")
    page.set_input_files("#open", str(tmp_path / "a.csv"))
    page.locator("#status", has_text="no numbers").wait_for()


def test_a_narrow_window_holds_the_page(browser, tmp_path, many_doubts):
    """A finger needs no keys: a button leads on, a tap marks."""
    with opened(browser, make_page(tmp_path), width=390) as page:
        is_ready(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for button in ("#doubt", "#all", "#next", "#undo"):
            box = page.locator(button).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= 390
        page.click("#doubt")
        page.click("#doubt")
        assert page.evaluate("doubt.x") == 250.5 and page.evaluate("canvas.height") > 250
        click(page, 250.5, 180.5)
        assert status(page).startswith("4 points, not saved, 2 doubtful places left")
        page.keyboard.press("a")  # there is one
        assert status(page).startswith("4 points")


def test_without_doubts_nothing_is_said_of_them(page, tmp_path):
    open_files(page, tmp_path / "a.png")
    assert status(page) == "0 points" and page.locator("#doubt").is_hidden()
    page.keyboard.press("n")
    page.keyboard.press("a")
    page.keyboard.press("Delete")
    assert status(page) == "0 points"

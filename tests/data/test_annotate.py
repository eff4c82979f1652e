"""The annotation page in a real browser, with real clicks; its files are read by the importers."""

import json

import numpy as np
import pytest
from conftest import PROJECT
from PIL import Image

from code_common.files.images import read_image
from code_common.files.writing import write_json, write_png, write_points, write_table
from data.annotations.formats import (
    object_places,
    read_geojson,
    read_point_table,
    without_regions,
)

PAGE = (PROJECT / "data" / "annotate.html").as_uri()


@pytest.fixture
def page(browser, tmp_path):
    context = browser.new_context(viewport={"width": 1000, "height": 700}, accept_downloads=True)
    context.set_offline(True)
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.goto(PAGE)
    for name in ("a", "b"):
        write_png(tmp_path / f"{name}.png", np.full((200, 300, 3), 230, np.uint8))
    yield page
    assert not problems
    context.close()


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
    assert status(page) == "a.png_POINTS.csv: a.csv is of this image, too; open one of them"
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


TABLES = {
    "row;col\n20;30,5\n": [31, 20.5],
    'name,x,y\n"a, b",30.5,20\n': [30.5, 20],
    "x\ty\r\n30,5\t20\r\n": [30.5, 20],
    "index,axis-0,axis-1,axis-2\n0,4,20,30\n1,4,20,30\n": [30.5, 20.5],
}


@pytest.mark.parametrize("text", TABLES)
def test_tables_mean_the_same_as_to_the_importers(page, tmp_path, text):
    (tmp_path / "a.csv").write_text(text, newline="")
    open_files(page, tmp_path / "a.png", tmp_path / "a.csv")
    assert page.evaluate("current.points[0]") == TABLES[text]
    assert read_point_table(tmp_path / "a.csv").points[0] == tuple(TABLES[text])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y\n1,\n", "no numbers"),
        ("x,y\n1,a\n", "no numbers"),
        ("axis-0,axis-1,axis-2\n0,5,5\n1,5,5\n", "several planes"),
    ],
)
def test_no_point_is_invented(page, tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    open_files(page, tmp_path / "a.png", tmp_path / "a.csv")
    assert message in status(page)
    assert page.evaluate("current.points") == []


def read_by_the_page(page, name, content):
    """What the page makes of a file for the tile a: [points, what is left out], or an error."""
    text = content if isinstance(content, str) else json.dumps(content)
    return page.evaluate(
        "([name, text]) => { try {"
        " const { points, leftOut } = parsePoints(name, text, { name: 'a', width: 300,"
        " height: 200 }); return [points, counts(leftOut)]; } catch (e) { return e.message; } }",
        [name, text],
    )


def box(x, y, width, height, kind="", name="", **more):
    vertices = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [vertices]},
        "properties": {"objectType": kind, "classification": {"name": name}},
        **more,
    }


def line(*places):
    return {"type": "LineString", "coordinates": places}


POINT = {"type": "Point", "coordinates": [5.5, 6.5]}
BENT = [[20, 20], [40, 20], [40, 24], [24, 24], [24, 36], [40, 36], [40, 40], [20, 40], [20, 20]]
HOLE = [[20, 20], [40, 20], [40, 40], [20, 40], [20, 20]]
DETECTED = [box(10 * k, 10, 6, 6, "detection") for k in (1, 3, 6)]
OBJECTS = {
    "a cell": ([box(0, 0, 50, 50, "cell", nucleusGeometry=box(2, 2, 6, 6)["geometry"])], ""),
    "a line": ([POINT, line([1, 1], [9, 9])], "1 line"),
    "Region*": ([POINT, box(1, 1, 9, 9, "annotation", "Region*")], "1 of class Region*"),
    "the tile": ([*DETECTED, box(0, 0, 300, 200, "annotation")], "1 region"),
    "a region of nuclei": ([*DETECTED, box(2, 2, 90, 90)], "1 region"),
    "a region beside": ([*DETECTED, box(100, 100, 50, 50, "annotation")], "1 region"),
    "a core of QuPath 0.2": (
        [POINT, {**box(100, 100, 50, 50), "properties": {}, "id": "TMACoreObject"}],
        "1 tmacore of QuPath",
    ),
    "a core": ([POINT, box(100, 100, 50, 50, "tmaCore")], "1 tmacore of QuPath"),
    "a bent nucleus": ([{"type": "Polygon", "coordinates": [BENT]}], ""),
    "a nucleus with a hole": (
        [{"type": "Polygon", "coordinates": [HOLE, [[23, 23], [38, 23], [38, 38], [23, 38]]]}],
        "",
    ),
    "no word Feature": ([{"geometry": POINT}], ""),
}


def test_geojson_means_the_same_as_to_the_importers(page, tmp_path):
    for what, (objects, left_out) in OBJECTS.items():
        write_json(tmp_path / "a.geojson", objects)
        read = without_regions(read_geojson(tmp_path / "a.geojson"), (200, 300))
        places, said = read_by_the_page(page, "a.geojson", objects)
        assert np.allclose(places, object_places(read, (200, 300))), what
        assert said == left_out and sum(read.left_out.values()) == bool(left_out), what


IN_PLANES = [{"geometry": {**POINT, "plane": {"z": z}}} for z in (0, 1)]
NO_POINTS = {
    "labelme": ("a.json", {"shapes": [{"points": [[1, 2]]}]}, "no GeoJSON"),
    "COCO": ("a.json", {"images": [], "annotations": []}, "no GeoJSON"),
    "null": ("a.json", {"type": "Point", "coordinates": [None, 2]}, "no numbers"),
    "a line alone": ("a.json", line([1, 1], [2, 2]), "it holds 1 line"),
    "planes of QuPath": ("a.json", IN_PLANES, "several planes"),
    "planes of ImageJ": ("a.csv", "X,Y,Slice\n1,2,1\n3,4,2\n", "several planes"),
    "row names of R": ("a.csv", '"x","y"\n"1",10.5,20.5\n', "more cells"),
    "decimal commas": ("a.csv", "x,y\n10,5,20,5\n", "more cells"),
    "columns twice": ("a.csv", "x,y,x,y\n1,2,30,40\n", "column x stands twice"),
    "boxes": ("a.csv", "x,y,w,h\n10,20,10,10\n", "boxes"),
    "shares": ("a.csv", "x,y\n0.2,0.4\n", "from 0 to 1"),
    "other images": (
        "a.csv",
        "file,x,y\nb.tif,3,4\nc.tif,3,4\n",
        "of b.tif and 1 more; expected a",
    ),
    "napari's shapes": ("a.csv", "index,shape-type,axis-0,axis-1\n0,ellipse,1,2\n", "shapes"),
}


def test_what_the_page_does_not_know_is_refused(page):
    for what, (name, content, message) in NO_POINTS.items():
        assert message in str(read_by_the_page(page, name, content)), what


def test_what_of_a_table_is_no_nucleus_of_this_image_is_counted(page, tmp_path):
    (tmp_path / "a.csv").write_text(
        'sep=;\nimage;class;x;y\n"a.png";T;10,5;20\nb.png;T;40;60\na.png;Ignore*;7;8\n;;;\n'
    )
    open_files(page, tmp_path / "a.png", tmp_path / "a.csv")
    said = "1 points, not saved, left out: 1 of another image, 1 of class Ignore*"
    assert status(page) == said and page.evaluate("current.points") == [[10.5, 20]]
    (tmp_path / "a.json").write_text('{"shapes": []}')
    page.set_input_files("#open", str(tmp_path / "a.json"))
    page.locator("#status", has_text="a.json: no GeoJSON").wait_for()
    assert page.evaluate("current.points") == [[10.5, 20]]


def test_what_cannot_be_opened_is_named(page, tmp_path):
    broken = {"c.png": "no image", "a.csv": "u,v\n1,2\n", "z.csv": "x,y\n1,2\n", "a.geojson": "{"}
    for name, content in broken.items():
        (tmp_path / name).write_text(content)
    open_files(page, tmp_path / "a.png", *(tmp_path / name for name in broken))
    assert "c.png: no image" in status(page)
    assert "a.csv: expected the columns" in status(page)
    assert "z.csv: open its image" in status(page)
    assert "a.geojson: " in status(page)

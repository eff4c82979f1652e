"""The report of an experiment, the pictures in it, and the comparison of several."""

import re
import shutil

import numpy as np
import pytest
from skimage.color import rgb2lab
from test_scripts import digest

from code_common.errors import InputError
from code_common.files.reading import read_image, read_json
from code_common.files.writing import write_json, write_table
from code_common.reporting.album import (
    INDEX,
    Figure,
    Panel,
    middle,
    read_album,
    shrink,
    strip,
    write_album,
)
from code_common.reporting.drawing import BLUE, CYAN, GREEN, ORANGE, WHITE, YELLOW
from code_common.reporting.page import Section, Table, to_html, to_markdown
from code_common.reporting.report import curves, make_sections, read_logs
from code_common.reporting.results import read_repeat
from code_detection.labels import extended_gaussian_mask, weight_map
from code_detection.pictures import grey, in_window, weight_picture
from code_seg.metrics import overlaps, unmatched
from code_seg.pictures import draw, middles
from tools.compare import main as compare
from tools.report import main


def report(monkeypatch, root, *more):
    """Run the script on a folder DATASET/ratio_R."""
    place = ["--root-save-dir", root.parents[1], "--dataset", root.parent.name, "--ratio", "0.5"]
    monkeypatch.setattr("sys.argv", ["report.py", *map(str, [*place, *more])])
    main()


@pytest.fixture
def page(browser, experiment):
    """The report at desktop width; nothing but itself may be loaded, nothing may complain."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    page.on(
        "request",
        lambda r: None if r.url.startswith(("file:", "data:")) else problems.append(r.url),
    )
    page.goto((experiment.root / "report.html").as_uri())
    yield page
    assert not problems
    page.close()


def test_everything_is_in_the_report(experiment):
    html = (experiment.root / "report.html").read_text()
    for title in ("Scores", "What ran", "Curves", "Test images", "Results", "Nucleus areas",
                  "Stage 1, detection", "Stage 2, labels and crops", "Label errors", "Time",
                  "All options"):  # fmt: skip
        assert f"<h2>{title}</h2>" in html
    for title in ("The data set and its points", "Extended Gaussian mask", "Training crops as the",
                  "Self-training, training image train0", "Background propagation",
                  "Labels of training image train0", "Test images: worst, median and best AJI",
                  "by each method"):  # fmt: skip
        assert title in html
    assert "CRF starts" in html and "round 1" in html and " ± " in html
    assert "http" not in re.sub(r'xmlns="[^"]*"', "", html)  # offline
    summary = (experiment.root / "summary.md").read_text()
    own = [read_json(experiment.root / f"repeat_{k}/segmentation/test/metrics.json")["mean"]
           ["points"]["all"]["aji"] for k in (1, 2)]  # fmt: skip
    assert f"{np.mean(own):.3f} ± {np.std(own, ddof=1):.3f}" in summary
    assert "| What" not in summary and "4 points in 2 images" in summary
    assert "95 % bootstrap interval over images, by patient" in summary
    picture = read_image(experiment.root / "overview.png")
    assert picture.shape[0] == 286 and picture.shape[1] > 5 * 260


def test_scores_come_with_intervals(experiment):
    for stage in ("detection", "segmentation"):
        scores = read_json(experiment.root / "repeat_1" / stage / "test" / "metrics.json")
        assert scores["patients"] == 3
    for name, value in scores["mean"]["points"]["all"].items():
        low, high = scores["interval"]["points"][name]
        assert low - 1e-9 <= value <= high + 1e-9


def test_the_report_in_a_browser(page, tmp_path):
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
    images = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.alt])")
    assert len(images) > 25 and all(width > 0 and alt for width, alt in images)
    # A click on a head sorts, another one turns the order.
    heads = page.locator("#test-images th button")
    column = heads.all_inner_texts().index("detection f1")

    def values():
        cells = page.locator(f"#test-images tbody td:nth-child({column + 1})")
        return [float(text) for text in cells.all_inner_texts()]

    before = values()
    heads.nth(column).click()
    assert values() == sorted(before)
    heads.nth(column).click()
    assert values() == sorted(before, reverse=True)
    # A click enlarges a picture.
    first = page.locator(".panels button").first
    small = first.bounding_box()["width"]
    first.click()
    assert first.bounding_box()["width"] > 2 * small
    page.locator("summary").click()
    assert page.get_by_text("crf_sigma_xy").is_visible()
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    fits = page.evaluate(
        "[...document.querySelectorAll('h1, h2, p, figure, img, svg')]"
        ".every(e => e.getBoundingClientRect().right <= 391)"
    )
    assert fits


def test_a_report_of_what_there_is(experiment, tmp_path, monkeypatch, capsys):
    """One stage, no test scores, one repeat: the rest is told."""
    root = tmp_path / "out" / "tiny" / "ratio_0.5"
    shutil.copytree(experiment.root / "repeat_1" / "detection", root / "repeat_1" / "detection")
    report(monkeypatch, root)
    assert "detection     f1" in capsys.readouterr().out
    assert "[" in (root / "summary.md").read_text()
    (root / "repeat_1/detection/test/metrics.json").unlink()
    report(monkeypatch, root)
    assert "No test image has labels" in (root / "summary.md").read_text()
    assert not list(root.rglob("*.tmp"))
    with pytest.raises(InputError, match="repeat_2: no such run"):
        report(monkeypatch, root, "--repeats", 2)
    write_json(root / "repeat_1/detection/options.json", ["no", "options"])
    with pytest.raises(InputError, match=r"options.json or metrics.json is not of this"):
        report(monkeypatch, root)
    (root / "repeat_1/detection/pictures" / INDEX).write_text('[{"name": 1}]')
    with pytest.raises(InputError, match="no list of figures"):
        read_album(root / "repeat_1/detection/pictures")


def test_curves_go_on_from_round_to_round_and_mark_the_crf(experiment):
    charts = {c.title: c for c in curves(experiment.root / "repeat_1")}
    loss = charts["detection: training loss"]
    assert list(loss.series[0].x) == [1, 2] and loss.rules == [(1.5, "round 1")]
    seg = charts["segmentation: training loss"]
    assert {s.name for s in seg.series} == {"voronoi", "cluster", "crf", "loss"}
    assert seg.rules == [(1.5, "CRF starts")]
    assert {s.name for s in charts["segmentation: validation"].series} == {
        "aji_components", "aji_points", "aji_convex",
    }  # fmt: skip


def test_making_the_report_changes_no_result(experiment):
    before = digest(experiment.root / "repeat_1")
    make_sections([read_repeat(experiment.root / "repeat_1")])
    assert digest(experiment.root / "repeat_1") == before


def test_pages_escape_and_summaries_keep_their_columns():
    sections = [Section("A & B", "1 < 2", [Table(["name", "<b>"], [["a|b", "<script>"]])])]
    html = to_html("<title>", sections)
    assert "<script>a" not in html and "&lt;script&gt;" in html and 'id="a-b"' in html
    row = to_markdown("t", sections).splitlines()[-1]
    assert row == "| a\\|b | <script> |"


def test_an_album_comes_back(tmp_path):
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    figures = [Figure("one", "One", "how", [Panel("a", image), Panel("b", image[::-1])])]
    assert write_album(tmp_path, figures) == 1
    (own,) = read_album(tmp_path)
    assert own.title == "One" and [p.label for p in own.panels] == ["a", "b"]
    assert (own.panels[1].image == image[::-1]).all()
    assert read_album(tmp_path / "none") == []


def test_strips_and_windows():
    wide, tall = np.zeros((10, 20, 3), np.uint8), np.zeros((40, 20, 3), np.uint8)
    assert strip([Panel("a", wide), Panel("b", tall)], 20).shape == (46, 40 + 8 + 10, 3)
    assert shrink(tall, 10).shape == (10, 5, 3) and shrink(tall, 100) is tall
    assert middle((10, 30), 20) == (slice(0, 10), slice(5, 25))
    points = np.array([[0, 5], [9, 24], [3, 25], [3, 4]])
    assert in_window(points, middle((10, 30), 20)).tolist() == [[0, 0], [9, 19]]


def test_the_weight_picture_tells_peak_ring_and_unknown_apart():
    image = np.full((64, 64, 3), 100, np.uint8)
    target, known = extended_gaussian_mask(np.array([[32, 32]]), (64, 64), 6, 12, 1.5)
    weight = weight_map(target, known, np.zeros_like(known), np.ones_like(known), 10)
    picture = weight_picture(image, target, weight).astype(int)
    peak, ring, unknown = picture[32, 32], picture[32, 42], picture[2, 2]
    assert peak.argmax() == 1 and ring.argmax() == 0 and (unknown == unknown[0]).all()
    assert unknown[0] > 0.75 * WHITE[0]
    assert grey(np.array([[0.0, 1.0]])).tolist() == [[[255] * 3, [0] * 3]]


def test_missed_and_wrong_nuclei_are_marked():
    truth, found = np.zeros((60, 60), np.int32), np.zeros((60, 60), np.int32)
    truth[5:15, 5:15], truth[30:40, 5:15] = 3, 7
    found[5:15, 6:16], found[30:40, 40:50] = 2, 4
    o = overlaps(truth, found)
    assert [own.tolist() for own in unmatched(o)] == [[1], [1]]
    assert middles(truth).tolist() == [[9.5, 9.5], [34.5, 9.5]]
    picture = draw(np.full((60, 60, 3), 128, np.uint8), found, truth)

    def has(colour, box):
        return (picture[box] == colour).all(-1).any()

    left, right = (slice(28, 42), slice(0, 20)), (slice(28, 42), slice(38, 52))
    assert has(BLUE, left) and has(CYAN, left) and not has(ORANGE, left)
    assert has(ORANGE, right) and has(YELLOW, right) and not has(BLUE, right)
    top = slice(0, 20), slice(0, 20)
    assert not has(BLUE, top) and not has(ORANGE, top)


def fake_run(folder, ratio, ajis, f1):
    """A repeat's results, as test.py writes them: AJI of each image by both methods."""
    for stage in ("detection", "segmentation"):
        options = {"ratio": ratio, "dataset": "fake", "patient": "TCGA-..-[^-]+"}
        write_json(folder / stage / "options.json", {"options": options, "commit": "abc"})
    scores = {n: dict.fromkeys(("pixel_f1", "object_dice", "aji", "pq"), v)
              for n, v in ajis.items()}  # fmt: skip
    mean = {"all": dict.fromkeys(("pixel_f1", "object_dice", "aji", "pq"),
                                 float(np.mean(list(ajis.values()))))}  # fmt: skip
    methods = ("components", "points")
    value = {"instances": "points", "mean": dict.fromkeys(methods, mean), "interval": {}}
    value["images"] = dict.fromkeys(methods, scores)
    write_json(folder / "segmentation" / "test" / "metrics.json", value)
    write_json(folder / "detection" / "test" / "metrics.json",
               {"pooled": {"all": {"f1": f1}}, "images": {}})  # fmt: skip


def test_runs_are_compared_on_the_same_images(tmp_path, monkeypatch, capsys):
    names = [f"TCGA-AA-{k // 2:04d}-{k}" for k in range(8)]  # two images of each patient
    base = np.linspace(0.3, 0.7, 8)
    for ratio, gain in ((0.05, 0.0), (0.1, 0.1)):
        for repeat, shift in ((1, -0.02), (2, 0.02)):
            ajis = dict(zip(names, (base + gain + shift).tolist(), strict=True))
            fake_run(tmp_path / f"fake/ratio_{ratio:g}/repeat_{repeat}", ratio, ajis, 0.6 + gain)
    other = dict(zip(names[:6], (base[:6] - 0.05).tolist(), strict=True))
    fake_run(tmp_path / "other/repeat_1", 0.1, other, 0.5)
    out = tmp_path / "compared"
    runs = [str(tmp_path / "fake"), f"mine={tmp_path / 'other'}"]
    monkeypatch.setattr("sys.argv", ["compare.py", "--runs", *runs, "--out", str(out)])
    compare()
    assert "run fake 10%  repeats 2" in capsys.readouterr().out
    text = (out / "compare.md").read_text()
    assert "0.500 ± 0.028" in text and "0.600 ± 0.028" in text
    # 0.1 better on every image; 0.05 worse on the six that both scored.
    assert "| fake 10% | 8 | +0.100 [+0.100, +0.100], 100% |" in text
    assert "| mine 10% | 6 | -0.050 [-0.050, -0.050], 100% |" in text
    svg = (out / "aji_against_annotation.svg").read_text()
    assert "fake, points" in svg and "mine, components" in svg
    assert read_image(out / "aji_against_annotation.png").shape == (900, 1440, 3)
    page = (out / "compare.html").read_text()
    assert svg in page and "http" not in re.sub(r'xmlns="[^"]*"', "", page)


def test_a_run_is_no_better_than_itself(experiment, tmp_path, monkeypatch):
    runs = [str(experiment.root.parent), f"again={experiment.root}"]
    monkeypatch.setattr("sys.argv", ["compare.py", "--runs", *runs, "--out", str(tmp_path)])
    compare()
    assert "| again 50% | 3 | +0.000 [+0.000, +0.000], 0%" in (tmp_path / "compare.md").read_text()


def test_nothing_to_compare_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["compare.py", "--runs", str(tmp_path), "--out", "x"])
    with pytest.raises(InputError, match="no finished runs"):
        compare()


def test_pictures_alone_draw_the_same(experiment, run_script, tmp_path):
    """The script is what main.py does; it names the figures and touches nothing else."""
    folder = tmp_path / "repeat_1"
    shutil.copytree(experiment.root / "repeat_1", folder)
    saved = read_json(folder / "segmentation" / "options.json")["options"]
    before = digest(folder / "segmentation" / "pictures")
    for path in (folder / "segmentation" / "pictures").glob("*.*"):
        path.unlink()
    names = ("dataset", "data_root", "ratio", "input_size", "patch_size", "model")
    given = [f"--{n.replace('_', '-')}={saved[n]}" for n in names]
    places = ["--save-dir", folder / "segmentation"]
    places += ["--detection-results-dir", folder / "detection"]
    assert "4 figures in" in run_script("code_seg/pictures.py", *given, *places).stdout
    assert digest(folder / "segmentation" / "pictures") == before


def test_logs_of_other_columns_are_joined(tmp_path):
    for name, header in (("labels", ["epoch", "loss"]), ("crf", ["epoch", "crf", "loss"])):
        write_table(tmp_path / "segmentation" / name / "log.csv", header, [range(len(header))])
    columns, starts = read_logs([tmp_path / f"segmentation/{p}/log.csv" for p in ("labels", "crf")])
    assert starts == [0, 1] and columns["loss"] == [1, 2]
    assert np.isnan(columns["crf"][0]) and columns["crf"][1] == 1


# What is left of linear RGB to people without one kind of cone (Machado et al., TVCG 2009).
VISION = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(
    "pair", [(ORANGE, GREEN), (ORANGE, BLUE), (GREEN, BLUE), (YELLOW, CYAN)], ids=str
)
def test_colours_that_stand_side_by_side_are_told_apart(pair, vision):
    """By everybody: CIELAB difference, of which 2 is just seen and 25 is plain."""

    def seen(colour):
        linear = (np.array(colour) / 255) ** 2.2
        return rgb2lab(np.clip(VISION[vision] @ linear, 0, 1)[None, None] ** (1 / 2.2))

    first, second = map(seen, pair)
    assert np.linalg.norm(first - second) > 25


def test_what_weighs_little_is_drawn_as_unknown():
    """--unknown-weight: it is no background that a round has found."""
    image, target = np.full((1, 2, 3), 100, np.uint8), np.zeros((1, 2), np.float32)
    little, none = (np.array([[1, w]], np.float32) for w in (0.1, 0))
    assert np.array_equal(*(weight_picture(image, target, w) for w in (little, none)))

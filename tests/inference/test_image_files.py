"""Which files are images to predict on, and what is said of the others."""

import numpy as np
import pytest

from code_common.errors import InputError
from code_common.files.run_folder import marker_path
from code_common.files.writing import write_json, write_png
from code_common.inference.image_files import find_slides, left_out, refuse_shared


def pictures(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"not read here")
    return folder


def test_two_images_of_one_name_are_refused(tmp_path):
    pictures(tmp_path, "a/t.png", "b/t.png", "b/u.png")
    found = find_slides([tmp_path / "a", tmp_path / "b"])
    assert list(found) == ["t", "u"]
    refuse_shared(found["u"])
    with pytest.raises(InputError, match=r"a/t\.png and .*b/t\.png share one name; keep one"):
        refuse_shared(found["t"])


def test_an_image_given_by_two_paths_is_one(tmp_path):
    write_png(tmp_path / "a" / "t.png", np.zeros((9, 9, 3), np.uint8))
    given = [tmp_path / "a", tmp_path / "a" / "t.png", tmp_path / "a" / ".." / "a" / "t.png"]
    assert find_slides(given) == {"t": [tmp_path / "a" / "t.png"]}


@pytest.mark.parametrize(
    "mask", ["t_mask.png", "T.ome_cp_masks.tif", "t_label.png", "t_seg.tif", "t.tif_masks.png"]
)
def test_masks_beside_their_image_are_no_images_unless_they_are_named(tmp_path, mask):
    image = "T.ome.tif" if mask.startswith("T.ome") else "t.png"
    folder = pictures(tmp_path, image, mask, "u_mask.png")
    others = {name.rsplit(".", 1)[0]: [folder / name] for name in (image, "u_mask.png")}
    assert find_slides([folder]) == others
    (line,) = left_out([folder])
    assert "taken for masks" in line and mask in line and "u_mask" not in line
    both = find_slides([folder, folder / mask])
    assert both == {**others, (folder / mask).stem: [folder / mask]}


def test_other_pictures_and_folders_in_a_folder_are_named(tmp_path):
    folder = pictures(tmp_path, "a.png", "b.webp", "c.CZI", "d.csv", "more/e.tif", "notes/f.txt")
    assert list(find_slides([folder])) == ["a"]
    kinds, within = left_out([folder, folder / "a.png"])
    assert "2 (b.webp, c.CZI)" in kinds and "1 (more)" in within


def test_whatever_is_no_image_is_named_but_for_annotations_and_notes(tmp_path):
    unread = ["b", "c.ptif", "d.btf", "e.isyntax", "f.ppm", "a.png.bak", "a.svs.part"]
    known = ["a.xml", "a.geojson.gz", "a_seg.npy", "read me.txt", "Thumbs.db", ".a.ppm"]
    folder = pictures(tmp_path, "a.png", *unread, *known)
    (line,) = left_out([folder])
    assert f"{len(unread)} (a.png.bak, a.svs.part, b, c.ptif, d.btf, ...)" in line


@pytest.mark.parametrize("place", ["x/y", "x/y/z", "x/masks of mine"])
def test_images_at_any_depth_are_told_of(tmp_path, place):
    folder = pictures(tmp_path, "a.png", f"{place}/b.svs", "a/masks/1.png", "u/.v/c.png")
    (folder / "u" / "circle").symlink_to(folder)
    (line,) = left_out([folder])
    assert "folders in it are not searched: 1 (x)" in line


def test_results_at_any_depth_are_not_told_of(tmp_path):
    folder = pictures(tmp_path, "a.png", "x/out/a_overlay.png", "x/out/pictures/b.png")
    write_json(marker_path(folder / "x" / "out", "a"), {"files": {"a_overlay.png": []}})
    assert left_out([folder]) == []


def test_results_and_their_folder_are_not_told_of(tmp_path):
    folder = pictures(tmp_path, "a.png", "out/a_overlay.png", "out/a_instances.tif")
    written = {"a_overlay.png": [], "a_instances.tif": []}
    for place in (folder, folder / "out"):
        write_json(marker_path(place, "a"), {"files": written})
    assert left_out([folder]) == []

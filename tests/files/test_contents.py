"""What files are recognised by: a file, or a folder of masks that stands for one."""

import pytest

from code_common.files.contents import input_hash


def masks(folder, **contents):
    folder.mkdir()
    for name, content in contents.items():
        (folder / f"{name}.png").write_bytes(content)
    return folder


def test_a_copy_is_recognised_and_nothing_is_no_content(tmp_path):
    one, two = (masks(tmp_path / name, a=b"1", b=b"2") for name in ("one", "two"))
    assert input_hash(one) == input_hash(two) != ""
    assert input_hash(one / "a.png") == input_hash(two / "a.png") != input_hash(one / "b.png")
    (one / "b.png").write_bytes(b"")
    assert input_hash(one / "b.png") == input_hash(one / "absent.png") == ""


@pytest.mark.parametrize("change", ["edited", "added", "removed", "renamed"])
def test_every_mask_of_a_folder_counts(tmp_path, change):
    folder = masks(tmp_path / "masks", a=b"1", b=b"2")
    before = input_hash(folder)
    if change == "edited":
        (folder / "b.png").write_bytes(b"3")
    elif change == "added":
        (folder / "c.png").write_bytes(b"3")
    elif change == "removed":
        (folder / "b.png").unlink()
    else:
        (folder / "b.png").rename(folder / "c.png")
    assert input_hash(folder) != before

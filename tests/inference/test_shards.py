"""Many images over many processes: each is done once, and again when something changed."""

import pytest

from code_common.errors import InputError
from code_common.inference.shards import ALL, DoneFiles, parse_shard, process_shard

ARRAY = "SLURM_ARRAY_TASK_"  # how the variables of a SLURM job array begin


@pytest.mark.parametrize(
    ("text", "array", "expected"),
    [
        ("", {}, (0, 1)),
        ("0/1", {}, (0, 1)),
        ("3/8", {"ID": "1"}, (3, 8)),
        ("", {"ID": "5", "MIN": "1", "COUNT": "10"}, (4, 10)),
        ("", {"ID": "6", "MIN": "2", "STEP": "2", "COUNT": "4"}, (2, 4)),
    ],
)
def test_a_shard_is_what_the_text_says_or_else_a_job_array(text, array, expected):
    environment = {ARRAY + name: value for name, value in array.items()}
    assert parse_shard(text, environment) == expected


@pytest.mark.parametrize("text", ["8/8", "1", "a/b", "-1/4", "1/0", "1/2/3"])
def test_wrong_shards_are_refused(text):
    with pytest.raises(InputError, match="--shard must be I/N"):
        parse_shard(text, {})


class Images:
    """Images by name that are 'predicted' by copying their name; one named 'bad' is broken."""

    def __init__(self, folder, *names):
        self.folder, self.out = folder, folder / "out"
        self.out.mkdir()
        self.inputs = {name: (folder / f"{name}.png", None) for name in names}
        for name, (path, _) in self.inputs.items():
            path.write_text(name)
        self.calls = []

    def work(self, name):
        self.calls.append(name)
        if name == "bad":
            raise InputError("bad.png: broken")
        path = self.out / f"{name}.txt"
        path.write_text(name)
        return [path], {"length": len(name)}

    def process(self, shard=ALL, key="weights"):
        """Do a shard; the values of all that is done."""
        return process_shard(DoneFiles(self.out, key), self.inputs, self.work, shard, "t")


def test_shards_together_do_every_image_once(tmp_path):
    names = [f"n{k}" for k in range(7)]
    images = Images(tmp_path, *names)
    done = [images.process(f"{k}/3") for k in range(3)]
    assert sorted(images.calls) == names
    assert [len(d) for d in done] == [3, 5, 7] and done[-1]["n0"] == {"length": 2}
    images.process()
    assert len(images.calls) == 7


def change_an_input(images):
    images.inputs["b"][0].write_text("other")


def remove_an_output(images):
    (images.out / "b.txt").unlink()


@pytest.mark.parametrize("change", [change_an_input, remove_an_output])
def test_an_image_whose_files_changed_is_done_again(tmp_path, change):
    images = Images(tmp_path, "a", "b", "c")
    images.process()
    change(images)
    images.process()
    assert images.calls == ["a", "b", "c", "b"]


def test_other_weights_do_everything_again(tmp_path):
    images = Images(tmp_path, "a", "b", "c")
    images.process()
    images.process(key="other weights")
    assert images.calls == 2 * ["a", "b", "c"]


def test_a_broken_image_does_not_stop_the_others(tmp_path):
    images = Images(tmp_path, "a", "bad", "c")
    with pytest.raises(InputError, match="^bad.png: broken$"):
        images.process()
    assert images.calls == ["a", "bad", "c"] and (images.out / "c.txt").is_file()


def test_the_error_says_how_many_more_images_are_broken(tmp_path):
    images = Images(tmp_path, "a", "b", "c")
    for path, _ in images.inputs.values():
        path.write_text("broken")

    def fail(name):
        raise InputError(f"{name}.png: broken")

    with pytest.raises(InputError, match=r"^a.png: broken \(and 2 more images failed\)$"):
        process_shard(DoneFiles(images.out, "weights"), images.inputs, fail, ALL, "t")

"""Many images over many processes: each is done once, and again when something changed."""

import errno
import os
import threading
import time

import pytest

from code_common.errors import InputError
from code_common.files.locks import take_lock
from code_common.files.reading import read_json
from code_common.files.writing import write_json
from code_common.inference.shards import ALL, DoneFiles, parse_shard, process_shard, told_of_array

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
    told = told_of_array(text, environment)
    assert ("shard {}/{}, of a SLURM job array".format(*expected) in told) is bool(told)
    assert bool(told) is (array != {} and not text)


@pytest.mark.parametrize(
    "array",
    [
        {"ID": "7", "MIN": "3", "COUNT": "2"},  # --array=3,7
        {"ID": "3", "MIN": "3", "MAX": "7", "COUNT": "2"},
        {"ID": "2", "MIN": "1", "MAX": "7", "COUNT": "3"},  # --array=1,2,7
        {"ID": "5", "MIN": "2", "STEP": "2", "COUNT": "4"},
        {"ID": "1", "MIN": "3", "COUNT": "2"},
    ],
)
def test_a_job_array_with_gaps_is_refused(array):
    environment = {ARRAY + name: value for name, value in array.items()}
    with pytest.raises(InputError, match=r"array with gaps .* --array=0-\d"):
        parse_shard("", environment)


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "9" * 30])
@pytest.mark.parametrize("name", ["ID", "COUNT", "MIN"])
def test_odd_variables_of_a_job_array_are_named(name, value):
    environment = {f"{ARRAY}ID": "0", f"{ARRAY}COUNT": "1", ARRAY + name: value}
    with pytest.raises(InputError, match=f"{ARRAY}{name} is no number"):
        parse_shard("", environment)


def test_no_job_array_and_one_without_a_count():
    assert parse_shard("", {f"{ARRAY}ID": "", f"{ARRAY}COUNT": ""}) == (0, 1)
    assert parse_shard("", {f"{ARRAY}ID": "4", f"{ARRAY}MIN": "1", f"{ARRAY}MAX": "9"}) == (3, 9)
    with pytest.raises(InputError, match="COUNT is not set"):
        parse_shard("", {f"{ARRAY}ID": "4"})


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
        done = DoneFiles(self.out, key, {"length": float})
        return process_shard(done, self.inputs, self.work, shard, "t")


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


def empty_an_output(images):
    (images.out / "b.txt").write_text("")


def damage_a_note(images):
    (images.out / ".done" / "b.json").write_text("{")


def give_a_note_another_value(images):
    note = images.out / ".done" / "b.json"
    write_json(note, read_json(note) | {"value": {"nuclei": "many"}})


def take_the_files_from_a_note(images):
    note = images.out / ".done" / "b.json"
    write_json(note, read_json(note) | {"files": {}})


def exchange_an_input(images):
    """For a file of the same size and time."""
    path = images.inputs["b"][0]
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    other = path.with_name("other")
    other.write_text("x" * path.stat().st_size)
    os.utime(other, ns=times)
    other.replace(path)


@pytest.mark.parametrize(
    "change",
    [
        change_an_input,
        exchange_an_input,
        remove_an_output,
        empty_an_output,
        damage_a_note,
        give_a_note_another_value,
        take_the_files_from_a_note,
    ],
)
def test_an_image_whose_files_changed_is_done_again(tmp_path, change):
    images = Images(tmp_path, "a", "b", "c")
    images.process()
    change(images)
    images.process()
    assert images.calls == ["a", "b", "c", "b"]


def test_an_image_that_was_stopped_while_it_was_done_again_is_not_taken_for_edited(tmp_path):
    images = Images(tmp_path, "a")
    images.process()
    work = images.work

    def write_and_stop(name):
        (images.out / "a.txt").write_text("half")
        raise KeyboardInterrupt

    images.work = write_and_stop
    with pytest.raises(KeyboardInterrupt):
        images.process(key="other")
    images.work = work
    images.process(key="other")
    assert (images.out / "a.txt").read_text() == "a"


@pytest.mark.parametrize("stopped", [False, True])
def test_files_that_the_new_options_do_not_give_are_removed(tmp_path, stopped):
    images = Images(tmp_path, "a", "b")
    work = images.work

    def write_more(name):
        files, value = work(name)
        (images.out / f"{name}_more.txt").write_text("more")
        return [*files, images.out / f"{name}_more.txt"], value

    def stop(name):
        raise KeyboardInterrupt

    images.work = write_more
    images.process()
    if stopped:
        images.work = stop
        with pytest.raises(KeyboardInterrupt):
            images.process(key="other")
    images.work = work
    images.process(key="other")
    assert sorted(p.name for p in images.out.glob("*.txt")) == ["a.txt", "b.txt"]


@pytest.mark.parametrize("key", ["weights", "other"])
def test_a_result_that_was_edited_is_not_written_over(tmp_path, key):
    """The others are done, and it is, too, once it was removed."""
    images = Images(tmp_path, "a", "b", "c")
    images.process()
    edited = images.out / "b.txt"
    edited.write_text("B")  # of the same size
    with pytest.raises(InputError, match=r"^.*b\.txt: changed since it was written; remove it"):
        images.process(key=key)
    assert edited.read_text() == "B"
    edited.unlink()
    images.process(key=key)
    assert edited.read_text() == "b" and images.calls.count("b") == 2


def test_a_call_in_which_an_image_failed_forgets_no_edit(tmp_path):
    """What was edited before, or is edited afterwards, is still known as edited."""
    images = Images(tmp_path, "a")
    images.process()
    source, result = images.inputs["a"][0], images.out / "a.txt"
    content = source.read_text()

    def fail(name):
        raise InputError(f"{name}: cut off")

    source.write_text("cut")
    with pytest.raises(InputError, match="cut off"):
        process_shard(DoneFiles(images.out, "weights"), images.inputs, fail, ALL, "t")
    source.write_text(content + "other")
    result.write_text("of a user")
    with pytest.raises(InputError, match="changed since it was written"):
        images.process()
    assert result.read_text() == "of a user"


def test_a_failed_first_call_leaves_no_note(tmp_path):
    images = Images(tmp_path, "a")

    def fail(name):
        raise InputError("cut off")

    with pytest.raises(InputError):
        process_shard(DoneFiles(images.out, "weights"), images.inputs, fail, ALL, "t", 1, ["r"])
    assert not list(images.out.rglob("*.json"))


def test_an_image_that_may_not_be_read_does_not_stop_the_others(tmp_path):
    images, done = Images(tmp_path, *"abc"), []

    def work(name):
        if name == "a":
            raise PermissionError(errno.EACCES, "Permission denied", str(images.inputs["a"][0]))
        done.append(name)
        (images.out / name).write_text(name)
        return [images.out / name], {"length": 1.0}

    with pytest.raises(InputError, match="permission denied"):
        process_shard(DoneFiles(images.out, "weights"), images.inputs, work, ALL, "t")
    assert len(done) == len(images.inputs) - 1


def test_other_weights_do_everything_again(tmp_path):
    images = Images(tmp_path, "a", "b", "c")
    images.process()
    images.process(key="other weights")
    assert images.calls == 2 * ["a", "b", "c"]


def test_a_broken_image_does_not_stop_the_others(tmp_path, capsys):
    images = Images(tmp_path, "a", "bad", "c")
    with pytest.raises(InputError, match="^bad.png: broken$"):
        images.process()
    assert "1 of 3 images failed; the summary of all waits" in capsys.readouterr().err
    assert images.calls == ["a", "bad", "c"] and (images.out / "c.txt").is_file()


def test_the_error_has_a_line_for_each_broken_image(tmp_path):
    images = Images(tmp_path, "a", "b", "c")
    for path, _ in images.inputs.values():
        path.write_text("broken")

    def fail(name):
        raise InputError(f"{name}.png: broken")

    with pytest.raises(
        InputError,
        match="^a.png: broken\nerror: b.png: broken\nerror: c.png: broken$",
    ):
        process_shard(DoneFiles(images.out, "weights"), images.inputs, fail, ALL, "t")


def test_two_processes_do_each_image_once(tmp_path):
    """The second takes other images, and waits for what the first is doing."""
    images = Images(tmp_path, "a", "b", "c")
    began, may_end, results = threading.Event(), threading.Event(), []

    def slow(name):
        if name == "a":
            began.set()
            assert may_end.wait(60)
        return images.work(name)

    def process(work):
        done = DoneFiles(images.out, "weights")
        results.append(process_shard(done, images.inputs, work, ALL, "t"))

    first = threading.Thread(target=process, args=[slow])
    second = threading.Thread(target=process, args=[images.work])
    first.start()
    assert began.wait(60)
    second.start()
    while images.calls != ["b", "c"]:
        time.sleep(0.01)
    may_end.set()
    first.join()
    second.join()
    assert images.calls == ["b", "c", "a"]
    assert len(results) == 2 and all(len(values) == 3 for values in results)
    assert not list(images.out.rglob("*.lock"))


def test_an_image_of_a_process_that_failed_is_done_by_the_one_that_waited(tmp_path):
    images = Images(tmp_path, "a")
    done = DoneFiles(images.out, "weights")
    lock = take_lock(done.lock_path("a"))
    waiting = threading.Thread(target=images.process)
    waiting.start()
    time.sleep(0.5)
    assert images.calls == []
    lock.close()  # as the end of its process does, which leaves the file
    waiting.join()
    assert images.calls == ["a"]


@pytest.mark.parametrize("length", [250, 251])  # what is too long, a lock or a note
def test_a_name_too_long_for_its_results_does_not_stop_the_others(tmp_path, length):
    images = Images(tmp_path, "a", "c")
    long = "b" * length
    images.inputs[long] = (tmp_path / f"{long}.png", None)
    with pytest.raises(InputError, match="b.png: the name is too long"):
        images.process()
    assert (images.out / "a.txt").is_file() and (images.out / "c.txt").is_file()


def test_an_image_that_changes_during_the_work_is_done_again(tmp_path):
    images = Images(tmp_path, "a", "b")
    work, changed = images.work, []

    def work_and_change(name):
        result = work(name)
        if name == "b" and not changed:
            changed.append(name)
            images.inputs["b"][0].write_text("other")
        return result

    images.work = work_and_change
    with pytest.raises(InputError, match="changed during the work"):
        images.process()
    images.process()
    assert images.calls == ["a", "b", "b"]


def test_a_hard_link_or_another_mode_changes_no_image(tmp_path):
    """Both change the time at which a file's place last changed: a backup does, during the work."""
    images = Images(tmp_path, "a", "b")
    work = images.work

    def work_beside_a_backup(name):
        result = work(name)
        os.link(images.inputs[name][0], tmp_path / f"backup of {name}")
        return result

    images.work = work_beside_a_backup
    images.process()
    images.inputs["a"][0].chmod(0o600)
    os.utime(images.inputs["b"][0])
    images.process()
    assert images.calls == ["a", "b"]


def test_what_is_done_again_is_told(tmp_path, capsys):
    images = Images(tmp_path, "a", "b", "c")
    for key, again in [("weights", 0), ("weights", 0), ("other", 3)]:
        images.process(key=key)
        assert capsys.readouterr().err.count(f"{again} images of an earlier call") == bool(again)


def test_two_calls_with_other_options_in_one_folder_are_told(tmp_path):
    images = Images(tmp_path, "a", "b")
    work = images.work

    def work_while_another_call_works(name):
        if name == "b":
            other = DoneFiles(images.out, "other weights")
            process_shard(other, {"a": images.inputs["a"]}, work, ALL, "t")
        return work(name)

    images.work = work_while_another_call_works
    with pytest.raises(InputError, match="out: images or results changed"):
        images.process()


def test_a_folder_in_the_place_of_a_result_does_not_stop_the_others(tmp_path):
    images = Images(tmp_path, "a", "b", "c")
    (images.out / "b.txt").mkdir()
    with pytest.raises(InputError, match=r"b\.txt: is a directory"):
        images.process()
    assert images.calls == ["a", "b", "c"]


def test_an_error_is_one_line_whatever_the_name(tmp_path):
    images = Images(tmp_path, "a")

    def fail(name):
        raise InputError(f"a\nb.png: {name} is broken")

    images.work = fail
    with pytest.raises(InputError, match=r"^a b\.png: a is broken$"):
        images.process()


def test_the_lock_of_a_process_that_was_killed_goes(tmp_path):
    """At once after it had noted that the image is done."""
    images = Images(tmp_path, "a")
    images.process()
    lock = DoneFiles(images.out, "weights").lock_path("a")
    lock.touch()
    images.process()
    assert not lock.exists() and images.calls == ["a"]


def test_an_image_that_vanished_does_not_stop_the_others(tmp_path):
    images = Images(tmp_path, "a", "b", "c")
    work = images.work

    def work_of_a_folder_that_changes(name):
        if name == "b":
            images.inputs[name][0].unlink()
            images.inputs[name][0].stat()
        return work(name)

    images.work = work_of_a_folder_that_changes
    with pytest.raises(InputError, match=r"^\S*b\.png: no such file or directory$"):
        images.process()
    assert images.calls == ["a", "c"]

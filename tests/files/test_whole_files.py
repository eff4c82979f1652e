"""A file appears whole or not at all, whatever stops or disturbs the process that writes it."""

import csv
import errno
import os

import pytest

from code_common.files import locks
from code_common.files.writing import whole_file, write_bytes, write_table


def killed_while_writing(path):
    """A process that ends, as by SIGKILL, in the middle of writing a file."""
    child = os.fork()
    if not child:
        with whole_file(path) as file:
            file.write(b"half")
            file.flush()
            os._exit(0)
    os.waitpid(child, 0)


def test_what_a_killed_process_left_goes_with_the_next_call(tmp_path):
    killed_while_writing(tmp_path / "a.csv")
    assert len(list(tmp_path.iterdir())) == 1 and not (tmp_path / "a.csv").exists()
    write_bytes(tmp_path / "a.csv", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert (tmp_path / "a.csv").read_bytes() == b"whole"


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    """A lock is of an open file, so that two within one process are like two processes."""
    path = tmp_path / "a.csv"
    with whole_file(path) as first:
        first.write(b"first, ")
        first.flush()
        write_bytes(path, b"second")
        assert path.read_bytes() == b"second"
        first.write(b"still whole")
    assert path.read_bytes() == b"first, still whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_without_locks_is_written_on(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    write_bytes(tmp_path / "a.csv", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_an_error_names_the_file_and_not_its_temporary_name(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(OSError) as caught:
        write_bytes(tmp_path / "a.csv", b"whole")
    assert caught.value.filename == str(tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.csv"]


def test_a_table_holds_no_formula_and_no_line_break_in_a_cell(tmp_path):
    names = ["=1+1", "+x", "@x", "-x", "a\nb", "a\rb", "-0.5", "a,b", "plain"]
    write_table(tmp_path / "t.csv", ("name", "value"), [(name, -1.5) for name in names])
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.reader(file))
    shown = ["'=1+1", "'+x", "'@x", "'-x", "a\\nb", "a\\rb", "-0.5", "a,b", "plain"]
    assert rows[1:] == [[name, "-1.5"] for name in shown]

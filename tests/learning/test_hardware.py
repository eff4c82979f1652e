"""Device and precision are chosen; what is not there, memory too, is named."""

import socket
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from code_common.errors import InputError, run_script
from code_common.learning.hardware import (
    LONGEST_TEMPORARY,
    choose_device,
    choose_workers,
    thread_pool,
)


def threads_of_a_new_thread() -> int:
    with ThreadPoolExecutor(1) as other:
        return other.submit(torch.get_num_threads).result()


@pytest.mark.parametrize("each", [1, 3])
def test_a_pool_has_threads_of_its_own_and_leaves_those_of_others(each):
    before = torch.get_num_threads()
    running = threading.active_count()
    try:
        torch.set_num_threads(2)
        with thread_pool(3, each) as pool:
            assert threading.active_count() - running == 3  # none begins later and disturbs others
            seen = list(pool.map(lambda _: torch.get_num_threads(), range(50)))
            assert seen == [each] * 50 and threads_of_a_new_thread() == 2
        assert torch.get_num_threads() == threads_of_a_new_thread() == 2
    finally:
        torch.set_num_threads(before)


def test_auto_takes_a_device_that_is_there():
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["nonsense", "cuda"])
def test_a_device_that_is_absent_is_named(name):
    if name == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(InputError, match=f"--device {name}"):
        choose_device(name)


def out_of_gpu_memory():
    raise torch.cuda.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 GiB.\nMore words"
    )


@pytest.mark.parametrize(
    "too_much",
    [
        lambda: torch.empty(10**15),
        lambda: np.zeros(10**15),
        lambda: cv2.resize(np.zeros((9, 9), np.uint8), (10**9, 10**9)),
        out_of_gpu_memory,
    ],
    ids=["torch", "numpy", "opencv", "gpu"],
)
def test_full_memory_is_one_line_that_says_what_to_lower(too_much, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_script(too_much)
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and message.count("\n") == 1, message
    assert "out of memory" in message and "--batch-size" in message and "--tile" in message


def test_other_errors_of_torch_keep_their_traceback():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run_script(lambda: torch.ones(2, 3) @ torch.ones(2, 3))


@pytest.mark.parametrize("workers", [-1, 0, 1])
def test_a_temporary_folder_too_long_for_sockets_is_named(tmp_path, monkeypatch, workers):
    """The workers and the training would wait for each other for ever."""
    folder = tmp_path / ("d" * 90)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    cpu = torch.device("cpu")
    if workers < 1:
        assert choose_workers(workers, cpu) == 0
    else:
        with pytest.raises(InputError, match=f"TMPDIR {folder}: too long .* --workers 0"):
            choose_workers(workers, cpu)


def test_a_temporary_folder_that_is_short_enough_has_room_for_a_socket(monkeypatch):
    folder = "/tmp/".ljust(LONGEST_TEMPORARY, "d")
    monkeypatch.setattr("tempfile.tempdir", folder)
    assert choose_workers(1, torch.device("cpu")) == 1
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="d") as home:
        long = Path(home).joinpath("pymp-12345678".rjust(LONGEST_TEMPORARY - len(home) + 13, "d"))
        long.mkdir()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(long / "listener-12345678"))

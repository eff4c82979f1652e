"""The log of a training: log.csv with a line for each epoch, TensorBoard, lines for the screen."""

import math
import time
from pathlib import Path

import numpy as np

from code_common.errors import InputError
from code_common.files.reading import read_table
from code_common.files.run_folder import log_path
from code_common.files.writing import write_table
from code_common.learning import distributed
from code_common.threads import Neighbours

TELL_EVERY_S = 60.0  # a line at least this often, beside those of the validations


class TrainingLog:
    """log.csv of a training in `folder`, from epoch `start` on; earlier lines are kept.

    Of several processes the first writes. With `tensorboard` the same scalars go there, too;
    InputError where it is not installed.
    """

    def __init__(self, folder: Path, start: int, tensorboard: bool):
        self.path, self.header, self.rows = log_path(folder), [], []
        if self.path.is_file():
            table = read_table(self.path)
            rows = np.stack(list(table.values()), 1)
            self.header, self.rows = list(table), rows[rows[:, 0] < start].tolist()
        wanted = tensorboard and distributed.is_main()
        self.scalars = _open_tensorboard(folder / "tensorboard", start) if wanted else None

    def add(self, row: dict[str, float]) -> None:
        """Write the line of an epoch. A column that is new is empty (nan) in the lines before."""
        if not distributed.is_main():
            return
        self.header += [name for name in row if name not in self.header]
        self.rows = [r + [math.nan] * (len(self.header) - len(r)) for r in self.rows]
        self.rows.append([row.get(name, math.nan) for name in self.header])
        lines = [[f"{value:.6g}" for value in r] for r in self.rows]
        write_table(self.path, self.header, lines)
        if self.scalars:
            for name, value in row.items():
                self.scalars.add_scalar(name.replace("val_", "val/"), value, int(row["epoch"]))
            self.scalars.flush()


def _open_tensorboard(folder: Path, start: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("--tensorboard: not installed (pip install tensorboard)") from None
    return SummaryWriter(str(folder), purge_step=start)


class Progress:
    """Lines for the screen: after a validation, at the end, and at least every minute.

    threads: those that compute. Once it is told if other programs leave no room for them.
    """

    def __init__(self, start: int, epochs: int, threads: int):
        self.start, self.epochs = start, epochs
        self.threads, self.neighbours, self.advised = threads, Neighbours(), False
        self.began = self.told = time.monotonic()

    def elapsed(self) -> float:
        """Seconds since the training began or went on."""
        return time.monotonic() - self.began

    def tell(self, title: str, row: dict[str, float], scores: dict[str, float]) -> None:
        """Print the line of an epoch, if it is time for one: loss, scores, speed, time left."""
        epoch, now = int(row["epoch"]), time.monotonic()
        last = epoch + 1 == self.epochs
        if not (scores or last or now - self.told > TELL_EVERY_S) or not distributed.is_main():
            return
        self.told = now
        left = row["seconds"] / (epoch + 1 - self.start) * (self.epochs - epoch - 1)
        val = "".join(f"  val {name} {v:.3f}" for name, v in scores.items() if name != "score")
        speed = f"{row['images_per_s']:.1f} crops/s, {left / 60:.1f} min left"
        print(f"{title}  loss {row['loss']:.4f}{val}  ({speed})", flush=True)
        if not self.advised and (advice := self.neighbours.advice(self.threads)):
            self.advised = True
            print(advice, flush=True)

"""Both stages in a process that is killed: a script, see test_killed.py.

usage: killable.py SEED KILLS ARGUMENTS_OF_DETECTION -- ARGUMENTS_OF_SEGMENTATION

Imports everything once, then forks a child for each attempt and kills it with SIGKILL: every
other time after a random while, else at a random one of its writes, before or after the rename.
When KILLS are done the next child runs to the end. Prints what each kill hit.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import code_common.learning.training
import code_detection.main
import code_detection.options
import code_seg.main
import code_seg.options
from code_common.config import parse

STAGES = (code_detection, code_seg)


def die_at_a_write(count: int, after: bool) -> None:
    """Let this process die at its `count`-th rename, before or after it."""
    rename, left = os.replace, [count]

    def replace(source, target):
        left[0] -= 1
        if left[0] == 0:
            print(
                f"killed {'after' if after else 'before'} writing {Path(target).name}", flush=True
            )
            if after:
                rename(source, target)
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    os.replace = replace


def attempt(arguments: list[list[str]]) -> None:
    for stage, given in zip(STAGES, arguments, strict=True):
        stage.main.main(parse(stage.options.Options, "", given))


def main() -> None:
    seed, kills, *rest = sys.argv[1:]
    border = rest.index("--")
    arguments = [rest[:border], rest[border + 1 :]]
    code_common.learning.training.SAVE_EVERY_S = -1.0  # a checkpoint after every epoch
    rng = random.Random(int(seed))
    done = 0
    while True:
        child = os.fork()
        if child == 0:
            if done < int(kills) and done % 2:
                die_at_a_write(rng.randint(1, 8), rng.random() < 0.5)
            attempt(arguments)
            os._exit(0)
        if done < int(kills) and not done % 2:
            time.sleep(rng.uniform(0.02, 1.0))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        rng.random()
        if not os.WIFSIGNALED(status):
            print(f"ended after {done} kills")
            sys.exit(os.waitstatus_to_exitcode(status))
        done += 1


main()

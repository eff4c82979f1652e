"""Both stages in a process that is killed: a script, see test_killed.py.

usage: killable.py SEED KILLS OPTIONS_OF_DETECTION -- OPTIONS_OF_SEGMENTATION

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


def die_at_a_write(number: int, after: bool) -> None:
    """Let this process die at its rename of this number, from 1, before or after it."""
    rename, writes = os.replace, []

    def replace(source, target):
        writes.append(target)
        if len(writes) < number:
            return rename(source, target)
        moment = "after" if after else "before"
        print(f"killed {moment} writing {Path(target).name}", flush=True)
        if after:
            rename(source, target)
        os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace


def do_both_stages(arguments: list[list[str]]) -> None:
    """Do both stages, or go on with them; `arguments` are the options of each."""
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
        to_kill, at_a_write = done < int(kills), done % 2 == 1
        child = os.fork()
        if child == 0:
            if to_kill and at_a_write:
                die_at_a_write(rng.randint(1, 8), after=rng.random() < 0.5)
            do_both_stages(arguments)
            os._exit(0)
        if to_kill and not at_a_write:
            time.sleep(rng.uniform(0.02, 1.0))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        rng.random()  # the child's draws are not this process': the next child shall have others
        if not os.WIFSIGNALED(status):
            print(f"ended after {done} kills")
            sys.exit(os.waitstatus_to_exitcode(status))
        done += 1


main()

"""Searches that take no time: a made-up objective in the place of training."""

import math
import sys

from jaxshare.tune import plan
from jaxshare.tune.arguments import sorted_out
from jaxshare.tune.journal import Journal
from jaxshare.tune.outcome import Outcome

SPACE = ("search.lr=log(1e-4,1e-1)", "search.gamma=uniform(0.5,0.9)", "search.batch_size=[2,4]")
BASE = ("algo=vdn", "env=matrix", "total_env_steps=64", "eval.every=16", "num_envs=4")
BEST_LR = 3e-3


def planned(out, *arguments, space=SPACE):
    return plan.make(sorted_out([*BASE, *space, f"out={out}", *arguments]))


def journal(out, *arguments):
    out.mkdir(parents=True, exist_ok=True)
    return Journal(planned(out, *arguments))


def judged(params):
    """Best near BEST_LR; a small discount fails."""
    if params["gamma"] < 0.55:
        return Outcome("diverged")
    value = -abs(math.log10(params["lr"] / BEST_LR))
    return Outcome("", value, value - 0.1, value + 0.1, (value,))


def work(out, *arguments):
    """Batch after batch until none is left: the numbers of the trials that this process had."""
    of_process = journal(out, *arguments)
    numbers = []
    while (batch := of_process.claim()) is not None:
        numbers += [trial.number for trial in batch.trials]
        of_process.tell(batch, {trial.number: judged(trial.params) for trial in batch.trials})
        batch.lock.release()
    return numbers


if __name__ == "__main__":
    import os
    import pathlib

    what, folder, *rest = sys.argv[1:]
    if what == "die":  # with a batch that it has claimed
        print([trial.number for trial in journal(pathlib.Path(folder), *rest).claim().trials], flush=True)
        os._exit(1)
    print(work(pathlib.Path(folder), *rest))

"""A job: one command of jaxshare, or a script, and what it leaves."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from jaxshare.study.language import Settings

MODULES = {  # what runs a kind of job
    "train": "jaxshare.train",
    "collect": "jaxshare.collect",
    "decompose": "jaxshare.decompose",
    "standardise": "jaxshare.study.standardise",
    "exchange": "jaxshare.convert",
}
DATA_KINDS = ("collect", "standardise", "exchange")  # kinds of jobs that make data sets
QUIET = ("resume=auto", "progress=false")  # settings of every run that people need not see
STAGE = "algo.stage1_updates"  # of SIT: updates before those of its policy


@dataclass(frozen=True)
class Job:
    """A command, and how to tell whether it has been done.

    Paths are relative to the folder of the runs.
    """

    name: str
    kind: str  # of MODULES, or script
    arguments: tuple[str, ...]  # of the module; a script first; {root} stands for the folder
    out: str  # what it leaves: a run directory or a file
    needs: tuple[str, ...] = ()  # names of jobs
    seeds: int = 1  # of a training run
    total: int = 0  # of a training run: environment steps, or updates with a data set
    offline: bool = False
    speed: str = ""  # what its speed depends on; the key of the table of costs
    minutes: float | None = None  # time limit; None: by its estimated time

    def command(self, root: str) -> list[str]:
        """Arguments of python."""
        arguments = [word.replace("{root}", root) for word in self.arguments]
        return arguments if self.kind == "script" else ["-m", MODULES[self.kind], *arguments]

    def command_line(self, root: str) -> str:
        """The command for people."""
        words = [word for word in self.command(root) if word not in QUIET]
        return shlex.join(["python", *words])

    @property
    def unit(self) -> str:
        """What `total`, and the progress of a training run, count: a field of its records."""
        return "updates" if self.offline else "env_steps"

    @property
    def settings(self) -> Settings:
        """Of a training run."""
        return dict(_pair(word) for word in self.arguments if "=" in word)


def _pair(setting: str) -> tuple[str, str]:
    name, _, value = setting.partition("=")
    return name, value

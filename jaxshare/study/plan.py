"""The jobs that a study needs with a budget.

An arm on a task is a training run; runs are told apart by their settings alone, so that studies
share what they have in common. Data sets, what SIT's decomposition says, and scripts are jobs as
well, which wait for those that they need.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxshare.study import names
from jaxshare.study.book import Book
from jaxshare.study.job import QUIET, Job
from jaxshare.study.language import DataSet, Settings, Step, Study
from jaxshare.study.reading import one_of
from jaxshare.types import RefusedError


@dataclass(frozen=True)
class Plan:
    """What a study needs with a budget."""

    study: Study
    budget: str
    folder: str  # of the runs, as commands for people name it
    seeds: int
    cells: dict[tuple[str, str], str]  # (task, arm) -> name of its training run
    decompositions: dict[tuple[str, str], str] = field(default_factory=dict)  # -> name of the job
    scripts: dict[str, str] = field(default_factory=dict)  # name in the study -> name of the job
    jobs: dict[str, Job] = field(default_factory=dict)  # all of them, by name

    @property
    def tasks(self) -> list[str]:
        """In the order of the study."""
        return list(dict.fromkeys(task for task, _ in self.cells))

    @property
    def arms(self) -> list[str]:
        """In the order of the study."""
        used = {arm for _, arm in self.cells}
        return [arm for arm in self.study.arms if arm in used]

    def commands(self) -> list[str]:
        """All commands, for people."""
        return [job.command_line(self.folder) for job in self.jobs.values()]


def make(book: Book, name: str, budget: str) -> Plan | None:
    """The plan of a study, or None if it is not run at all, or not with this budget."""
    return _Planner(book, budget).plan(book.studies[name])


def make_all(book: Book, chosen: Sequence[str], budget: str) -> dict[str, Plan | None]:
    """The plans of several studies."""
    return {name: make(book, name, budget) for name in chosen}


def together(plans: dict[str, Plan | None]) -> dict[str, Job]:
    """All jobs of several plans, each once: what others wait for first, then in their order."""
    jobs: dict[str, Job] = {}
    for plan in plans.values():
        jobs |= plan.jobs if plan else {}
    awaited = {need for job in jobs.values() for need in job.needs}
    return dict(sorted(jobs.items(), key=lambda item: item[0] not in awaited))


class _Planner:
    """Collects the jobs of one study."""

    def __init__(self, book: Book, budget: str) -> None:
        self._book = book
        self._budget = budget
        self._jobs: dict[str, Job] = {}

    def plan(self, study: Study) -> Plan | None:
        """All of it."""
        budget = study.budget(self._budget)
        if budget is None:
            return None

        # a training run for every arm on every task
        cells: dict[tuple[str, str], str] = {}
        decompositions: dict[tuple[str, str], str] = {}
        wanted = any(check.quantity.decomposition is not None for check in study.checks)
        for task in budget.tasks or study.tasks:
            for arm in study.arms:
                if arm not in budget.only.get(task, study.arms):
                    continue
                settings = self._settings(study, task, arm)
                job = self._training(study.name, settings)
                cells[task, arm] = job.name
                if wanted and settings.get("algo") == "sit":
                    decompositions[task, arm] = self._decomposition(job, settings)

        scripts = {label: self._script(label, step) for label, step in study.jobs.items()}
        folder = f"runs/{self._book.name}/{self._budget}"
        return Plan(study, self._budget, folder, budget.seeds, cells, decompositions, scripts,
                    self._jobs)  # fmt: skip

    def _add(self, job: Job) -> Job:
        self._jobs[job.name] = job
        return job

    def _settings(self, study: Study, task: str, arm: str) -> Settings:
        """Of an arm on a task: what is nearer to the run wins."""
        budget = study.budget(self._budget)
        assert budget is not None
        of_arm: Settings = {}
        for name, value in budget.arms.get(arm, {}).items():
            if not isinstance(value, dict):
                of_arm[name] = value
            elif name == task:
                of_arm |= value

        # later ones win
        of_task = budget.tasks.get(task, {})
        return {
            **study.arms[arm],
            **study.tasks[task],
            **budget.settings,
            **of_task,
            **of_arm,
            "seeds": str(budget.seeds),
        }

    def _training(self, owner: str, settings: Settings) -> Job:
        offline = "data" in settings
        key = "total_updates" if offline else "total_env_steps"
        if key not in settings or "eval.every" not in settings:
            raise RefusedError(
                f"{owner}: its settings must have {key} and eval.every, for every budget: add "
                f"them to {self._budget}.settings.",
            )
        total = _whole(owner, key, settings[key])
        _whole(owner, "eval.every", settings["eval.every"])

        # after the data set, if there is one
        speed = names.speed(settings, self._book.paths.alike)
        needs: tuple[str, ...] = ()
        if offline:
            data = self._data(settings["data"])
            needs = (data.name,)
            settings = {**settings, "data": f"{{root}}/{data.out}"}

        # its command line
        label = names.label(settings)
        words = [f"{name}={value}" for name, value in settings.items()]
        arguments = (*words, *QUIET, f"run_dir={{root}}/{label}")
        seeds = _whole(owner, "seeds", settings.get("seeds", "1"))
        return self._add(Job(label, "train", arguments, label, needs, seeds, total, offline, speed))

    def _decomposition(self, job: Job, settings: Settings) -> str:
        scenario = settings.get("env.scenario", "")
        arguments = (f"run_dir={{root}}/{job.out}",)
        out = f"{job.out}/decomposition.json"
        speed = f"decompose env.scenario={scenario}"
        name = f"{job.name}.decompose"
        decompose = Job(name, "decompose", arguments, out, needs=(job.name,), speed=speed)
        return self._add(decompose).name

    def _data(self, name: str) -> Job:
        """The job that makes a data set, after its pool and, for a copy, after the original."""
        one_of(self._book.name, "data", name, self._book.sets)
        data = self._book.sets[name]
        if data.standardised:
            original = self._data(data.standardised)
            out = f"sets/{data.standardised}_standardised.jds"
            arguments: tuple[str, ...] = (f"{{root}}/{original.out}",)
            return self._add(
                Job(f"set-{name}", "standardise", arguments, out, (original.name,),
                    speed="standardise"),
            )  # fmt: skip
        return self._collected(name, data)

    def _collected(self, name: str, data: DataSet) -> Job:
        """A data set that the policies of a pool play."""
        settings = getattr(self._book.pools[data.pool], self._budget)
        episodes = getattr(data, self._budget)
        if settings is None or episodes is None:
            raise RefusedError(f"data={name}: it or its pool {data.pool} has no {self._budget}.")
        pool = self._training(f"pool {data.pool}", settings)
        out = f"sets/{name}.jds"
        arguments = (
            f"run_dir={{root}}/{pool.out}", f"out={{root}}/{out}",
            f"composition={data.composition}", f"episodes={episodes}", "overwrite=true",
            "progress=false",
        )  # fmt: skip
        speed = f"collect {data.pool} episodes={episodes}"
        return self._add(Job(f"set-{name}", "collect", arguments, out, (pool.name,), speed=speed))

    def _script(self, label: str, step: Step) -> str:
        """A script stands beside the YAML file; its result's name does not depend on where."""
        if not step.run:
            raise RefusedError(f"{label}: run is empty: name a Python file.")
        script, *words = step.run
        name = step.out or names.script(label, step.run)
        place = os.fspath(self._book.place(script))
        arguments = (place, *(word.replace("{out}", f"{{root}}/{name}.json") for word in words))
        needs = tuple(self._data(data).name for data in step.sets)
        return self._add(
            Job(name, "script", arguments, f"{name}.json", needs, speed=f"script {label}",
                minutes=step.minutes),
        ).name  # fmt: skip


def _whole(owner: str, name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise RefusedError(f"{owner}: {name}={value} must be a whole number.") from error

"""The jobs that a study needs with a budget.

An arm on a task is a training run; runs are told apart by their settings alone, so that studies
share what they have in common. Data sets, what SIT's decomposition says, and scripts are jobs as
well, which wait for those that they need.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from jaxshare.study import names, packing
from jaxshare.study.book import Book
from jaxshare.study.job import QUIET, Job
from jaxshare.study.language import DataSet, Settings, Step, Study
from jaxshare.study.packing import Most, Piece, Place
from jaxshare.study.reading import one_of
from jaxshare.types import RefusedError


@dataclass(frozen=True)
class Plan:
    """What a study needs with a budget."""

    study: Study
    budget: str
    folder: str  # of the runs, as commands for people name it
    seeds: int
    cells: dict[Place, tuple[Piece, ...]]  # (task, arm) -> where its training runs are
    decompositions: dict[Place, str] = field(default_factory=dict)  # -> name of the job
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

    def jobs_of(self, task: str, arm: str) -> list[Job]:
        """The training runs of an arm on a task."""
        return [self.jobs[piece.job] for piece in self.cells[task, arm]]

    def each_run(self) -> Iterator[tuple[Place, Job]]:
        """Every arm on every task with each of its training runs."""
        for task, arm in self.cells:
            for job in self.jobs_of(task, arm):
                yield (task, arm), job

    def commands(self) -> list[str]:
        """All commands, for people."""
        return [job.command_line(self.folder) for job in self.jobs.values()]


def make(book: Book, name: str, budget: str, most: Most | None = None) -> Plan | None:
    """The plan of a study, or None if it is not run at all, or not with this budget.

    most: how many runs one program may train; None: all seeds of an arm on a task, and no others.
    """
    return _Planner(book, budget, most).plan(book.studies[name])


def make_all(
    book: Book, chosen: Sequence[str], budget: str, most: Most | None = None
) -> dict[str, Plan | None]:
    """The plans of several studies."""
    return {name: make(book, name, budget, most) for name in chosen}


def together(plans: dict[str, Plan | None]) -> dict[str, Job]:
    """All jobs of several plans, each once: what others wait for first, then in their order."""
    jobs: dict[str, Job] = {}
    for plan in plans.values():
        jobs |= plan.jobs if plan else {}
    awaited = {need for job in jobs.values() for need in job.needs}
    return dict(sorted(jobs.items(), key=lambda item: item[0] not in awaited))


class _Planner:
    """Collects the jobs of one study."""

    def __init__(self, book: Book, budget: str, most: Most | None) -> None:
        self._book = book
        self._most = most
        self._budget = budget
        self._jobs: dict[str, Job] = {}

    def plan(self, study: Study) -> Plan | None:
        """All of it."""
        budget = study.budget(self._budget)
        if budget is None:
            return None

        # the settings of every arm on every task; SIT's runs stay as they are if they are analysed
        wanted = any(check.quantity.decomposition is not None for check in study.checks)
        settings: dict[Place, Settings] = {}
        analysed: dict[Place, Settings] = {}
        for task in budget.tasks or study.tasks:
            for arm in study.arms:
                if arm in budget.only.get(task, study.arms):
                    of_arm = self._settings(study, task, arm)
                    settings[task, arm] = of_arm
                    if wanted and of_arm.get("algo") == "sit":
                        analysed[task, arm] = of_arm

        # their training runs
        free = {place: settings[place] for place in settings if place not in analysed}
        packs = packing.alone(free) if self._most is None else packing.pack(free, self._most)
        packs += packing.alone(analysed)
        pieces: dict[Place, tuple[Piece, ...]] = dict.fromkeys(settings, ())
        decompositions: dict[Place, str] = {}
        for each in packs:
            job = self._training(study.name, each.settings, each.runs)
            for place, point in each.points.items():
                pieces[place] += (Piece(job.name, point),)
                if place in analysed:
                    decompositions[place] = self._decomposition(job, each.settings)

        scripts = {label: self._script(label, step) for label, step in study.jobs.items()}
        folder = f"runs/{self._book.name}/{self._budget}"
        return Plan(study, self._budget, folder, budget.seeds, pieces, decompositions, scripts,
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

    def _training(self, owner: str, settings: Settings, runs: int | None = None) -> Job:
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
        runs = runs or _whole(owner, "seeds", settings.get("seeds", "1"))
        return self._add(Job(label, "train", arguments, label, needs, runs, total, offline, speed))

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
        return self._collected(name, data) if data.pool else self._copied(name, data)

    def _copied(self, name: str, data: DataSet) -> Job:
        """A data set that is another one, changed."""
        original = self._data(data.standardised or data.exchanged)
        arguments: tuple[str, ...]
        if data.standardised:
            kind = "standardise"
            out = f"sets/{data.standardised}_standardised.jds"
            arguments = (f"{{root}}/{original.out}",)
        else:
            kind = "exchange"
            out = f"sets/{name}.jds"
            arguments = (
                f"data={{root}}/{original.out}", f"out={{root}}/{out}", "exchange=true",
                "overwrite=true", "progress=false",
            )  # fmt: skip
        return self._add(
            Job(f"set-{name}", kind, arguments, out, needs=(original.name,), speed=kind)
        )

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

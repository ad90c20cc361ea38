"""The language of studies: a record for each part of the YAML file, whose fields are its keys.

docs/study.md has the same keys in its tables; `read` in `book.py` makes the records.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.study import kinds
from jaxshare.study.check import SCORES, Check
from jaxshare.study.reading import key

BUDGETS = ("small", "full")
Settings = dict[str, str]


@dataclass(frozen=True)
class Step:
    """A script of one's own whose result checks read."""

    run: list[str] = key(
        "a Python file beside this one and its arguments; `{out}` is the JSON file that it must "
        "write, `{root}` the folder of the runs",
        kinds.listing(kinds.text),
    )
    sets: list[str] = key("data sets that must be there before", kinds.listing(kinds.text), [])
    minutes: float = key("its time limit", kinds.number, 60.0)
    out: str = key(
        "name of its result; left out: the step's name and a hash of `run`",
        kinds.text,
        "",
    )


@dataclass(frozen=True)
class Budget:
    """How much is run."""

    seeds: int = key("runs of every arm on every task", kinds.whole(1), 1)
    settings: Settings = key("settings of all runs", kinds.settings, {})
    tasks: dict[str, Settings] = key(
        "the tasks of this budget, with more settings; left out: all tasks",
        kinds.mapping(kinds.settings),
        {},
    )
    arms: dict[str, Settings | dict[str, Settings]] = key(
        "more settings of an arm, or of an arm on each task",
        kinds.mapping(kinds.either(dict, kinds.mapping(kinds.settings), kinds.settings)),
        {},
    )
    only: dict[str, list[str]] = key(
        "of a task: the arms that are run on it",
        kinds.mapping(kinds.listing(kinds.text)),
        {},
    )


BUDGET = kinds.either(str, kinds.text, kinds.record(Budget))


@dataclass(frozen=True)
class Study:
    """Arms on tasks, and what is to be found out."""

    name: str
    is_claim: bool  # it stands under `claims`
    title: str = key("what it is called on the page", kinds.text)
    statement: str = key("what is claimed, in words", kinds.text, "")
    source: str = key("where a publication claims it", kinds.text, "")
    reference: str = key("its numbers, in words", kinds.text, "")
    comparable: str = key("whether ours can be compared: `yes`, `partly`, `no`",
                          kinds.choice("yes", "partly", "no"), "")  # fmt: skip
    because: str = key("why, or why not", kinds.text, "")
    arms: dict[str, Settings] = key(
        "what is compared: a name and settings each",
        kinds.mapping(kinds.settings),
        {},
    )
    tasks: dict[str, Settings] = key(
        "where: a name and settings each",
        kinds.mapping(kinds.settings),
        {},
    )
    small: Budget | str | None = key(
        "a budget, or the reason why it is not run with it",
        BUDGET,
        None,
    )
    full: Budget | str | None = key("another budget", BUDGET, None)
    checks: list[Check] = key("what is to be decided", kinds.listing(kinds.record(Check)), [])
    metric: str = key("the evaluated metric that is the score", kinds.text, "return")
    score: str = key("`final`: mean of the last evaluations; `curve`: of all but the first",
                     kinds.choice(*SCORES), "final")  # fmt: skip
    last: int = key("of how many evaluations", kinds.whole(1), 3)
    values: dict[str, dict[str, list[float]]] = key(
        "numbers of a publication: task, arm, [mean, deviation]",
        kinds.mapping(kinds.mapping(kinds.listing(kinds.number))),
        {},
    )
    jobs: dict[str, Step] = key(
        "scripts whose results checks read",
        kinds.mapping(kinds.record(Step)),
        {},
    )
    not_run: str = key("why it is not run at all", kinds.text, "")
    instead: str = key("the name of what is nearest to it", kinds.text, "")

    def budget(self, name: str) -> Budget | None:
        """What is run with a budget, or None if nothing is."""
        budget = getattr(self, name)
        return budget if isinstance(budget, Budget) and not self.not_run else None

    def reason(self, name: str) -> str:
        """Why nothing is run with a budget."""
        budget = getattr(self, name)
        return self.not_run or (budget if isinstance(budget, str) else f"it has no {name} budget")


@dataclass(frozen=True)
class Pool:
    """A training run whose checkpoints play the episodes of data sets."""

    small: Settings | None = key("settings of the run with the small budget", kinds.settings, None)
    full: Settings | None = key("with the full one", kinds.settings, None)


@dataclass(frozen=True)
class DataSet:
    """Episodes that runs learn from."""

    pool: str = key("the pool whose policies play", kinds.text, "")
    composition: str = key("who plays, as jaxshare.collect takes it", kinds.text, "")
    standardised: str = key(
        "instead: the set of which this is a copy with rewards of mean 0 and deviation 1",
        kinds.text,
        "",
    )
    exchanged: str = key(
        "instead: the set of which this is a copy whose agents of a type change places at random",
        kinds.text,
        "",
    )
    small: int | None = key("episodes with the small budget", kinds.whole(1), None)
    full: int | None = key("with the full one", kinds.whole(1), None)


@dataclass(frozen=True)
class Machines:
    """What a job is given of a machine, and how it is dealt with if that is lost."""

    cpus: int = key("cores of a job; left out: its share here, one elsewhere", kinds.whole(1), 0)
    gpus: float = key("GPUs of a job, or a part of one", kinds.number, 0.0)
    memory_gb: float = key("memory of a job, for clusters that count it", kinds.number, 0.0)
    attempts: int = key(
        "how often a job is begun whose process or machine is lost", kinds.whole(1), 5
    )
    stalled_minutes: float = key(
        "a job that writes nothing for so long is begun again; 0: never", kinds.number, 0.0
    )


@dataclass(frozen=True)
class Paths:
    """The key `study`: of the whole file or folder."""

    title: str = key("title of the page", kinds.text, "")
    text: str = key("first paragraph of the page", kinds.text, "")
    note: str = key("what else the reader should know", kinds.text, "")
    sections: dict[str, str] = key(
        "headings, by the first word of studies' names",
        kinds.mapping(kinds.text),
        {},
    )
    page: str = key(
        "the page, relative to this file; left out: results.md beside the runs",
        kinds.text,
        "",
    )
    figures: str = key("what was found, likewise; left out: results.json", kinds.text, "")
    costs: str = key("how long kinds of runs take, likewise; left out: costs.json", kinds.text, "")
    alike: dict[str, str] = key(
        "settings that make runs as fast as other ones do",
        kinds.mapping(kinds.text),
        {},
    )
    machines: Machines = key(
        "what a job is given of a machine",
        kinds.record(Machines),
        Machines(),
    )

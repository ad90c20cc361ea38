"""The claims as they are written down in benchmarks/claims/*.yaml, and the jobs that each of them needs.

A claim has arms (settings of jaxshare.train), tasks, and for every budget seeds and more settings, or the reason why it
is not run with that budget. An arm on a task is a job; jobs are told apart by their settings alone, so that claims
share what they have in common. Data sets of SIT, checks that need another program, and what is read out of a run are
jobs as well, which wait for those they need.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import shlex
from dataclasses import dataclass, field
from typing import Any

import yaml

from jaxshare.types import RefusedError

HERE = pathlib.Path(__file__).parent
CLAIMS = HERE / "claims"
COSTS = HERE / "results" / "claims_cost.json"
MADE = ("collect", "standardise")  # kinds of jobs that make data sets
BUDGETS = ("small", "full")
COMPARABLE = ("yes", "partly", "no")
COMPARE = ("greater", "equal", "at_least", "above", "at_most")
QUANTITIES = ("score", "series", "reached", "decomposition", "json")
SCORES = ("final", "curve")
KEYS = {  # of a claim: whether it must have it
    "title": True, "statement": True, "source": True, "reference": True, "comparable": True, "because": True,
    "checks": False, "arms": False, "tasks": False, "metric": False, "score": False, "last": False, "values": False,
    "jobs": False, "small": False, "full": False, "instead": False, "not_run": False,
}  # fmt: skip
SPEED = (  # settings that do not change how fast a run is, or make it faster, by the beginnings of their names
    "seed", "seeds", "total_", "eval.", "checkpoint.", "replay.", "differ.", "algo.hparams.", "algo.stage1_updates",
    "algo.lift_rewards", "algo.priority",
    "algo.decomposition", "algo.ensemble", "algo.graph", "a_pps.", "rs_pps.", "pp_pps.", "env.rules",
)  # fmt: skip
ALIKE = {  # taken to be as fast: DIFFER and QMIX (benchmarks/overheads.py), ways to share parameters, VDN
    **dict.fromkeys(("preset=differ/fig3_divide", "preset=differ/fig11_fixed_ratio"), "preset=differ/fig4_mmm2"),
    **dict.fromkeys(("preset=pps/qmix_rs", "preset=pps/qmix_pp", "preset=pps/vdn_a"), "preset=pps/qmix_a"),
    **dict.fromkeys(("preset=pps/vdn_rs", "preset=pps/vdn_pp"), "preset=pps/qmix_a"),
    **dict.fromkeys(("preset=pps/table2_qmix", "preset=pps/table2_vdn"), "preset=pps/qmix_a"),
    "algo=snac": "algo=iac",
    "preset=lecture/ia2c_speaker_listener": "preset=lecture/maa2c_speaker_listener",
    **dict.fromkeys(("algo=ia2c", "algo=vdn", "algo=iql", "algo.share_params=none"), ""),
    **dict.fromkeys(("modifiers=[]", "modifiers=[differ]"), ""),
}
QUIET = ("resume=auto", "progress=false")


@dataclass(frozen=True)
class Job:
    """One command, and how to tell whether it has been done. Paths are relative to the folder of the budget."""

    name: str
    kind: str  # train | collect | standardise | decompose | script
    arguments: tuple[str, ...]  # of the module or script; {root} stands for the folder
    out: str  # what it leaves: a run directory or a file
    needs: tuple[str, ...] = ()  # names of jobs
    seeds: int = 1  # of a training run
    total: int = 0  # of a training run: environment steps, or updates with a data set
    offline: bool = False
    speed: str = ""  # what its speed depends on; the key of the table of costs
    minutes: float | None = None  # time limit; None: by its estimated time

    def command(self, root: str) -> list[str]:
        """Arguments of python."""
        arguments = [a.replace("{root}", root) for a in self.arguments]
        if self.kind == "script":
            return [f"benchmarks/{arguments[0]}", *arguments[1:]]
        module = {"train": "train", "collect": "collect", "decompose": "decompose"}.get(self.kind)
        return ["-m", f"jaxshare.{module}", *arguments] if module else ["benchmarks/_claims_steps.py", *arguments]

    def shown(self, root: str) -> str:
        """The command line for people."""
        return shlex.join(["python", *(a for a in self.command(root) if a not in QUIET)])


@dataclass(frozen=True)
class Plan:
    """What a claim needs under a budget."""

    claim: dict[str, Any]
    budget: str
    seeds: int
    cells: dict[tuple[str, str], str]  # (task, arm) -> name of its training run
    decompositions: dict[tuple[str, str], str]  # (task, arm) -> name of the job
    scripts: dict[str, str]  # name in the claim -> name of the job
    jobs: dict[str, Job] = field(default_factory=dict)  # all of them, by name

    @property
    def tasks(self) -> list[str]:
        """In the order of the claim."""
        return list(dict.fromkeys(task for task, _ in self.cells))

    @property
    def arms(self) -> list[str]:
        """In the order of the claim."""
        return [arm for arm in self.claim.get("arms", {}) if any(a == arm for _, a in self.cells)]


@dataclass(frozen=True)
class Book:
    """All claims by name, and the data sets and pools that they speak of."""

    claims: dict[str, dict[str, Any]]
    sets: dict[str, dict[str, Any]]
    pools: dict[str, dict[str, Any]]


# ------------------------------------------------------------------------------------------------------------- reading


def read(place: pathlib.Path = CLAIMS) -> Book:
    """The book of a YAML file, or of all in a folder. Raises RefusedError naming file, claim, key and remedy."""
    paths = sorted(place.glob("*.yaml")) if place.is_dir() else [place]
    book = Book({}, {}, {})
    for path in paths:
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError) as error:
            raise RefusedError(f"claims={path} cannot be read: {str(error).splitlines()[0]}.") from error
        for kind in ("claims", "sets", "pools"):
            for name, entry in (found.get(kind) or {}).items():
                if name in getattr(book, kind):
                    raise RefusedError(f"{path}: {name} is defined twice: choose another name.")
                getattr(book, kind)[name] = entry
    if not book.claims:
        raise RefusedError(f"claims={place} holds no claim: name a YAML file, or a folder of them.")
    for name, claim in book.claims.items():
        _check(name, claim, book)
    return book


def _check(name: str, claim: dict[str, Any], book: Book) -> None:
    unknown, missing = set(claim) - set(KEYS), [k for k, needed in KEYS.items() if needed and k not in claim]
    if unknown or missing:
        raise RefusedError(f"{name}: {', '.join(sorted(unknown)) or ', '.join(missing)}: unknown, or missing, key.")
    _one(name, "comparable", claim["comparable"], COMPARABLE)
    _one(name, "score", claim.get("score", "final"), SCORES)
    if "not_run" in claim:
        if claim.get("instead") and claim["instead"] not in book.claims:
            raise RefusedError(f"{name}: instead={claim['instead']} is not a claim.")
        return
    for key in ("checks", *BUDGETS):
        if not claim.get(key):
            raise RefusedError(f"{name}: it has no {key}. Say not_run with the reason if it cannot be run.")
    arms, tasks = claim.get("arms", {}), claim.get("tasks", {})
    for check in claim["checks"]:
        _one(name, "compare", check.get("compare"), COMPARE)
        _one(name, "quantity", next(iter(check.get("quantity", {"score": 0}))), QUANTITIES)
        for arm in check.get("arms", []):
            _one(name, "arm", arm, arms)
        for task in check.get("tasks", []):
            _one(name, "task", task, tasks)
        two = check["compare"] in ("greater", "equal")
        if two != (len(check.get("arms", [])) == 2):
            raise RefusedError(f"{name}: compare={check['compare']} of arms={check.get('arms')}: two arms, or one.")
        needed = {"equal": "margin", "greater": "says"}.get(check["compare"], "threshold")
        if "says" not in check or needed not in check:
            raise RefusedError(f"{name}: a check with compare={check['compare']} must have says and {needed}.")
    for budget in BUDGETS:
        for task in () if isinstance(claim[budget], str) else claim[budget].get("tasks", {}):
            _one(name, f"{budget}.tasks", task, tasks)


def _one(name: str, key: str, value: Any, known: Any) -> None:
    if value not in known:
        raise RefusedError(f"{name}: {key}={value} is not one of {', '.join(map(str, known))}.")


# ------------------------------------------------------------------------------------------------------------ planning


def plan(book: Book, name: str, budget: str) -> Plan | None:
    """The jobs of a claim, or None if it is not run at all, or not with this budget."""
    claim = {"name": name, **book.claims[name]}
    if "not_run" in claim or isinstance(claim[budget], str):
        return None
    how, jobs = claim[budget], {}
    cells: dict[tuple[str, str], str] = {}
    decompositions: dict[tuple[str, str], str] = {}
    tasks = how.get("tasks") or {task: [] for task in claim.get("tasks", {})}
    wanted = any("decomposition" in check.get("quantity", {}) for check in claim["checks"])
    for task, more in tasks.items():
        for arm, own in claim.get("arms", {}).items():
            if arm not in how.get("only", {}).get(task, claim["arms"]):
                continue
            most = how.get("arms", {}).get(arm, [])
            most = most.get(task, []) if isinstance(most, dict) else most
            seeds = [f"seeds={how['seeds']}"]
            settings = merged(own, claim["tasks"][task], how.get("settings", []), more or [], most, seeds)
            job = _training(name, settings, book, budget, jobs)
            cells[task, arm] = job.name
            if wanted and settings.get("algo") == "sit":
                read_out = Job(f"{job.name}.decompose", "decompose", (f"run_dir={{root}}/{job.out}",),
                               f"{job.out}/decomposition.json", (job.name,),
                               speed=f"decompose {claim['tasks'][task][1]}")  # fmt: skip
                jobs[read_out.name] = read_out
                decompositions[task, arm] = read_out.name
    scripts = {label: _script(label, how.get("jobs", {}).get(label, one), jobs, book, budget)
               for label, one in claim.get("jobs", {}).items()}  # fmt: skip
    return Plan(claim, budget, int(how.get("seeds", 1)), cells, decompositions, scripts, jobs)


def merged(*groups: list[Any]) -> dict[str, str]:
    """Settings of several lists of key=value, of which later ones win; a list may have lists in it."""
    found: dict[str, str] = {}
    for group in groups:
        for item in group:
            if isinstance(item, list):
                found |= merged(item)
                continue
            key, equals, value = item.partition("=")
            if not equals:
                raise RefusedError(f"'{item}' is not understood: settings are written key=value.")
            found[key] = value
    return found


def _training(name: str, settings: dict[str, str], book: Book, budget: str, jobs: dict[str, Job]) -> Job:
    offline, needs = "data" in settings, ()
    key = "total_updates" if offline else "total_env_steps"
    if key not in settings or "eval.every" not in settings:
        raise RefusedError(f"{name}: its settings must have {key} and eval.every, for every budget.")
    speed = _speed(settings)
    if offline:
        made = _data(settings["data"], book, budget, jobs)
        settings, needs = {**settings, "data": f"{{root}}/{made.out}"}, (made.name,)
    label = _label(settings)
    job = Job(
        label, "train",
        (*(f"{k}={v}" for k, v in settings.items()), *QUIET, f"run_dir={{root}}/{label}"), label, needs,
        int(settings["seeds"]), int(settings[key]), offline, speed,
    )  # fmt: skip
    jobs[job.name] = job
    return job


def _label(settings: dict[str, str]) -> str:
    """A folder's name: what people look for, and a hash of all settings and of the preset's file."""
    from jaxshare.settings.hydra import config_dir

    words = [settings[k] for k in ("preset", "algo", "modifiers", "env.scenario", "env.game", "data") if k in settings]
    text = json.dumps(sorted(settings.items()))
    if "preset" in settings:
        path = config_dir() / "preset" / f"{settings['preset']}.yaml"
        text += path.read_text(encoding="utf-8") if path.is_file() else ""
    short = re.sub(r"[^A-Za-z0-9_]+", "-", "-".join(pathlib.Path(word).stem for word in words)).strip("-")
    return f"{short}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _speed(settings: dict[str, str]) -> str:
    shown = {**settings, **({"data": "set"} if "data" in settings else {})}
    words = [f"{k}={v}" for k, v in sorted(shown.items()) if not k.startswith(SPEED)]
    return " ".join(word for word in (ALIKE.get(word, word) for word in words) if word)


def _data(name: str, book: Book, budget: str, jobs: dict[str, Job]) -> Job:
    """The job that makes a data set, after its pool and, if it is to be standardised, after the plain one."""
    if name not in book.sets:
        raise RefusedError(f"data={name} is not one of the data sets of the claims: {', '.join(book.sets)}.")
    one = book.sets[name]
    if "standardised" in one:
        plain = _data(one["standardised"], book, budget, jobs)
        out = f"sets/{one['standardised']}_standardised.jds"
        job = Job(f"set-{name}", "standardise", ("standardise", f"{{root}}/{plain.out}"), out, (plain.name,),
                  speed="standardise")  # fmt: skip
    else:
        pool = merged(book.pools[one["pool"]][budget])
        pool_job = _training(f"pool {one['pool']}", pool, book, budget, jobs)
        out = f"sets/{name}.jds"
        arguments = (f"run_dir={{root}}/{pool_job.out}", f"out={{root}}/{out}", f"composition={one['composition']}",
                     f"episodes={one[budget]}", "overwrite=true", "progress=false")  # fmt: skip
        speed = f"collect {one['pool']} episodes={one[budget]}"
        job = Job(f"set-{name}", "collect", arguments, out, (pool_job.name,), speed=speed)
    jobs[job.name] = job
    return job


def _script(label: str, one: dict[str, Any], jobs: dict[str, Job], book: Book, budget: str) -> str:
    needs = tuple(_data(name, book, budget, jobs).name for name in one.get("sets", []))
    text = json.dumps(one["run"])
    name = f"{label}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    arguments = tuple(word.replace("{out}", f"{{root}}/{name}.json") for word in one["run"])
    jobs[name] = Job(name, "script", arguments, f"{name}.json", needs, speed=f"script {label}",
                     minutes=one.get("minutes", 60))  # fmt: skip
    return name


# -------------------------------------------------------------------------------------------------------- what is done


def done(job: Job, root: pathlib.Path) -> bool:
    """Whether its result is there: of a run the last evaluation of every seed, else the file."""
    out = root / job.out
    if job.kind != "train":
        return out.exists()
    ends = progress(job, root)
    return len(ends) >= job.seeds and min(ends.values()) >= job.total and _evaluated(job, root)


def sign(job: Job, jobs: dict[str, Job], root: pathlib.Path) -> None:
    """Write beside a data set, which has no hash in its name, what it was made with."""
    if job.kind in MADE and done(job, root):
        _signature(job, root).write_text(_made_with(job, jobs) + "\n", encoding="utf-8")


def check_signed(jobs: dict[str, Job], root: pathlib.Path) -> None:
    """Raise RefusedError for a data set made with other settings: the runs that learned from it would count as done."""
    for job in jobs.values():
        path = _signature(job, root)
        if job.kind in MADE and path.is_file() and path.read_text(encoding="utf-8").strip() != _made_with(job, jobs):
            raise RefusedError(
                f"{root / job.out} was made with other settings than benchmarks/claims has now. Choose another --runs, "
                f"or remove it, {path.name} and the runs that learned from it."
            )


def _signature(job: Job, root: pathlib.Path) -> pathlib.Path:
    return root / f"{job.out}.made_with"


def _made_with(job: Job, jobs: dict[str, Job]) -> str:
    earlier = [_made_with(jobs[name], jobs) for name in job.needs if jobs[name].kind in MADE]
    return hashlib.sha256(json.dumps([*job.arguments, *earlier]).encode()).hexdigest()[:16]


def progress(job: Job, root: pathlib.Path) -> dict[Any, float]:
    """How far every seed of a run is, in environment steps or updates."""
    from jaxshare import results

    path = root / job.out / "metrics.jsonl"
    if not path.is_file():
        return {}
    ends: dict[Any, float] = {}
    for record in results.load(root / job.out):
        name = results.run_name(record)
        ends[name] = max(ends.get(name, 0.0), float(record["updates" if job.offline else "env_steps"]))
    return ends


def _evaluated(job: Job, root: pathlib.Path) -> bool:
    from jaxshare import results

    found = results.evaluations(results.load(root / job.out))
    key = "updates" if job.offline else "env_steps"
    return len(found) >= job.seeds and all(records[-1][key] >= job.total for records in found.values())


# ----------------------------------------------------------------------------------------------------------- estimates


def costs() -> dict[str, Any]:
    """The measured costs by what speed depends on."""
    return json.loads(COSTS.read_text(encoding="utf-8"))["costs"] if COSTS.is_file() else {}


def seconds(job: Job, table: dict[str, Any]) -> float | None:
    """Estimated core seconds of a job; None if its kind was not measured."""
    settings = merged([a for a in job.arguments if "=" in a])
    found = table.get(job.speed)
    if found is None or job.kind != "train":
        return None if found is None else float(found["start_s"])
    first = int(settings.get("algo.stage1_updates", 0)) if found.get("first_rate") else 0
    evaluations = job.total // int(settings["eval.every"]) + 1
    each = (job.total - first) / found["rate"] + evaluations * found["eval_s"]
    each += first / found["first_rate"] if first else 0.0
    return found["start_s"] + job.seeds * each

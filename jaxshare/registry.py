"""Entries by name: algorithms, environments, modifiers and loggers.

The file name is the registry: every module of algos/, envs/ or modifiers/ with `Config` and `make`
is an entry, and so is every folder there whose file `algorithm.py`, `environment.py` or
`modifier.py` has them. Others come from outside: see `jaxshare.plugins`.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Iterable
from functools import cache
from types import ModuleType

from jaxshare.plugins import entries, installed
from jaxshare.plugins.entries import Entry, Module, Origin
from jaxshare.types import Env, RefusedError

# how PyMARL, EPyMARL and others call what is set here: names or ends of our keys, the likeliest
# first
OF_RUNS = {
    "batch_size_run": ("num_envs",),
    "checkpoint_path": ("run_dir",),
    "evaluate_every": ("eval.every",),
    "local_results_path": ("run_dir",),
    "n_envs": ("num_envs",),
    "n_seeds": ("seeds",),
    "save_model_interval": ("checkpoint.every",),
    "t_max": ("total_env_steps",),
    "test_interval": ("eval.every",),
    "test_nepisode": ("eval.episodes",),
    "total_timesteps": ("total_env_steps",),
    "use_tensorboard": ("logger",),
    "use_wandb": ("logger",),
}
OF_ENVIRONMENTS = {
    "env_name": ("env",),
    "gym_key": ("env.scenario", "env.id"),
    "key": ("env.scenario", "env.id"),
    "map": ("env.scenario",),
    "map_name": ("env.scenario", "env.game"),
    "n_agents": ("env.scenario",),
    "time_limit": ("env.max_steps",),
}
OF_NETWORKS = {
    "hypernet_embed": ("algo.hypernet_dim",),
    "mixing_embed_dim": ("algo.embed_dim",),
    "obs_individual_obs": ("algo.obs_agent_id",),
    "rnn_hidden_dim": ("algo.hidden_dim",),
    "use_rnn": ("algo.recurrent",),
}
OF_LEARNING = {
    "buffer_size": ("replay.capacity",),
    "critic_lr": ("critic_lr", "lr"),
    "epsilon_anneal_time": ("epsilon_anneal_steps",),
    "epsilon_finish": ("epsilon_end",),
    "grad_norm_clip": ("grad_clip",),
    "learning_rate": ("lr",),
    "max_grad_norm": ("grad_clip",),
    "optim_alpha": ("rms_decay",),
    "optim_eps": ("rms_eps",),
    "q_nstep": ("algo.n_step",),
    "target_update_interval": ("algo.target_update_period",),
    "target_update_interval_or_tau": ("algo.target_update_period", "tau"),
}
SYNONYMS: dict[str, tuple[str, ...]] = OF_RUNS | OF_ENVIRONMENTS | OF_NETWORKS | OF_LEARNING

KINDS = {"algo": "jaxshare.algos", "env": "jaxshare.envs", "modifiers": "jaxshare.modifiers"}
MAIN = {"algo": "algorithm", "env": "environment", "modifiers": "modifier"}  # file of a folder

LOGGERS = "jaxshare.run.loggers"  # the module that has ours


@cache
def modules(kind: str) -> dict[str, Module]:
    """jaxshare's own entries of a kind, by name. Heavy packages are imported by their `make` only.

    kind: algo, env, modifiers or logger. Of what comes from outside see `loaded` and `names`.
    """
    if kind == "logger":
        return dict(importlib.import_module(LOGGERS).OURS)
    if kind not in KINDS:
        return {}
    package = importlib.import_module(KINDS[kind])

    # import every file, and the main file of every folder
    by_name = {}
    for item in pkgutil.iter_modules(package.__path__):
        path = f"{package.__name__}.{item.name}"
        if item.ispkg:
            path = f"{path}.{MAIN[kind]}"
        if not item.name.startswith("_") and importlib.util.find_spec(path):
            by_name[item.name] = importlib.import_module(path)

    # the entries among them, by the alphabet
    entries = {}
    for name in sorted(by_name):
        module = by_name[name]
        if hasattr(module, "Config") and hasattr(module, "make"):
            entries[name] = module
    return entries


def loaded(kind: str) -> dict[str, Module]:
    """jaxshare's own entries, and those from outside that this process has imported, by name."""
    return {
        **modules(kind),
        **{name: entry.module for name, entry in entries.imported(kind).items()},
    }


def names(kind: str) -> list[str]:
    """All names that can be asked for: jaxshare's, then installed packages' and others, by name."""
    outside = {*installed.offers(kind), *entries.imported(kind)} - modules(kind).keys()
    return [*modules(kind), *sorted(outside)]


def entry(kind: str, name: str) -> Entry:
    """One entry, with where it came from. What an installed package offers is imported now.

    Raises RefusedError with the nearest names if there is none, or if it cannot be imported.
    """
    ours = modules(kind)
    if name in ours:
        return Entry(kind, name, ours[name])
    imported = entries.imported(kind)
    if name in imported:
        return imported[name]
    if name in installed.offers(kind):
        return installed.load(kind, name)
    raise _unknown(kind, name, names(kind))


def get(kind: str, name: str) -> Module:
    """The module of one entry, with `Config` and `make`. Raises RefusedError; see `entry`."""
    return entry(kind, name).module


def register(kind: str, name: str, module: object) -> None:
    """Know an entry by a name in this process; an older one that was registered so is replaced.

    kind: algo, env, modifiers, preset or logger.
    module: anything with `Config` and `make`; of an environment also an `Env`, or a function that
    makes one; of a logger a function (run_dir, names of the runs, plain settings) -> object with
    `write(run, record)` and `close()`; of presets the path of a folder or of a YAML file.
    Raises RefusedError if something is missing, or if jaxshare or an installed package has the
    name.
    """
    one_of("kind", kind, entries.GROUPS)
    about = f"jaxshare.register({kind!r}, {name!r}, …)"
    thing = entries.checked(kind, name, module, about)
    if name in modules(kind):
        raise RefusedError(f"{about}: {installed.taken(kind, name)}.")
    if name in installed.offers(kind):
        packages = " and ".join(offer.package for offer in installed.offers(kind)[name])
        raise RefusedError(
            f"{about}: the installed package {packages} has this name: choose another one."
        )
    where = getattr(module, "__module__", None) or getattr(module, "__name__", None)
    origin = Origin(entries.PYTHON, module=str(where or ""))
    entries.keep(Entry(kind, name, thing, origin))


def register_env(env: Env) -> str:
    """Register an `Env` as an entry without settings; returns its name.

    That is made of the environment's. A character that a name cannot have is a `_`; behind the name
    of another entry, or of another environment that was registered, there is one more.
    """
    name = re.sub(r"\W", "_", env.spec.name)
    if not entries.NAME.fullmatch(name):
        name = f"env_{name}"
    while name in modules("env") or name in installed.offers("env") or _is_another(name, env):
        name += "_"
    register("env", name, env)
    return name


def _is_another(name: str, env: Env) -> bool:
    """Whether something else than this very environment is registered by a name."""
    entry = entries.imported("env").get(name)
    return entry is not None and getattr(entry.module, "env", None) is not env


def lacking(module: ModuleType) -> str | None:
    """How to install what an environment needs and has not, or None if it can be used here."""
    for package in getattr(module, "PACKAGES", ()):
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:  # of a parent package, or the parent is no package
            spec = None
        if spec is None:
            return module.INSTALL
    return None


def one_of(key: str, value: str, known: Iterable[str]) -> None:
    """Raise RefusedError unless the value is among the known ones.

    It names key, value and what is nearest.
    """
    names = list(known)
    if value not in names:
        raise _unknown(key, value, names)


def _unknown(key: str, value: str, names: list[str]) -> RefusedError:
    return RefusedError(
        f"{key}={value} is not known.{suggest(value, names)} Known: {', '.join(names)}."
    )


def without_version(package: str, scenario: str, task: str, version: str) -> None:
    """Raise RefusedError for a scenario whose task names another module or version.

    task: the middle of a Gymnasium id.
    """
    if not re.fullmatch(r"[\w-]+", task):
        raise RefusedError(
            f"env.scenario={scenario} is no id of {package}: write it without a module, as in "
            f"env.scenario={re.sub(r'[^A-Za-z0-9_-]', '', task.rpartition(':')[2]) or '…'}."
        )
    other = re.search(r"-v\d+$", task)
    if other:
        without = task.removesuffix(other[0])
        raise RefusedError(
            f"env.scenario={scenario} names version {other[0][2:]}, but what is played here is "
            f"{version} of {package}: env.scenario={without}."
        )


def suggest(name: str, known: Iterable[str]) -> str:
    """' Did you mean a or b?' for the names nearest to `name`, capitals or not, or ''."""
    names = [str(k) for k in known]
    near = (
        _same_letters(name, names)
        or _synonyms(name, names)
        or _same_end(name, names)
        or _similar(name, names)
    )
    return f" Did you mean {' or '.join(near[:3])}?" if near else ""


def _synonyms(name: str, names: list[str]) -> list[str]:
    """Ours for what others call so."""
    near: list[str] = []
    for ending in SYNONYMS.get(name.split(".")[-1].lower(), ()):
        if ending in names:
            near.append(ending)
        else:
            near += [known for known in names if known.endswith(f".{ending}")]
    return near


def _same_end(name: str, names: list[str]) -> list[str]:
    end = name.split(".")[-1].lower()
    return [known for known in names if known.split(".")[-1].lower() == end]


def _same_letters(name: str, names: list[str]) -> list[str]:
    return [known for known in names if known.lower() == name.lower()]


def _similar(name: str, names: list[str]) -> list[str]:
    by_letters = {known.lower(): known for known in names}
    return [
        by_letters[near]
        for near in difflib.get_close_matches(name.lower(), by_letters, n=3, cutoff=0.5)
    ]


def summary(module: object) -> str:
    """The first line of a module's docstring, from its source: under `python -OO` it has none."""
    if isinstance(module, ModuleType):
        text = ast.get_docstring(ast.parse(inspect.getsource(module))) or ""
    else:
        text = getattr(module, "text", "") or inspect.getdoc(module) or ""
    return text.strip().partition("\n")[0]

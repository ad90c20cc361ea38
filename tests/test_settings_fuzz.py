"""Nonsense for every single setting: each is accepted, or refused in one message, before anything is compiled.

Settings are put together without hydra's composing, which takes a hundred times as long; values are parsed, and become
records, as on the command line. `tests/test_refusals.py` goes through hydra.
"""

import dataclasses
import itertools
import random
import resource
from functools import cache
from typing import NamedTuple

import jax
import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jaxshare import registry, spelling
from jaxshare.run import advance, build, memory, parallel
from jaxshare.settings import hydra
from jaxshare.settings.fields import swept_values
from jaxshare.settings.records import RunConfig, Settings
from jaxshare.types import RefusedError

NONSENSE = ("-1", "nan", "inf", "99999999999", "", "text", "[]", "[1,2]")
EDGES = ("0", "1", "0.5", "1e39", "1e-50", "2147483647", "65536", "1000000", "null", "true", "{a:1}", "''")
MOST_GROWTH = 1_000_000  # kB: far more than all of it takes, far less than one accident of 99999999999 does

OFFLINE = ("bc", "icq", "mabcq", "macql", "sit")
TASKS = {"comix": ("mpe", "scenario", "pred_prey_3a")}  # who needs continuous actions
USERS = {"differ": "qmix", "cql": "maddpg", "standardise": "qmix"}  # of modifiers
QUICK_ENVS = ("lbf", "matrix", "rware")  # the others import another package, or start processes


class Case(NamedTuple):
    """One setting of one command line. part: run, algo, env, or a modifier's name."""

    algo: str
    env: str
    modifiers: tuple[str, ...]
    part: str
    key: str  # within the part
    text: str


def keys(config, prefix=""):
    """All settings of a class, groups of them included."""
    for field in dataclasses.fields(config):
        yield prefix + field.name
        if dataclasses.is_dataclass(field.default_factory):
            yield from keys(field.default_factory, f"{prefix}{field.name}.")


def cases(values, envs):
    """Every setting of all parts, with every value."""
    parts = [(Case("vdn", "matrix", (), "run", "", ""), RunConfig)]
    for name, module in registry.modules("algo").items():
        parts.append((Case(name, TASKS.get(name, ("matrix",))[0], (), "algo", "", ""), module.Config))
    for name in envs:
        for algo in ("iql", "facmac"):
            parts.append((Case(algo, name, (), "env", "", ""), registry.get("env", name).Config))
    for name, module in registry.modules("modifiers").items():
        parts.append((Case(USERS.get(name, "vdn"), "matrix", (name,), name, "", ""), module.Config))
    for case, config in parts:
        for key, text in itertools.product(keys(config), values):
            yield case._replace(key=key, text=text)


def plain(config, **values):
    return OmegaConf.to_object(OmegaConf.merge(hydra.opened(config), values))


@cache
def defaults(case):
    """The settings of a command line before anything is set, by part. case: without key and text."""
    algo, env = registry.get("algo", case.algo), registry.get("env", case.env)
    run = {"run_dir": "x", "data": "set.jds" if case.algo in OFFLINE else "", **getattr(algo, "RUN", {})}
    personal = {"share_params": "none"} if case.part.endswith("pps") else {}
    task = dict([TASKS[case.algo][1:]]) if case.algo in TASKS else {}
    return {
        "run": plain(RunConfig, **run),
        "algo": plain(algo.Config, **personal),
        "env": plain(env.Config, **task),
        **{name: plain(registry.get("modifiers", name).Config) for name in case.modifiers},
    }


def changed(record, key, text):
    """A record with one setting, as from the command line."""
    (override,) = spelling.overrides([f"{key}={text}"], spelling.kinds_of(type(record)))
    node = hydra.opened(record)
    hydra.check_booleans(key, override.value(), node)
    try:
        OmegaConf.update(node, key, override.value(), merge=True)
        return OmegaConf.to_object(node)
    except OmegaConfBaseException as error:
        raise hydra.refusal(error) from error


def prepare(case, parts, sweep=None):
    """Everything that a command does before it compiles. Raises RefusedError."""
    settings = Settings(
        run=parts["run"],
        algo_name=case.algo,
        algo=parts["algo"],
        env_name=case.env,
        env=parts["env"],
        modifiers={name: parts[name] for name in case.modifiers},
        sweep=sweep or {},
    )
    program = build.prepare(settings)
    try:
        advance.chunk_iterations(program)
        layout = parallel.layout(settings.run.parallel, len(settings.runs()), program.env.spec.pure)
        return program, layout
    finally:
        program.close()


def check(case, played):
    """What is wrong with how a case ends, or None."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        played(case)
    except RefusedError as refusal:
        if not str(refusal).strip():
            return f"{case}: refused without a word"
    except Exception as error:
        return f"{case}: {type(error).__name__}: {error}"
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return f"{case}: took {growth} kB" if growth > MOST_GROWTH else None


def one_setting(case):
    usual = defaults(case._replace(key="", text=""))
    parts = {**usual, case.part: changed(usual[case.part], case.key, case.text)}
    return prepare(case, parts)


def test_a_sample_of_single_settings():
    every = list(cases(NONSENSE + EDGES, QUICK_ENVS))
    sample = random.Random(0).sample(every, 400)
    assert [wrong for case in sample if (wrong := check(case, one_setting))] == []


@pytest.mark.slow
@pytest.mark.parametrize("text", NONSENSE + EDGES)
def test_every_single_setting(text):
    everywhere = [name for name, module in registry.modules("env").items() if not registry.lacking(module)]
    every = list(cases([text], everywhere))
    assert len(every) > 500
    assert [wrong for case in every if (wrong := check(case, one_setting))] == []


# ----------------------------------------------------------------------------------------------- several at a time


def some_settings(case):
    """A few settings of all parts, of which most are drawn where they may be accepted, and a sweep."""
    draw = random.Random(case.text)
    parts = {**defaults(case._replace(text=""))}
    for _ in range(draw.randint(2, 5)):
        part = draw.choice([*parts])
        key = draw.choice([*keys(type(parts[part]))])
        parts[part] = changed(parts[part], key, draw.choice(("1", "2", "4", "0.5", "true", *NONSENSE, *EDGES)))
    names = [*swept_values(parts["algo"].hparams)]
    sweep = {draw.choice(names): [0.25, draw.choice((0.5, 1.0, -1.0, float("nan")))]} if draw.random() < 0.3 else {}
    return prepare(case, parts, sweep)


def sets(number):
    draw = random.Random(number)
    for i in range(number):
        algo = draw.choice([*registry.modules("algo")])
        modifiers = tuple(draw.sample(["differ", "a_pps", "standardise"], draw.choice((0, 0, 1))))
        env = TASKS.get(algo, (draw.choice(QUICK_ENVS),))[0]
        yield Case(algo, env, modifiers, "", "", f"set {i} of {number}")


def test_random_sets_of_settings():
    assert [wrong for case in sets(150) if (wrong := check(case, some_settings))] == []


@pytest.mark.slow
def test_many_random_sets_of_settings():
    assert [wrong for case in sets(600) if (wrong := check(case, some_settings))] == []


def test_accepted_settings_have_states_of_a_size():
    """What is accepted must also be described without being made; the memory check refuses what is too large."""
    sizes = [("algo", "hidden_dim"), ("algo", "embed_dim"), ("run", "num_envs"), ("run", "replay.capacity")]
    for part, key in sizes:
        case = Case("qmix", "matrix", (), part, key, "4096")
        program, layout = one_setting(case)
        jax.eval_shape(program.init, jax.numpy.int32(0))
        assert check(case, lambda case, made=(program, layout): memory.check_memory(*made)) is None

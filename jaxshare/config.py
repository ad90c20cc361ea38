"""Settings of a run, and the checks that need no environment."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from jaxshare.replay import RING_DTYPES
from jaxshare.types import RefusedError

MOST = 2**31 - 2**24  # room for the last iteration of a 32-bit count
LOGGERS = ("tensorboard", "wandb")
POLICIES = {  # what evaluations play: {prefix of what is logged: whether it explores}
    "greedy": {"": False},
    "stochastic": {"": True},
    "both": {"": False, "stochastic_": True},
}


@dataclass(frozen=True)
class ReplayConfig:
    """The episode ring."""

    capacity: int = 5000  # episodes; paper: DIFFER appendix B, PPS Table 1
    dtype: str = "float32"  # of obs and state: float32 | bfloat16 | float16 | int8 (within [-1, 1], as SMAX has)


@dataclass(frozen=True)
class DatasetConfig:
    """How a data set of a format other than jaxshare's own is read."""

    rewards: str = "team"  # team: the same for all, or refused | mean: to all their mean | individual: as they are
    last_step: str = "mask"  # of vaults, in episodes that were cut, its successor is not stored: mask it | keep it
    episode_length: int = 0  # of vaults: episodes end after so many steps, also where no flag says so; 0: by flags
    drop_first: bool = False  # of vaults: leave out the first episode, which may be the rest of one
    num_actions: int = 0  # of vaults that do not show which actions are available; 0: those that were ever taken


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation; the same episodes' keys for every training seed."""

    every: int = 10_000  # environment steps; code: PyMARL's sc2.yaml, DIFFER's
    episodes: int = 32  # code: PyMARL, DIFFER; paper: PPS
    policy: str = "greedy"  # greedy (PyMARL) | stochastic, as in training (SEAC; epsilon-greedy for values) | both
    seed: int = 10_000  # of the evaluation episodes
    num_envs: int = 0  # episodes at a time; 0: all of them in a JAX environment, num_envs of them on the host


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints; one is always written at the end."""

    every: int = 100_000  # environment steps; 0: at the end only
    keep: int = 2  # newest ones kept
    replay: bool = True  # false: smaller, but a resumed run is not exact
    best: bool = False  # also the parameters of each run's best evaluation by mean return (of equals, the latest)


@dataclass(frozen=True)
class ParallelConfig:
    """How runs (seeds x sweep points) are laid over devices."""

    strategy: str = "auto"  # auto | map (one run per device at a time) | vmap; auto: map on CPU, vmap on accelerators
    devices: int = 0  # 0: all (on a CPU: one per core, at most one per run)


@dataclass(frozen=True)
class RunConfig:
    """Everything but algorithm, environment and modifiers."""

    seed: int = 0  # of the first run; run i has seed + i
    seeds: int = 1
    total_env_steps: int = 2_050_000  # per seed; code: PyMARL's sc2.yaml
    num_envs: int = 8  # code: PyMARL's parallel runner
    batch_size: int = 32  # episodes, or windows where an algorithm learns from windows; paper: DIFFER appendix B
    data: str = ""  # a data set to learn from, instead of collecting (offline): see jaxshare.collect
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    total_updates: int = 15_000  # with data, per seed, instead of total_env_steps; paper: SIT Table 11
    updates_per_episode: float = 1.0  # PyMARL's episode runner; 0.125: its parallel runner with 8 environments
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    run_dir: str = ""  # empty: runs/<algorithm>-<environment>-<date>
    resume: str = "never"  # never (refuse a used run_dir) | auto (continue it)
    logger: tuple[str, ...] = ()  # tensorboard, wandb; metrics.jsonl and the console are always there
    progress: bool = True  # the bar on the console


@dataclass(frozen=True)
class Settings:
    """A resolved command line."""

    run: RunConfig
    algo_name: str
    algo: Any
    env_name: str
    env: Any
    modifiers: dict[str, Any]  # name -> Config, in the order given
    sweep: dict[str, list[float]]  # "lr" or "differ.alpha" -> values

    def points(self) -> list[dict[str, float]]:
        """The sweep's grid, one dict per point; [{}] without a sweep."""
        points: list[dict[str, float]] = [{}]
        for name, values in self.sweep.items():
            points = [{**point, name: value} for point in points for value in values]
        return points

    def runs(self) -> list[tuple[int, dict[str, float]]]:
        """(seed, sweep point) of every run, seeds varying fastest."""
        first, seeds = self.run.seed, self.run.seeds
        return [(first + i, point) for point in self.points() for i in range(seeds)]

    def labels(self) -> list[dict[str, Any]]:
        """How records name each run: {"seed": 0, "sweep.lr": 1e-4}."""
        return [{"seed": seed, **{f"sweep.{k}": v for k, v in point.items()}} for seed, point in self.runs()]


def update_ratio(run: RunConfig) -> Fraction:
    """Updates per episode as a small fraction, so that counting never drifts."""
    return Fraction(run.updates_per_episode).limit_denominator(1000)


def check(run: RunConfig) -> None:
    """Raise RefusedError for settings that cannot work, naming key, value and remedy."""
    least = {
        "seeds": 1, "total_env_steps": 1, "num_envs": 1, "batch_size": 1, "replay.capacity": 1, "eval.episodes": 1,
        "eval.every": 1, "checkpoint.every": 0, "checkpoint.keep": 1, "parallel.devices": 0, "seed": 0, "eval.seed": 0,
        "eval.num_envs": 0,
    }  # fmt: skip
    for key, low in least.items():
        value = _lookup(run, key)
        if value < low:
            raise RefusedError(f"{key}={value} must be at least {low}.")
    counted = {"seed+seeds": run.seed + run.seeds, "eval.seed": run.eval.seed, "total_env_steps": run.total_env_steps}
    for key, value in counted.items():
        if value > MOST:
            raise RefusedError(f"{key}={value} is too large: it is counted in 32 bits, so {MOST} at most.")
    for key, allowed in {
        "replay.dtype": RING_DTYPES,
        "resume": ("never", "auto"),
        "eval.policy": tuple(POLICIES),
        "parallel.strategy": ("auto", "map", "vmap"),
    }.items():
        if _lookup(run, key) not in allowed:
            raise RefusedError(f"{key}={_lookup(run, key)} is not one of {', '.join(allowed)}.")
    for name in run.logger:
        if name not in LOGGERS:
            raise RefusedError(f"logger={name} is not one of {', '.join(LOGGERS)}.")
    if run.updates_per_episode <= 0 or update_ratio(run) == 0:
        raise RefusedError(f"updates_per_episode={run.updates_per_episode} must be at least 0.001.")
    _check_replay(run)


def _check_replay(run: RunConfig) -> None:
    capacity = run.replay.capacity
    if run.num_envs > capacity:
        raise RefusedError(
            f"num_envs={run.num_envs} is larger than replay.capacity={capacity}: one collect would overwrite itself. "
            f"Use num_envs={capacity} or replay.capacity={run.num_envs} at least."
        )


def _lookup(record: Any, key: str) -> Any:
    for part in key.split("."):
        record = getattr(record, part)
    return record


def config_dir() -> pathlib.Path:
    """The YAML folder: inside the installed package, or at the top of a checkout."""
    package = pathlib.Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "config.yaml").is_file():
            return folder
    raise RefusedError("jaxshare's configs folder is missing: reinstall the package.")

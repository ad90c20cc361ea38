"""Settings of a run, and the checks that need no environment."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from jaxshare.replay import RING_DTYPES
from jaxshare.settings.fields import COUNT, UNITS, static
from jaxshare.settings.validate import check_record, check_settings
from jaxshare.types import RefusedError

POLICIES = {  # what evaluations play: {prefix of what is logged: whether it explores}
    "greedy": {"": False},
    "stochastic": {"": True},
    "both": {"": False, "stochastic_": True},
}


@dataclass(frozen=True)
class ReplayConfig:
    """The episode ring."""

    # episodes; paper: DIFFER appendix B, PPS Table 1
    capacity: int = static(5000, least=1, most=COUNT)
    # of obs and state: float32 | bfloat16 | float16 | int8 (within [-1, 1], as SMAX has)
    dtype: str = static("float32", choices=RING_DTYPES)


@dataclass(frozen=True)
class DatasetConfig:
    """How a data set of a format other than jaxshare's own is read."""

    # team: the same for all, or refused | mean: to all their mean | individual: as they are
    rewards: str = static("team", choices=("team", "mean", "individual"))
    # of vaults, in episodes that were cut, its successor is not stored: mask it | keep it
    last_step: str = static("mask", choices=("mask", "keep"))
    # of vaults: episodes end after so many steps, also where no flag says so; 0: by flags
    episode_length: int = static(0, least=0, most=COUNT)
    drop_first: bool = False  # of vaults: leave out the first episode, which may be the rest of one
    # of vaults that do not show which actions are available; 0: those that were ever taken
    num_actions: int = static(0, least=0, most=UNITS)


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation; the same episodes' keys for every training seed."""

    # environment steps; code: PyMARL's sc2.yaml, DIFFER's
    every: int = static(10_000, least=1, most=COUNT)
    episodes: int = static(32, least=1, most=COUNT)  # code: PyMARL, DIFFER; paper: PPS
    # greedy (PyMARL) | stochastic, as in training (SEAC; epsilon-greedy for values) | both
    policy: str = static("greedy", choices=tuple(POLICIES))
    seed: int = static(10_000, least=0, most=COUNT)  # of the evaluation episodes
    # episodes at a time; 0: all of them in a JAX environment, num_envs of them on the host
    num_envs: int = static(0, least=0, most=COUNT)


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints; one is always written at the end."""

    every: int = static(100_000, least=0, most=COUNT)  # environment steps; 0: at the end only
    # at least so often, too; 0: off, so that what a run leaves depends on its settings alone
    minutes: float = static(0.0, least=0)
    keep: int = static(2, least=1, most=COUNT)  # newest ones kept
    replay: bool = True  # false: smaller, but a resumed run is not exact
    best: bool = False  # also the parameters of each run's best evaluation by mean return (of equals, the latest)


@dataclass(frozen=True)
class ParallelConfig:
    """How runs (seeds x sweep points) are laid over devices."""

    # auto | map (one run per device at a time) | vmap; auto: map on CPU, vmap on accelerators
    strategy: str = static("auto", choices=("auto", "map", "vmap"))
    # 0: all (on a CPU: one per core, at most one per run)
    devices: int = static(0, least=0, most=UNITS)


@dataclass(frozen=True)
class RunConfig:
    """Everything but algorithm, environment and modifiers."""

    seed: int = static(0, least=0, most=COUNT)  # of the first run; run i has seed + i
    seeds: int = static(1, least=1, most=UNITS)
    # per seed; code: PyMARL's sc2.yaml
    total_env_steps: int = static(2_050_000, least=1, most=COUNT)
    num_envs: int = static(8, least=1, most=UNITS)  # code: PyMARL's parallel runner
    # episodes, or windows where an algorithm learns from windows; paper: DIFFER appendix B
    batch_size: int = static(32, least=1, most=COUNT)
    data: str = ""  # a data set to learn from, instead of collecting (offline): see jaxshare.collect
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    # with data, per seed, instead of total_env_steps; paper: SIT Table 11
    total_updates: int = static(15_000, least=1, most=COUNT)
    # PyMARL's episode runner; 0.125: its parallel runner with 8 environments
    updates_per_episode: float = static(1.0, least=0.001, most=UNITS)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    run_dir: str = ""  # empty: runs/<algorithm>-<environment>-<date>
    # never (refuse a used run_dir) | auto (continue it)
    resume: str = static("never", choices=("never", "auto"))
    # tensorboard, wandb, or others' (docs/extending.md); metrics.jsonl and the console are always there
    logger: tuple[str, ...] = ()
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
    check_record(run)
    last_seed = run.seed + run.seeds
    if last_seed > COUNT:
        raise RefusedError(f"seed+seeds={last_seed} is too large: it is counted in 32 bits, so {COUNT} at most.")
    _check_replay(run)


def check_all(settings: Settings) -> None:
    """Raise RefusedError for settings of any kind, or values of a sweep, that cannot work; see `check`."""
    check(settings.run)
    check_settings(settings)


def _check_replay(run: RunConfig) -> None:
    capacity = run.replay.capacity
    if run.num_envs > capacity:
        raise RefusedError(
            f"num_envs={run.num_envs} is larger than replay.capacity={capacity}: one collect would overwrite itself. "
            f"Use num_envs={capacity} or replay.capacity={run.num_envs} at least."
        )


def config_dir() -> pathlib.Path:
    """The YAML folder: inside the installed package, or at the top of a checkout."""
    package = pathlib.Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "config.yaml").is_file():
            return folder
    raise RefusedError("jaxshare's configs folder is missing: reinstall the package.")

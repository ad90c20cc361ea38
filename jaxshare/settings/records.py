"""Settings of a run, and the checks that need no environment."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from jaxshare.replay import RING_DTYPES
from jaxshare.settings.fields import COUNT, UNITS, file_path, flag, nested, static

LOGGERS = ("tensorboard", "wandb")
POLICIES = {  # what evaluations play: {prefix of what is logged: whether it explores}
    "greedy": {"": False},
    "stochastic": {"": True},
    "both": {"": False, "stochastic_": True},
}


@dataclass(frozen=True)
class ReplayConfig:
    """The episode ring."""

    capacity: int = static(
        5000,
        least=1,
        most=COUNT,
        help="most episodes in the ring",
        source="paper: DIFFER appendix B, PPS Table 1",
    )
    dtype: str = static(
        "float32",
        choices=RING_DTYPES,
        help="type of observations and states in the ring; int8: within [-1, 1], as SMAX has them",
        source="ours: exact",
    )


@dataclass(frozen=True)
class DatasetConfig:
    """How a data set of a format other than jaxshare's own is read."""

    rewards: str = static(
        "team",
        choices=("team", "mean", "individual"),
        help="agents' rewards: the same for all, or refused (team), their mean, or as they are",
        source="ours: most data sets have one reward",
    )
    last_step: str = static(
        "mask",
        choices=("mask", "keep"),
        help="the last step of an episode that was cut, of vaults, whose successor is not stored",
        source="ours",
    )
    episode_length: int = static(
        0,
        least=0,
        most=COUNT,
        help="steps after which episodes of vaults end, also where no flag says so; 0: by flags",
        source="ours",
    )
    drop_first: bool = flag(
        False, help="leave out a vault's first episode, which may be the rest of one", source="ours"
    )
    num_actions: int = static(
        0,
        least=0,
        most=UNITS,
        help="actions of vaults that do not show which are available; 0: those that occur",
        source="ours",
    )


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation; the same episodes' keys for every training seed."""

    every: int = static(
        10_000,
        least=1,
        most=COUNT,
        help="environment steps between evaluations",
        source="code: PyMARL's sc2.yaml, DIFFER's",
    )
    episodes: int = static(
        32,
        least=1,
        most=COUNT,
        help="episodes of an evaluation",
        source="code: PyMARL, DIFFER; paper: PPS",
    )
    policy: str = static(
        "greedy",
        choices=tuple(POLICIES),
        help="what plays: the greedy policy, one that explores as in training, or both",
        source="code: PyMARL; SEAC has stochastic",
    )
    seed: int = static(
        10_000,
        least=0,
        most=COUNT,
        help="seed of the episodes",
        source="ours: none of a run's seeds",
    )
    num_envs: int = static(
        0,
        least=0,
        most=COUNT,
        help="episodes at a time; 0: all in a JAX environment, num_envs on the host",
        source="ours: what is fastest",
    )


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints; one is always written at the end."""

    every: int = static(
        100_000,
        least=0,
        most=COUNT,
        help="environment steps between checkpoints; 0: at the end only",
        source="ours",
    )
    minutes: float = static(
        0.0,
        least=0,
        help="minutes after which one is due as well; 0: off, so that runs leave the same",
        source="ours: off",
    )
    keep: int = static(
        2,
        least=1,
        most=COUNT,
        help="how many of the newest are kept",
        source="ours",
    )
    replay: bool = flag(
        True,
        help="with the replay; false: smaller, but a resumed run is not exact",
        source="ours",
    )
    best: bool = flag(
        False,
        help="also the parameters of each run's best evaluation by mean return (the latest)",
        source="ours",
    )


@dataclass(frozen=True)
class ParallelConfig:
    """How runs (seeds x sweep points) are laid over devices."""

    strategy: str = static(
        "auto",
        choices=("auto", "map", "vmap"),
        help="runs of a device in turn (map) or together (vmap); auto: vmap on accelerators",
        source="ours: measured",
    )
    devices: int = static(
        0,
        least=0,
        most=UNITS,
        help="how many to use; 0: all (on a CPU: one per core, at most one per run)",
        source="ours: what is fastest",
    )


@dataclass(frozen=True)
class RunConfig:
    """Everything but algorithm, environment and modifiers."""

    seed: int = static(
        0,
        least=0,
        most=COUNT,
        help="seed of the first run; run i has seed + i",
        source="ours",
    )
    seeds: int = static(
        1,
        least=1,
        most=UNITS,
        help="runs that differ in their seed",
        source="ours",
    )
    total_env_steps: int = static(
        2_050_000,
        least=1,
        most=COUNT,
        help="environment steps of each run",
        source="code: PyMARL's sc2.yaml",
    )
    num_envs: int = static(
        8,
        least=1,
        most=UNITS,
        help="episodes, or streams of them, that are played at a time",
        source="code: PyMARL's parallel runner",
    )
    batch_size: int = static(
        32,
        least=1,
        most=COUNT,
        help="episodes of an update, or windows where an algorithm learns from windows",
        source="paper: DIFFER appendix B",
    )
    data: str = file_path(
        "",
        help="a data set to learn from, instead of collecting; see jaxshare.collect",
    )
    dataset: DatasetConfig = nested(
        DatasetConfig,
        help="how a data set of a format other than jaxshare's own is read",
    )
    total_updates: int = static(
        15_000,
        least=1,
        most=COUNT,
        help="with data, updates of each run, instead of total_env_steps",
        source="paper: SIT Table 11",
    )
    updates_per_episode: float = static(
        1.0,
        least=0.001,
        most=UNITS,
        help="updates for each episode that is collected",
        source="code: PyMARL's episode runner; 0.125: its parallel runner with 8 environments",
    )
    replay: ReplayConfig = nested(ReplayConfig, help="the ring of episodes")
    eval: EvalConfig = nested(EvalConfig, help="evaluation; the same episodes' keys for every run")
    checkpoint: CheckpointConfig = nested(
        CheckpointConfig,
        help="checkpoints; one is always written at the end",
    )
    parallel: ParallelConfig = nested(
        ParallelConfig,
        help="how runs (seeds x sweep points) are laid over devices",
    )
    run_dir: str = file_path(
        "",
        help="the run directory to write; empty: runs/<algorithm>-<environment>-<date>",
    )
    resume: str = static(
        "never",
        choices=("never", "auto"),
        help="a run_dir that holds a run: refuse it (never), or continue it (auto)",
        source="ours",
    )
    logger: tuple[str, ...] = static(
        (),
        choices=LOGGERS,
        help="where numbers go besides metrics.jsonl and the console",
        source="ours",
    )
    progress: bool = flag(True, help="the bar on the console", source="ours")


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

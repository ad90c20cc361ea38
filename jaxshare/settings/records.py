"""Settings of a run, and the checks that need no environment."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

from jaxshare.settings.fields import COUNT, UNITS, file_path, flag, free_text, nested, static
from jaxshare.settings.run_parts import (
    CheckpointConfig,
    ComputeConfig,
    DatasetConfig,
    EvalConfig,
    ParallelConfig,
    ReplayConfig,
)
from jaxshare.settings.sweeps import points_of

EntryConfig: TypeAlias = Any  # a `Config` of an algorithm, environment or modifier


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
    compute: ComputeConfig = nested(ComputeConfig, help="the numbers that networks compute in")
    parallel: ParallelConfig = nested(
        ParallelConfig,
        help="how runs (seeds x sweep points) are laid over devices",
    )
    run_dir: str = file_path(
        "",
        help="the run directory, or gs://bucket/run; empty: runs/<algorithm>-<environment>-<date>",
    )
    init_from: str = file_path(
        "",
        help="a run directory: begin with the parameters of its newest checkpoint",
    )
    resume: str = static(
        "never",
        choices=("never", "auto"),
        help="a run_dir that holds a run: refuse it (never), or continue it (auto)",
        source="ours",
    )
    logger: tuple[str, ...] = free_text(
        (),
        help="where numbers go besides metrics.jsonl and the console: tensorboard, wandb, others'",
    )
    progress: bool = flag(True, help="the bar on the console", source="ours")


@dataclass(frozen=True)
class Settings:
    """A resolved command line."""

    run: RunConfig
    algo_name: str
    algo: EntryConfig
    env_name: str
    env: EntryConfig
    modifiers: dict[str, EntryConfig]  # by name, in the order in which they are applied
    sweep: dict[str, list[float]]  # "lr" or "differ.alpha" -> values
    zipped: bool = False  # point i of the sweep has value i of every list, instead of a grid

    def points(self) -> list[dict[str, float]]:
        """The sweep's points, one dict for each; [{}] without a sweep."""
        return points_of(self.sweep, self.zipped)

    def runs(self) -> list[tuple[int, dict[str, float]]]:
        """(seed, sweep point) of every run, seeds varying fastest."""
        seeds = range(self.run.seed, self.run.seed + self.run.seeds)
        return [(seed, point) for point in self.points() for seed in seeds]

    def labels(self) -> list[dict[str, Any]]:
        """How records name each run: {"seed": 0, "sweep.lr": 1e-4}."""
        labels = []
        for seed, point in self.runs():
            varied = {f"sweep.{name}": value for name, value in point.items()}
            labels.append({"seed": seed, **varied})
        return labels


def update_ratio(run: RunConfig) -> Fraction:
    """Updates per episode as a small fraction, so that counting never drifts."""
    return Fraction(run.updates_per_episode).limit_denominator(1000)

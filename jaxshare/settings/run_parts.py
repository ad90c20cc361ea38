"""Settings of a run in records: replay, data sets, evaluation, checkpoints, devices."""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.ops.precision import DTYPES, PRECISIONS
from jaxshare.settings.fields import COUNT, UNITS, added_later, flag, free_text, static
from jaxshare.training.replay import RING_DTYPES

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
    packed: str = added_later(
        static(
            "auto",
            choices=("auto", "always", "never"),
            help="several episodes in a row of a batch, if the algorithm can; auto: on a CPU",
            source="ours: measured on a CPU (benchmarks/packed.py)",
        ),
        before="never",
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
        source="paper: PPS; code: PyMARL, DIFFER",
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
class ComputeConfig:
    """The numbers that networks compute in."""

    dtype: str = static(
        "float32",
        choices=DTYPES,
        help="what networks multiply is rounded to it; sums and all else are float32",
        source="ours: exact",
    )
    matmul_precision: str = static(
        "float32",
        choices=PRECISIONS,
        help="products of float32 on accelerators; default: JAX's, 10 bits on NVIDIA's GPUs",
        source="ours: as on a CPU; code: torch",
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
    data: int = static(
        1,
        least=1,
        most=UNITS,
        help="devices that share each run: its environments, replay and batches (docs/devices.md)",
        source="ours: one",
    )
    shards: int = static(
        0,
        least=0,
        most=UNITS,
        help="pieces that a run deals its environments, replay and batches into; 0: data",
        source="ours: as few as there must be",
    )

    processes: int = static(
        1,
        least=1,
        most=UNITS,
        help="processes that share the devices of each run, on one machine or several",
        source="ours: one",
    )
    coordinator: str = free_text(
        "", help="HOST:PORT where the first process is found; empty: as Slurm or Open MPI say"
    )
    process: int = static(
        -1,
        least=-1,
        most=UNITS,
        help="which of the processes this is, from 0; -1: as Slurm or Open MPI say",
        source="ours",
    )

    @property
    def num_shards(self) -> int:
        """The pieces of a run; they belong to what it computes, the devices do not."""
        return self.shards or self.data

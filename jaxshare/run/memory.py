"""What a run will take of a device's memory, told from shapes.

That is before anything is compiled or allocated.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import jax

from jaxshare.run import parallel
from jaxshare.run.layout import Layout
from jaxshare.training import replay
from jaxshare.training.program import Program
from jaxshare.types import Episode, RefusedError

MEMORY_SHARE = 0.9  # of what is free may be used

# measured with XLA's own count of temporary buffers on a CPU, and with the peak of the process
# (benchmarks/memory.py)
BATCH_COPIES = 16  # the temporary buffers of a chunk are 16 f32 batches on SMAX 3m, 6 on 10m_vs_11m
TABLE_COPIES = 4  # those of SIT's second stage grow by 3.3 times what it keeps of every episode
# gradients and what an optimiser makes of them, beside parameters (QMIX with layers of 2048 units)
PARAM_COPIES = 2.2
# bytes of compiled programs, in a CPU's memory only: 145 (matrix) to 345 MB (SMAX 3m)
PROGRAMS = 220_000_000


@dataclass(frozen=True)
class Needs:
    """Bytes of all runs of a command, on all devices that share one memory.

    replays: of every run.
    learners: of every run: parameters, targets, optimisers, what they keep, and streams.
    updates, evaluation: of the runs at work at one time, one after the other.
    data: a data set's copies.
    """

    replays: int
    learners: int
    updates: int
    evaluation: int
    data: int
    programs: int

    @property
    def total(self) -> int:
        """The most at one time."""
        return self.replays + self.fixed

    @property
    def fixed(self) -> int:
        """All that does not grow with the replay."""
        return self.learners + max(self.updates, self.evaluation) + self.data + self.programs

    @property
    def largest(self) -> str:
        """The part that takes most."""
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return max(parts, key=lambda name: parts[name])


def needs(program: Program, layout: Layout, data: int = 0) -> Needs:
    """Estimate what a run takes.

    data: bytes of a data set, of which a CPU's memory holds one more, as it was read.
    """
    # runs that share one memory, as all devices of a CPU do
    on_cpu = jax.devices()[0].platform == "cpu"
    devices = layout.mesh.size // layout.data if on_cpu else 1
    at_work = layout.per_device * devices
    num_runs = at_work * layout.num_waves
    # what a run shares out between its devices, of which each has a memory of its own
    parts = 1 if on_cpu else layout.data

    # bytes of one run
    shapes = program.state_shapes()
    learner = replay.num_bytes(shapes.learner) + replay.num_bytes(shapes.streams)
    stats = replay.num_bytes(shapes.learner.stats) if program.offline else 0
    params = replay.num_bytes(shapes.learner.params)
    batches = _batches(program) // parts
    updates = TABLE_COPIES * stats + math.ceil(PARAM_COPIES * params)

    # of all runs, or of those at work
    replays = num_runs * _ring(program) // parts
    evaluation = at_work * _evaluation(program) // parts
    data_copies = (devices + on_cpu) * data
    return Needs(
        replays=replays,
        learners=num_runs * learner,
        updates=at_work * (batches + updates),
        evaluation=evaluation,
        data=data_copies,
        programs=PROGRAMS if on_cpu else 0,
    )


def _ring(program: Program) -> int:
    """The replay of one run."""
    run = program.run
    if program.algorithm.experience != "replay":
        return 0
    ring = replay.storage(program.batch_shapes(), run.replay.capacity, run.replay.dtype)
    return replay.num_bytes(ring)


def _batches(program: Program) -> int:
    """What one run collects, and the temporary buffers of an update.

    Those hold a batch as it is gathered, as inputs, and with activations.
    """
    run = program.run
    algorithm = program.algorithm
    shapes = program.batch_shapes()
    collected = replay.num_bytes(shapes)
    if algorithm.experience not in ("replay", "dataset"):
        return collected + math.ceil(BATCH_COPIES * collected / algorithm.minibatches)
    share = algorithm.window / program.env.spec.episode_limit or 1.0  # of an episode
    batch = replay.num_bytes(replay.storage(shapes, math.ceil(run.batch_size * share), "float32"))
    return (0 if program.offline else collected) + BATCH_COPIES * batch


def _evaluation(program: Program) -> int:
    """The episodes that one evaluation plays, which are joined before they are summed up."""
    shapes = program.batch_shapes()
    fields = [getattr(shapes, field.name) for field in dataclasses.fields(Episode)]
    steps = math.prod(shapes.mask.shape)
    episode = math.ceil(replay.num_bytes(fields) / steps * program.env.spec.episode_limit)
    return episode * program.run.eval.episodes


def check_memory(program: Program, layout: Layout, data: int = 0) -> int:
    """Bytes that the run will take, about. See `needs`.

    Raises RefusedError with a suggestion if they do not fit.
    """
    available = parallel.available_bytes()
    wanted = needs(program, layout, data)
    if available is None or wanted.total <= MEMORY_SHARE * available:
        return wanted.total
    what, remedy = _explained(program, layout, wanted, available)
    raise RefusedError(
        f"{what} about {wanted.total / 1e9:.2f} GB in all, but {available / 1e9:.1f} GB are free. "
        f"Use {remedy}."
    )


def _explained(program: Program, layout: Layout, wanted: Needs, available: int) -> tuple[str, str]:
    """What takes most, by its setting, and what to do about it."""
    run = program.run
    runs = f"{layout.num_slots} run(s)"
    if program.offline:
        return (
            f"data={run.data}: its copies and what {runs} make of it take",
            "a smaller batch_size, parallel.devices=1, fewer episodes or fewer seeds",
        )
    if wanted.largest == "learners":
        return (
            f"the parameters and optimisers of {runs} take {wanted.learners / 1e9:.2f} GB, and "
            "everything",
            "smaller layers, such as a smaller algo.hidden_dim, or fewer seeds at a time",
        )
    if wanted.largest == "evaluation":
        return (
            f"eval.episodes={run.eval.episodes}: those of {runs} take "
            f"{wanted.evaluation / 1e9:.2f} GB, and everything",
            "fewer eval.episodes, or fewer seeds at a time",
        )
    if wanted.replays == 0:
        return (
            f"num_envs={run.num_envs}: what {runs} collect and learn from takes",
            "a smaller num_envs or fewer seeds",
        )

    # the largest replay that would fit
    fits = int(run.replay.capacity * (MEMORY_SHARE * available - wanted.fixed) / wanted.replays)
    smaller = f"replay.capacity={fits}" if fits >= run.batch_size else "a smaller batch_size"
    return (
        f"replay.capacity={run.replay.capacity}: the replays of {runs} take "
        f"{wanted.replays / 1e9:.2f} GB, and everything",
        f"{smaller}, replay.dtype=bfloat16, or fewer seeds at a time",
    )

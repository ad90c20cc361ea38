"""The devices of a command as a mesh, and how a wave of runs is laid over it.

Only this file and ops/spread.py know meshes. Runs are told apart by hand, along the axis `seed`;
with `data` devices to a run the mesh has a second axis, and XLA lays what is within a run over it,
by the hints of ops/spread.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxshare.ops.spread import DATA
from jaxshare.run.programs import KeptPrograms
from jaxshare.trees import Tree
from jaxshare.types import Clock, TrainState

AXIS = "seed"
Laid = NamedSharding  # how an array lies on the devices

T = TypeVar("T")


def mesh_of(devices: Sequence[jax.Device], data: int = 1) -> Mesh:
    """The mesh of these devices, `data` neighbours for each run."""
    chosen = np.array(devices)
    if data == 1:
        return Mesh(chosen, (AXIS,))
    return Mesh(chosen.reshape(-1, data), (AXIS, DATA))


@dataclass(frozen=True)
class Layout:
    """Runs on devices.

    `waves` lists run indices; the last wave repeats its last run until it is full.
    """

    mesh: Mesh
    per_device: int
    num_runs: int
    kept: KeptPrograms | None = None  # compiled programs of earlier starts

    @property
    def wave_size(self) -> int:
        """Runs at a time."""
        return self.mesh.shape[AXIS] * self.per_device

    @property
    def data(self) -> int:
        """Devices that share a run."""
        return self.mesh.shape.get(DATA, 1)

    @property
    def num_waves(self) -> int:
        """Waves until every run had its turn."""
        return math.ceil(self.num_runs / self.wave_size)

    @property
    def num_slots(self) -> int:
        """Runs held in memory, fillers included."""
        return self.wave_size * self.num_waves

    def waves(self) -> list[list[int]]:
        """Run indices of each wave."""
        index = [min(i, self.num_runs - 1) for i in range(self.num_slots)]
        return [index[i : i + self.wave_size] for i in range(0, self.num_slots, self.wave_size)]

    @property
    def sharding(self) -> NamedSharding:
        """Of arrays with leading [wave_size].

        On one device as jit names it, or the next chunk would compile anew.
        """
        return NamedSharding(self.mesh, P(AXIS) if self.mesh.size > 1 else P())

    @property
    def of_state(self) -> Tree:
        """Of the states of a wave: rings and streams lie over all devices of their run."""
        if self.data == 1:
            return self.sharding
        laid: Tree = NamedSharding(self.mesh, P(AXIS, DATA))
        whole: Tree = self.sharding
        return TrainState(
            seed=whole, learner=whole, replay=laid, env_steps=whole, updates=whole, streams=laid
        )

    @property
    def of_rings(self) -> NamedSharding:
        """Of the rings of one run, [K, ...]."""
        return NamedSharding(self.mesh, P(DATA))

    @property
    def replicated(self) -> NamedSharding:
        """Of arrays that every device has whole."""
        return NamedSharding(self.mesh, P())

    def place(self, tree: T) -> T:
        """Put a tree with leading [wave_size] on the devices."""
        return put(tree, jax.tree.map(lambda _: self.sharding, tree))

    def place_state(self, state: TrainState) -> TrainState:
        """Put the states of a wave on the devices, or say of shapes that they lie there."""
        shardings = jax.tree.broadcast(self.of_state, state)
        if isinstance(state.seed, jax.ShapeDtypeStruct):
            return jax.tree.map(lambda x, laid: x.update(sharding=laid), state, shardings)
        return put(state, shardings)

    def replicate(self, tree: T) -> T:
        """Put a tree on every device, such as the clock."""
        return put(tree, jax.tree.map(lambda _: self.replicated, tree))

    def compiled(
        self, name: str, lifted: Callable[..., Any], shapes: Callable[[], tuple[Tree, ...]]
    ) -> Callable[..., Any]:
        """What `lift` has made, compiled for arguments of these shapes, or as it was kept."""
        earlier = self.kept_program(name)
        if earlier is not None:
            return earlier
        assert isinstance(lifted, jax.stages.Wrapped)
        lowered = lifted.lower(*shapes())
        return lowered.compile() if self.kept is None else self.kept.made(name, lowered)

    def kept_program(self, name: str) -> Callable[..., Any] | None:
        """The same from an earlier start, if it was kept."""
        return None if self.kept is None else self.kept.read(name)

    def lift(
        self, fn: Callable[..., Any], donate: bool, batched: int = 2, out: Tree = None
    ) -> Callable[..., Any]:
        """A jitted function of a wave, from one of a run.

        fn: (state, hparams, ..., clock) -> (out, clock).

        The first `batched` arguments and `out` have leading [wave_size] then; the clock stays as it
        is. out: how it is laid out, where it holds states.
        """
        # the runs of one device
        if self.per_device == 1:
            local = _squeezed(fn)
        else:
            axes = (*(0,) * batched, None)
            local = jax.vmap(fn, in_axes=axes, out_axes=(0, None))

        # check_vma off: scan carries that start as constants would all have to be marked as
        # varying by hand
        wave = jax.shard_map(
            local,
            mesh=self.mesh,
            in_specs=(*[P(AXIS)] * batched, P()),
            out_specs=(P(AXIS), P()),
            axis_names={AXIS},
            check_vma=False,
        )

        # said outright: XLA calls the layout of an array of size 0 (no memory, no available mask)
        # another one than that of its neighbours, and a chunk is then refused its own output, or
        # compiled anew
        out_shardings = (out or self.sharding, self.replicated)
        return jax.jit(wave, donate_argnums=(0,) if donate else (), out_shardings=out_shardings)


def _squeezed(fn: Callable[..., Any]) -> Callable[..., Any]:
    def local(*args: Tree) -> tuple[Tree, Clock]:
        *batched, clock = args
        out, clock = fn(*jax.tree.map(lambda x: x[0], batched), clock)
        return jax.tree.map(lambda x: x[None], out), clock

    return local


def local_rows(x: jax.Array) -> list[np.ndarray]:
    """The rows x[0], x[1], ... of an array laid over devices; on a CPU without a copy.

    What is laid over the devices of one run is put together again, which copies it. Over several
    processes all of them must call this.
    """
    x = _within_reach(x)
    pieces: dict[int, dict[int, jax.Array]] = {}
    for shard in x.addressable_shards:
        # copies of a piece come to the same place
        row, column, *_ = [*[part.start or 0 for part in shard.index], 0]
        pieces.setdefault(row, {})[column] = shard.data

    # the rows that begin at each place, from their pieces along the second axis
    rows: list[np.ndarray] = []
    for _, parts in sorted(pieces.items()):
        arrays = [np.asarray(part) for _, part in sorted(parts.items())]
        rows.extend(arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1))
    return rows


def _within_reach(x: jax.Array) -> jax.Array:
    """The array with all of its parts on devices of this process."""
    laid = x.sharding
    if x.is_fully_addressable or not isinstance(laid, NamedSharding) or DATA not in laid.spec:
        return x
    whole = NamedSharding(laid.mesh, P(AXIS))
    return jax.jit(lambda x: x, out_shardings=whole)(x)


def put(tree: T, shardings: Tree) -> T:
    """Lay arrays over devices, of other processes too, which give the same ones."""
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    def lay(x: jax.Array | np.ndarray, sharding: NamedSharding) -> jax.Array:
        values = np.asarray(x)
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    return jax.tree.map(lay, tree, shardings)


def as_numpy(x: jax.Array | np.ndarray) -> np.ndarray:
    """An array with leading [wave_size], wherever it lies."""
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return np.stack(local_rows(x))
    return np.asarray(x)

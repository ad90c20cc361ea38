"""Every algorithm with several seeds on several devices, compiled as a user's command is: each run is the run alone.

Programs are compiled ahead, with the layout of every array stated; what an algorithm keeps (memory or none, streams,
empty arrays such as the action mask of continuous actions) must come back in the layout in which it was handed in.
"""

import jax
import jax.numpy as jnp
import made_runs
import numpy as np
import pytest
import tiny

from jaxshare import compatibility, registry
from jaxshare.envs.matrix import environment as matrix
from jaxshare.run import parallel
from jaxshare.settings.run_parts import ParallelConfig
from jaxshare.types import Discrete, RefusedError

pytestmark = pytest.mark.usefixtures("optimised")  # bitwise comparisons

GAME = ("env=matrix", "env.game=two_step")
CHASE = ("env=mpe", "env.scenario=pred_prey_3a", "env.max_steps=3")  # continuous actions
SMALL = {
    "hidden_dim": 8, "embed_dim": 4, "hypernet_dim": 4, "critic_dim": 4, "reward_dim": 4, "attention_dim": 4,
    "cem_samples": 4, "cem_elites": 2, "cem_rounds": 1, "target_update_period": 3, "stage1_updates": 2, "ensemble": 2,
    "capacity": 16,
}  # fmt: skip
SIZES = ("num_envs=4", "batch_size=4", "replay.capacity=8", "eval.episodes=4", "progress=false")
STEPS = ("total_env_steps=64", "eval.every=32")
UPDATES = ("total_updates=4", "eval.every=2")
# what stays without a memory, plays whole episodes, or has continuous actions, where that is not the default
VARIANTS = {
    "ippo": [(*GAME, "algo.recurrent=false"), CHASE],
    "mappo": [(*GAME, "algo.recurrent=false")],
    "pqn": [(*GAME, "algo.recurrent=false", "algo.mixer=none"), (*GAME, "algo.rollout=episodes", "algo.mixer=qmix")],
    "ia2c": [(*GAME, "algo.rollout=segments")],
    "maa2c": [(*GAME, "algo.rollout=segments")],
    "facmac": [CHASE],
    "maddpg": [CHASE],
    "iql": [(*GAME, "algo.recurrent=false")],
    **{name: [CHASE] for name in ("bc", "icq", "mabcq", "macql", "sit")},
}
# streams without a memory; a replay with a memory has its seeds in test_algorithms, every shape its row below
QUICK = {("seac", GAME)}


def tasks(algo):
    """The settings of environments in which an algorithm is tried."""
    takes_choices = compatibility.refusal(algo, (), Discrete(3)) is None
    return [GAME if takes_choices else CHASE, *VARIANTS.get(algo, [])]


def rows():
    """Every algorithm by every task; dear ones are slow."""
    for algo in registry.modules("algo"):
        for task in tasks(algo):
            marks = () if (algo, task) in QUICK else pytest.mark.slow
            yield pytest.param(algo, task, marks=marks, id=" ".join([algo, *task[1:]]))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of random play in each environment, for learners from one: {settings: path}."""
    folder = tmp_path_factory.mktemp("sets")
    return {
        task: made_runs.random_play(folder / f"{number}.jds", 16, *task) for number, task in enumerate((GAME, CHASE))
    }


def learns_from_data(algo):
    """Whether an algorithm cannot do without a data set."""
    module = registry.get("algo", algo)
    spec = matrix.make(matrix.Config(game="two_step")).spec
    try:
        return module.make(module.Config(), spec).assemble().experience == "dataset"
    except RefusedError:  # it has continuous actions
        return False


def arguments_of(algo, task, data):
    """The settings of a run that takes a second once it is compiled."""
    config = registry.get("algo", algo).Config
    sizes = [f"algo.{name}={value}" for name, value in SMALL.items() if name in config.__dataclass_fields__]
    sizes += ["algo.minibatches=4"] if algo == "pqn" else []  # it has 16, and there are four streams
    length = (*UPDATES, f"data={data[task]}") if learns_from_data(algo) else STEPS
    return (f"algo={algo}", *task, *sizes, *SIZES, *length)


@pytest.mark.timeout(300)  # a program that hangs is a failure as well
@pytest.mark.parametrize(("algo", "task"), [*rows()])
def test_each_seed_of_two_on_two_devices_is_the_seed_alone(algo, task, data, tmp_path):
    """To rounding: how a sum is split may depend on the number of devices. One chunk, stopped, and the rest."""
    arguments = arguments_of(algo, task, data)
    both = (*arguments, "seeds=2")
    tiny.train(tmp_path / "both", *both, max_chunks=1)
    tiny.train(tmp_path / "both", *both, "resume=auto")
    clock, states = tiny.restore(tmp_path / "both", *both)
    for seed in (0, 1):
        alone = (*arguments, f"seed={seed}")
        tiny.train(tmp_path / f"{seed}", *alone)
        own_clock, (state,) = tiny.restore(tmp_path / f"{seed}", *alone)
        assert clock == own_clock
        tiny.assert_close(states[seed], state)
        together = [record for record in tiny.records(tmp_path / "both") if record["seed"] == seed]
        tiny.assert_close(together, tiny.records(tmp_path / f"{seed}"))


def test_a_wave_keeps_its_layout_whatever_the_shapes():
    """Arrays of size 0, scalars, flags and tables: compiled once, and what comes out can be handed in again."""
    layout = parallel.layout(ParallelConfig(), 2, pure=True)
    assert layout.mesh.size == 2
    shapes = {"none": (0,), "no_actions": (4, 3, 0), "no_rows": (0, 5), "scalar": (), "table": (2, 3)}
    state = {name: jnp.zeros((2, *shape)) for name, shape in shapes.items()}
    state |= {"flags": jnp.zeros((2, 3), bool), "no_flags": jnp.zeros((2, 0), bool)}

    traces = []

    def advance(state, hparams, clock):
        traces.append(1)
        return jax.tree.map(lambda x: x + jnp.ones((), x.dtype), state), clock + 1

    chunk = layout.lift(advance, donate=True)
    hparams, clock = layout.place({"lr": jnp.zeros(2)}), layout.replicate(jnp.int32(0))
    state = layout.place(state)
    ahead = chunk.lower(state, hparams, clock).compile()
    for advanced in (chunk, ahead, chunk, ahead):
        state, clock = advanced(state, hparams, clock)
        assert {x.sharding for x in jax.tree.leaves(state)} == {layout.sharding}
    assert len(traces) == 1
    np.testing.assert_array_equal(state["table"], np.full((2, 2, 3), 4.0))

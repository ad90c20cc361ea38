"""Two agents on a line of cells are paid when they stand on the same one."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxshare.settings.fields import static
from jaxshare.types import Discrete, Env, EnvSpec, TimeStep

ACTIONS = "discrete"
LIMIT = 4  # steps of an episode


@dataclass(frozen=True)
class Config:
    """Settings of the line."""

    cells: int = static(3, least=2, most=100, help="length of the line")


def make(config: Config) -> Env:
    """The game. State: positions [2] and time []."""
    spec = EnvSpec("meeting", 2, config.cells, 2 * config.cells, Discrete(3), LIMIT, (0, 0), ("walker",))

    def show(position, time):
        place = jax.nn.one_hot(position, config.cells)
        met = jnp.float32(position[0] == position[1])
        return TimeStep(
            obs=place,
            state=place.ravel(),
            avail=jnp.ones((2, 3), bool),
            alive=jnp.ones(2, bool),
            reward=jnp.where(time > 0, met, 0.0) * jnp.ones(2),
            terminated=jnp.zeros((), bool),
            truncated=time >= LIMIT,
            info={},
        )

    def reset(key):
        position = jax.random.randint(key, (2,), 0, config.cells)
        return (position, jnp.int32(0)), show(position, jnp.int32(0))

    def step(state, action, key):
        position = jnp.clip(state[0] + action - 1, 0, config.cells - 1)
        return (position, state[1] + 1), show(position, state[1] + 1)

    return Env(spec, reset, step)

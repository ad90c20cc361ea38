"""An environment of one's own, in one file, and a team that learns it.

    python docs/examples/own_environment.py

Takes about ten seconds, most of which is compiling. Agents take a seat each; the more seats are taken, the more the
team is paid.

The same file serves the command line: python -m jaxshare.train env=docs/examples/own_environment.py
"""

from dataclasses import dataclass

import jax.numpy as jnp

import jaxshare
from jaxshare.envs.base import team_spec, time_step
from jaxshare.settings.fields import static
from jaxshare.types import Discrete, Env

ACTIONS = "discrete"


@dataclass(frozen=True)
class Config:
    """Settings: env.agents, env.rounds."""

    agents: int = static(3, least=2, most=10, help="agents, and seats")
    rounds: int = static(4, least=1, most=100, help="times that they choose")


def make(config: Config) -> Env:
    """The game. Its state is the number of the round, [] i32."""
    n = config.agents
    spec = team_spec("seats", num_agents=n, obs_dim=n, action=Discrete(n), episode_limit=config.rounds)

    def show(taken, time, reward):
        # taken: [N seats] bool, which all agents see
        obs = jnp.broadcast_to(taken, (n, n))
        return time_step(spec, obs, time, reward, info={"seats": reward * n})

    def reset(key):
        """An episode begins: nobody sits."""
        taken = jnp.zeros(n, bool)
        return jnp.int32(0), show(taken, jnp.int32(0), 0.0)

    def step(state, action, key):
        """Everybody chooses a seat, [N] i32."""
        taken = jnp.zeros(n, bool).at[action].set(True)
        time = state + 1
        return time, show(taken, time, taken.mean())

    return Env(spec, reset, step)


def main():
    """Train, and print how many seats were taken at the start and at the end."""
    run = jaxshare.train(
        algo="vdn",
        env=make(Config(agents=3)),
        total_env_steps=2400,
        num_envs=8,
        batch_size=16,
        epsilon_anneal_fraction=0.5,
        eval={"every": 600, "episodes": 16},
        progress=False,
        run_dir="runs/seats",
    )
    _, returns = run.curve("eval/return")
    print(f"return at the start {returns[0]:.2f}, at the end {returns[-1]:.2f}, best possible 4.00")


if __name__ == "__main__":
    main()

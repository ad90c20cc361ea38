"""Multi-robot warehouse: robots fetch requested shelves, bring them to a goal, and put them back.

Source: rware 2.0.0 (Christianos et al. 2020, SEAC; Papoudakis et al. 2021), written anew in JAX.

Faithful, and tested step by step against the original: layouts, start states, turning, driving,
loading and unloading, who moves when robots compete for cells, deliveries, all three kinds of
reward, observations for any sensor range. Ties between equally long queues are decided as the
original decides them: see `ties`. Departs, on purpose:

* The 500 steps are a time limit, hence `truncated`; the original calls this end a true one.
  `max_inactivity_steps`, off by default, is a true end.
* Shelves have no identity: nothing that can be seen depends on it. A new request is drawn, as in
  the original, evenly from the shelves that are not requested, but by another random generator.
* Robots send no messages (the original's `msg_bits` is 0 in all of its tasks), and observations are
  the flat ones.
* A task in which nothing can be delivered (`tiny-1ag-hard`: no request) or in which the original
  fails (as many requests as shelves) is refused.

The state is the observations of the robots, one after the other, as in EPyMARL. All actions are
always available.

Observation: own column, row, whether loaded, direction (one of up, down, left, right), whether on a
highway; then for each cell of the square around the robot, row by row: robot there, its direction
(up if nobody is there), shelf there, shelf is requested.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp

from jaxshare.envs.base import team_spec, time_step
from jaxshare.envs.rware.driving import driving
from jaxshare.envs.rware.layout import Layout
from jaxshare.envs.rware.picture import painting
from jaxshare.envs.rware.settings import Config
from jaxshare.envs.rware.shelves import delivering, draws, toggle
from jaxshare.envs.rware.start import drawing
from jaxshare.envs.rware.state import NUM_ACTIONS, State
from jaxshare.envs.rware.task import SCENARIOS, read_layout
from jaxshare.envs.rware.views import observing
from jaxshare.settings.validate import check_record
from jaxshare.types import Array, Discrete, Env, EnvSpec, TimeStep

ACTIONS = "discrete"


def scenarios() -> tuple[str, ...]:
    """Names of the usual tasks; any other name of the original's pattern works too."""
    return SCENARIOS


def make(config: Config) -> Env:
    """One warehouse. Raises RefusedError for an unknown name and for impossible numbers."""
    check_record(config, "env.")
    layout = read_layout(config)
    spec = _spec(config, layout)
    draw = drawing(layout)
    observe = observing(layout, config.normalised_coordinates)

    def reset(key: Array) -> tuple[State, TimeStep]:
        state = draw(key)
        info = {"deliveries": jnp.zeros(())}
        return state, time_step(spec, observe(state), time=state.steps, info=info)

    return Env(spec, reset, _stepping(config, layout, spec), render=painting(layout))


def _spec(config: Config, layout: Layout) -> EnvSpec:
    name = f"rware/{config.scenario}"
    cells = (2 * layout.sensor_range + 1) ** 2
    obs_dim = 8 + 7 * cells
    paid_alike = config.reward == "sum" or layout.reward_type == "global"
    common_reward = paid_alike or layout.num_agents == 1
    return team_spec(
        name,
        layout.num_agents,
        obs_dim=obs_dim,
        action=Discrete(NUM_ACTIONS),
        episode_limit=config.max_steps,
        group_names=("robot",),
        common_reward=common_reward,
    )


def _stepping(
    config: Config, layout: Layout, spec: EnvSpec
) -> Callable[[State, Array, Array], tuple[State, TimeStep]]:
    """The function `step`."""
    drive = driving(layout)
    deliver = delivering(layout)
    observe = observing(layout, config.normalised_coordinates)

    def step(state: State, action: Array, key: Array) -> tuple[State, TimeStep]:
        # robots move, then load, then deliver
        state = drive(state, action)
        state, put_back = toggle(layout, state, action)
        state, paid = deliver(state, draws(layout, key))
        deliveries = jnp.sum(paid, dtype=jnp.float32)

        # what is paid
        reward = _reward(layout.reward_type, paid, put_back, deliveries)
        if config.reward == "sum":
            reward = jnp.sum(reward)

        # ends
        inactive = jnp.where(deliveries > 0, 0, state.inactive + 1)
        state = replace(state, steps=state.steps + 1, inactive=inactive)
        obs = observe(state)
        terminated: Array | bool = False
        if config.max_inactivity_steps is not None:
            terminated = inactive >= config.max_inactivity_steps
        timestep = time_step(
            spec,
            obs,
            time=state.steps,
            reward=reward,
            terminated=terminated,
            info={"deliveries": deliveries},
        )
        return state, timestep

    return step


def _reward(kind: str, paid: Array, put_back: Array, deliveries: Array) -> Array:
    """Rewards [N], or [] for all. paid, put_back: [N] bool; deliveries: [] f32."""
    if kind == "global":
        return deliveries
    if kind == "two-stage":
        return 0.5 * (paid.astype(jnp.float32) + put_back.astype(jnp.float32))
    return paid.astype(jnp.float32)

"""COMIX: QMIX for continuous actions (de Witt et al. 2020, arXiv 2003.06709; Peng et al. 2021, FACMAC).

    Q_i(tau_i, u_i): one network whose input holds the action, one number out
    u*_i = argmax_u Q_i(tau_i, u), for every agent alone, by the cross-entropy method (ops/cem.py)
    y = R + discount Q_tot(Q_1(tau_1', u*_1), ..., Q_N; s')   with u* and the Q of the target networks
    L = sum m (y - Q_tot)^2 / sum m

Q_tot is QMIX's: non-decreasing in every Q_i, so that the best joint action is made of the agents' best ones. With
mixer=vdn this is COVDN; a single agent has no mixer (code), Q_tot = Q_1. The defaults are those of the code for
predator-prey (preset=comix/pred_prey: with a faster target); for MuJoCo it has only FACMAC's settings, lr 1e-3, gamma
0.99, hidden_dim 400, uniform_steps 10 000 (preset=comix/mamujoco).

Departures. code: its recurrent agent chooses every action from an empty memory (acting and in targets), and the target
memory follows the target's own actions; ours: memory follows the actions taken, everywhere. code: tanh covers [-1, 1]
whatever the action box; ours: networks read actions with the box mapped onto [-1, 1]. code: double_q and weight decay
are read by nobody; ours: double_q works and is off. Not done: Ornstein-Uhlenbeck noise (off in the code), NAF and
convex networks instead of the search.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxshare.algos._value import Utilities, ValueConfig, ValueHParams, ValueLearner, team_td_loss
from jaxshare.models import inputs
from jaxshare.models.agents import AgentNetwork, q_network
from jaxshare.models.base import sharing_groups
from jaxshare.models.mixers import Mixer, qmix_mixer, vdn_mixer
from jaxshare.ops import cem
from jaxshare.ops.schedules import exploration_rate
from jaxshare.settings.fields import UNITS, default, nested, static
from jaxshare.settings.shared import HyperNetwork, Noise
from jaxshare.types import Array, Box, Context, EnvSpec, Episode, RefusedError, TimeStep

MIXERS = ("qmix", "vdn")
ROWS = 2**15  # evaluated at a time in a target: more spill the caches of a CPU (ours: measured)

CODE = "code: comix_pp.yaml"


@dataclass(frozen=True)
class HParams(Noise, ValueHParams):
    """Swept scalars of the value family, and of exploration. code: comix_pp.yaml."""

    lr: float = default(1e-2, CODE)
    gamma: float = default(0.85, CODE)
    grad_clip: float = default(0.5, CODE)
    adam_eps: float = default(1e-2, CODE)
    tau: float = default(1e-3, CODE)
    epsilon_start: float = default(0.0, "ours: none, the code has none but uniform_steps")
    epsilon_end: float = default(0.0, "ours: none, the code has none but uniform_steps")
    action_noise: float = default(0.1, CODE)
    uniform_steps: float = default(0.0, "code: comix_pp.yaml; 10 000 for MuJoCo")


@dataclass(frozen=True)
class Config(HyperNetwork, ValueConfig):
    """Settings of the value family, the mixer's and the search's. code: comix_pp.yaml."""

    recurrent: bool = default(
        False,
        "code: COMIX; true in comix_pp.yaml, but never used for acting",
    )
    double_q: bool = default(False, CODE)
    bootstrap_on_timeout: bool = default(
        True,
        "code: COMIX, the limit of its tasks is no terminal state",
    )
    optimizer: str = default("adam", CODE)
    target_update: str = default("soft", CODE)
    mixer: str = static(
        "qmix",
        choices=MIXERS,
        help="how utilities are mixed: by QMIX, or by a sum (COVDN)",
        source=CODE,
    )
    embed_dim: int = default(64, CODE)
    hypernet_dim: int = default(64, CODE)
    hypernet_layers: int = default(2, CODE)
    cem_samples: int = static(
        64,
        least=1,
        most=UNITS,
        help="actions in each round of the search",
        source=CODE,
    )
    cem_elites: int = static(
        6,
        least=2,
        most=UNITS,
        help="actions of which the next round is made",
        source=CODE,
    )
    cem_rounds: int = static(2, least=1, most=100, help="rounds of the search", source=CODE)
    hparams: HParams = nested(HParams)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cem_elites > self.cem_samples:
            raise RefusedError(
                f"algo.cem_elites={self.cem_elites} must be at most algo.cem_samples={self.cem_samples}."
            )


def make(config: Config, spec: EnvSpec) -> ValueLearner:
    """Utilities of an action, a search for the best one, a monotone mixer. Raises RefusedError for discrete actions."""
    box = _bounded(spec)
    agent = q_network(
        input_dim=inputs.input_dim(spec, config.obs_last_action, config.obs_agent_id) + box.dim,
        num_actions=1,
        hidden_dim=config.hidden_dim,
        recurrent=config.recurrent,
        groups=sharing_groups(config.share_params, spec.groups),
    )
    return ValueLearner(
        name="comix",
        config=config,
        spec=spec,
        agent=agent,
        mixer=_mixer(config, spec),
        loss=team_td_loss,
        choose=lambda *args: choose(config, box, *args),
        evaluate=lambda *args: evaluate(config, box, *args),
    )


def _bounded(spec: EnvSpec) -> Box:
    box = spec.action
    if not isinstance(box, Box):
        raise RefusedError(
            f"algo=comix needs continuous actions; env={spec.name} has discrete ones (use algo=qmix, or a continuous "
            "task such as env=mpe env.scenario=pred_prey_3a)."
        )
    if not all(
        -math.inf < low < high < math.inf for low, high in zip(box.low, box.high, strict=True)
    ):
        raise RefusedError(
            f"algo=comix needs actions between finite bounds, low < high; env={spec.name} has {box}."
        )
    return box


def _mixer(config: Config, spec: EnvSpec) -> Mixer:
    if config.mixer == "vdn" or spec.num_agents == 1:
        return vdn_mixer()
    return qmix_mixer(
        spec.num_agents,
        spec.state_dim,
        config.embed_dim,
        config.hypernet_dim,
        config.hypernet_layers,
    )


# -------------------------------------------------------------------------------------------------------- utilities


def utility(
    agent: AgentNetwork, params: Any, hidden: Array, x: Array, action: Array
) -> tuple[Array, Array]:
    """(memory [B, N, H], Q_i of encoded actions [T, B, N]): hidden [B, N, H], x [T, B, N, D], action [T, B, N, U]."""
    hidden, q = agent.unroll(params, hidden, jnp.concatenate([x, action], axis=-1))
    return hidden, q[..., 0]


def best_action(
    config: Config, agent: AgentNetwork, params: Any, hidden: Array, x: Array, dim: int, key: Array
) -> tuple[Array, Array]:
    """Each agent's best encoded action [B, N, U] and its utility [B, N]: hidden [B, N, H], x [B, N, D]."""
    batch, agents = x.shape[:2]

    def rows(y: Array) -> Array:  # candidates beside the batch: [samples * B, N, ...]
        spread = jnp.broadcast_to(y[None], (config.cem_samples, *y.shape))
        return spread.reshape(config.cem_samples * batch, *y.shape[1:])

    memory, known = rows(hidden), rows(x)[None]

    def function(action: Array) -> Array:
        _, q = utility(agent, params, memory, known, action.reshape(1, -1, agents, dim))
        return q.reshape(config.cem_samples, batch, agents)

    start = jnp.zeros((batch, agents, dim), x.dtype)
    return cem.maximise(
        key, function, start, config.cem_samples, config.cem_elites, config.cem_rounds
    )


def choose(
    config: Config,
    box: Box,
    parts: ValueLearner,
    params: dict[str, Any],
    hidden: Array,
    x: Array,
    timestep: TimeStep,
    ctx: Context,
    key: Array,
    explore: bool,
) -> tuple[Array, Array]:
    """The best action found, or one near it; memory then takes it in. x [1, B, N, D] -> (hidden, action [B, N, U])."""
    search_key, explore_key = jax.random.split(key)
    action, _ = best_action(config, parts.agent, params["agent"], hidden, x[0], box.dim, search_key)
    if explore:
        h = ctx.hparams
        epsilon = exploration_rate(h, ctx.env_steps, ctx.total_env_steps)
        epsilon = jnp.where(ctx.env_steps < h["uniform_steps"], 1.0, epsilon)
        action = cem.perturb(explore_key, action, h["action_noise"], epsilon)
    hidden, _ = utility(parts.agent, params["agent"], hidden, x, action[None])
    return hidden, inputs.decode(action, box)


def evaluate(
    config: Config,
    box: Box,
    parts: ValueLearner,
    params: dict[str, Any],
    target: dict[str, Any],
    x: Array,
    batch: Episode,
    key: Array | None,
) -> Utilities:
    """Utilities of the actions taken, and of the best next ones; without a key the search has one of its own."""
    agent, action = parts.agent, inputs.encode(batch.action, parts.spec)
    start = agent.initial_carry(x.shape[1])
    _, q_taken = utility(agent, params["agent"], start, x[:-1], action)
    online, fixed = jax.lax.stop_gradient((params["agent"], target["agent"]))
    memory = memories(agent, fixed, start, x[:-1], action)
    judged = memories(agent, online, start, x[:-1], action) if config.double_q else memory
    chooser = online if config.double_q else fixed

    def search(at: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        key, hidden, x = at
        return best_action(config, agent, chooser, hidden, x, action.shape[-1], key)

    keys = _step_keys(jax.random.key(0) if key is None else key, len(action))
    steps = max(1, ROWS // (config.cem_samples * x.shape[1] * x.shape[2]))
    best, best_q = jax.lax.map(search, (keys, judged, x[1:]), batch_size=steps)
    next_q = _judge(agent, fixed, memory, x[1:], best) if config.double_q else best_q
    none = jnp.zeros((*x.shape[:-1], 0), x.dtype)
    unread = jnp.full_like(
        q_taken, jnp.nan
    )  # no mixer of this file looks at a maximum, and it would cost a search
    return Utilities(
        q=none,
        q_taken=q_taken,
        next_q=next_q,
        target_q=none,
        features=none,
        q_max=unread,
        next_q_max=unread,
        next_action=inputs.decode(best, box),
    )


def memories(agent: AgentNetwork, params: Any, start: Array, x: Array, action: Array) -> Array:
    """Memory after each step [T, B, N, H]: start [B, N, H], x [T, B, N, D], encoded actions taken [T, B, N, U]."""
    if start.size == 0:  # feed-forward
        return jnp.zeros((len(x), *start.shape), x.dtype)

    def step(hidden: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        hidden, _ = utility(agent, params, hidden, at[0][None], at[1][None])
        return hidden, hidden

    return jax.lax.scan(step, start, (x, action))[1]


def _judge(agent: AgentNetwork, params: Any, memory: Array, x: Array, action: Array) -> Array:
    """Q_i [T, B, N] of one action at each slot, from the memory [T, B, N, H] before it."""
    return jax.vmap(lambda hidden, x, u: utility(agent, params, hidden, x[None], u[None])[1][0])(
        memory, x, action
    )


def _step_keys(key: Array, steps: int) -> Array:
    return jax.vmap(lambda t: jax.random.fold_in(key, t))(
        jnp.arange(steps)
    )  # cropping a batch keeps its draws

"""COMIX's actions: the best one by the cross-entropy method, for acting and for targets."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxshare.learners.learner import Learner
from jaxshare.learners.records import Acting, Chosen, View
from jaxshare.learners.utilities import Utilities
from jaxshare.models import inputs
from jaxshare.models.agents import AgentNetwork
from jaxshare.ops import cem
from jaxshare.ops.schedules import exploration_rate
from jaxshare.trees import Tree
from jaxshare.types import Array, Box

ROWS = 2**15  # evaluated at a time in a target: more spill the caches of a CPU (ours: measured)


def utility(
    agent: AgentNetwork, params: Tree, hidden: Array, x: Array, action: Array
) -> tuple[Array, Array]:
    """(memory [B, N, H], Q_i of encoded actions [T, B, N]).

    hidden [B, N, H], x [T, B, N, D], action [T, B, N, U].
    """
    hidden, q = agent.unroll(params, hidden, jnp.concatenate([x, action], axis=-1))
    return hidden, q[..., 0]


def best_action(
    learner: Learner, params: Tree, hidden: Array, x: Array, key: Array
) -> tuple[Array, Array]:
    """Each agent's best encoded action [B, N, U] and its utility [B, N].

    hidden [B, N, H], x [B, N, D].
    """
    agent = learner.networks["agent"]
    config = learner.config
    batch, agents = x.shape[:2]
    samples = config.cem_samples

    def rows(y: Array) -> Array:
        """Candidates beside the batch: [samples * B, N, ...]."""
        spread = jnp.broadcast_to(y[None], (samples, *y.shape))
        return spread.reshape(samples * batch, *y.shape[1:])

    # every candidate meets the same memory and input
    memory = rows(hidden)
    known = rows(x)[None]

    def function(action: Array) -> Array:
        wide = action.reshape(1, -1, agents, action.shape[-1])
        return utility(agent, params, memory, known, wide)[1].reshape(samples, batch, agents)

    start = jnp.zeros((batch, agents, inputs.action_dim(learner.spec)), x.dtype)
    return cem.maximise(key, function, start, samples, config.cem_elites, config.cem_rounds)


def choose(acting: Acting) -> Chosen:
    """The best action that the search meets, or one near it; memory then takes it in."""
    learner = acting.learner
    agent = learner.networks["agent"]
    params = acting.params["agent"]
    hidden = acting.memory["agent"]
    search_key, explore_key = jax.random.split(acting.key)
    action, _ = best_action(learner, params, hidden, acting.x[0], search_key)

    # exploring, near it or anywhere
    if acting.explore:
        ctx = acting.ctx
        h = ctx.hparams
        epsilon = exploration_rate(h, ctx.env_steps, ctx.total_env_steps)
        epsilon = jnp.where(ctx.env_steps < h["uniform_steps"], 1.0, epsilon)
        action = cem.perturb(explore_key, action, h["action_noise"], epsilon)
    hidden, _ = utility(agent, params, hidden, acting.x, action[None])
    assert isinstance(learner.spec.action, Box)
    return Chosen(action=inputs.decode(action, learner.spec.action), memory={"agent": hidden})


def utilities(view: View, x: Array) -> Utilities:
    """Utilities of the actions taken, and of the best next ones.

    x: what the agents read, [T+1, B, N, D]. Without a key the search has one of its own.
    """
    agent = view.learner.networks["agent"]
    config = view.config
    box = view.spec.action
    assert isinstance(box, Box)
    action = inputs.encode(view.batch.action, view.spec)
    start = agent.initial_carry(x.shape[1])
    _, q_taken = utility(agent, view.params["agent"], start, x[:-1], action)

    # whose memory and parameters choose the next actions, and whose judge them
    online, fixed = jax.lax.stop_gradient((view.params["agent"], view.target_params["agent"]))
    memory = memories(agent, fixed, start, x[:-1], action)
    chooser = online if config.double_q else fixed
    chooser_memory = memories(agent, online, start, x[:-1], action) if config.double_q else memory

    def search(at: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        key, hidden, x = at
        return best_action(view.learner, chooser, hidden, x, key)

    # one search for each step, some steps at a time
    keys = _step_keys(jax.random.key(0) if view.key is None else view.key, len(action))
    steps = max(1, ROWS // (config.cem_samples * x.shape[1] * x.shape[2]))
    best, best_q = jax.lax.map(search, (keys, chooser_memory, x[1:]), batch_size=steps)
    next_q = _values_of(agent, fixed, memory, x[1:], best) if config.double_q else best_q
    none = jnp.zeros((*x.shape[:-1], 0), x.dtype)
    # no mixer of this algorithm looks at a maximum, and it would cost a search
    unread = jnp.full_like(q_taken, jnp.nan)
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


def memories(agent: AgentNetwork, params: Tree, start: Array, x: Array, action: Array) -> Array:
    """Memory after each step [T, B, N, H].

    start [B, N, H], x [T, B, N, D], action [T, B, N, U]: the encoded ones taken.
    """
    if start.size == 0:  # feed-forward
        return jnp.zeros((len(x), *start.shape), x.dtype)

    def step(hidden: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        hidden, _ = utility(agent, params, hidden, at[0][None], at[1][None])
        return hidden, hidden

    return jax.lax.scan(step, start, (x, action))[1]


def _values_of(agent: AgentNetwork, params: Tree, memory: Array, x: Array, action: Array) -> Array:
    """Q_i [T, B, N] of one action at each slot, from the memory [T, B, N, H] before it."""

    def value(hidden: Array, x: Array, action: Array) -> Array:
        return utility(agent, params, hidden, x[None], action[None])[1][0]

    return jax.vmap(value)(memory, x, action)


def _step_keys(key: Array, steps: int) -> Array:
    """A key for each step: cropping a batch keeps its draws."""
    return jax.vmap(lambda t: jax.random.fold_in(key, t))(jnp.arange(steps))

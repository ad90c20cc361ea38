"""Learners, pieces of streams and gradients for the identities of the on-policy family."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import value_cases
from value_cases import KEY, SPEC, context, flat

from jaxshare import registry
from jaxshare.learners.passes import with_values
from jaxshare.learners.records import View
from jaxshare.models.streams import Read, StreamNetwork
from jaxshare.training.rollout import as_segment
from jaxshare.types import Segment

__all__ = ["KEY", "SPEC", "context", "flat"]


def parts_of(name, spec=SPEC, **config):
    module = registry.get("algo", name)
    return module.make(module.Config(**{"hidden_dim": 4, **config}), spec)


def init(learner, seed=0, scale=0.7):
    """A learner with normally distributed parameters (common sets equal, others apart) and the learner's statistics."""
    return value_cases.init(learner.assemble(), seed, scale=scale).replace(stats=learner.stats)


def episodes(learner, seed=0, spec=SPEC):
    """Whole episodes with padding, with a reward of its own for every agent."""
    batch = value_cases.random_batch(seed, spec)
    reward = np.random.default_rng(seed + 50).normal(size=batch.reward.shape) * np.asarray(batch.mask)[..., None]
    batch = batch.replace(reward=jnp.array(reward, jnp.float32))
    return as_segment(batch, learner.assemble().initial_carry(batch.mask.shape[1]))


def one_after_another(segment, order):
    """The episodes of a batch as a single stream, in this order and without their padding."""
    real = [(int(t), b) for b in order for t in np.flatnonzero(np.asarray(segment.mask)[:, b])]
    step, column = (np.array(x) for x in zip(*real, strict=True))

    def chain(x):
        return x[step, column][:, None]

    fields = {f: jax.tree.map(chain, getattr(segment, f)) for f in Segment.__dataclass_fields__ if f != "carry"}
    return Segment(**fields, carry=jax.tree.map(lambda x: x[:1], segment.carry))


def junk(segment, seed=1):
    """The segment with large random values wherever the mask is 0; every action stays available there."""
    rng, off = np.random.default_rng(seed), np.asarray(segment.mask) == 0
    assert off.any()

    def fill(x, values):
        return jnp.where(off.reshape(off.shape + (1,) * (x.ndim - 2)), jnp.asarray(values, x.dtype), x)

    noise = {
        name: fill(getattr(segment, name), 1e3 * rng.normal(size=getattr(segment, name).shape))
        for name in ("obs", "state", "reward", "next_obs", "next_state")
    }
    flips = {
        name: fill(getattr(segment, name), rng.random(off.shape) < 0.5) for name in ("terminated", "truncated", "first")
    }
    action = fill(segment.action, rng.integers(0, segment.avail.shape[-1], segment.action.shape))
    return segment.replace(**noise, **flips, action=action)


def view_of(learner, state, batch, ctx, key=KEY, **more):
    """What a loss, a hook or an inspection is given."""
    return View(learner, state, state.params, batch, ctx, key, **more)


def prepared(learner, state, segment, ctx, key=KEY):
    """What an update aims at."""
    return learner.phases[0].prepare(view_of(learner, state, segment, ctx, key))


def main_loss(view, params):
    """(loss, metrics) of the main step with these parameters."""
    return view.learner.steps[view.learner.main].loss(with_values(view.replace(params=params)))


def gradients(learner, state, segment, ctx):
    """(targets, gradients, metrics) of one optimiser step, before anything is clipped."""
    targets = prepared(learner, state, segment, ctx)
    view = view_of(learner, state, segment, ctx, targets=targets)
    found, metrics = jax.grad(partial(main_loss, view), has_aux=True)(state.params)
    return targets, found, metrics


def compiled(learner):
    return jax.jit(partial(gradients, learner))


def assert_close(found, expected, rtol=1e-5):
    """Within rtol of the largest entry of each tree."""
    found, expected = flat(found), flat(expected)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * np.abs(expected).max())


def table(sets, groups, read):
    """A network that gives what `read(its parameters)` says, [N, Y], at every step, and [N, Y] after every step.

    read: params of one set -> (y, after).
    """

    def spread(y, stream):
        return jnp.broadcast_to(y, (*stream.x.shape[:2], *y.shape))

    def every(params, carry, stream):
        found = [jax.tree.map(partial(spread, stream=stream), read(params, s)) for s in range(sets)]
        y, after = (jnp.stack(part) for part in zip(*found, strict=True))
        return Read(y=y, after=None if stream.after is None else after)

    def unroll(params, carry, stream):
        read_all = every(params, carry, stream)
        own = lambda y: jnp.stack([y[s, :, :, k] for k, s in enumerate(groups)], axis=2)  # noqa: E731
        return carry, jax.tree.map(own, read_all)

    return StreamNetwork(
        init=lambda key: {}, initial_carry=lambda batch: jnp.zeros((batch, len(groups), 0)), unroll=unroll, every=every,
        param_sets=groups,
    )  # fmt: skip


def no_memory(spec, streams=1):
    """Memory of networks that have none, before the first step of an episode."""
    shape = (streams, spec.num_agents)
    empty = jnp.zeros((*shape, 0))
    return {"actor": empty, "critic": empty, "previous": jnp.zeros((*shape, spec.action.num_actions))}


def one_step(spec, action, reward, terminated=False):
    """A piece of a single step, [1, 1, ...], whose observations are read by nobody."""
    agents, actions = spec.num_agents, spec.action.num_actions
    obs, state = jnp.zeros((1, 1, agents, spec.obs_dim)), jnp.zeros((1, 1, spec.state_dim))
    return Segment(
        obs=obs, state=state, avail=jnp.ones((1, 1, agents, actions), bool), alive=jnp.ones((1, 1, agents), bool),
        action=jnp.array(action, jnp.int32).reshape(1, 1, agents), reward=jnp.array(reward, jnp.float32)[None, None],
        terminated=jnp.full((1, 1), terminated), truncated=jnp.zeros((1, 1), bool), mask=jnp.ones((1, 1)),
        next_obs=obs, next_state=state, next_avail=jnp.ones((1, 1, agents, actions), bool),
        first=jnp.ones((1, 1), bool), carry=None,
    )  # fmt: skip

"""Learners, batches and gradients for the identities of the value family."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare import registry
from jaxshare.learners.passes import with_values
from jaxshare.learners.records import View
from jaxshare.types import Clock, Context, Discrete, EnvSpec, Episode

AGENTS, ACTIONS, OBS, STATE, STEPS, BATCH = 3, 4, 3, 2, 5, 4
KEY = jax.random.key(0)
SPEC = EnvSpec("fake", AGENTS, OBS, STATE, Discrete(ACTIONS), STEPS, (0, 0, 1), ("unit", "other"))


def learner_parts(name, spec=SPEC, differ=None, **config):
    """The parts of a small learner; Adam, because its first moment shows the gradients (see `step`)."""
    small = {"hidden_dim": 4, "optimizer": "adam", **config}
    if name == "qmix":
        small = {"embed_dim": 3, "hypernet_dim": 4, **small}
    module = registry.get("algo", name)
    parts = module.make(module.Config(**small), spec)
    if differ is None:
        return parts
    modifier = registry.get("modifiers", "differ")
    return modifier.make(modifier.Config(**differ), parts)


def init(algorithm, seed=0, dtype=jnp.float32, scale=0.7):
    """A LearnerState with normally distributed parameters, and others in the target networks."""
    learner = jax.eval_shape(algorithm.init, KEY)
    rng = np.random.default_rng(seed)
    draw = lambda tree: jax.tree.map(lambda x: jnp.array(scale * rng.normal(size=x.shape), dtype), tree)  # noqa: E731
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, dtype if x.dtype == jnp.float32 else x.dtype), learner.opt_state)
    return learner.replace(params=draw(learner.params), target_params=draw(learner.target_params), opt_state=zeros)


def context(algorithm, dtype=jnp.float32, updates=0, env_steps=0, **hparams):
    """A Context with unclipped gradients unless asked for."""
    values = {**algorithm.hparams, "grad_clip": np.inf, **hparams}
    clock = Clock(*[jnp.int32(0)] * 4)._replace(updates=jnp.int32(updates))
    traced = {name: jnp.array(value, dtype) for name, value in values.items()}
    return Context(hparams=traced, clock=clock, env_steps=jnp.int32(env_steps), total_env_steps=1000)


def random_batch(seed=0, spec=SPEC, dead=True, dtype=jnp.float32):
    """Episodes of all kinds: full and truncated, terminated early, one step long; agents die on the way."""
    rng = np.random.default_rng(seed)
    steps, agents, actions = spec.episode_limit, spec.num_agents, spec.action.num_actions
    length = np.array([steps, steps - 2, 1, steps - 1])
    shape = (steps + 1, BATCH, agents)
    slot = np.arange(steps + 1)[:, None]
    reached, mask = slot <= length, slot[:-1] < length
    alive = np.ones(shape, bool)
    if dead and agents > 1:
        alive[3:, 0, 0] = alive[1:, 1, 1] = alive[2:, 3, 0] = False
    avail = rng.random((*shape, actions)) < 0.6
    avail[..., 0] |= ~avail.any(-1)
    avail = np.where(alive[..., None], avail, np.arange(actions) == 0) | ~reached[..., None, None]
    action = np.where(avail, rng.random(avail.shape), -1).argmax(-1)[:-1]
    last = slot[:-1] == length - 1
    truncated = last & (np.arange(BATCH) == 0)
    reward = np.broadcast_to(rng.normal(size=(steps, BATCH, 1)), (steps, BATCH, agents)) * mask[..., None]
    return Episode(
        obs=jnp.array(rng.normal(size=(*shape, spec.obs_dim)) * (reached[..., None] & alive)[..., None], dtype),
        state=jnp.array(rng.normal(size=(*shape[:2], spec.state_dim)) * reached[..., None], dtype),
        avail=jnp.array(avail),
        alive=jnp.array(alive & reached[..., None]),
        action=jnp.array(action * mask[..., None], jnp.int32),
        reward=jnp.array(reward, dtype),
        terminated=jnp.array(last & ~truncated),
        truncated=jnp.array(truncated),
        mask=jnp.array(mask, dtype),
    )


def view_of(parts, learner, batch, ctx, key=KEY, **changes):
    """What a loss, a hook or an inspection of these parts is given; changes: other fields of it."""
    params = changes.pop("params", None)
    return View(parts, learner, learner.params if params is None else params, batch, ctx, key, **changes)


def values_of(parts, learner, batch, ctx, key=None, params=None):
    """What the main step of these parts reads from a batch; params: online ones in the place of the learner's."""
    return with_values(view_of(parts, learner, batch, ctx, key, params=params)).values


def step(algorithm, learner, batch, ctx, key=KEY):
    """One real update: (gradients, metrics, learner). Adam's first moment is then a tenth of the gradients."""
    new, metrics = jax.jit(algorithm.update)(learner, batch, ctx, key)
    return _read_gradients(new.opt_state), metrics, new


def gradients(parts, batch, dtype=jnp.float32, **hparams):
    """Gradients of one update of these parts from fixed random parameters; compiled without the metrics."""
    algorithm = parts.assemble()
    learner, ctx = init(algorithm, dtype=dtype), context(algorithm, dtype, **hparams)
    return _read_gradients(jax.jit(lambda *args: algorithm.update(*args)[0].opt_state)(learner, batch, ctx, KEY))


def _read_gradients(opt_state):
    moments = {name: leaf for group in opt_state.values() for name, leaf in group[1].mu.items()}
    return jax.tree.map(lambda m: np.asarray(m) / (1 - 0.9), moments)


def flat(tree):
    """All leaves in one vector."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def assert_close(found, expected, rtol):
    """Within rtol of the largest entry."""
    found, expected = flat(found), flat(expected)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * np.abs(expected).max())

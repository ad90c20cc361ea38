"""What every environment keeps: the contract of `jaxshare.types.Env`, checked on one of them."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.types import Box, Discrete


def expected(spec):
    """Shapes and types of the fields of a time step."""
    action = spec.action
    num_actions = action.num_actions if isinstance(action, Discrete) else 0
    n = spec.num_agents
    return {
        "obs": ((n, spec.obs_dim), jnp.float32),
        "state": ((spec.state_dim,), jnp.float32),
        "avail": ((n, num_actions), jnp.bool_),
        "alive": ((n,), jnp.bool_),
        "reward": ((n,), jnp.float32),
        "terminated": ((), jnp.bool_),
        "truncated": ((), jnp.bool_),
    }


def described(tree):
    """Shape, type and weakness of every array."""
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def check_arrays(env):
    """What `reset` and `step` return has the shapes and types that the spec says; nothing is compiled."""
    key = jax.random.key(0)
    spec = env.spec
    continuous = isinstance(spec.action, Box)
    shape = (spec.num_agents, spec.action.dim) if continuous else (spec.num_agents,)
    action = jax.ShapeDtypeStruct(shape, jnp.float32 if continuous else jnp.int32)
    state, first = jax.eval_shape(env.reset, key)
    next_state, later = jax.eval_shape(env.step, state, action, key)
    for timestep in (first, later):
        arrays = {field: getattr(timestep, field) for field in expected(spec)}
        assert {field: (x.shape, x.dtype) for field, x in arrays.items()} == expected(spec)
        assert all((x.shape, x.dtype) == ((), jnp.float32) for x in timestep.info.values())
    assert described((state, first)) == described((next_state, later)), "a scan carry must keep its type"


def check_first_step(env):
    """A first step is no end, pays nothing, and lets every agent act."""
    _, timestep = jax.jit(env.reset)(jax.random.key(1))
    assert not timestep.terminated
    assert not timestep.truncated
    assert np.all(timestep.alive)
    assert np.all(np.asarray(timestep.reward) == 0)
    assert all(float(x) == 0 for x in timestep.info.values())
    assert np.isfinite(timestep.obs).all()
    assert np.isfinite(timestep.state).all()
    if isinstance(env.spec.action, Discrete):
        assert np.all(np.any(timestep.avail, axis=-1))

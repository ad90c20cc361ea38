"""Networks that read streams of episodes: the GRU with resets, look-ahead and both layouts of layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.models.agents import GRU
from jaxshare.models.streams import Shape, Stream, Torso, stream_network

STEPS, ROWS, WIDTH, IN = 6, 3, 4, 2
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def gru():
    """(module, parameters, carry, inputs, keep, what would be read next): memory is emptied here and there."""
    module, rng = GRU(WIDTH), np.random.default_rng(0)
    params = module.init(KEY, jnp.zeros((1, WIDTH)), jnp.zeros((1, 1, IN)))
    draw = lambda *shape: jnp.array(rng.normal(size=shape), jnp.float32)  # noqa: E731
    keep = np.ones((STEPS, ROWS, 1), np.float32)
    keep[0, 0] = keep[3, 0] = keep[2, 1] = keep[5, 1] = 0
    return module, params, draw(ROWS, WIDTH), draw(STEPS, ROWS, IN), jnp.array(keep), draw(STEPS, ROWS, IN)


def naive(params, carry, x, keep, after):
    """Step by step, one matrix product at a time, with autodiff through everything."""
    p = params["params"]

    def cell(h, x):
        part = lambda gate: x @ p[f"input_{gate}_kernel"] + p[f"input_{gate}_bias"][None]  # noqa: E731
        own = lambda gate: h @ p[f"hidden_{gate}_kernel"] + p[f"hidden_{gate}_bias"][None]  # noqa: E731
        reset, update = (jax.nn.sigmoid(part(gate) + own(gate)) for gate in ("reset", "update"))
        new = jnp.tanh(part("new") + reset * own("new"))
        return (1 - update) * new + update * h

    hidden, ahead = [], []
    for t in range(STEPS):
        carry = cell(carry * keep[t], x[t])
        hidden.append(carry)
        ahead.append(cell(carry, after[t]))  # of the same episode: never emptied
    return jnp.stack(hidden), jnp.stack(ahead)


def test_resets_and_look_ahead_are_those_of_a_plain_loop(gru):
    """Values, and gradients of all parameters, the first memory and the inputs."""
    module, params, carry, x, keep, after = gru
    weight = jnp.array(np.random.default_rng(1).normal(size=(2, STEPS, ROWS, WIDTH)), jnp.float32)

    def score(run):
        def of(params, carry, x, after):
            y = jnp.stack(run(params, carry, x, after))
            return (weight * jnp.sin(y)).sum(), y

        return jax.jit(jax.value_and_grad(of, argnums=(0, 1, 2, 3), has_aux=True))

    ours = score(lambda params, carry, x, after: module.apply(params, carry, x, keep, after))
    loop = score(lambda params, carry, x, after: naive(params, carry, x, keep, after))
    (_, y), slopes = ours(params, carry, x, after)
    (_, expected), expected_slopes = loop(params, carry, x, after)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), slopes, expected_slopes)
    assert (np.asarray(slopes[1])[0] == 0).all()  # the first memory of row 0 is emptied before it is read
    assert np.abs(slopes[1][1:]).min() > 0


def test_without_resets_nothing_is_emptied(gru):
    module, params, carry, x, keep, _ = gru
    plain = module.apply(params, carry, x)
    np.testing.assert_allclose(module.apply(params, carry, x, jnp.ones_like(keep)), plain, atol=1e-6)
    assert np.abs(module.apply(params, carry, x, keep) - plain)[0, 0].max() > 1e-3
    # what lies before a reset does not matter after it
    other = module.apply(params, carry + 1, x.at[:3, 0].add(1.0), keep)
    np.testing.assert_array_equal(other[3:, 0], module.apply(params, carry, x, keep)[3:, 0])


RECURRENT = Shape(WIDTH, recurrent=True, out_dim=2)


@pytest.mark.parametrize(
    ("shape", "layers"),
    [
        (Shape(WIDTH, recurrent=False, out_dim=2, body=False), {"embed", "body", "head"}),
        pytest.param(RECURRENT, {"embed", "gru", "body", "head"}, marks=pytest.mark.slow),
        (Shape(WIDTH, recurrent=True, out_dim=2, body=False, log_std=2), {"embed", "gru", "head", "log_std"}),
    ],
)
def test_layers(shape, layers):
    """A network of steps alone gives at every step, and about what follows, what it gives for that step alone."""
    module, rng = Torso(shape), np.random.default_rng(2)
    x, after = (jnp.array(rng.normal(size=(STEPS, ROWS, IN)), jnp.float32) for _ in range(2))
    carry = jnp.zeros((ROWS, WIDTH if shape.recurrent else 0))
    params = module.init(KEY, carry, Stream(x=x))
    assert set(params["params"]) == layers
    end, read = module.apply(params, carry, Stream(x=x, after=after))
    assert read.y.shape == read.after.shape == (STEPS, ROWS, 2 + shape.log_std)
    assert module.apply(params, carry, Stream(x=x))[1].after is None
    if not shape.recurrent:
        np.testing.assert_array_equal(end, carry)
        np.testing.assert_allclose(module.apply(params, carry, Stream(x=after))[1].y, read.after, atol=1e-6)
        return
    # a second piece goes on where the first one ended, and the look-ahead of a step is the next step
    first, one = module.apply(params, carry, Stream(x=x[:4]))
    _, two = module.apply(params, first, Stream(x=x[4:]))
    np.testing.assert_allclose(jnp.concatenate([one.y, two.y]), read.y, atol=1e-6)
    _, ahead = module.apply(params, carry, Stream(x=x, after=jnp.concatenate([x[1:], x[:1]])))
    np.testing.assert_allclose(ahead.after[:-1], read.y[1:], atol=1e-6)
    if shape.log_std:
        np.testing.assert_array_equal(read.y[..., 2:], 0)


def test_orthogonal_layers_have_seacs_gains():
    """Gain sqrt 2 and biases 0 but in the head, whose gain is its own."""
    shape = Shape(16, recurrent=False, out_dim=5, init="orthogonal", head_gain=0.01)
    params = stream_network(shape, 16, (0,)).init(KEY)
    for name, gain in (("embed", 2**0.5), ("body", 2**0.5), ("head", 0.01)):
        kernel = np.asarray(params[name]["kernel"])
        np.testing.assert_allclose(kernel.T @ kernel, gain**2 * np.eye(kernel.shape[1]), atol=1e-5)
        np.testing.assert_array_equal(params[name]["bias"], 0)


def test_torch_layers_are_uniform_in_the_fan():
    params = stream_network(Shape(64, recurrent=False, out_dim=5, init="torch"), 9, (0,)).init(KEY)
    for name, fan in (("embed", 9), ("body", 64), ("head", 64)):
        for leaf in params[name]["linear"].values():
            assert np.abs(leaf).max() <= 1 / fan**0.5
    kernel = np.asarray(params["body"]["linear"]["kernel"])
    np.testing.assert_allclose(kernel.var(), 1 / (3 * 64), rtol=0.05)  # variance_scaling(1/3, fan_in, uniform)


@pytest.mark.parametrize(
    "param_sets",
    [pytest.param((0, 0, 0), marks=pytest.mark.slow), (0, 0, 1), pytest.param((0, 1, 2), marks=pytest.mark.slow)],
)
def test_every_parameter_set_sees_every_agent(param_sets):
    """What a set says about an agent that uses it is what the agent says itself."""
    network = stream_network(Shape(WIDTH, recurrent=True, out_dim=2), IN, param_sets)
    rng, agents, sets = np.random.default_rng(3), len(param_sets), max(param_sets) + 1
    params = jax.tree.map(lambda x: jnp.array(rng.normal(size=x.shape), jnp.float32), network.init(KEY))
    x, after = (jnp.array(rng.normal(size=(STEPS, 2, agents, IN)), jnp.float32) for _ in range(2))
    keep = jnp.array(rng.random((STEPS, 2, 1, 1)) < 0.7, jnp.float32) * jnp.ones((1, 1, agents, 1))
    stream = Stream(x=x, keep=keep, after=after)
    carry = jnp.array(rng.normal(size=(2, agents, WIDTH)), jnp.float32)
    (end, own), every = jax.jit(lambda: (network.unroll(params, carry, stream), network.every(params, carry, stream)))()
    assert every.y.shape == every.after.shape == (sets, STEPS, 2, agents, 2)
    assert end.shape == carry.shape
    for agent, own_set in enumerate(param_sets):
        np.testing.assert_allclose(own.y[:, :, agent], every.y[own_set, :, :, agent], atol=1e-5)
        np.testing.assert_allclose(own.after[:, :, agent], every.after[own_set, :, :, agent], atol=1e-5)
    if sets > 1:
        assert np.abs(every.y[0] - every.y[1]).max() > 1e-2

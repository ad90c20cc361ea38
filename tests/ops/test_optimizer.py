"""The optimisers as the learners use them: torch's RMSprop (C-3), the global clip (C-4), one state per group."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxshare.learners.optimisers import advance, first_opt_state
from jaxshare.learners.records import View
from jaxshare.learners.value import value_learner
from jaxshare.learners.value_losses import team_td_loss
from jaxshare.learners.value_settings import ValueConfig, ValueHParams
from jaxshare.models.base import Network
from jaxshare.types import Context, Discrete, EnvSpec, LearnerState

SPEC = EnvSpec("hand", 2, 1, 1, Discrete(2), 4, (0, 0), ("unit",))
LR, DECAY, EPS = 5e-4, 0.99, 1e-5


def hparams(**changed):
    values = {**vars(ValueHParams()), **changed}
    return {name: jnp.float32(value) for name, value in values.items()}


def learner_of(groups, config):
    """A learner of the value family with networks of these names, trained in these groups."""
    learner = value_learner("hand", config, SPEC, mixer=None, loss=team_td_loss)
    names = [name for group in groups.values() for name in group]
    networks = {name: Network(init=None, apply=None) for name in names}
    return dataclasses.replace(learner, networks=networks).with_main(optimizer_groups=groups, rest="")


def optimise(grads, groups, config=None, opt_state=None, params=None, **changed):
    """One step of the learner's own optimisers on parameters that start at 0: (params, opt_state, norms)."""
    h = hparams(**changed)
    learner = learner_of(groups, config or ValueConfig())
    params = params or jax.tree.map(jnp.zeros_like, grads)
    opt_state = opt_state or first_opt_state(learner, params, h)
    state = LearnerState(params=params, target_params=params, opt_state=opt_state, stats={})
    ctx = Context(hparams=h, clock=None, env_steps=None, total_env_steps=1)
    view = View(learner, state, params, None, ctx, key=None)
    state, norms = advance(view, learner.steps[learner.main], grads)
    return state.params, state.opt_state, norms


ONE = {"joint": ("agent",)}
TWO = {"agent": ("agent",), "mixer": ("mixer",)}


@pytest.mark.parametrize(("g", "size"), [(1.0, 4.9995e-3), (0.01, 4.95050e-3), (0.001, 4.54545e-3)])
@pytest.mark.parametrize("groups", [ONE, TWO], ids=["one group", "two groups"])
def test_c3_first_step(g, size, groups):
    grads = {name: jnp.array([g, -g * 0]) for names in groups.values() for name in names}
    params, _, _ = optimise(grads, groups)
    for leaf in params.values():
        np.testing.assert_allclose(leaf, [-size, 0], rtol=2e-5)


def test_c3_second_step():
    grads = {"agent": jnp.ones(1)}
    first, state, _ = optimise(grads, ONE)
    second, _, _ = optimise(grads, ONE, opt_state=state, params=first)
    np.testing.assert_allclose(first["agent"] - second["agent"], 3.54415e-3, rtol=1e-5)


def test_c3_tells_the_two_places_of_epsilon_apart():
    inside = optax.rmsprop(LR, DECAY, EPS).update(jnp.float32(1e-3), optax.rmsprop(LR, DECAY, EPS).init(jnp.zeros(())))
    np.testing.assert_allclose(-inside[0], 1.58035e-4, rtol=1e-5)


def test_rmsprop_against_a_loop():
    rng = np.random.default_rng(0)
    theta, v, params, state = np.zeros(4), np.zeros(4), None, None
    for _ in range(20):
        g = rng.normal(size=4)
        v = DECAY * v + (1 - DECAY) * g**2
        theta = theta - LR * g / (np.sqrt(v) + EPS)
        params, state, _ = optimise({"agent": jnp.array(g, jnp.float32)}, ONE, opt_state=state, params=params)
    np.testing.assert_allclose(params["agent"], theta, rtol=1e-4)


def test_adam_against_a_loop():
    rng, config = np.random.default_rng(1), ValueConfig(optimizer="adam")
    theta, m, v, params, state = np.zeros(4), np.zeros(4), np.zeros(4), None, None
    for step in range(1, 21):
        g = rng.normal(size=4)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta = theta - LR * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        params, state, _ = optimise({"agent": jnp.array(g, jnp.float32)}, ONE, config, state, params)
    np.testing.assert_allclose(params["agent"], theta, rtol=1e-4)


def clipped(grads, groups):
    """The gradients after the clip, read off Adam's first moment, which is a tenth of them after one step."""
    _, state, norms = optimise(grads, groups, ValueConfig(optimizer="adam"))
    moments = {name: leaf for group in state.values() for name, leaf in group[1].mu.items()}
    return {name: np.asarray(leaf) / 0.1 for name, leaf in moments.items()}, norms


@pytest.mark.parametrize(("g", "after"), [((12, 16), (6, 8)), ((6, 8), (6, 8)), ((0, 0), (0, 0)), ((-30, 0), (-10, 0))])
def test_c4_clip(g, after):
    found, norms = clipped({"agent": jnp.array(g, jnp.float32)}, ONE)
    np.testing.assert_allclose(found["agent"], after, rtol=1e-5)
    np.testing.assert_allclose(norms["grad_norm/joint"], np.hypot(*g), rtol=1e-6)  # logged before the clip


def test_one_group_is_clipped_together_and_two_separately():
    grads = {"agent": jnp.array([12.0, 16.0]), "mixer": jnp.array([9.0, 12.0])}  # norms 20, 15, together 25
    together, norms = clipped(grads, {"joint": ("agent", "mixer")})
    np.testing.assert_allclose(together["agent"], [4.8, 6.4], rtol=1e-5)
    np.testing.assert_allclose(together["mixer"], [3.6, 4.8], rtol=1e-5)
    np.testing.assert_allclose(norms["grad_norm/joint"], 25, rtol=1e-6)
    apart, norms = clipped(grads, TWO)
    np.testing.assert_allclose(apart["agent"], [6, 8], rtol=1e-5)
    np.testing.assert_allclose(apart["mixer"], [6, 8], rtol=1e-5)
    np.testing.assert_allclose([norms["grad_norm/agent"], norms["grad_norm/mixer"]], [20, 15], rtol=1e-6)


@pytest.mark.parametrize("huge", ["agent", "mixer"])
def test_a_group_does_not_feel_the_gradients_of_the_other(huge):
    grads = {"agent": jnp.array([1.0, 2.0]), "mixer": jnp.array([3.0, 4.0])}
    calm, calm_state, _ = optimise(grads, TWO)
    wild, wild_state, _ = optimise({**grads, huge: grads[huge] * 1e6}, TWO)
    other = "mixer" if huge == "agent" else "agent"
    np.testing.assert_array_equal(calm[other], wild[other])
    jax.tree.map(np.testing.assert_array_equal, calm_state[other], wild_state[other])


def test_the_learning_rate_is_traced():
    grads = {"agent": jnp.ones(1)}
    steps = jax.jit(jax.vmap(lambda lr: optimise(grads, ONE, lr=lr)[0]["agent"]))(jnp.array([1e-3, 1e-2]))
    np.testing.assert_allclose(steps[:, 0], [-1e-3 / 0.10001, -1e-2 / 0.10001], rtol=1e-5)


def test_rectified_adam_begins_as_momentum():
    """Liu et al. 2020, algorithm 2, with a constant gradient: both means are the gradient's and its square."""
    g, longest = jnp.array([0.5, -0.02]), 2 / (1 - 0.999) - 1
    params, opt_state, expected = {"agent": jnp.zeros(2)}, None, np.zeros(2)
    rectified = []
    for t in range(1, 9):
        params, opt_state, _ = optimise(
            {"agent": g}, ONE, ValueConfig(optimizer="radam"), opt_state, params, lr=LR, adam_eps=1e-12
        )
        length = longest - 2 * t * 0.999**t / (1 - 0.999**t)
        rectified.append(length >= 5)
        ratio = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
        expected -= LR * (np.sqrt(ratio) * np.sign(g) if length >= 5 else np.asarray(g))
        np.testing.assert_allclose(params["agent"], expected, rtol=1e-2)  # 32 bits leave few of the length
    assert rectified == [False] * 5 + [True] * 3

"""SEQL is IQL where it shares nothing, shares within types only, and reads nobody's padding."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_padding_and_ends import junk
from value_cases import (
    KEY,
    SPEC,
    _read_gradients,
    assert_close,
    context,
    flat,
    init,
    learner_parts,
    random_batch,
    values_of,
    view_of,
)

from jaxshare import registry
from jaxshare.algos.seql import algorithm as seql
from jaxshare.learners.value_settings import ValueConfig
from jaxshare.types import Discrete, EnvSpec, LearnerState, RefusedError

ALONE = EnvSpec("alone", 1, 3, 2, Discrete(4), 5, (0,), ("unit",))
TEAM = dataclasses.replace(SPEC, groups=(0, 0, 0), group_names=("unit",))
UNTRAINED = LearnerState(params={}, target_params={}, opt_state={}, stats={})
SETTINGS = [f.name for f in dataclasses.fields(ValueConfig) if f.name not in ("hparams", "hidden_dim")]


def parts_of(name, spec=SPEC, **config):
    """A learner with SEQL's settings, small; IQL with the same."""
    base = {key: getattr(seql.Config(), key) for key in SETTINGS}
    return learner_parts(name, spec, **{**base, "hidden_dim": 4, **config})


@cache
def compiled(name, spec=SPEC, **config):
    """(parts, algorithm, compiled update)."""
    parts = parts_of(name, spec, **config)
    algorithm = parts.assemble()
    return parts, algorithm, jax.jit(algorithm.update)


def gradients_of(case, batch, learner=None, updates=0, **hparams):
    """(gradients, metrics) of one update."""
    _, algorithm, update = case
    new, metrics = update(learner or init(algorithm), batch, context(algorithm, updates=updates, **hparams), KEY)
    return _read_gradients(new.opt_state), metrics


def relabelled(parts, batch, ctx):
    """The batch of which everybody learns."""
    return seql.relabel(view_of(parts, UNTRAINED, batch, ctx))[0]


def rewards_of_their_own(batch, seed=3):
    drawn = np.random.default_rng(seed).normal(size=batch.reward.shape)
    return batch.replace(reward=jnp.asarray(drawn, jnp.float32) * batch.mask[..., None])


# ---- nothing shared


RECURRENT = {"recurrent": True, "share_params": "all", "obs_agent_id": True}


@pytest.mark.parametrize("config", [{}, pytest.param(RECURRENT, marks=pytest.mark.slow)], ids=str)
def test_a_weight_of_zero_is_iql(config):
    batch = rewards_of_their_own(random_batch())
    expected, metrics = gradients_of(compiled("iql", **config), batch)
    sharing = {"views": "all", "weighting": "own_plus_lambda"}
    found, own = gradients_of(compiled("seql", **sharing, **config), batch, share_coef=0.0)
    assert_close(found, expected, 1e-5)
    np.testing.assert_allclose(own["loss/td"], metrics["loss/td"], rtol=1e-5)
    np.testing.assert_allclose(own["seql/own_error"], metrics["td_error/abs_mean"], rtol=1e-5)
    shared, _ = gradients_of(compiled("seql", **sharing, **config), batch, share_coef=1.0)
    assert np.abs(flat(shared) - flat(expected)).max() > 1e-2


@pytest.mark.parametrize(
    "config", [{}, pytest.param({"views": "all", "weighting": "own_plus_lambda"}, marks=pytest.mark.slow)], ids=str
)
def test_seql3_one_agent_is_iql(config):
    batch = random_batch(spec=ALONE)
    expected, metrics = gradients_of(compiled("iql", ALONE), batch)
    found, own = gradients_of(compiled("seql", ALONE, **config), batch)
    assert_close(found, expected, 1e-6)
    np.testing.assert_allclose(own["loss/td"], metrics["loss/td"], rtol=1e-6)


# ---- what is shared


@pytest.mark.parametrize("mode", ["split", "all"])
def test_seql4_all_of_a_type_learn_from_the_same(mode):
    parts, batch = parts_of("seql", views=mode), rewards_of_their_own(random_batch())
    ctx = context(parts.assemble(), updates=1)
    seen = relabelled(parts, batch, ctx)
    names = ("obs", "avail", "alive", "action", "reward")
    per_agent = {name: np.asarray(getattr(seen, name)) for name in names}
    if mode == "split":
        for x in per_agent.values():
            np.testing.assert_array_equal(x[:, :, 0], x[:, :, 1])
    else:  # each other's views in another order
        for x in per_agent.values():
            half = x.shape[1] // 2
            np.testing.assert_array_equal(x[:, :half, 0], x[:, half:, 1])
            np.testing.assert_array_equal(x[:, half:, 0], x[:, :half, 1])
    for name, x in per_agent.items():  # agent 2 is of another type
        own = np.asarray(getattr(batch, name))[:, :, 2]
        np.testing.assert_array_equal(x[:, : own.shape[1], 2], own)


@pytest.mark.parametrize("config", [{}, pytest.param({"views": "all"}, marks=pytest.mark.slow)], ids=str)
def test_seql4_equal_networks_have_equal_gradients(config):
    case, batch = compiled("seql", recurrent=True, **config), rewards_of_their_own(random_batch())
    learner = init(case[1])
    tie = lambda tree: jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), tree)  # noqa: E731
    learner = learner.replace(params=tie(learner.params), target_params=tie(learner.target_params))
    found = gradients_of(case, batch, learner)[0]["agent"]
    assert_close(jax.tree.map(lambda x: x[0], found), jax.tree.map(lambda x: x[1], found), 1e-5)
    assert np.abs(flat(jax.tree.map(lambda x: x[0] - x[2], found))).max() > 1e-3


def error_function(parts, learner, ctx):
    """batch -> squared errors [T, B, N] of network i on what stands in agent i's place."""

    def errors(batch):
        values = values_of(parts, learner, batch, ctx)
        return jnp.square(batch.reward + values.discount[..., None] * values.next_q - values.q_taken)

    return jax.jit(errors)


@pytest.mark.parametrize(
    "config",
    [pytest.param({"weighting": "uniform"}, marks=pytest.mark.slow), {"weighting": "own_plus_lambda"}],
    ids=str,
)
def test_all_views_by_brute_force(config):
    """Network i on the experience of every k: place k's view at i by hand, one at a time."""
    parts, batch = parts_of("seql", TEAM, views="all", **config), rewards_of_their_own(random_batch())
    algorithm = parts.assemble()
    learner, ctx = init(algorithm), context(algorithm, share_coef=0.3)
    errors = error_function(parts, learner, ctx)
    mask, agents = np.asarray(batch.mask), range(SPEC.num_agents)

    def only(k):
        """Everybody sees agent k's view."""
        pick = lambda x: jnp.broadcast_to(x[:, :, k : k + 1], x.shape)  # noqa: E731
        names = ("obs", "avail", "alive", "action", "reward")
        return batch.replace(**{name: pick(getattr(batch, name)) for name in names})

    mean = np.array([(errors(only(k)) * mask[..., None]).sum((0, 1)) for k in agents]) / mask.sum()
    if config["weighting"] == "uniform":
        expected = mean.mean()
    else:
        others = [(mean[:, i].sum() - mean[i, i]) / (len(agents) - 1) for i in agents]
        expected = np.mean([mean[i, i] + 0.3 * others[i] for i in agents])
    found = jax.jit(lambda: algorithm.update(learner, batch, ctx, KEY)[1]["loss/td"])()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_views_rotate_with_the_updates():
    parts, batch = parts_of("seql", TEAM), rewards_of_their_own(random_batch())
    algorithm = parts.assemble()
    found = []
    for updates in range(3):
        seen = relabelled(parts, batch, context(algorithm, updates=updates))
        found.append(np.asarray(seen.reward))
    for b in range(4):
        for n, turn in enumerate(found):
            np.testing.assert_array_equal(turn[:, b, 0], batch.reward[:, b, (b + n) % 3])


def test_an_index_in_the_input_is_the_readers():
    parts, batch = parts_of("seql", TEAM, share_params="all", obs_agent_id=True), random_batch()
    algorithm = parts.assemble()
    learner, ctx = init(algorithm), context(algorithm)
    seen = relabelled(parts, batch, ctx)
    q = jax.jit(lambda b: values_of(parts, learner, b, ctx).q)(seen)
    assert not np.allclose(q[:, :, 0], q[:, :, 1])  # one network, one view, another index


# ---- masks


@pytest.mark.parametrize(
    "config", [{}, pytest.param({"views": "all", "weighting": "own_plus_lambda"}, marks=pytest.mark.slow)], ids=str
)
def test_padding_changes_nothing(config):
    _, algorithm, run = compiled("seql", recurrent=True, **config)
    learner, ctx, batch = init(algorithm), context(algorithm, updates=1), random_batch()
    clean, clean_metrics = run(learner, batch, ctx, KEY)
    found, metrics = run(learner, junk(batch), ctx, KEY)
    jax.tree.map(np.testing.assert_array_equal, clean, found)
    for key, value in metrics.items():
        np.testing.assert_allclose(value, clean_metrics[key], rtol=1e-6, err_msg=key)
    empty, nothing = run(learner, batch.replace(mask=0 * batch.mask), ctx, KEY)
    assert not np.any(flat(jax.tree.map(lambda a, b: a - b, empty.params, learner.params)))
    assert all(np.all(np.isfinite(value)) for value in nothing.values())


@pytest.mark.parametrize("bootstrap", [False, True])
def test_ends_do_not_bootstrap(bootstrap):
    """S-2: the discount after a terminal state is 0 whatever the view; after a time-out as the setting says."""
    parts, batch = parts_of("seql", bootstrap_on_timeout=bootstrap), random_batch()
    algorithm = parts.assemble()
    learner, ctx = init(algorithm), context(algorithm)
    seen = relabelled(parts, batch, ctx)
    values = jax.jit(lambda b: values_of(parts, learner, b, ctx).discount)(seen)
    discount = np.asarray(values)
    assert not discount[np.asarray(batch.terminated)].any()
    assert np.all(discount[np.asarray(batch.truncated)] == (np.float32(0.99) if bootstrap else 0))


# ---- refusals


@pytest.mark.parametrize(
    ("key", "value"), [("weighting", "importance"), ("views", "some"), ("hparams", seql.HParams(share_coef=-1.0))]
)
def test_refused_settings(key, value):
    with pytest.raises(RefusedError, match=rf"algo\.{key}.*=(importance|some|-1)"):
        seql.Config(**{key: value})


def test_differ_needs_a_mixer():
    modifier = registry.get("modifiers", "differ")
    with pytest.raises(RefusedError, match=r"modifiers=\[differ\].*algo=seql.*no mixer"):
        modifier.make(modifier.Config(), parts_of("seql"))


# ---- clipping


@pytest.mark.parametrize("clip", ["agent", "all"])
def test_a_large_reward_shortens_the_steps_of_its_own_agent_alone(clip):
    """code: clip_grad_norm_ of each agent's network on the gradient of its own loss; ours on request: one norm."""
    batch = rewards_of_their_own(random_batch())
    batch = batch.replace(reward=batch.reward.at[..., 2].multiply(100.0))  # the only agent of its type
    raw, _ = gradients_of(compiled("seql", clip=clip), batch)
    own = [flat(jax.tree.map(lambda x, i=i: SPEC.num_agents * x[i], raw)) for i in range(SPEC.num_agents)]
    norms = [np.linalg.norm(g) for g in own]
    limit = 2 * max(norms[:2])
    assert norms[2] > 5 * limit
    found, _ = gradients_of(compiled("seql", clip=clip), batch, grad_clip=limit)
    if clip == "agent":
        scales = np.minimum(1.0, limit / np.array(norms))
    else:
        scales = np.full(3, limit / np.linalg.norm(flat(raw)))
    for i, scale in enumerate(scales):
        each = flat(jax.tree.map(lambda x, i=i: SPEC.num_agents * x[i], found))
        np.testing.assert_allclose(each, scale * own[i], rtol=1e-4, atol=1e-6 * limit)
    assert (scales[0] == 1.0) == (clip == "agent")


def test_the_code_clips_each_agent():
    assert seql.Config().clip == "agent"
    with pytest.raises(RefusedError, match=r"algo\.clip=none is not one of agent, all"):
        parts_of("seql", clip="none")

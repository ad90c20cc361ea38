"""IPPO and MAPPO: where they are A2C, what a cut episode is worth, whose steps count, and the steps of an update."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from actor_critic_cases import main_loss, prepared, view_of
from test_padding_and_ends import junk
from value_cases import KEY, SPEC, assert_close, context, flat, init, random_batch

from jaxshare.algos import iac, ippo, mappo
from jaxshare.learners import actor_critic_streams as read
from jaxshare.learners.optimisers import groups_of
from jaxshare.learners.passes import dealt
from jaxshare.training import rollout
from jaxshare.types import Box, LearnerState, RefusedError, Segment

STEPS, STREAMS, AGENTS = SPEC.episode_limit, 4, SPEC.num_agents
MODULES = {"ippo": ippo, "mappo": mappo}
FEED_FORWARD = {"recurrent": False, "critic_recurrent": False}
PLAIN = {"standardise_advantage": False, "value_clip": False, "epochs": 1, "minibatches": 1}
GAMMA = 0.99


@cache
def made(name, spec=SPEC, **config):
    return MODULES[name].make(MODULES[name].Config(hidden_dim=4, **config), spec)


def streams(algorithm, seed=0):
    """Pieces of streams with an end of either kind inside, and a new episode after it: nothing is padded."""
    rng = np.random.default_rng(seed)
    shape, spec = (STEPS, STREAMS, AGENTS), algorithm.spec
    terminated, truncated = np.zeros((2, STEPS, STREAMS), bool)
    terminated[2, 0] = terminated[4, 3] = truncated[1, 1] = truncated[4, 2] = True
    first = np.concatenate([[[True, False, False, True]], (terminated | truncated)[:-1]])
    avail = rng.random((*shape, spec.action.num_actions)) < 0.6
    avail[..., 0] = True
    noise = lambda *s: jnp.array(rng.normal(size=s), jnp.float32)  # noqa: E731
    obs, state, next_obs, next_state = (
        noise(STEPS, STREAMS, *x) for x in 2 * ((AGENTS, spec.obs_dim), (spec.state_dim,))
    )
    inside = jnp.array(~(terminated | truncated)[:-1])  # there the successor is the next step
    next_obs = next_obs.at[:-1].set(jnp.where(inside[..., None, None], obs[1:], next_obs[:-1]))
    next_state = next_state.at[:-1].set(jnp.where(inside[..., None], state[1:], next_state[:-1]))
    carry = jax.tree.map(lambda x: noise(*x.shape), algorithm.initial_carry(STREAMS))
    action = np.where(avail, rng.random(avail.shape), -1).argmax(-1)
    return Segment(
        obs=obs, state=state, next_obs=next_obs, next_state=next_state, avail=jnp.array(avail),
        action=jnp.array(action), alive=jnp.array(rng.random(shape) < 0.8), reward=noise(*shape),
        terminated=jnp.array(terminated), truncated=jnp.array(truncated), mask=jnp.ones((STEPS, STREAMS)),
        next_avail=jnp.ones(avail.shape, bool), first=jnp.array(first), carry=carry,
    )  # fmt: skip


def padded(algorithm, change=lambda batch: batch):
    """Whole episodes, with padding and dead agents."""
    return rollout.as_segment(change(random_batch()), algorithm.initial_carry(STREAMS))


COMPILED = {}  # by what is done and the identity of the learner, which the function keeps alive


def compiled(what, learner):
    return COMPILED.setdefault((what, id(learner)), {"prepare": _prepare, "gradients": _gradients}[what](learner))


def _prepare(learner):
    def of(state, segment, ctx):
        values = read.values(view_of(learner, state, segment, ctx), state.params["critic"])
        return prepared(learner, state, segment, ctx), values

    return jax.jit(of)


def _gradients(learner):
    def of(params, segment, targets, ctx):
        view = view_of(learner, LearnerState(params, {}, {}, {}), segment, ctx, targets=targets)
        return jax.grad(lambda p: main_loss(view, p)[0])(params)

    return jax.jit(of)


def targets_of(learner, segment, **hparams):
    """What `prepare` makes, and the values of each step and its successor."""
    algorithm = learner.assemble()
    return compiled("prepare", learner)(
        init(algorithm), segment, context(algorithm, env_steps=STEPS * STREAMS, **hparams)
    )


def gradients(learner, segment, targets=None, **hparams):
    """Of one step on the whole segment, by the targets given or those of `prepare`."""
    algorithm = learner.assemble()
    targets = targets_of(learner, segment, **hparams)[0] if targets is None else targets
    ctx = context(algorithm, env_steps=STEPS * STREAMS, **hparams)
    return compiled("gradients", learner)(init(algorithm).params, segment, targets, ctx)


# ---- one step is A2C


@pytest.mark.parametrize("recurrent", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_one_unclipped_step_with_whole_returns_is_a2c(recurrent):
    """The ratio is one then, so that the bounds do not matter either."""
    memory = {"recurrent": recurrent, "critic_recurrent": recurrent}
    learner = made("ippo", **memory, **PLAIN)
    config = iac.Config(hidden_dim=4, share_params="all", over_agents="mean", **memory)
    a2c = iac.make(config, SPEC)
    for segment in (streams(learner.assemble()), padded(learner.assemble())):
        expected = gradients(a2c, segment, value_coef=0.5, entropy_coef=0.1)
        for eps in (np.inf, 0.05):
            found = gradients(learner, segment, value_coef=1.0, entropy_coef=0.1, gae_lambda=1.0, clip_eps=eps)
            assert_close(found, expected, 1e-5)
        assert not np.allclose(
            flat(gradients(learner, segment, value_coef=1.0, gae_lambda=0.5)), flat(expected), rtol=0.1
        )


@pytest.mark.slow
def test_losses_are_means_over_agents_or_sums():
    mean, total = (made("ippo", **FEED_FORWARD, over_agents=over) for over in ("mean", "sum"))
    segment = padded(mean.assemble())
    expected = jax.tree.map(lambda x: AGENTS * x, gradients(mean, segment))
    assert_close(gradients(total, segment), expected, 1e-5)


# ---- ends


@pytest.fixture(scope="module")
def plain():
    return made("ippo", **FEED_FORWARD, **PLAIN)


def test_a_cut_episode_is_worth_what_it_leads_to_and_an_ended_one_nothing(plain):
    segment = streams(plain.assemble())
    targets, (value, after) = targets_of(plain, segment)
    for t, b in ((1, 1), (4, 2)):
        np.testing.assert_allclose(targets.returns[t, b], segment.reward[t, b] + GAMMA * after[t, b], rtol=1e-5)
    for t, b in ((2, 0), (4, 3)):
        np.testing.assert_allclose(targets.returns[t, b], segment.reward[t, b], rtol=1e-5)
    np.testing.assert_allclose(targets.advantage, targets.returns - value, rtol=1e-4, atol=1e-5)
    assert np.abs(after[1, 1] - value[2, 1]).min() > 1e-3  # JaxMARL's next value is that of the next episode


def test_nothing_is_learned_from_the_next_episode(plain):
    """A step's target does not change with what stands behind an end; behind a cut it does with the true successor."""
    segment = streams(plain.assemble())
    targets, _ = targets_of(plain, segment)
    later = jnp.array(np.arange(STEPS)[:, None] > np.array([2, 1, STEPS, STEPS]))  # steps of second episodes
    other = segment.replace(
        obs=jnp.where(later[..., None, None], 9.0, segment.obs), reward=jnp.where(later[..., None], 9.0, segment.reward)
    )
    same, _ = targets_of(plain, other)
    np.testing.assert_array_equal(
        np.where(later[..., None], 0, same.returns), np.where(later[..., None], 0, targets.returns)
    )
    ended = segment.replace(next_obs=segment.next_obs.at[2, 0].add(1.0))
    np.testing.assert_array_equal(targets_of(plain, ended)[0].returns, targets.returns)
    cut = segment.replace(next_obs=segment.next_obs.at[1, 1].add(1.0))
    changed = np.abs(targets_of(plain, cut)[0].returns - targets.returns) > 1e-4
    assert changed[:2, 1].all()
    assert not changed[2:, 1].any()
    assert not changed[:, [0, 2, 3]].any()


def test_the_old_policy_is_that_before_the_update(plain):
    """Also when there is only one step, whose ratio must be one."""
    learner = plain
    segment = streams(learner.assemble())
    targets, _ = targets_of(learner, segment)
    policy = read.policies(view_of(learner, init(learner.assemble()), segment, None))
    np.testing.assert_allclose(targets.log_prob, policy.log_prob(segment.action), rtol=1e-5)
    assert np.mean(targets.log_prob < 0) > 0.5


# ---- masks


@pytest.mark.parametrize("name", MODULES)
def test_padding_does_not_matter(name):
    learner = made(name, **FEED_FORWARD)
    algorithm = learner.assemble()
    expected = gradients(learner, padded(algorithm))
    assert_close(gradients(learner, padded(algorithm, junk)), expected, 1e-5)


def other_where(targets, where):
    return jax.tree.map(lambda x: jnp.where(where, 5.0 - 2.0 * x, x), targets)


@pytest.mark.parametrize("mask_dead", [True, False])
def test_the_dead_count_unless_they_are_left_out(mask_dead):
    learner = made("ippo", **FEED_FORWARD, mask_dead=True) if mask_dead else made("ippo", **FEED_FORWARD)
    segment = padded(learner.assemble())
    targets, _ = targets_of(made("ippo", **FEED_FORWARD), segment)
    dead = ~segment.alive & (segment.mask[..., None] > 0)
    assert dead.any()
    one, other = (flat(gradients(learner, segment, t)) for t in (targets, other_where(targets, dead)))
    assert np.allclose(one, other, rtol=1e-5, atol=1e-6) == mask_dead


def test_advantages_count_relative_to_each_other(plain):
    """In each minibatch: a shift and a scale of all of them change nothing."""
    learner = made("ippo", **FEED_FORWARD)
    segment = padded(learner.assemble())
    targets, _ = targets_of(learner, segment)
    moved = targets.replace(advantage=3.0 * targets.advantage + 2.0)
    assert_close(gradients(learner, segment, moved), gradients(learner, segment, targets), 1e-4)
    assert not np.allclose(flat(gradients(plain, segment, moved)), flat(gradients(plain, segment, targets)), rtol=0.1)


# ---- a whole update


@pytest.mark.slow
def test_an_update_is_epochs_of_minibatches_of_streams_with_a_falling_learning_rate():
    """Against a loop: Adam on each part, a new order in each epoch, targets of the parameters before all of it."""
    learner = made("ippo", **FEED_FORWARD, epochs=2, minibatches=2)
    algorithm = learner.assemble()
    segment, state = streams(algorithm), init(algorithm)
    ctx = context(algorithm, env_steps=500 + STEPS * STREAMS, lr=1e-2, grad_clip=0.5)  # of 1000
    found, metrics = jax.jit(algorithm.update)(state, segment, ctx, KEY)
    _, order_key, _ = jax.random.split(KEY, 3)
    rows = np.asarray(dealt(order_key, STREAMS, learner.phases[0]))
    assert [sorted(rows[:2].ravel()), sorted(rows[2:].ravel())] == [[0, 1, 2, 3]] * 2
    usual = made("ippo", **FEED_FORWARD)
    targets, _ = compiled("prepare", usual)(state, segment, ctx)
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.5 * 1e-2, eps=1e-5))
    params, moments = state.params, optimizer.init(state.params)
    for own in rows:
        part, aims = jax.tree.map(lambda x: x[:, own], (segment.replace(carry=None), targets))  # noqa: B023
        part = part.replace(carry=jax.tree.map(lambda x: x[own], segment.carry))  # noqa: B023
        grads = compiled("gradients", usual)(params, part, aims, ctx)
        updates, moments = optimizer.update(grads, moments, params)
        params = optax.apply_updates(params, updates)
    moved = jax.tree.map(lambda new, old: new - old, params, state.params)
    assert_close(jax.tree.map(lambda new, old: new - old, found.params, state.params), moved, 1e-3)
    assert {x.shape for x in metrics.values()} == {(4,)}
    np.testing.assert_allclose(metrics["policy/kl"][0], 0.0, atol=1e-6)
    assert np.all(metrics["policy/kl"][1:] > 1e-6)


@pytest.mark.parametrize(
    ("share", "env_steps", "left"),
    [(1.0, 20, 1.0), (1.0, 520, 0.5), (0.4, 520, 0.8), (0.0, 520, 1.0), (1.0, 2000, 0.0)],
)
def test_the_learning_rate_falls_with_the_steps_before_the_batch(share, env_steps, left):
    learner = made("mappo")
    algorithm = learner.assemble()
    ctx = context(algorithm, env_steps=env_steps, lr=1e-2, critic_lr=1e-3, lr_anneal=share)
    h = learner.schedule(view_of(learner, LearnerState({}, {}, {}, {}), streams(algorithm), ctx)).hparams
    np.testing.assert_allclose((h["lr"], h["critic_lr"]), (1e-2 * left, 1e-3 * left), rtol=1e-6, atol=1e-12)
    assert h["clip_eps"] == ctx.hparams["clip_eps"]


def test_streams_that_cannot_be_dealt_out_evenly_are_refused():
    with pytest.raises(RefusedError, match=r"algo\.minibatches=4 does not divide num_envs=6"):
        dealt(KEY, 6, made("ippo", epochs=1, minibatches=4).phases[0])


# ---- networks


def test_the_critics_of_mappo_see_the_state_and_the_actors_do_not():
    learner = made("mappo", **FEED_FORWARD)
    segment = streams(learner.assemble())
    targets, _ = targets_of(learner, segment)
    other = segment.replace(state=segment.state + 1.0)
    one, two = gradients(learner, segment, targets), gradients(learner, other, targets)
    np.testing.assert_array_equal(flat(one["actor"]), flat(two["actor"]))
    assert not np.allclose(flat(one["critic"]), flat(two["critic"]), rtol=0.1)
    assert set(groups_of(learner, learner.steps[learner.main])) == {"actor", "critic"}
    joint = made("ippo")
    assert groups_of(joint, joint.steps[joint.main]) == {"joint": ("actor", "critic")}


def test_the_initialisers_are_jaxmarls():
    params = jax.jit(made("mappo").assemble().init)(KEY).params
    for network, head in (("actor", 0.01), ("critic", 1.0)):
        for layer, gain in (("embed", 2**0.5), ("body", 2.0), ("head", head)):
            kernel, bias = params[network][layer]["kernel"], params[network][layer]["bias"]
            np.testing.assert_allclose(np.linalg.svd(kernel, compute_uv=False), gain, rtol=1e-4)
            assert not bias.any()


@pytest.mark.slow
def test_a_continuous_action_is_judged_as_it_was_drawn():
    """Before it was cut to its bounds: 1.7 stands for what was played as 1."""
    spec = dataclasses.replace(SPEC, action=Box(2, (-1.0, -1.0), (1.0, 1.0)))
    learner = made("ippo", spec, **FEED_FORWARD)
    algorithm = learner.assemble()
    drawn = jnp.full((STEPS, STREAMS, AGENTS, 2), 1.7)
    segment = streams(made("ippo", **FEED_FORWARD).assemble())
    blank = jnp.zeros((*segment.obs.shape[:3], 0), bool)
    segment = segment.replace(
        action=jnp.clip(drawn, -1, 1), avail=blank, next_avail=blank, extras={"drawn": drawn},
        carry=algorithm.initial_carry(STREAMS),
    )  # fmt: skip
    state = init(algorithm)
    targets, _ = targets_of(learner, segment)
    y = read.actor_says(view_of(learner, state, segment, None))
    mean, log_std = np.split(np.asarray(y), 2, axis=-1)
    expected = (-0.5 * np.square((1.7 - mean) / np.exp(log_std)) - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)
    np.testing.assert_allclose(targets.log_prob, expected, rtol=1e-4)

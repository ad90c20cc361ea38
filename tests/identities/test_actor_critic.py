"""The on-policy family: losses by their numbers, ends of episodes by hand, padding, masks, optimisers, permutations."""

import dataclasses

import actor_critic_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import value_cases
from actor_critic_cases import (
    KEY,
    SPEC,
    assert_close,
    compiled,
    context,
    episodes,
    init,
    main_loss,
    no_memory,
    one_step,
    parts_of,
    prepared,
    table,
    view_of,
)

from jaxshare.learners import actor_critic_losses as family
from jaxshare.learners.optimisers import advance, followed
from jaxshare.learners.passes import dealt
from jaxshare.learners.records import Phase
from jaxshare.models import distributions
from jaxshare.models.streams import Read
from jaxshare.modifiers import standardise
from jaxshare.types import Discrete, EnvSpec, LearnerState, RefusedError, Segment

OWN = dataclasses.replace(SPEC, common_reward=False)

# ------------------------------------------------------------------------------------------------------------ numbers


def loss_of(name, logits, action, returns, value, groups=(0,), **settings):
    """(loss, gradients) of one step of tabular policies [S, A] and values [S]; every agent has its set's."""
    actions = np.shape(logits)[-1]
    spec = EnvSpec("numbers", len(groups), 1, 1, Discrete(actions), 1, (0,) * len(groups), ("unit",))
    config = {k: v for k, v in settings.items() if k == "over_agents"}
    learner = parts_of(name, spec, **config)
    sets, agents = len(logits), len(groups)
    spread = lambda p, s: (jnp.broadcast_to(p[s][None], (agents, p[s].size)),) * 2  # noqa: E731
    learner = learner.with_network("actor", table(sets, groups, spread))
    learner = learner.with_network("critic", table(sets, groups, lambda p, s: spread(p[:, None], s)))
    segment = one_step(spec, action, [0.0] * agents).replace(carry=no_memory(spec))
    params = {"actor": jnp.array(logits, jnp.float32), "critic": jnp.array(value, jnp.float32)}
    nothing = jnp.zeros((1, 1, agents))
    targets = family.Aims(
        returns=jnp.array(returns, jnp.float32)[None, None],
        advantage=jnp.array(np.array(returns) - np.array(value)[list(groups)], jnp.float32)[None, None],
        log_prob=nothing,
        value=nothing,
    )
    hparams = {k: v for k, v in settings.items() if k != "over_agents"}
    state = LearnerState(params=params, target_params={}, opt_state={}, stats={})
    view = view_of(learner, state, segment, context(learner.assemble(), **hparams), targets=targets)
    return jax.jit(jax.value_and_grad(lambda p: main_loss(view, p)[0]))(params)


def test_iac_at_a_uniform_policy():
    loss, found = loss_of("iac", [[0.0, 0.0]], [0], [1.0], [0.5], value_coef=0.5, entropy_coef=0.01)
    np.testing.assert_allclose(loss, 0.4646421, atol=1e-6)
    np.testing.assert_allclose(found["actor"], np.array([[-0.25, 0.25]]), atol=1e-6)
    np.testing.assert_allclose(found["critic"], [-0.5], atol=1e-6)


def test_iac_with_three_actions():
    loss, found = loss_of("iac", [[1.0, 0.0, -1.0]], [2], [2.0], [0.0], value_coef=0.0, entropy_coef=0.01)
    np.testing.assert_allclose(loss, 4.8068880, rtol=1e-6)
    np.testing.assert_allclose(found["actor"], np.array([[1.3333078, 0.4880492, -1.8213570]]), rtol=1e-6)
    entropy = loss_of("iac", [[1.0, 0.0, -1.0]], [2], [0.0], [0.0], value_coef=0.0, entropy_coef=1.0)[0]
    np.testing.assert_allclose(entropy, -0.8323956, rtol=1e-6)


@pytest.mark.parametrize(("over_agents", "slope"), [("sum", 0.25), ("mean", 0.125)])
def test_snac_adds_its_agents(over_agents, slope):
    """Agent 1 takes action 0 with advantage .5, agent 2 action 1 with advantage 1."""
    _, found = loss_of(
        "snac", [[0.0, 0.0]], [0, 1], [0.5, 1.0], [0.0], groups=(0, 0), entropy_coef=0.0, over_agents=over_agents
    )
    np.testing.assert_allclose(found["actor"], np.array([[slope, -slope]]), atol=1e-6)


def first_moments(config, grads):
    """A tenth of what Adam was given."""
    learner = parts_of("iac", SPEC, **config)
    algorithm = learner.assemble()
    state = jax.eval_shape(algorithm.init, KEY)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)
    given = jax.tree.map(jnp.zeros_like, zeros.params)
    for name, leaf in grads.items():
        bias = given[name]["head"]["bias"]
        given[name]["head"]["bias"] = bias.at[:, : leaf.shape[1]].set(leaf)
    ctx = context(algorithm, grad_clip=0.5)
    view = view_of(learner, zeros, None, ctx)
    new, metrics = jax.jit(lambda: advance(view, learner.steps[learner.main], given))()
    states = list(new.opt_state.values())
    found = {name: moment for state in states for name, moment in state[1].mu.items()}
    return {name: 10 * found[name]["head"]["bias"][:, : x.shape[1]] for name, x in grads.items()}, metrics, new


LARGE = {"actor": jnp.array([[-0.25, 0.25]] * 3), "critic": jnp.array([[-0.5]] * 3)}


@pytest.mark.parametrize(
    ("optimizers", "clip", "actor", "critic"),
    [
        ("joint", "set", 0.2041241, 0.4082483),  # every agent's gradient, actor and critic together: its norm is .6124
        ("joint", "all", 0.2041241 / 3**0.5, 0.4082483 / 3**0.5),
        ("separate", "set", 0.25, 0.5),  # norms .3536 and .5: nothing to clip
        ("separate", "all", 0.25 * 0.5 / 0.6123724, 0.5 / 3**0.5),
    ],
)
def test_gradients_are_clipped_together_or_apart(optimizers, clip, actor, critic):
    found, metrics, _ = first_moments({"optimizers": optimizers, "clip": clip}, LARGE)
    np.testing.assert_allclose(found["actor"], actor * np.array([[-1.0, 1.0]] * 3), rtol=1e-5)
    np.testing.assert_allclose(found["critic"], critic * np.array([[-1.0]] * 3), rtol=1e-5)
    assert set(metrics) == {"grad_norm/joint"} if optimizers == "joint" else {"grad_norm/actor", "grad_norm/critic"}


def test_adam_has_the_sources_epsilon_and_no_agent_touches_anothers():
    one = {"actor": jnp.zeros((3, 2)).at[1].set([0.1, 0.0]), "critic": jnp.zeros((3, 1))}
    _, _, new = first_moments({}, one)
    step = np.asarray(new.params["actor"]["head"]["bias"])
    np.testing.assert_allclose(step[1, 0], -3e-4 * 0.1 / (0.1 + 1e-3), rtol=1e-5)  # torch's first step, eps 1e-3
    assert np.count_nonzero(cases.flat(new.params)) == 1


# ---------------------------------------------------------------------------------------------- two episodes by hand

GAMMA = 0.9
LINE = EnvSpec("line", 2, 1, 1, Discrete(2), 3, (0, 0), ("unit",), common_reward=False)
# an observation is its own value. The first episode terminates after two steps; the second is cut after three.
OBS = np.array([[1.0, 2.0], [3.0, 4.0], [9.0, 5.0], [90.0, 6.0]])  # [slot, episode]; the first ends at 9
REWARD = np.array([[1.0, -1.0], [2.0, 0.5], [70.0, 3.0]])
MASK = np.array([[1, 1], [1, 1], [0, 1]])
LAST = 3 + 0.9 * 6  # it bootstraps from where it was cut
RETURNS = {  # [step, episode]
    "to the end": [[1 + 0.9 * 2, -1 + 0.9 * (0.5 + 0.9 * LAST)], [2, 0.5 + 0.9 * LAST], [0, LAST]],
    "two steps": [[1 + 0.9 * 2, -1 + 0.9 * (0.5 + 0.9 * 5)], [2, 0.5 + 0.9 * LAST], [0, LAST]],
    "one step": [[1 + 0.9 * 3, -1 + 0.9 * 4], [2, 0.5 + 0.9 * 5], [0, LAST]],
}  # fmt: skip
WAYS = {"to the end": {}, "two steps": {"n_step": 2}, "one step": {"n_step": 1}}


def by_hand():
    """Agent 1 gets twice the rewards of agent 0 and sees twice what it sees."""
    twice = np.array([1.0, 2.0])
    slots = lambda x: jnp.array(x[..., None] * twice, jnp.float32)  # noqa: E731
    obs = slots(OBS)[..., None]
    ended = jnp.array([[0, 0], [1, 0], [0, 0]], bool)
    cut = jnp.array([[0, 0], [0, 0], [0, 1]], bool)
    first = jnp.array([[1, 1], [0, 0], [0, 0]], bool)
    avail, state = jnp.ones((3, 2, 2, 2), bool), jnp.zeros((3, 2, 1))
    return Segment(
        obs=obs[:-1], state=state, avail=avail, alive=jnp.ones((3, 2, 2), bool), action=jnp.zeros((3, 2, 2), jnp.int32),
        reward=slots(REWARD), terminated=ended, truncated=cut, mask=jnp.array(MASK, jnp.float32), next_obs=obs[1:],
        next_state=state, next_avail=avail, first=first, carry=no_memory(LINE, streams=2),
    )  # fmt: skip


def seeing(learner):
    """The learner with critics that say what they see."""

    def unroll(params, carry, stream):
        return carry, sight(stream)

    def every(params, carry, stream):
        return jax.tree.map(lambda x: jnp.stack([x] * 2), sight(stream))

    return learner.with_network("critic", dataclasses.replace(learner.networks["critic"], unroll=unroll, every=every))


def sight(stream):
    return Read(y=stream.x[..., :1], after=None if stream.after is None else stream.after[..., :1])


@pytest.mark.parametrize(
    ("name", "way"), [("iac", "to the end"), ("iac", "two steps"), ("iac", "one step"), ("seac", "to the end")]
)
def test_two_episodes(name, way):
    learner = seeing(parts_of(name, LINE, share_params="none", **WAYS[way]))
    state = LearnerState(params={"critic": {}, "actor": {}}, target_params={}, opt_state={}, stats={})
    ctx, whole = context(learner.assemble(), gamma=GAMMA), by_hand()
    expected = np.array(RETURNS[way])[..., None] * [1.0, 2.0]
    expected[2, 0] = 0
    prepare = jax.jit(lambda segment: prepared(learner, state, segment, ctx))
    whole_targets = prepare(whole)
    for order in ((0, 1), (1, 0)):
        stream = cases.one_after_another(whole, order)
        targets = prepare(stream)
        chained = np.concatenate([expected[np.asarray(MASK)[:, b] > 0, b] for b in order])
        for one, y in ((targets, chained[:, None]), (whole_targets, expected)):
            found = one.returns if name == "iac" else one.returns[..., 0]
            real = np.ones(y.shape[:2]) if one is targets else MASK
            np.testing.assert_allclose(found * real[..., None], y, rtol=1e-5, atol=1e-5)
            own = one if name == "iac" else one.own
            seen = (stream if one is targets else whole).obs[..., 0]
            np.testing.assert_allclose(own.advantage * real[..., None], (y - seen) * real[..., None], atol=1e-5)


# --------------------------------------------------------------------------------------- layouts, padding, permutations

KINDS = {
    "feed-forward": ("iac", {}),
    "recurrent": ("iac", {"recurrent": True, "critic_recurrent": True, "obs_last_action": True}),
    "shared, two steps": ("snac", {"n_step": 2, "obs_agent_id": True}),
    "advantages": ("iac", {"returns": "gae", "standardise_advantage": True}),
    "shared experience": ("seac", {"recurrent": True, "critic_recurrent": True}),
    "target critics": ("ia2c", {"share_params": "type"}),
    "central critics": ("maa2c", {"critic_obs": True, "critic_last_actions": True, "critic_recurrent": True}),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_whole_episodes_and_a_stream_of_them_give_the_same_gradients(kind):
    """Whatever lies between two of them: memory, previous actions and returns end with the episode."""
    name, config = KINDS[kind]
    learner = parts_of(name, OWN, **config)
    state, ctx, grads = init(learner), context(learner.assemble()), compiled(learner)
    whole = episodes(learner, spec=OWN)
    stream = cases.one_after_another(whole, (2, 0, 3, 1))
    _, found, metrics = grads(state, whole, ctx)
    _, dirty, dirty_metrics = grads(state, cases.junk(whole), ctx)
    _, chained, chained_metrics = grads(state, stream, ctx)
    assert_close(chained, found, 2e-5)
    assert_close(dirty, found, 1e-6)
    for key, value in metrics.items():
        np.testing.assert_allclose(dirty_metrics[key], value, rtol=1e-5, atol=1e-6, err_msg=key)
        np.testing.assert_allclose(chained_metrics[key], value, rtol=1e-3, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("kind", ["feed-forward", pytest.param("recurrent", marks=pytest.mark.slow)])
def test_permuting_agents_permutes_their_gradients(kind):
    order = np.array([2, 0, 1])
    name, config = KINDS[kind]
    learner = parts_of(name, OWN, **config)
    segment, state, ctx, grads = episodes(learner), init(learner), context(learner.assemble()), compiled(learner)
    moved = state.replace(params=jax.tree.map(lambda x: x[order], state.params))
    fields = ("obs", "avail", "alive", "action", "reward", "next_obs", "next_avail")
    turned = segment.replace(**{field: getattr(segment, field)[:, :, order] for field in fields})
    here, there = grads(state, segment, ctx)[1], grads(moved, turned, ctx)[1]
    assert_close(there, jax.tree.map(lambda x: x[order], here), 1e-5)


@pytest.mark.slow
def test_nothing_but_padding_learns_nothing():
    for name, config in (KINDS["feed-forward"], KINDS["advantages"]):
        learner = parts_of(name, OWN, **config)
        segment = episodes(learner)
        _, found, metrics = compiled(learner)(
            init(learner), segment.replace(mask=0 * segment.mask), context(learner.assemble())
        )
        assert not np.any(cases.flat(found))
        assert all(np.isfinite(value) for value in metrics.values())


def test_unavailable_actions_have_no_probability_and_no_gradient():
    spec = EnvSpec("masked", 1, 1, 1, Discrete(4), 1, (0,), ("unit",))
    avail = jnp.array([[True, False, True, False], [False, True, False, False]])
    logits = jnp.array([[0.3, 9.0, -0.2, 1e6], [5.0, -3.0, 0.0, 2.0]])
    policy = distributions.policy(logits, avail, spec)
    assert (np.asarray(policy.probs)[~np.asarray(avail)] == 0).all()
    drawn = policy.sample(seed=KEY, sample_shape=(500,))
    assert np.take_along_axis(np.broadcast_to(avail, (500, 2, 4)), np.asarray(drawn)[..., None], -1).all()
    assert avail[jnp.arange(2), policy.mode()].all()
    np.testing.assert_allclose(policy.entropy()[1], 0, atol=1e-6)
    np.testing.assert_allclose(policy.log_prob(jnp.array([0, 1])), [np.log(1 / (1 + np.exp(-0.5))), 0], atol=1e-6)

    def loss(logits):
        policy = distributions.policy(logits, avail, spec)
        return (policy.log_prob(jnp.array([2, 1])) + 0.1 * policy.entropy()).sum()

    slope = np.asarray(jax.grad(loss)(logits))
    assert (slope[~np.asarray(avail)] == 0).all()
    assert np.isfinite(slope).all()
    assert np.abs(slope[0, [0, 2]]).min() > 1e-3


# ------------------------------------------------------------------------------------------------ targets and epochs


@pytest.mark.parametrize(("update", "expected"), [("soft", 0.01), ("hard", 1.0), ("none", None)])
def test_target_critics(update, expected):
    """Polyak with tau .01 from 0 to 1 is .01."""
    learner = parts_of("iac", target_update=update, target_update_period=3)
    online = {"critic": {"w": jnp.ones(2)}, "actor": {"w": jnp.ones(2)}}
    target = {} if expected is None else {"critic": {"w": jnp.zeros(2)}}
    state = LearnerState(params=online, target_params=target, opt_state={}, stats={})
    algorithm = learner.assemble()
    contexts = [context(algorithm, updates=u) for u in (1, 2)]
    found = [followed(view_of(learner, state, None, ctx)).target_params for ctx in contexts]
    if expected is None:
        assert found == [{}, {}]
        return
    np.testing.assert_allclose(found[1]["critic"]["w"], expected)
    np.testing.assert_allclose(found[0]["critic"]["w"], 0.0 if update == "hard" else expected)


def test_target_critics_bootstrap_and_online_critics_are_the_baseline():
    learner = seeing(parts_of("iac", LINE, target_update="soft"))
    params = {"critic": jnp.float32(1.0), "actor": {}}

    def unroll(params, carry, stream):
        return carry, jax.tree.map(lambda x: params * x, sight(stream))

    learner = learner.with_network("critic", dataclasses.replace(learner.networks["critic"], unroll=unroll))
    state = LearnerState(params=params, target_params={"critic": jnp.float32(10.0)}, opt_state={}, stats={})
    targets = prepared(learner, state, by_hand(), context(learner.assemble(), gamma=GAMMA))
    np.testing.assert_allclose(targets.returns[2, 1], np.array([1, 2]) * (3 + 0.9 * 60), rtol=1e-6)
    np.testing.assert_allclose(targets.value[2, 1], [5, 10], rtol=1e-6)
    np.testing.assert_allclose(targets.advantage, targets.returns - targets.value, rtol=1e-6)


def test_minibatches_deal_every_stream_once_an_epoch():
    rows = np.asarray(dealt(KEY, 6, Phase(steps={}, epochs=3, minibatches=2)))
    assert rows.shape == (6, 3)
    for epoch in rows.reshape(3, 6):
        assert sorted(epoch) == list(range(6))
    assert len({tuple(epoch) for epoch in rows.reshape(3, 6)}) > 1
    with pytest.raises(RefusedError, match=r"algo.minibatches=4 does not divide num_envs=6"):
        dealt(KEY, 6, Phase(steps={}, epochs=1, minibatches=4))


@pytest.mark.slow
def test_one_epoch_of_one_minibatch_is_one_update_and_more_are_counted():
    learner = parts_of("iac", OWN)
    several = parts_of("iac", OWN, epochs=2, minibatches=2)
    segment, state = episodes(learner), init(learner)
    ctx = context(learner.assemble())

    def hook(view):
        return view.state, {"hook/update": view.clock.updates, "hook/steps": view.batch.mask.sum()}

    several = several.extend(after_update=hook)
    _, metrics = jax.jit(several.assemble().update)(state, segment, ctx, KEY)
    assert metrics["hook/update"].tolist() == [0, 1, 2, 3]
    steps = metrics["hook/steps"].reshape(2, 2).sum(1)
    np.testing.assert_array_equal(steps, [segment.mask.sum()] * 2)
    assert several.assemble().updates_per_batch == 4


# -------------------------------------------------------------------------------------------- standardised rewards


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize("centre", [True, False])
def test_standardised_rewards(common, centre):
    """Padding does not count, the moments include the batch, and agents with rewards of their own have their own."""
    spec = dataclasses.replace(SPEC, common_reward=common)
    learner = standardise.make(standardise.Config(centre=centre), parts_of("iac", spec))
    segment = episodes(learner)
    if common:
        segment = segment.replace(reward=jnp.broadcast_to(segment.reward[..., :1], segment.reward.shape))
    (relabel,), real = learner.relabel, np.asarray(segment.mask) > 0
    before = LearnerState(params={}, target_params={}, opt_state={}, stats=learner.stats)
    seen, stats = relabel(view_of(learner, before, cases.junk(segment), None))
    again, _ = relabel(view_of(learner, before.replace(stats=stats), segment, None))
    for agent in range(3):
        given = np.asarray(segment.reward)[..., agent][real]
        total = len(given) + 1e-4
        mean = given.mean() * len(given) / total
        var = (1e-4 + given.var(ddof=1) * len(given) + given.mean() ** 2 * 1e-4 * len(given) / total) / total
        expected = (given - centre * mean) / np.sqrt(var)
        np.testing.assert_allclose(np.asarray(seen.reward)[..., agent][real], expected, rtol=1e-4, atol=1e-5)
        own = 0 if common else agent
        np.testing.assert_allclose(stats["standardise"].mean[own], mean, rtol=1e-4, atol=1e-6)
    assert stats["standardise"].mean.shape == ((1,) if common else (3,))
    assert (np.asarray(seen.reward)[~real] == 0).all()
    assert np.abs(again.reward - seen.reward).max() < 1e-3  # the same batch again has the same moments


@pytest.mark.slow
def test_a_learner_keeps_the_moments_and_learns_from_standardised_rewards():
    plain = parts_of("iac", OWN)
    learner = standardise.make(standardise.Config(), plain)
    state, segment, ctx = init(learner), episodes(learner), context(learner.assemble())
    after, metrics = jax.jit(learner.assemble().update)(state, segment, ctx, KEY)
    seen, stats = learner.relabel[0](view_of(learner, state, segment, ctx))
    assert_same(after.stats, stats)
    np.testing.assert_allclose(after.stats["standardise"].count, segment.mask.sum() + 1e-4)
    expected, found = jax.jit(plain.assemble().update)(state.replace(stats={}), seen, ctx, KEY)
    assert_same(after.params, expected.params)
    np.testing.assert_allclose(metrics["value/target_mean"], found["value/target_mean"], rtol=1e-5)
    more, _ = jax.jit(learner.assemble().update)(after, segment, ctx, KEY)
    np.testing.assert_allclose(more.stats["standardise"].count, 2 * segment.mask.sum() + 1e-4)


def assert_same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


@pytest.mark.slow
def test_learners_with_a_replay_take_it_too():
    learner = standardise.make(standardise.Config(), value_cases.learner_parts("vdn"))
    algorithm, batch = learner.assemble(), value_cases.random_batch()
    state = value_cases.init(algorithm).replace(stats=learner.stats)
    update = jax.jit(algorithm.update)
    after, metrics = update(state, batch, value_cases.context(algorithm), KEY)
    np.testing.assert_allclose(after.stats["standardise"].count, batch.mask.sum() + 1e-4)
    reward = np.asarray(batch.reward)[..., 0][np.asarray(batch.mask) > 0]
    np.testing.assert_allclose(after.stats["standardise"].mean, [reward.mean()], rtol=1e-3, atol=1e-5)
    scaled = update(state, batch.replace(reward=10 * batch.reward), value_cases.context(algorithm), KEY)[1]
    np.testing.assert_allclose(scaled["loss/td"], metrics["loss/td"], rtol=1e-2)  # the scale of rewards is gone
    assert algorithm.observe is None  # what is collected is not counted: what is learned from is

"""Periodic parameter sharing between actor-critics: both networks, or one, and whose scores count."""

import dataclasses

import actor_critic_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from actor_critic_cases import KEY, SPEC, context, episodes, init, parts_of

from jaxshare import registry
from jaxshare.modifiers.differ import modifier as differ
from jaxshare.modifiers.periodic import averages, scores
from jaxshare.modifiers.periodic.sharing import decided
from jaxshare.training.rollout import Rollout
from jaxshare.types import RefusedError

ALIKE = dataclasses.replace(SPEC, common_reward=False, groups=(0, 0, 0), group_names=("unit",))


def pps(parts, name="a_pps", **config):
    module = registry.get("modifiers", name)
    return module.make(module.Config(**config), parts)


def equal(tree):
    return [bool((np.asarray(x) == x[:1]).all()) for x in jax.tree.leaves(tree)]


@pytest.mark.slow
def test_agents_that_share_everything_after_every_update_stay_one_agent():
    """Snac has one network throughout; seac with an average after every update has three that are equal."""
    parts = pps(parts_of("seac", ALIKE), period=1)
    algorithm = parts.assemble()
    learner, ctx, update = jax.jit(algorithm.init)(KEY), context(algorithm, grad_clip=0.5), jax.jit(algorithm.update)
    first = learner.params
    assert all(equal({n: first[n] for n in ("actor", "critic")}))
    for seed in range(3):
        learner, metrics = update(learner, episodes(parts, seed, ALIKE), ctx, KEY)
        assert all(equal(learner.params))
        assert metrics["a_pps/distance_before"] > 0
        np.testing.assert_allclose(metrics["a_pps/distance_after"], 0, atol=1e-7)
        np.testing.assert_allclose(metrics["ratio/max"], 1, atol=1e-5)
        ctx = ctx.replace(clock=ctx.clock._replace(updates=ctx.clock.updates + 1))
    assert np.abs(cases.flat(learner.params) - cases.flat(first)).max() > 1e-4
    assert not all(equal(learner.opt_state["joint"][1].mu))  # moments=keep: those stay personal


@pytest.fixture(scope="module")
def averaged():
    """(learner before, learner after one average, shared tensors) of ia2c without sharing, with target critics."""

    def found(**config):
        parts = pps(parts_of("ia2c", ALIKE, share_params="none", hidden_dim=2), **config)
        sharing = decided("a_pps", registry.get("modifiers", "a_pps").Config(**config), parts)
        learner = init(parts)
        learner = learner.replace(opt_state=jax.tree.map(lambda x: x + jnp.arange(x.size, dtype=x.dtype).reshape(x.shape), learner.opt_state))  # fmt: skip  # noqa: E501
        view = cases.value_cases.view_of(parts, learner, None, context(parts.assemble()))
        after = jax.jit(lambda: averages.aggregate(sharing, view, jnp.ones(3)))()
        return learner, after, sharing.tensors

    return found


def mean(tree):
    return jax.tree.map(lambda x: np.broadcast_to(np.mean(x, 0, keepdims=True), x.shape), tree)


def assert_same(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **{"rtol": 1e-5, "atol": 1e-6, **tolerance}), a, b)


@pytest.mark.slow
@pytest.mark.parametrize("networks", ["all", ("actor",), ("critic",)])
def test_both_networks_or_one(averaged, networks):
    before, after, tensors = averaged(networks=networks, moments="average", targets="aggregate")
    chosen = {"actor", "critic"} if networks == "all" else {*networks}
    assert set(tensors) == chosen
    for name in ("actor", "critic"):
        moved = (lambda x: mean(x)) if name in chosen else (lambda x: x)
        assert_same(after.params[name], moved(before.params[name]))
        old, new = before.opt_state[name][1], after.opt_state[name][1]
        assert_same(new.mu[name], moved(old.mu[name]))
        assert_same(new.nu[name], moved(old.nu[name]))
        np.testing.assert_array_equal(new.count, old.count)
    shared = mean(before.target_params) if "critic" in chosen else before.target_params
    assert_same(after.target_params, shared)


def test_a_part_of_both(averaged):
    before, after, tensors = averaged(share="head")
    assert tensors == {n: frozenset({"head.linear.kernel", "head.linear.bias"}) for n in ("actor", "critic")}
    for name in ("actor", "critic"):
        for module, own in before.params[name].items():
            assert_same(after.params[name][module], mean(own) if module == "head" else own)
    assert_same(after.target_params, before.target_params, rtol=0, atol=0)
    _, _, tensors = averaged(share=("gru.*_kernel", "body"))  # of the actor, of the critic
    assert {name.split(".")[0] for name in tensors["actor"]} == {"gru"}
    assert {name.split(".")[0] for name in tensors["critic"]} == {"body"}


def test_own_scores_of_a_learner_from_segments_are_rewards_of_pieces():
    parts = pps(parts_of("iac", ALIKE), "rs_pps", buffer=8)
    algorithm = parts.assemble()
    learner, ctx, sums = init(parts), context(algorithm), []
    for seed in range(2):
        piece = episodes(parts, seed, ALIKE)
        sums.append(np.asarray(piece.reward * piece.mask[..., None]).sum(0))
        learner = algorithm.observe(learner, cases.junk(piece), ctx)
        ctx = ctx.replace(clock=ctx.clock._replace(episodes=ctx.clock.episodes + 4))
    found = scores.own_scores(learner.stats["rs_pps"]["returns"], ctx.clock)
    np.testing.assert_allclose(found, np.concatenate(sums).mean(0), rtol=1e-4, atol=1e-5)


def test_solo_episodes_put_one_actor_everywhere_and_are_played_before_the_updates_that_average():
    parts = pps(
        parts_of("iac", dataclasses.replace(ALIKE, common_reward=True), epochs=2, minibatches=2), "rs_pps", period=4
    )
    learner, algorithm, played = init(parts), parts.assemble(), []

    def play(params, key, episodes):
        played.append(params)
        batch = cases.value_cases.random_batch()
        reward = jnp.broadcast_to(params["actor"]["head"]["bias"][2, 0], batch.reward.shape)
        return Rollout(episode=batch.replace(reward=reward, mask=jnp.ones_like(batch.mask)), info={})

    def score(updates):
        return algorithm.before_update(learner, play, context(algorithm, updates=updates), KEY).stats["rs_pps"]["score"]

    per_agent = np.asarray(learner.params["actor"]["head"]["bias"])[:, 0] * 5 * 4 / 10  # steps, batch, episodes asked
    for updates, due in ((0, True), (1, True), (4, True), (3, True)):
        np.testing.assert_allclose(score(updates), per_agent if due else np.zeros(3), rtol=1e-5)
    parts = pps(parts_of("iac", dataclasses.replace(ALIKE, common_reward=True)), "rs_pps", period=4)
    algorithm = parts.assemble()
    assert not score(0).any()
    np.testing.assert_allclose(score(3), per_agent, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "algo", "config", "modifier", "words"),
    [
        ("a_pps", "snac", {}, {}, r"share_params=all.*modifiers=\[a_pps\].*share_params=none"),
        ("rs_pps", "iac", {}, {"score": "individual"}, r"algo=iac.*score=individual.*without a mixer"),
        ("a_pps", "iac", {}, {"networks": ("mixer",)}, r"a_pps.networks=mixer.*algo=iac.*actor, critic"),
        ("a_pps", "iac", {}, {"networks": ()}, r"a_pps.networks="),
        ("a_pps", "iac", {}, {"share": "gru"}, r"a_pps.share=gru.*body, embed, head"),
        ("a_pps", "iac", {}, {"targets": "aggregate"}, r"targets=aggregate.*algo=iac.*target_update=none"),
    ],
)
def test_what_cannot_be_averaged_is_refused(name, algo, config, modifier, words):
    with pytest.raises(RefusedError, match=words):
        pps(parts_of(algo, ALIKE, **config), name, **modifier)


def test_differ_is_refused_with_the_reason():
    with pytest.raises(RefusedError, match=r"modifiers=\[differ\].*algo=seac.*no mixer of utilities"):
        differ.make(differ.Config(), parts_of("seac", ALIKE))
    with pytest.raises(RefusedError, match=r"a_pps and rs_pps both average"):
        pps(pps(parts_of("seac", ALIKE)), "rs_pps")

"""SEAC by its numbers, and what it is equal to: IAC without sharing, SNAC between equals."""

import dataclasses
from functools import partial

import actor_critic_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
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

from jaxshare.algos.seac import algorithm as seac
from jaxshare.types import Discrete, EnvSpec, LearnerState, RefusedError

# ------------------------------------------------------------------------------------------------------------ numbers

PAIR = EnvSpec("pair", 2, 1, 1, Discrete(2), 3, (0, 0), ("unit",), common_reward=False)
VALUE = [[0.5, 0.2], [1.0, 0.99]]  # [learner, agent whose step it is]; the second learner is never surprised
AFTER = [[0.0, 0.4], [0.0, 1.0]]  # of what the steps led to
REWARD = [1.0, 0.0]


def small(**config):
    """Two agents with policies (.5, .5) and (.75, .25); both took action 0."""
    learner = parts_of("seac", PAIR, **config)
    actor = table(2, (0, 1), lambda p, s: (jnp.broadcast_to(p[s], (2, 2)),) * 2)
    critic = table(2, (0, 1), lambda p, s: (p[s][:, None], jnp.array(AFTER)[s][:, None]))
    return learner.with_network("actor", actor).with_network("critic", critic)


@pytest.fixture(scope="module")
def numbers():
    params = {"actor": jnp.log(jnp.array([[0.5, 0.5], [0.75, 0.25]])), "critic": jnp.array(VALUE)}
    segment = one_step(PAIR, [0, 0], REWARD)

    def found(learner, **hparams):
        here, ctx = segment.replace(carry=no_memory(PAIR)), context(learner.assemble(), **hparams)
        state = LearnerState(params=params, target_params={}, opt_state={}, stats={})

        @jax.jit
        def run(params):
            targets = prepared(learner, state, here, ctx)
            view = view_of(learner, state, here, ctx, targets=targets)
            return targets, jax.value_and_grad(partial(main_loss, view), has_aux=True)(params)

        return run(params)

    return found


ENTROPY = -np.log(0.5), -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))  # of the agents


@pytest.mark.parametrize(
    ("bootstrap", "delta", "shared_policy", "shared_square", "slope"),
    [("learner", 0.196, 0.0905712, 0.0256107, -0.3153333), ("owner", 0.79, 0.3650575, 0.4160667, -0.25 - 0.2633333)],
)
def test_two_agents_with_a_step_each(numbers, bootstrap, delta, shared_policy, shared_square, slope):
    targets, ((total, metrics), found) = numbers(small(bootstrap=bootstrap), sharing=1.0)
    np.testing.assert_allclose(targets.returns[0, 0, :, 0] - np.array(VALUE[0]), [0.5, delta], atol=1e-6)
    np.testing.assert_allclose(targets.returns[0, 0, :, 1] - np.array(VALUE[1]), [0, 0], atol=1e-6)
    first = 0.3465736 + shared_policy + 0.5 * (0.25 + shared_square) - 0.01 * ENTROPY[0]
    if bootstrap == "learner":
        np.testing.assert_allclose(first, 0.5680187, atol=1e-6)
    np.testing.assert_allclose(total, first - 0.01 * ENTROPY[1], atol=1e-6)
    np.testing.assert_allclose(found["actor"][0], [slope, -slope], atol=1e-6)
    np.testing.assert_allclose(found["critic"][0], [-0.5, -2 / 3 * delta], atol=1e-6)  # c_v (V - y) rho, twice
    np.testing.assert_allclose(metrics["policy/entropy"], np.mean(ENTROPY), rtol=1e-5)
    # others' ratios are 2/3 and 3/2
    np.testing.assert_allclose([metrics["ratio/mean"], metrics["ratio/max"]], [(2 / 3 + 1.5) / 2, 1.5], rtol=1e-5)
    assert metrics["ratio/from_50_percent"] == metrics["ratio/from_150_percent"] + metrics["ratio/from_125_percent"]


def test_sharing_weighs_others_but_not_their_entropy(numbers):
    alone, half, whole = (numbers(small(), sharing=x)[1][1]["actor"][0] for x in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(alone, [-0.25, 0.25], atol=1e-6)
    np.testing.assert_allclose(half, [-0.25 - 0.0653333 / 2, 0.25 + 0.0653333 / 2], atol=1e-6)
    np.testing.assert_allclose(whole, [-0.3153333, 0.3153333], atol=1e-6)
    with_entropy = numbers(small(), sharing=1.0, entropy_coef=1.0)[1][1]["actor"][0]
    np.testing.assert_allclose(with_entropy, whole, atol=1e-6)  # the first policy has the largest there is


def test_ratios_are_clipped_on_request_only(numbers):
    _, ((_, metrics), found) = numbers(small(rho_clip=0.5), sharing=1.0)
    np.testing.assert_allclose(metrics["ratio/max"], 0.5)
    np.testing.assert_allclose(found["actor"][0], [-0.25 - 0.5 * 0.196 * 0.5, 0.25 + 0.5 * 0.196 * 0.5], atol=1e-6)


@pytest.mark.slow
def test_no_gradient_goes_through_the_returns():
    """The critic's gradient is that of its predictions: it moves no value of what a step led to."""
    learner = parts_of("seac")
    state, segment, ctx = init(learner), episodes(learner), context(learner.assemble())
    slope = jax.grad(lambda p: prepared(learner, state.replace(params=p), segment, ctx).returns.sum())
    assert np.abs(cases.flat(jax.jit(slope)(state.params)["critic"])).max() > 1e-3  # so that there is something to stop
    # the whole of an update: Adam's first moment is a tenth of the gradient
    found, fixed = jax.jit(
        lambda: (
            learner.assemble().update(state, segment, ctx, KEY)[0].opt_state,
            cases.gradients(learner, state, segment, ctx)[1],
        )
    )()
    assert_close(jax.tree.map(lambda m: 10 * m, found["joint"][1].mu), fixed, 1e-5)


# ---------------------------------------------------------------------------------------------------------- identities

OWN = dataclasses.replace(SPEC, common_reward=False)
ALIKE = dataclasses.replace(OWN, groups=(0, 0, 0), group_names=("unit",))


def several_updates(name, segments, **hparams):
    learner = parts_of(name, ALIKE)
    algorithm = learner.assemble()
    update, state, ctx = jax.jit(algorithm.update), init(learner), context(algorithm, grad_clip=0.5, **hparams)
    for segment in segments:
        state, _ = update(state, segment, ctx, KEY)
    return state


def test_without_sharing_it_is_iac():
    segments = [episodes(parts_of("iac"), seed) for seed in range(4)]
    alone, other = several_updates("iac", segments), several_updates("seac", segments, sharing=0.0)
    for x, y in ((alone.params, other.params), (alone.opt_state, other.opt_state)):
        np.testing.assert_allclose(cases.flat(x), cases.flat(y), rtol=1e-5, atol=1e-6)
    shared = several_updates("seac", segments, sharing=1.0)
    assert np.abs(cases.flat(shared.params) - cases.flat(alone.params)).max() > 1e-4


def equal(params):
    return jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), params)


@pytest.mark.slow
def test_between_equals_every_ratio_is_one_and_the_gradient_is_snacs_but_for_others_entropy():
    learner, snac = parts_of("seac", ALIKE), parts_of("snac", ALIKE)
    segment = episodes(learner)
    state = init(learner)
    state = state.replace(params=equal(state.params))
    one = init(snac).replace(params=jax.tree.map(lambda x: x[0], state.params))
    both = compiled(learner), compiled(snac)
    found = [
        f(p, segment, context(learner.assemble(), entropy_coef=0.0)) for f, p in zip(both, (state, one), strict=True)
    ]
    for i in range(3):
        assert_close(jax.tree.map(lambda x, i=i: x[i], found[0][1]), found[1][1], 1e-5)
    metrics = found[0][2]
    np.testing.assert_allclose([metrics["ratio/mean"], metrics["ratio/max"]], 1, atol=1e-6)
    # with an entropy term, each has its own third of snac's: their sum over the agents is the rest and one whole
    entropy = context(learner.assemble(), entropy_coef=0.1)
    more = [f(p, segment, entropy)[1] for f, p in zip(both, (state, one), strict=True)]
    own = jax.tree.map(lambda a, b: (a - b).sum(0), more[0], found[0][1])
    assert_close(own["actor"], jax.tree.map(lambda a, b: a - b, more[1], found[1][1])["actor"], 1e-4)


@pytest.mark.slow
def test_permuting_agents_permutes_their_updates():
    order = np.array([2, 0, 1])
    learner = parts_of("seac", ALIKE)
    algorithm, segment = learner.assemble(), episodes(learner)
    state, ctx, update = init(learner), context(algorithm, grad_clip=0.5), jax.jit(algorithm.update)
    moved = state.replace(
        params=jax.tree.map(lambda x: x[order], state.params),
        opt_state=jax.tree.map(lambda x: x[order], state.opt_state),
    )
    fields = ("obs", "avail", "alive", "action", "reward", "next_obs", "next_avail")
    turned = segment.replace(**{name: getattr(segment, name)[:, :, order] for name in fields})
    here, there = update(state, segment, ctx, KEY)[0], update(moved, turned, ctx, KEY)[0]
    assert_close(there.params, jax.tree.map(lambda x: x[order], here.params), 1e-5)
    assert_close(here.params, jax.tree.map(lambda x: x[np.array([1, 2, 0])], there.params), 1e-5)
    assert np.abs(cases.flat(here.params) - cases.flat(state.params)).max() > 1e-5


@pytest.mark.slow
def test_agents_of_other_types_are_not_learned_from():
    """Types 0, 0, 1: whatever the third does, the first two learn the same, and it learns alone."""
    learner, iac = parts_of("seac", OWN), parts_of("iac", OWN)
    segment, state, ctx = episodes(learner), init(learner), context(learner.assemble(), sharing=1.0)
    grads = compiled(learner)
    found = grads(state, segment, ctx)[1]
    other = with_another_third(segment)
    changed = grads(state, other, ctx)[1]
    for i in range(2):
        assert_close(*(jax.tree.map(lambda x, i=i: x[i], g) for g in (changed, found)), 1e-6)
    alone = compiled(iac)(state, segment, context(iac.assemble()))[1]
    assert_close(*(jax.tree.map(lambda x: x[2], g) for g in (found, alone)), 1e-5)


def with_another_third(segment):
    rng = np.random.default_rng(9)
    change = {name: getattr(segment, name) for name in ("obs", "next_obs", "reward")}
    change = {name: x.at[:, :, 2].add(rng.normal(size=x[:, :, 2].shape)) for name, x in change.items()}
    return segment.replace(**change)


@pytest.mark.slow
def test_networks_may_be_shared_within_a_type():
    """Sets 0, 0, 1: own steps of a set are those of all agents that use it, with weight one."""
    learner, iac = parts_of("seac", OWN, share_params="type"), parts_of("iac", OWN, share_params="type")
    segment, state = episodes(learner), init(learner)
    found = compiled(learner)(state, segment, context(learner.assemble(), sharing=1.0))[1]
    alone = compiled(iac)(state, segment, context(iac.assemble()))[1]
    assert_close(found, alone, 1e-5)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"bootstrap": "critic"}, "algo.bootstrap=critic.*learner, owner"),
        ({"rho_clip": -1.0}, "algo.rho_clip=-1.0"),
        ({"epochs": 2}, "algo.epochs=2.*seac.*epochs=1"),
        ({"minibatches": 2}, "algo.minibatches=2"),
        ({"returns": "gae"}, "algo.returns=gae"),
        ({"target_update": "soft"}, "algo.target_update=soft"),
        ({"segment_length": 0}, "algo.segment_length=0"),
        ({"activation": "gelu"}, "algo.activation=gelu.*relu, tanh"),
    ],
)
def test_settings_that_cannot_work_are_refused(config, words):
    with pytest.raises(RefusedError, match=words):
        seac.Config(**config)

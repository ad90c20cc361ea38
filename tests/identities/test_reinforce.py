"""Independent REINFORCE: returns to go by hand, the analytic gradient of a matrix game, and no critic unless asked."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from actor_critic_cases import KEY, compiled, context, episodes, init, junk, parts_of, prepared
from test_central import CLIMBING, GAME, common, every_joint_action, line

from jaxshare.algos import reinforce
from jaxshare.types import LearnerState, RefusedError


def learner_of(**config):
    return parts_of("reinforce", GAME, recurrent=False, **config)


def no_parameters():
    return LearnerState({"actor": {}}, {}, {}, {})


@pytest.mark.parametrize("terminated", [True, False])
def test_returns_to_go_by_hand(terminated):
    """1 + .5 (2 + .5 * 4) = 3, 2 + .5 * 4 = 4, 4; a time limit is an end as well: nothing is bootstrapped."""
    learner = learner_of()
    segment = line([1.0, 2.0, 4.0], [9.0] * 4, terminated=terminated)
    found = prepared(learner, no_parameters(), segment, context(learner.assemble(), gamma=0.5))
    np.testing.assert_allclose(found.returns[:, 0, 0], [3.0, 4.0, 4.0])
    np.testing.assert_array_equal(found.advantage, found.returns)


OWN = np.random.default_rng(1).integers(-9, 9, (3, 3, 2)).astype(np.float32)  # payoffs of each agent's own


@pytest.mark.parametrize("payoffs", [common(CLIMBING), OWN])
def test_the_gradient_in_a_matrix_game_is_the_analytic_one(payoffs):
    """Of E[R_i] by the logits of agent i: pi_i(a) (E[R_i | a] - E[R_i]); every joint action as often as it is played.

    At policies that are not uniform: columns are weighted by how likely they are.
    """
    learner = learner_of()
    logits = np.random.default_rng(0).normal(size=(2, 3))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    shapes = jax.eval_shape(learner.networks["actor"].init, KEY)
    actor = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)
    actor["head"]["linear"]["bias"] = jnp.array(logits, jnp.float32)
    state = LearnerState({"actor": actor}, {}, {}, {})

    # rewards are scaled so that the mean over joint actions is the mean over play
    pairs = np.array(list(itertools.product(range(3), repeat=2)))
    weight = probs[0, pairs[:, 0]] * probs[1, pairs[:, 1]] * len(pairs)
    segment = every_joint_action(payoffs)
    segment = segment.replace(reward=segment.reward * jnp.array(weight, jnp.float32)[None, :, None])
    _, found, _ = compiled(learner)(state, segment, context(learner.assemble()))

    rows = [payoffs[..., 0] @ probs[1], payoffs[..., 1].T @ probs[0]]
    expected = [p * (row - p @ row) for p, row in zip(probs, rows, strict=True)]
    np.testing.assert_allclose(-found["actor"]["head"]["linear"]["bias"], expected, rtol=1e-4, atol=1e-4)


def test_without_a_baseline_there_is_no_critic():
    learner = learner_of()
    assert set(learner.networks) == {"actor"}
    assert set(learner.assemble().initial_carry(2)) == {"actor", "previous"}
    assert set(learner_of(baseline="value").networks) == {"actor", "critic"}


def test_a_baseline_is_taken_from_returns_and_learns_them():
    learner = parts_of("reinforce", baseline="value")
    state, segment = init(learner), episodes(learner)
    aims, found, metrics = compiled(learner)(state, segment, context(learner.assemble()))
    np.testing.assert_allclose(aims.advantage, aims.returns - aims.value, rtol=1e-6)
    mask = np.asarray(segment.mask)[..., None]
    square = (np.square(aims.value - aims.returns) * mask).sum() / (3 * mask.sum())
    np.testing.assert_allclose(metrics["loss/critic"], square, rtol=1e-5)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(found["critic"]))


def test_an_agent_learns_alone():
    """Another one's rewards and actions change nothing of it."""
    learner = parts_of("reinforce")
    state, segment, ctx = init(learner), episodes(learner), context(learner.assemble())
    run = compiled(learner)
    other = segment.replace(reward=segment.reward.at[..., 1].add(5.0))
    before, after = run(state, segment, ctx)[1]["actor"], run(state, other, ctx)[1]["actor"]
    for old, new in zip(*map(jax.tree.leaves, (before, after)), strict=True):
        np.testing.assert_array_equal(old[0], new[0])
        np.testing.assert_array_equal(old[2], new[2])
    assert any(np.any(old[1] != new[1]) for old, new in zip(*map(jax.tree.leaves, (before, after)), strict=True))


def test_padding_counts_for_nothing():
    learner = parts_of("reinforce", baseline="value")
    state, segment, ctx = init(learner), episodes(learner), context(learner.assemble())
    run = compiled(learner)
    clean, dirty = (run(state, s, ctx)[1] for s in (segment, junk(segment)))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), clean, dirty)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rollout", "segments"), ("n_step", 5), ("returns", "gae"), ("target_update", "soft"), ("epochs", 2),
        ("minibatches", 2), ("critic_recurrent", True),
    ],
)  # fmt: skip
def test_what_would_bootstrap_or_learn_twice_is_refused(key, value):
    with pytest.raises(RefusedError, match=rf"algo\.{key}={str(value).lower() if value is True else value}"):
        reinforce.Config(**{key: value})


@pytest.mark.slow
def test_it_learns_where_the_best_action_does_not_depend_on_others(tmp_path):
    """Both agents of the game `linear` do better with their second action whatever the other does: 9."""
    run_dir = tiny.train(
        tmp_path / "run", "algo=reinforce", "env=matrix", "env.game=linear", "total_env_steps=20000", "seeds=3",
        "eval.every=10000", "eval.episodes=1", "checkpoint.every=0", "progress=false",
    )  # fmt: skip
    found = [record["eval/return"] for record in tiny.records(run_dir) if "eval/return" in record][-3:]
    assert found == [9.0] * 3

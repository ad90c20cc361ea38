"""The value family from single transitions: the update of whole episodes, one agent's own, and SEQL's M/N."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from value_cases import (
    ACTIONS,
    AGENTS,
    BATCH,
    SPEC,
    assert_close,
    context,
    flat,
    init,
    learner_parts,
    random_batch,
    step,
    view_of,
)

from jaxshare import registry
from jaxshare.algos.seql import algorithm as seql
from jaxshare.training import replay
from jaxshare.types import Clock, LearnerState, RefusedError

NO_MEMORY = {"recurrent": False, "obs_last_action": False, "obs_agent_id": False}
IDQN = {**NO_MEMORY, "share_params": "none", "double_q": False, "window": 1}
TEAM = dataclasses.replace(SPEC, groups=(0, 0, 0), group_names=("unit",))


def own_rewards(batch):
    drawn = np.random.default_rng(3).normal(size=batch.reward.shape)
    return batch.replace(reward=jnp.asarray(drawn, jnp.float32) * batch.mask[..., None])


def transitions_of(batch):
    """Every step of these episodes once, as windows out of a replay."""
    ring = replay.add(replay.init(batch, BATCH, "float32"), batch, Clock(*[jnp.int32(0)] * 4))
    steps = np.asarray(replay.steps_stored(ring))
    slot = np.repeat(np.arange(BATCH), steps)
    at = np.concatenate([np.arange(count) for count in steps])
    return replay.gather_windows(ring, jnp.array(slot), jnp.array(at), 1)


# ---- theorem: without memory the steps of a batch of episodes are as good as the episodes


@pytest.mark.parametrize(
    ("algo", "config"),
    [
        ("iql", {}),
        pytest.param("vdn", {}, marks=pytest.mark.slow),
        pytest.param("qmix", {}, marks=pytest.mark.slow),
        pytest.param("qplex", {}, marks=pytest.mark.slow),
        pytest.param("wqmix", {}, marks=pytest.mark.slow),
        pytest.param("seql", {"views": "all"}, marks=pytest.mark.slow),
    ],
)
def test_all_transitions_are_the_whole_episodes(algo, config):
    algorithm = learner_parts(algo, share_params="none", window=1, **NO_MEMORY, **config).assemble()
    batch = own_rewards(random_batch()) if algo in ("iql", "seql") else random_batch()
    state, ctx, windows = init(algorithm), context(algorithm), transitions_of(batch)
    assert windows.mask.shape == (1, int(batch.mask.sum()))
    whole, metrics, _ = step(algorithm, state, batch, ctx)
    pieces, of_pieces, _ = step(algorithm, state, windows, ctx)
    assert_close(pieces, whole, 1e-4)
    np.testing.assert_allclose(of_pieces["loss/td"], metrics["loss/td"], rtol=1e-4)


# ---- the lecture's IDQN


def test_the_loss_of_one_agent_is_the_lectures():
    """1/B sum (r + gamma (1 - end) max_a' Q'(o', a') - Q(o, a))^2, of agent 1, by a loop."""
    parts = learner_parts("iql", clip="agent", **IDQN)
    algorithm, windows = parts.assemble(), transitions_of(own_rewards(random_batch()))
    state, ctx = init(algorithm), context(algorithm, gamma=0.9)

    def q(params, x):
        for name in ("embed", "body", "head"):
            layer = params["agent"][name]
            x = x @ np.asarray(layer["kernel"][1], np.float64) + np.asarray(layer["bias"][1], np.float64)
            x = x if name == "head" else np.maximum(x, 0)
        return x

    errors = []
    for k in range(windows.mask.shape[1]):
        later = q(state.target_params, np.asarray(windows.obs[1, k, 1], np.float64))
        best = max(later[a] for a in range(ACTIONS) if windows.avail[1, k, 1, a])
        ended = bool(windows.terminated[0, k] | windows.truncated[0, k])
        target = float(windows.reward[0, k, 1]) + (0.0 if ended else 0.9 * best)
        errors.append(target - q(state.params, np.asarray(windows.obs[0, k, 1], np.float64))[windows.action[0, k, 1]])
    grads, *_ = step(algorithm, state, windows, ctx)
    wanted = 2 * -np.array(errors) / len(errors) / AGENTS  # of Q_1 of each transition; the loss is a mean over agents
    bias = np.zeros(ACTIONS)
    np.add.at(bias, np.asarray(windows.action[0, :, 1]), wanted)
    np.testing.assert_allclose(grads["agent"]["head"]["bias"][1], bias, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("clip", ["agent", pytest.param("all", marks=pytest.mark.slow)])
def test_what_others_meet_moves_no_agent_unless_all_are_clipped_together(clip):
    algorithm = learner_parts("iql", clip=clip, **IDQN).assemble()
    windows = transitions_of(own_rewards(random_batch()))
    state, ctx = init(algorithm), context(algorithm, grad_clip=0.1)
    more = windows.replace(reward=windows.reward.at[..., 0].multiply(50.0), obs=windows.obs.at[:, :, 0].add(1.0))
    before, after = (step(algorithm, state, x, ctx)[0]["agent"] for x in (windows, more))
    others = [flat(jax.tree.map(lambda x: x[1:], grads)) for grads in (before, after)]
    assert np.array_equal(*others) == (clip == "agent")
    assert np.any(before["head"]["bias"][0] != after["head"]["bias"][0])


# ---- SEQL: M transitions, M/N of each agent, the same for all


def test_of_m_transitions_each_agent_gives_as_many():
    parts = learner_parts("seql", TEAM, **IDQN)
    batch = jax.tree.map(lambda x: x[:, :12], transitions_of(own_rewards(random_batch(spec=TEAM))))
    untrained = LearnerState(params={}, target_params={}, opt_state={}, stats={})
    ctx = context(parts.assemble(), updates=1)
    exchanged, _ = seql.relabel(view_of(parts, untrained, batch, ctx))
    assert exchanged.mask.shape == (1, 12)
    giver = (np.arange(12) + 1) % AGENTS
    for name in ("obs", "action", "reward", "avail"):
        given = np.asarray(getattr(batch, name))[:, np.arange(12), giver]
        for agent in range(AGENTS):
            np.testing.assert_array_equal(np.asarray(getattr(exchanged, name))[:, :, agent], given)
    assert np.bincount(giver).tolist() == [4, 4, 4]


# ---- runs, and refusals


@pytest.mark.parametrize("algo", ["iql", pytest.param("seql", marks=pytest.mark.slow)])
def test_a_run_from_transitions(algo, tmp_path):
    settings = [f"algo.{key}={str(value).lower()}" for key, value in IDQN.items()]
    settings += [f"algo={algo}", "batch_size=6", "updates_per_episode=2"]
    tiny.train(tmp_path, *tiny.TWO_STEP, *tiny.SIZES, *settings)
    last = tiny.records(tmp_path)[-1]
    assert last["updates"] == 2 * (32 - 4)  # an episode has two steps: four of them hold the first batch
    assert np.isfinite(last["eval/return"])


@pytest.mark.parametrize(
    ("algo", "config", "told"),
    [
        ("iql", {"window": 1}, "algo.window=1: recurrent agents .* algo.recurrent=false"),
        ("qmix", {"window": 2, "recurrent": False}, "algo.window=2: the action before .* algo.obs_last_action=false"),
        ("roma", {"window": 1}, "algo.window=1: recurrent agents"),
        ("maser", {"window": 1, "recurrent": False, "obs_last_action": False}, "algo.window=1: goals .* algo.window=0"),
        ("vdn", {"window": -1}, "algo.window=-1 must be at least 0"),
    ],
)
def test_what_needs_more_than_a_transition_is_refused(algo, config, told):
    with pytest.raises(RefusedError, match=told):
        registry.get("algo", algo).Config(**config)


def test_a_window_longer_than_an_episode_is_refused():
    with pytest.raises(RefusedError, match=r"algo.window=9 is longer .*5 steps"):
        learner_parts("vdn", window=9, **NO_MEMORY)

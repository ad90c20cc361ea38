"""Pieces of streams of episodes: what is recorded at their boundaries, memory, and stopping and going on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxshare import registry
from jaxshare.learners import actor_critic_streams as read
from jaxshare.learners.records import View
from jaxshare.models import inputs
from jaxshare.training import rollout
from jaxshare.training import streams as streams_of
from jaxshare.training.counting import start_clock
from jaxshare.types import Context, Discrete, Env, EnvSpec, LearnerState, TimeStep

KEY, STREAMS, LENGTH, PIECES = jax.random.key(3), 3, 5, 4


def telling():
    """Two agents; an episode has a name and a length of 1 to 4 drawn at its reset, and tells both and the time.

    Odd lengths end in a terminal state, even ones at a time limit. The reward of agent i is (i + 1) times the time.
    """
    spec = EnvSpec("telling", 2, 4, 1, Discrete(3), 4, (0, 0), ("unit",), common_reward=False)

    def show(state, reward):
        time, length, name = state
        seen = jnp.stack([time, length, name])
        obs = jnp.concatenate([jnp.broadcast_to(seen, (2, 3)), jnp.eye(2)[:, :1]], axis=1)
        ended, odd = time >= length, length % 2 == 1
        avail = jnp.array([[True, True, False], [False, True, True]])
        return TimeStep(
            obs=obs, state=name[None], avail=avail, alive=jnp.ones(2, bool), reward=reward,
            terminated=ended & odd, truncated=ended & ~odd, info={"won": (ended & odd).astype(jnp.float32)},
        )  # fmt: skip

    def reset(key):
        one, two = jax.random.split(key)
        state = (jnp.float32(0), jax.random.randint(one, (), 1, 5).astype(jnp.float32), jax.random.normal(two))
        return state, show(state, jnp.zeros(2))

    def step(state, action, key):
        state = (state[0] + 1, *state[1:])
        return state, show(state, state[0] * jnp.array([1.0, 2.0]))

    return Env(spec, reset, step)


@pytest.fixture(scope="module")
def recorded():
    """(learner, parameters, pieces one after another, streams after each, what ended in each)."""
    env, module = telling(), registry.get("algo", "iac")
    config = module.Config(hidden_dim=4, recurrent=True, critic_recurrent=True, obs_last_action=True)
    learner = module.make(config, env.spec)
    algorithm = learner.assemble()
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.array(rng.normal(size=x.shape), jnp.float32), algorithm.init(KEY).params)
    # all but deterministic policies, so that actions tell which ones they were drawn from
    head = jax.tree.map(lambda x: 1e4 * x, params["actor"]["head"])
    params = {**params, "actor": {**params["actor"], "head": head}}
    ctx = Context(hparams={}, clock=start_clock(), env_steps=jnp.int32(0))

    def piece(streams, key):
        players = rollout.Players(env, algorithm, params, ctx, True)
        players = rollout.Players(env, algorithm, params, ctx, explore=True)
        segment, streams, finished = streams_of.segments(players, key, streams, LENGTH)
        return streams, (segment, streams, finished)

    start = streams_of.start(env, algorithm, KEY, STREAMS)
    _, found = jax.jit(lambda: jax.lax.scan(piece, start, jax.random.split(KEY, PIECES)))()
    at = lambda i: jax.tree.map(lambda x: np.asarray(x[i]), found)  # noqa: E731
    return learner, params, *zip(*(at(i) for i in range(PIECES)), strict=True)


def test_steps_follow_one_another_and_episodes_begin_anew(recorded):
    _, _, segments, _, finished = recorded
    whole = jax.tree.map(lambda *x: np.concatenate(x), *(s.replace(carry=None) for s in segments))
    ended = jax.tree.map(lambda *x: np.concatenate(x), *finished)
    assert whole.mask.all()
    assert whole.first[0].all()
    kinds = {True: 0, False: 0}
    for b in range(STREAMS):
        names, rewards = [], np.zeros(2)
        for t in range(PIECES * LENGTH):
            time, length, name = whole.obs[t, b, 0, :3]
            if whole.first[t, b]:
                assert time == 0
                assert name not in names
                names.append(name)
                rewards = np.zeros(2)
            assert whole.first[t, b] == (t == 0 or whole.end[t - 1, b])
            np.testing.assert_array_equal(whole.next_obs[t, b, 0, :3], [time + 1, length, name])  # never of a reset
            assert whole.next_state[t, b] == whole.state[t, b] == name
            if t + 1 < PIECES * LENGTH and not whole.end[t, b]:
                np.testing.assert_array_equal(whole.obs[t + 1, b], whole.next_obs[t, b])
            rewards += whole.reward[t, b]
            np.testing.assert_array_equal(whole.reward[t, b], (time + 1) * np.array([1, 2]))
            over = time + 1 == length
            assert whole.terminated[t, b] == (over and length % 2 == 1)
            assert whole.truncated[t, b] == (over and length % 2 == 0)
            assert ended.ended[t, b] == over
            if over:
                np.testing.assert_array_equal(ended.reward[t, b], rewards)
                assert ended.steps[t, b] == length
                assert ended.info["won"][t, b] == length % 2
                kinds[bool(whole.terminated[t, b])] += 1
    assert min(kinds.values()) > 2
    assert np.take_along_axis(whole.avail, whole.action[..., None], -1).all()


def test_pieces_meet(recorded):
    """What a piece starts with is what the one before left, episodes that go on included."""
    learner, _, segments, streams, _ = recorded
    crossing = 0
    for before, left, after in zip(segments, streams, segments[1:], strict=False):
        jax.tree.map(np.testing.assert_array_equal, left.carry, after.carry)
        np.testing.assert_array_equal(left.first, before.end[-1])
        np.testing.assert_array_equal(after.first[0], left.first)
        np.testing.assert_array_equal(after.obs[0], left.timestep.obs)
        encoded = np.asarray(inputs.encode(jnp.array(before.action[-1]), learner.spec))
        np.testing.assert_array_equal(after.carry["previous"], np.where(before.end[-1][:, None, None], 0, encoded))
        assert (np.asarray(after.carry["actor"])[before.end[-1]] == 0).all()
        crossing += (~before.end[-1]).sum()
    assert crossing > 1


def state_of(params):
    return LearnerState(params=params, target_params={}, opt_state={}, stats={})


def test_the_loss_reads_what_the_agents_acted_by(recorded):
    """Over resets inside a piece: the unrolled policies choose the actions that were taken, with the same memory."""
    learner, params, segments, streams, _ = recorded
    inside = 0

    @jax.jit
    def unrolled(segment):
        view = View(learner, state_of(params), params, segment, None, KEY)
        policy = read.policies(view)
        networks, carry = learner.networks, segment.carry
        actor, _ = networks["actor"].unroll(params["actor"], carry["actor"], read.actor_stream(view))
        stream = read.critic_stream(view, after=False)
        critic, _ = networks["critic"].unroll(params["critic"], carry["critic"], stream)
        return policy.mode(), policy.log_prob(segment.action), actor, critic

    for segment, left in zip(segments, streams, strict=True):
        mode, log_prob, actor, critic = unrolled(segment)
        np.testing.assert_array_equal(mode, segment.action)
        np.testing.assert_allclose(log_prob, 0, atol=1e-2)
        on = ~segment.end[-1]
        np.testing.assert_allclose(np.asarray(actor)[on], left.carry["actor"][on], atol=1e-5)
        np.testing.assert_allclose(np.asarray(critic)[on], left.carry["critic"][on], atol=1e-5)
        inside += segment.first[1:].sum()
    assert inside > 5
    assert len({tuple(row) for row in np.concatenate([s.action for s in segments]).reshape(-1, 2)}) > 1


def test_a_cut_step_bootstraps_from_what_it_led_to(recorded):
    """Replacing the episode that follows changes no return before it, whichever way the first one ended."""
    learner, params, segments, _, _ = recorded
    ctx = Context(hparams={"gamma": jnp.float32(0.9)}, clock=start_clock(), env_steps=jnp.int32(0))
    prepare = jax.jit(
        lambda segment: learner.phases[0].prepare(View(learner, state_of(params), params, segment, ctx, KEY))
    )
    cut = 0
    for segment in segments:
        targets = prepare(segment)
        for t, b in zip(*np.nonzero(segment.end[:-1]), strict=True):
            later = np.arange(LENGTH) > t
            change = {f: getattr(segment, f).copy() for f in ("obs", "next_obs", "reward")}
            for x in change.values():
                x[later, b] += 3.0
            found = prepare(segment.replace(**change))
            np.testing.assert_array_equal(found.returns[: t + 1, b], targets.returns[: t + 1, b])
            assert np.abs(found.returns[t + 1 :, b] - targets.returns[t + 1 :, b]).min() > 1e-3
            gained = np.abs(np.asarray(targets.returns)[t, b] - segment.reward[t, b])
            assert (gained > 0).all() if segment.truncated[t, b] else (gained == 0).all()
            cut += int(segment.truncated[t, b])
    assert cut > 1


@pytest.mark.slow
def test_whole_episodes_as_pieces_keep_their_last_observation(recorded):
    learner = recorded[0]
    env, algorithm = telling(), learner.assemble()
    ctx = Context(hparams={}, clock=start_clock(), env_steps=jnp.int32(0))
    play = lambda: rollout.episodes(rollout.Players(env, algorithm, recorded[1], ctx, True), KEY, 6).episode  # noqa: E731
    episode = jax.jit(play)()
    segment = rollout.as_segment(episode, algorithm.initial_carry(6))
    ends = np.asarray(segment.mask).sum(0).astype(int) - 1
    for b, t in enumerate(ends):
        time, length = np.asarray(segment.next_obs)[t, b, 0, :2]
        assert time == length == t + 1
        assert segment.end[t, b]
    assert segment.first[0].all()
    assert not segment.first[1:].any()


# ------------------------------------------------------------------------------------------------------------ stopping

SEAC = (
    "env=matrix", "env.game=two_step", "algo=seac", "algo.hidden_dim=4", "algo.segment_length=3", "num_envs=2",
    "eval.every=18", "eval.episodes=2", "progress=false", "total_env_steps=36", "modifiers=[a_pps,standardise]",
    "a_pps.period=3",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(
    "more",
    [
        ("algo.recurrent=true", "algo.critic_recurrent=true"),
        ("algo=ia2c", "algo.share_params=none", "modifiers=[rs_pps]", "seeds=2"),
    ],
)
def test_stop_and_resume_is_exact(tmp_path, more):
    """In the middle of episodes."""
    kept = [a for a in SEAC if a.split("=")[0] not in {m.split("=")[0] for m in more}]
    arguments = [a for a in kept if "modifiers=[rs_pps]" not in more or not a.startswith("a_pps.")] + list(more)
    whole = tiny.train(tmp_path / "whole", *arguments)
    tiny.train(tmp_path / "half", *arguments, "checkpoint.every=18", max_chunks=1)
    (clock, states), (end, last) = tiny.restore(tmp_path / "half", *arguments), tiny.restore(whole, *arguments)
    assert 0 < clock.updates < end.updates
    tiny.train(tmp_path / "half", *arguments, "resume=auto")
    tiny.assert_equal(tiny.restore(tmp_path / "half", *arguments), (end, last))
    assert tiny.records(tmp_path / "half") == tiny.records(whole)
    if "algo=seac" in arguments:
        assert any((np.asarray(state.streams.steps) > 0).any() for state in states)
        assert all(state.learner.stats["standardise"].count > 1 for state in last)

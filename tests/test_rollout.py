"""Whole episodes: the same bits as a scan to the limit gives, from no more steps than the longest of them takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxshare import registry
from jaxshare.training import rollout
from jaxshare.types import Algorithm, Discrete, Env, EnvSpec, Episode, TimeStep

KEY, ENVS, LIMIT = jax.random.key(5), 3, 7
FIELDS = ("reward", "terminated", "truncated", "info")


def unequal(limit=LIMIT, shortest=1, longest=5, calls=None):
    """Two agents; lengths drawn at the reset, odd ones terminal, even ones cut; agent 1 dies after its first step.

    calls: a list to which the host adds one entry for every step of every environment.
    """
    spec = EnvSpec("unequal", 2, 3, 2, Discrete(3), limit, (0, 0), ("unit",), common_reward=False)

    def show(state, reward):
        time, length, name = state
        ended, odd = time >= length, length % 2 == 1
        seen = jnp.stack([time.astype(jnp.float32), length.astype(jnp.float32), name])
        return TimeStep(
            obs=jnp.stack([seen, -seen]), state=seen[1:], avail=jnp.array([[1, 1, 0], [0, 1, 1]], bool),
            alive=jnp.stack([jnp.bool_(True), time < 1]), reward=reward, terminated=ended & odd,
            truncated=ended & ~odd, info={"paid": reward.sum(), "won": (ended & odd).astype(jnp.float32)},
        )  # fmt: skip

    def reset(key):
        one, two = jax.random.split(key)
        state = (jnp.int32(0), jax.random.randint(one, (), shortest, longest + 1), jax.random.normal(two))
        return state, show(state, jnp.zeros(2))

    def step(state, action, key):
        if calls is not None:
            jax.debug.callback(lambda time: calls.append(int(time)), state[0])
        noise = jax.random.normal(key, (2,))
        state = (state[0] + 1, state[1], state[2] + noise[0])
        return state, show(state, action + noise)

    return Env(spec, reset, step)


def player(spec):
    """Available actions at random, a memory that grows with what was seen, and extras of two types."""

    def act(params, carry, shown, ctx, key, explore):
        logits = jnp.where(shown.avail, 0.0, -jnp.inf)
        action = jax.random.categorical(key, logits) if explore else jnp.argmax(shown.avail, -1)
        carry = 0.5 * carry + shown.obs.sum(-1)
        return carry, action.astype(jnp.int32), {"memory": carry, "known": shown.alive}

    return Algorithm(
        name="one", spec=spec, hparams={}, init=None, initial_carry=lambda batch: jnp.ones((batch, spec.num_agents)),
        act=act, sample=None, update=None, inspect=None,
    )  # fmt: skip


def play(env, key, explore=True, keep_state=False):
    return rollout.episodes(rollout.Players(env, player(env.spec), {}, None, explore), key, ENVS, keep_state)


def scanned(env, key, explore):
    """(Episode, info, states of the environments) of a scan of episode_limit steps, as plain as can be."""
    one = player(env.spec)
    reset_key, step_key = jax.random.split(key)
    state, shown = jax.vmap(env.reset)(jax.random.split(reset_key, ENVS))

    def select(where, new, old):
        return jax.tree.map(lambda n, o: jnp.where(where.reshape(-1, *(1,) * (n.ndim - 1)), n, o), new, old)

    def step(carry, key):
        state, shown, memory, running = carry
        act_key, env_key = jax.random.split(key)
        memory, action, extras = one.act({}, memory, shown, None, act_key, explore)
        stepped = jax.vmap(env.step)(state, action, jax.random.split(env_key, ENVS))
        after, new = select(running, stepped, (state, shown))
        ends = {name: getattr(new, name) for name in FIELDS}
        taken = {**ends, "action": action, "extras": extras}
        taken = select(running, taken, jax.tree.map(jnp.zeros_like, taken))
        seen = {name: select(running, getattr(new, name), jnp.full_like(getattr(new, name), name == "avail"))
                for name in ("obs", "state", "avail", "alive")}  # fmt: skip
        going = running & ~(new.terminated | new.truncated)
        return (after, new, memory, going), (seen, taken, running.astype(jnp.float32), after)

    start = (state, shown, one.initial_carry(ENVS), jnp.ones(ENVS, bool))
    _, (seen, taken, mask, states) = jax.lax.scan(step, start, jax.random.split(step_key, env.spec.episode_limit))
    first = {name: getattr(shown, name) for name in seen}
    seen, states = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), (first, state), (seen, states))
    info = {name: x.sum(0) for name, x in taken.pop("info").items()}
    return Episode(**seen, **taken, mask=mask), info, states


def both(env, key, explore):
    """(ours, the scan's), compiled as one."""
    played = jax.jit(lambda key: (play(env, key, explore, keep_state=True), scanned(env, key, explore)))
    ours, theirs = jax.device_get(played(key))
    return (ours.episode, ours.info, ours.env_state), theirs


def test_unequal_episodes_are_those_of_a_scan_to_the_limit():
    ours, theirs = both(unequal(), KEY, explore=True)
    tiny.assert_equal(ours, theirs)
    steps = ours[0].mask.sum(0)
    assert 1 <= steps.min() < steps.max() < LIMIT
    assert ours[0].terminated.any()
    assert ours[0].truncated.any()
    assert ours[0].extras["memory"].dtype == np.float32
    assert ours[0].extras["known"].dtype == bool
    assert not ours[0].action[steps.max().astype(int) :].any()


@pytest.mark.parametrize(
    ("name", "settings", "explore"),
    [
        ("matrix", {"game": "two_step"}, True),
        ("matrix", {"game": "climbing"}, False),
        ("lbf", {"scenario": "5x5-2p-1f", "max_food_level": 1, "max_steps": 40}, True),
    ],
)
def test_so_are_those_of_shipped_environments(name, settings, explore):
    module = registry.get("env", name)
    env = module.make(module.Config(**settings))
    ours, theirs = both(env, KEY, explore)
    tiny.assert_equal(ours, theirs)
    assert (ours[0].mask.sum(0).min() < env.spec.episode_limit) == (name == "lbf")


def counted(calls, run, *args):
    """(what `run` gives, steps of environments that were taken for it)."""
    calls.clear()
    found = jax.block_until_ready(run(*args))
    jax.effects_barrier()
    return found, len(calls)


def test_the_last_end_is_the_last_step():
    """Of a rollout, of all rollouts under one vmap, and of each one under a map."""
    calls = []
    env, keys = unequal(calls=calls), jax.random.split(KEY, 4)
    mapped, taken = counted(calls, jax.jit(lambda keys: jax.lax.map(lambda key: play(env, key), keys)), keys)
    longest = np.asarray(mapped.episode.mask).sum(1).max(-1)
    assert len(set(longest)) > 1
    assert taken == ENVS * longest.sum()
    vmapped, taken = counted(calls, jax.jit(jax.vmap(lambda key: play(env, key))), keys)
    assert taken == ENVS * len(keys) * longest.max()
    tiny.assert_equal(vmapped, mapped)


def test_whoever_does_not_end_before_the_limit_plays_to_it():
    """An episode that ends exactly there, and one that the loop itself has to stop."""
    calls = []
    run = jax.jit(lambda length: play(unequal(shortest=length, longest=length, calls=calls), KEY, keep_state=True))
    for length in (LIMIT, LIMIT + 1):
        played, taken = counted(calls, run, length)
        assert taken == ENVS * LIMIT
        assert played.episode.mask.all()
        ended = played.episode.terminated | played.episode.truncated
        assert ended.sum() == (ENVS if length == LIMIT else 0)
        np.testing.assert_array_equal(played.episode.obs[:, 0, 0, 0], np.arange(LIMIT + 1))
        np.testing.assert_array_equal(played.env_state[0][:, 0], np.arange(LIMIT + 1))


def test_runs_under_vmap_share_one_end():
    """A condition for each run would make every buffer be chosen anew at every step."""

    def loop(batch):
        env = unequal()
        jaxpr = jax.make_jaxpr(jax.vmap(lambda key: play(env, key)) if batch else lambda key: play(env, key[0]))
        (found,) = [e for e in jaxpr(jax.random.split(KEY, 4)).eqns if e.primitive.name == "while"]
        return found

    alone, together = loop(False), loop(True)
    assert together.outvars[0].aval.shape == ()  # the time
    assert max(x.aval.size for x in together.outvars) == 4 * max(x.aval.size for x in alone.outvars)
    names = [[e.primitive.name for e in one.params["body_jaxpr"].eqns] for one in (alone, together)]
    assert names[0].count("select_n") == names[1].count("select_n")

"""PQN: lambda-returns by loops, ends and pieces, memory, what has no gradient, layer norm, and a game it solves."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from actor_critic_cases import episodes, init, junk, one_after_another
from test_ppo_identity import streams
from value_cases import KEY, SPEC, assert_close, context

from jaxshare.algos.pqn import algorithm as pqn
from jaxshare.algos.pqn.networks import NormedLayer
from jaxshare.learners.lives import died, living
from jaxshare.learners.passes import with_values
from jaxshare.learners.records import View
from jaxshare.modifiers.differ import modifier as differ
from jaxshare.types import Box, LearnerState, RefusedError

GAMMA = 0.9
OWN = dataclasses.replace(SPEC, common_reward=False)


@cache
def made(spec=SPEC, **config):
    small = {"hidden_dim": 4, "embed_dim": 3, "hypernet_dim": 4, "epochs": 1, "minibatches": 1, "layers": 1}
    config = {**small, "recurrent": False, **config}
    return pqn.make(pqn.Config(**config), spec)


COMPILED = {}  # by what is done and the identity of the learner, which the function keeps alive


def compiled(what, learner):
    return COMPILED.setdefault((what.__name__, id(learner)), jax.jit(partial(what, learner)))


def seen_with(learner, params, segment, lambda_):
    """What a loss is given; differ's penalty on weights, where there is differ, is off."""
    off = {"differ.l1_coef": 0.0} if "differ.l1_coef" in learner.hparams else {}
    ctx = context(learner.assemble(), gamma=GAMMA, td_lambda=lambda_, **off)
    return View(learner, LearnerState(params, {}, {}, {}), params, segment, ctx, KEY)


def values_of(learner, params, segment, lambda_):
    return with_values(seen_with(learner, params, segment, lambda_)).values.replace(mix=None)


def read(learner, segment, lambda_):
    """What a loss looks at."""
    return compiled(values_of, learner)(init(learner).params, segment, lambda_)


def gradient_of(learner, params, segment):
    view = seen_with(learner, params, segment, 0.7)
    loss = learner.steps[learner.main].loss
    return jax.grad(lambda trained: loss(with_values(view.replace(params=trained)))[0])(params)


def gradient(learner, segment):
    """Of one step, before anything is clipped."""
    return compiled(gradient_of, learner)(init(learner).params, segment)


# ---- lambda-returns


def by_loop(segment, discount, reward, value, lambda_):
    """G [T, B], each from its definition: a sum over where the return might stop and bootstrap."""
    reward, value = np.asarray(reward, float), np.asarray(value, float)
    end, discount = np.asarray(segment.end), np.asarray(discount, float)
    steps, batch = reward.shape
    target = np.zeros((steps, batch))
    for b in range(batch):
        for t in range(steps):
            weight, paid, k = 1.0, 0.0, t
            while True:
                last = end[k, b] or k == steps - 1
                paid += weight * reward[k, b]
                weight *= discount[k, b]
                stop = 1.0 if last else 1.0 - lambda_
                paid += weight * stop * value[k, b]
                weight *= 1.0 - stop
                if last:
                    break
                k += 1
            target[t, b] = paid
    return target


@pytest.fixture(scope="module", params=["vdn", "qmix"])
def mixed(request):
    return made(mixer=request.param)


@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.0])
def test_a_target_is_the_lambda_return_of_the_team(mixed, lambda_):
    segment = streams(mixed.assemble())
    assert segment.terminated.any()
    assert segment.truncated.any()
    one_step, values = read(mixed, segment, 0.0), read(mixed, segment, lambda_)
    np.testing.assert_allclose(
        values.discount, GAMMA * (1.0 - segment.terminated), rtol=1e-6
    )  # a cut episode bootstraps
    target = values.team_reward + values.discount * values.next_q_tot
    expected = by_loop(segment, values.discount, segment.reward[..., 0], one_step.next_q_tot, lambda_)
    np.testing.assert_allclose(target, expected, rtol=2e-5, atol=1e-5)


def test_lambda_zero_is_one_step_and_one_is_monte_carlo():
    """Of the sum of utilities, written out for a stream that ends at step 2 and is cut by the piece."""
    learner = made(mixer="vdn")
    segment = streams(learner.assemble())
    values = read(learner, segment, 0.0)
    np.testing.assert_allclose(values.next_q_tot, values.next_q.sum(-1), rtol=1e-5)
    inside = np.asarray(~segment.end[:-1])  # there the best of the next step
    best = np.where(np.asarray(segment.avail), values.q, -np.inf).max(-1)[1:]
    all_allowed = np.asarray(values.q).max(-1)[1:]
    assert not np.allclose(best[inside], all_allowed[inside])
    reopened = segment.replace(next_avail=jnp.concatenate([segment.avail[1:], segment.avail[-1:]]))
    np.testing.assert_allclose(read(learner, reopened, 0.0).next_q[:-1][inside], best[inside], rtol=1e-5)

    whole = read(learner, segment, 1.0)
    target = np.asarray(whole.team_reward + whole.discount * whole.next_q_tot)
    reward = np.asarray(segment.reward[..., 0])
    np.testing.assert_allclose(target[0, 0], reward[0, 0] + GAMMA * reward[1, 0] + GAMMA**2 * reward[2, 0], rtol=1e-5)
    np.testing.assert_allclose(
        target[3, 0], reward[3, 0] + GAMMA * reward[4, 0] + GAMMA**2 * values.next_q_tot[4, 0], rtol=1e-5
    )


def test_without_a_mixer_every_agent_has_its_own_return():
    learner = made(OWN, mixer="none")
    segment = streams(learner.assemble())
    one_step, values = read(learner, segment, 0.0), read(learner, segment, 0.7)
    for agent in range(OWN.num_agents):
        target = segment.reward[..., agent] + values.discount * values.next_q[..., agent]
        expected = by_loop(segment, values.discount, segment.reward[..., agent], one_step.next_q[..., agent], 0.7)
        np.testing.assert_allclose(target, expected, rtol=2e-5, atol=1e-5)
    assert "mixer" not in learner.networks


def test_a_time_limit_may_count_as_an_end():
    learner = made(bootstrap_on_timeout=False)
    segment = streams(learner.assemble())
    np.testing.assert_allclose(read(learner, segment, 0.5).discount, GAMMA * (1.0 - segment.end), rtol=1e-6)


# ---- pieces, padding, memory


@pytest.mark.parametrize("recurrent", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_episodes_one_after_another_are_those_episodes(recurrent):
    """In one piece as in batches of their own: memory, returns and previous actions stop at the boundary."""
    learner = made(OWN, recurrent=recurrent, obs_last_action=True)
    batch = episodes(learner, spec=OWN)
    order = [1, 3, 0, 2]
    stream = one_after_another(batch, order)
    alone, joined = read(learner, batch, 0.7), read(learner, stream, 0.7)
    real = [(int(t), b) for b in order for t in np.flatnonzero(np.asarray(batch.mask)[:, b])]
    step, column = (np.array(x) for x in zip(*real, strict=True))
    for name in ("q", "q_tot", "next_q_tot"):
        expected = np.asarray(getattr(alone, name))[step, column]
        np.testing.assert_allclose(getattr(joined, name)[:, 0], expected, rtol=1e-4, atol=1e-5)
    assert batch.truncated.any()
    assert len(real) > batch.mask.shape[0]


def test_memory_goes_on_from_the_piece_before():
    learner = made(OWN, recurrent=True, obs_last_action=True)
    segment = episodes(learner, spec=OWN)
    segment = segment.replace(first=segment.first.at[0, :2].set(False))
    other = segment.replace(carry=jax.tree.map(lambda x: x + 1.0, segment.carry))
    changed = np.abs(read(learner, other, 0.0).q - read(learner, segment, 0.0).q).max((0, 2, 3)) > 1e-4
    np.testing.assert_array_equal(changed, ~np.asarray(segment.first[0]))


@pytest.mark.parametrize("mixer", ["none", pytest.param("vdn", marks=pytest.mark.slow)])
def test_padding_does_not_matter(mixer):
    learner = made(OWN, mixer=mixer)
    batch = episodes(learner, spec=OWN)
    assert_close(gradient(learner, junk(batch)), gradient(learner, batch), 1e-5)


def test_who_died_in_a_segment():
    learner = made()
    segment = episodes(learner)
    end = np.asarray(segment.end)
    alive = np.asarray(living(segment))
    for t in range(len(end) - 1):
        expected = alive[t] & ~alive[t + 1] & ~end[t][:, None]
        np.testing.assert_array_equal(died(segment)[t], expected)
    assert np.asarray(died(segment)).any()
    assert not np.asarray(died(segment))[-1].any()


# ---- what has no gradient, and what there is not


@pytest.mark.parametrize("mixer", ["qmix", *(pytest.param(m, marks=pytest.mark.slow) for m in ("vdn", "none"))])
def test_nothing_learns_through_a_target(mixer):
    """The gradient is that of a regression on fixed numbers."""
    learner = made(OWN, mixer=mixer)
    segment = streams(learner.assemble())
    params = init(learner).params
    values = read(learner, segment, 0.7)
    discount = values.discount
    target = values.team_reward + discount * values.next_q_tot
    if mixer == "none":
        target = segment.reward + discount[..., None] * values.next_q
    view = seen_with(learner, params, segment, 0.7)

    def regression(params):
        says = with_values(view.replace(params=params)).values
        return jnp.square(target - (says.q_taken if mixer == "none" else says.q_tot)).mean()

    assert_close(gradient(learner, segment), jax.jit(jax.grad(regression))(params), 1e-4)


def test_targets_made_once_are_those_of_the_parameters_before():
    """With the same ones the step is the same; with others only what is fitted follows."""
    fresh, once = made(OWN, mixer="qmix"), made(OWN, mixer="qmix", fresh_targets=False)
    segment = streams(once.assemble())
    before, now = init(once).params, init(once, seed=1).params
    aims = once.phases[0].prepare(seen_with(once, before, segment, 0.7))
    assert fresh.phases[0].prepare is None

    def read_by(params, aims):
        values = with_values(seen_with(once, params, segment, 0.7).replace(targets=aims)).values
        return values.next_q_tot, values.q_tot

    then, later = read(fresh, segment, 0.7), values_of(fresh, now, segment, 0.7)
    for found, expected in (
        (read_by(before, aims), (then.next_q_tot, then.q_tot)),
        (read_by(now, aims), (then.next_q_tot, later.q_tot)),
    ):
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-5)
    assert np.abs(later.next_q_tot - then.next_q_tot).max() > 0.1


def test_there_are_no_target_networks():
    algorithm = made().assemble()
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    assert state.target_params == {}
    assert algorithm.experience == "segment"
    assert algorithm.sample is None
    assert made(rollout="episodes").assemble().experience == "episode"


# ---- layer norm


@pytest.mark.parametrize("norm", [True, False])
def test_layers_are_normed(norm):
    """What a layer gives does not depend on the size of its weights."""
    layer = NormedLayer(6, norm)
    x = jax.random.normal(jax.random.key(1), (5, 3))
    params = layer.init(jax.random.key(0), x)["params"]
    larger = {**params, "linear": jax.tree.map(lambda w: 10.0 * w, params["linear"])}
    y, z = (layer.apply({"params": p}, x) for p in (params, larger))
    np.testing.assert_allclose(z, y if norm else 10.0 * y, rtol=2e-2, atol=1e-3)
    assert ("norm" in params) == norm


@pytest.mark.parametrize("layers", [1, 3])
def test_there_are_as_many_layers_as_asked_for(layers):
    params = jax.eval_shape(made(layers=layers, recurrent=True).networks["agent"].init, jax.random.key(0))
    assert set(params) == {"gru", "head", *(f"embed_{i}" for i in range(layers))}
    assert all("norm" in params[f"embed_{i}"] for i in range(layers))
    assert "gru" not in jax.eval_shape(made().networks["agent"].init, jax.random.key(0))


# ---- what it is not for, and what it goes with


def test_continuous_actions_are_refused():
    box = dataclasses.replace(SPEC, action=Box(1, (-1.0,), (1.0,)))
    with pytest.raises(RefusedError, match=r"algo=pqn needs discrete actions.*algo=comix"):
        pqn.make(pqn.Config(), box)


def test_streams_that_cannot_be_dealt_out_are_refused(tmp_path):
    with pytest.raises(RefusedError, match=r"algo.minibatches=16 does not divide num_envs=8"):
        tiny.train(tmp_path / "run", "algo=pqn", "env=matrix", "num_envs=8", "progress=false")


def test_differ_needs_a_mixer():
    with pytest.raises(RefusedError, match=r"differ.*algo=pqn: it has no mixer"):
        differ.make(differ.Config(), made(mixer="none"))


@pytest.mark.parametrize("mixer", [pytest.param("vdn", marks=pytest.mark.slow), "qmix"])
def test_differ_without_selection_is_the_same_step(mixer):
    """QMIX-divide, of lambda-returns."""
    base = made(OWN, mixer=mixer)
    plain = differ.Config(select="all", g_clamp=None, alive_mask=False, normaliser="team")
    shared = differ.make(plain, base)
    segment = streams(base.assemble())
    assert_close(gradient(shared, segment), gradient(base, segment), 1e-4)


# ---- it learns

# all actions are explored for ever, as in the paper, so that lambda must be 0: the others' returns are of random play
GAME = (
    "algo=pqn", "env=matrix", "env.game=two_step", "algo.mixer=qmix", "algo.recurrent=false", "algo.hidden_dim=16",
    "algo.embed_dim=8", "algo.hypernet_dim=8", "algo.segment_length=8", "algo.minibatches=2", "algo.hparams.lr=5e-3",
    "algo.hparams.td_lambda=0.0", "algo.hparams.epsilon_end=1.0", "num_envs=16", "total_env_steps=16384",
    "eval.every=8192", "eval.episodes=4", "progress=false",
)  # fmt: skip


def test_it_solves_the_two_step_game(tmp_path):
    """Worth 8 with a mixer that is not a sum (Rashid et al. 2018, section 5), 7 by the safe branch."""
    run_dir = tiny.train(tmp_path / "run", *GAME)
    scores = [record["eval/return"] for record in tiny.records(run_dir) if "eval/return" in record]
    assert scores[-1] == 8.0

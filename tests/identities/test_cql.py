"""CQL on maddpg and facmac: its numbers, what it pushes where, what must not matter, refusals, and what it is for."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from actor_critic_cases import view_of
from jax.scipy.stats import norm
from test_deterministic import (
    DUO,
    FEED_FORWARD,
    PLANE,
    batch_of,
    critic_of,
    duo,
    junk,
    one_step,
    parts_of,
    values_of,
)
from value_cases import KEY, SPEC, context, flat, init

from jaxshare import cli, compatibility
from jaxshare.data import card, own, records
from jaxshare.learners.deterministic_values import actor_input
from jaxshare.models.mixers import Mixer
from jaxshare.modifiers import cql
from jaxshare.ops import offline
from jaxshare.run import build
from jaxshare.settings.records import RunConfig
from jaxshare.settings.run_parts import EvalConfig
from jaxshare.training import replay
from jaxshare.training.counting import start_clock
from jaxshare.training.program import Program
from jaxshare.types import Box, Discrete, Env, EnvSpec, Episode, LearnerState, RefusedError, TimeStep

PAIR = dataclasses.replace(DUO, action=Discrete(3))


# ---- sampled integrals


def test_a_constant_is_itself_and_the_logarithm_of_the_volume():
    """Three dimensions: log 8. Of uniform samples exactly, of Gaussian ones in the mean."""

    @jax.jit
    def integrals():
        uniform = offline.uniform_samples(KEY, (4, 3))[1]
        gaussian = offline.gaussian_samples(KEY, jnp.array([0.9, -0.3, 0.0]), 1.0, 50_000)[1]
        return [offline.log_integral(jnp.full(density.shape, 1.5), density) for density in (uniform, gaussian)]

    exact, sampled = integrals()
    np.testing.assert_allclose(exact, 1.5 + np.log(8), rtol=1e-6)
    np.testing.assert_allclose(sampled, 1.5 + np.log(8), atol=0.02)


def test_an_integral_from_samples_of_different_distributions():
    """e^Q = N(0.2, 0.5^2) in the box, from all three kinds of samples together."""

    @jax.jit
    def integrals():
        first, second, third = jax.random.split(KEY, 3)
        found = (
            offline.uniform_samples(first, (9000, 1)),
            offline.gaussian_samples(second, jnp.array([0.5]), 0.6, 9000),
            offline.gaussian_samples(third, jnp.array([-1.0]), 0.9, 9000),
        )
        action, density = (jnp.concatenate(pair) for pair in zip(*found, strict=True))
        exact = norm.cdf((1 - 0.2) / 0.5) - norm.cdf((-1 - 0.2) / 0.5)
        return jnp.exp(offline.log_integral(norm.logpdf(action[:, 0], 0.2, 0.5), density)), exact

    found, expected = integrals()
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_gaussian_samples_are_in_the_box_and_know_their_density():
    """The histogram of the samples against the density that they say, also where the policy is at the bounds."""
    means = np.array([-1.0, 0.3, 0.999], np.float32)[:, None]
    found = jax.jit(lambda: offline.gaussian_samples(KEY, jnp.array(means), 0.3, 40_000))()
    for action, density in zip(*(np.asarray(x).T for x in (found[0][..., 0], found[1])), strict=True):
        assert np.abs(action).max() <= 1
        count, edges = np.histogram(action, bins=20, range=(-1, 1))
        which = np.digitize(action, edges[1:-1])
        cells = np.flatnonzero(count > 1000)
        assert len(cells) > 5
        for cell in cells:
            said = np.exp(density[which == cell]).mean()
            np.testing.assert_allclose(said, count[cell] / 40_000 / 0.1, rtol=0.08)


# ---- the penalty by hand


def penalty_of(learner, params, batch, actor=None, **config):
    """Mean of P - Q, and its gradient by the critic's parameters."""
    settings = {name: value for name, value in config.items() if name in ("vary", "samples")}
    config = {f"cql.{name}": value for name, value in config.items() if name not in settings}
    made = cql.make(cql.Config(**settings), learner)
    ctx = context(made.assemble(), **config)
    actor = jnp.zeros(2) if actor is None else actor

    @jax.jit
    def price(critic):
        own = {"actor": actor, "critic": critic, "mixer": jnp.zeros(())}
        state = LearnerState(own, own, {}, {})
        view = view_of(made, state, batch, ctx, values=values_of(made, state, batch, ctx))
        return made.steps[made.main].loss(view)[1]["loss/conservative"]

    return jax.value_and_grad(price)(params)


def pair(name, mix=None):
    """Two agents with three choices; Q_i(a) = params[i, a_i]."""
    learner = parts_of(name, PAIR)
    first = 1 if name == "facmac" else None  # where the own action stands

    def q(params, x):
        if first is None:
            own = jnp.stack([x[..., i, 1 + 3 * i : 4 + 3 * i] for i in range(2)], axis=-2)
        else:
            own = x[..., 1:4]
        return (own * params[None, None]).sum(-1)

    learner = learner.with_network("critic", critic_of(q)).with_network("actor", logits())
    if mix is None:
        assert learner.mixer is None
        return learner
    return learner.with_network("mixer", Mixer(lambda key: jnp.zeros(()), lambda p, q, seen: mix(q)))


def logits():
    """Actors that say the same three numbers everywhere."""
    network = critic_of(None)
    says = lambda params, carry, x: (carry, jnp.zeros((*x.shape[:3], 3)))  # noqa: E731
    return dataclasses.replace(network, unroll=says)


def choices(action, avail=(1, 1, 1)):
    batch = one_step([0.0, 0.0])
    return batch.replace(
        action=jnp.array(action, jnp.int32).reshape(1, 1, 2),
        avail=jnp.broadcast_to(jnp.array(avail, bool), (2, 1, 2, 3)),
    )


def test_discrete_actions_are_summed_over_exactly():
    """Q = (1, 2, 3) and the action 1, of both agents; once with the last one not available."""
    q = jnp.array([[1.0, 2.0, 3.0]] * 2)
    found, slope = penalty_of(pair("maddpg"), q, choices([1, 1]))
    np.testing.assert_allclose(found, 1.4076060, rtol=1e-6)
    np.testing.assert_allclose(2 * slope[0], [0.0900306, -0.7552715, 0.6652410], rtol=1e-5)  # mean over two agents
    found, slope = penalty_of(pair("maddpg"), q, choices([1, 1], avail=(1, 1, 0)))
    np.testing.assert_allclose(found, 0.3132617, rtol=1e-6)
    assert not slope[:, 2].any()


def test_an_action_is_varied_through_the_mixer():
    """Q_tot = Q_1 / 4 + 3 Q_2 / 4 + 1/2 at (1, 1): the joint excess is .6245268, of one agent at a time half of it."""
    q = jnp.array([[1.0, 2.0, 0.0], [0.0, 4.0, 0.0]])
    mix = lambda q: 0.25 * q[..., 0] + 0.75 * q[..., 1] + 0.5  # noqa: E731
    found, _ = penalty_of(pair("facmac", mix), q, choices([1, 1], avail=(1, 1, 0)))
    np.testing.assert_allclose(found, 0.6245268 / 2, rtol=1e-5)


@pytest.mark.parametrize(("name", "vary", "volume"), [("maddpg", "own", np.log(2)), ("facmac", "joint", 2 * np.log(2))])
def test_a_constant_critic_pays_the_volume_of_what_varies(name, vary, volume):
    """With a deviation so large that Gaussians in the box are uniform. Nothing is gained by a higher constant."""
    mix = (lambda params, q: q.sum(-1)) if name == "facmac" else None
    learner = duo(name, lambda params, x: jnp.broadcast_to(params, x.shape[:3]), mix)
    found, slope = penalty_of(learner, jnp.float32(3.0), one_step([0.2, -0.4]), vary=vary, action_std=1e3)
    np.testing.assert_allclose(found, volume, rtol=1e-4)
    np.testing.assert_allclose(slope, 0.0, atol=1e-5)


@pytest.mark.parametrize("vary", ["own", "joint"])
def test_what_is_in_the_data_goes_up_and_the_rest_down(vary):
    """Two bumps on Q = 0, one at agent 0's action and one elsewhere: by hand -1 and 0, and the share of their width."""
    heights = lambda params: params[None, None, None]  # noqa: E731
    learner = duo("maddpg", lambda p, x: (heights(p) * jnp.exp(-jnp.square(x[..., 1:2] - BUMPS) / 0.02)).sum(-1))
    batch = one_step([-0.5, 0.0])
    found = penalty_of(learner, jnp.zeros(2), batch, vary=vary, samples=4000, action_std=1.0)[1]
    width = np.sqrt(0.02 * np.pi) / 2
    # agent 1's critic sees the same bumps at an action that it does not vary, unless all are
    share = 1.0 if vary == "joint" else 0.5
    np.testing.assert_allclose(found, share * np.array([width - 1, width]), atol=0.02)


BUMPS = jnp.array([-0.5, 0.5])[None, None, None]


@pytest.mark.slow
def test_candidates_are_uniform_and_around_this_and_the_next_policy():
    learner = parts_of("facmac", PLANE, **FEED_FORWARD)
    algorithm, batch = cql.make(cql.Config(samples=3), learner).assemble(), batch_of(PLANE)
    state, ctx = init(algorithm), context(algorithm, **{"cql.action_std": 1e-3})
    actor = learner.networks["actor"]

    @jax.jit
    def find(params):
        view = view_of(learner, state.replace(params=params), batch, ctx)
        y = actor.unroll(params["actor"], actor.initial_carry(4), actor_input(view))[1]
        return *cql.candidates(cql.Config(samples=3), view), jnp.tanh(y)

    action, density, mean = (np.asarray(x) for x in find(state.params))
    assert action.shape == (9, *mean[1:].shape)
    assert np.abs(action).max() <= 1
    np.testing.assert_allclose(density[:3], -2 * np.log(2), rtol=1e-6)
    assert action[:3].std() > 0.4
    for group, policy in ((action[3:6], mean[:-1]), (action[6:], mean[1:])):
        np.testing.assert_allclose(group, np.broadcast_to(policy, group.shape), atol=6e-3)
        assert len(np.unique(group)) > 0.9 * group.size  # each is drawn
    assert np.abs(mean[1:] - mean[:-1]).max() > 0.1


# ---- what must not matter


@functools.cache
def compiled(**config):
    """(algorithm, its update compiled once, a learner); without settings the learner without CQL."""
    learner = parts_of("facmac", PLANE, **FEED_FORWARD)
    algorithm = (cql.make(cql.Config(samples=2, **config), learner) if config else learner).assemble()
    return algorithm, jax.jit(algorithm.update), init(algorithm)


def updated(batch, key=KEY, plain=False, **hparams):
    algorithm, update, state = compiled(**({} if plain else {"vary": "own"}))
    return update(state, batch, context(algorithm, **hparams), key)


def test_weight_zero_is_the_learner_without_it():
    """To rounding, because two programs are fused differently; another weight is not."""
    batch = batch_of(PLANE)
    plain, expected = updated(batch, plain=True)
    found, metrics = updated(batch, **{"cql.weight": 0.0})
    np.testing.assert_allclose(flat(found.params), flat(plain.params), rtol=0, atol=2e-7)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-6, err_msg=name)
    other, _ = updated(batch)
    assert np.max(np.abs(flat(other.params["critic"]) - flat(plain.params["critic"]))) > 1e-4


@pytest.mark.slow
def test_weight_zero_is_the_learner_without_it_to_the_bit():
    """One operation at a time, nothing is fused."""
    with jax.disable_jit():
        (plain, expected), (found, metrics) = (
            updated(batch_of(PLANE), **options) for options in ({"plain": True}, {"cql.weight": 0.0})
        )
    jax.tree.map(np.testing.assert_array_equal, found, plain)
    assert {name: metrics[name] for name in expected} == expected


def test_only_the_critics_learn_from_it():
    batch = batch_of(PLANE)
    (plain, _), (found, metrics) = updated(batch, plain=True, critic_lr=0.0), updated(batch, critic_lr=0.0)
    np.testing.assert_array_equal(flat(found.params["actor"]), flat(plain.params["actor"]))
    assert metrics["loss/critic"] == metrics["loss/td"] + 2 * 5.0 * metrics["loss/conservative"]


def test_padding_and_the_kind_of_end_change_nothing():
    batch = batch_of(PLANE)
    clean, shown = updated(batch)
    found, metrics = updated(junk(batch, 1))
    jax.tree.map(np.testing.assert_array_equal, clean, found)
    np.testing.assert_allclose(metrics["loss/conservative"], shown["loss/conservative"], rtol=1e-5)
    swapped = batch.replace(terminated=batch.truncated, truncated=batch.terminated)
    both = batch.replace(terminated=batch.terminated | batch.truncated, truncated=batch.terminated | batch.truncated)
    for other in (swapped, both):
        _, metrics = updated(other)
        assert metrics["loss/conservative"] == shown["loss/conservative"]
        assert metrics["loss/td"] != shown["loss/td"]


@pytest.mark.slow
def test_a_cropped_batch_keeps_its_draws():
    batch = jax.tree.map(lambda x: x[:, 1:], batch_of(PLANE))
    full, cut = (updated(b) for b in (batch, replay.crop(batch, SPEC.episode_limit - 1)))
    np.testing.assert_allclose(flat(full[0].params), flat(cut[0].params), rtol=1e-5, atol=1e-6)
    assert updated(batch, jax.random.key(1))[1]["loss/conservative"] != full[1]["loss/conservative"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "spec", "config", "vary"),
    [
        ("maddpg", SPEC, {"share_params": "none"}, "own"),
        ("maddpg", PLANE, {"recurrent": True}, "own"),
        ("maddpg", PLANE, {"share_params": "type"}, "joint"),
        ("facmac", SPEC, {"mixer": "free"}, "own"),
        ("facmac", PLANE, {"share_params": "none"}, "joint"),
    ],
    ids=str,
)
def test_every_kind_learns_from_valid_steps_alone(name, spec, config, vary):
    learner = parts_of(name, spec, **config)
    algorithm, batch = cql.make(cql.Config(samples=2, vary=vary), learner).assemble(), batch_of(spec)
    state, ctx = init(algorithm), context(algorithm)
    update = jax.jit(algorithm.update)
    clean, metrics = update(state, batch, ctx, KEY)
    jax.tree.map(np.testing.assert_array_equal, clean, update(state, junk(batch, 1), ctx, KEY)[0])
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((clean, metrics)))
    assert metrics["loss/conservative"] != 0


# ---- refusals


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"vary": "all"}, "cql.vary=all is not one of own, joint"),
        ({"samples": 0}, "cql.samples=0 must be at least 1"),
        ({"weight": -1.0}, "cql.weight=-1.0 must not be negative"),
        ({"action_std": 0.0}, "cql.action_std=0.0 must be positive"),
    ],
)
def test_impossible_settings_are_refused(config, told):
    with pytest.raises(RefusedError, match=told):
        cql.Config(**config)


def test_what_it_cannot_be_used_with_is_refused():
    for action in (Discrete(3), Box(1, (-1.0,), (1.0,))):
        assert compatibility.refusal("maddpg", ("cql",), action) is None
        assert compatibility.refusal("facmac", ("cql", "standardise"), action) is None
    assert "algo=qmix: it has no actors whose critics read their actions. Use it with maddpg" in compatibility.refusal(
        "qmix", ("cql",), Discrete(3)
    )
    told = compatibility.refusal("maddpg", ("cql",), Discrete(3), target="td_lambda")
    assert "algo.target=td_lambda" in told
    assert "Use algo.target=one_step" in told
    for order in (("cql", "differ"), ("differ", "cql")):
        assert "both replace the loss of facmac" in compatibility.refusal("facmac", order, Discrete(3))
    with pytest.raises(RefusedError, match=r"cql\.vary=joint: env=fake has discrete .* cql\.vary=own, or algo=macql"):
        cql.make(cql.Config(vary="joint"), parts_of("facmac"))


# ---- what it is for

NARROW = EnvSpec("narrow", 2, 1, 1, Box(1, (-1.0,), (1.0,)), 1, (0, 0), ("unit",))


def narrow():
    """One step, paid -4 a^2 for each agent. The data know actions from -0.4 to -0.1, where more is better."""
    one = {"obs": jnp.ones((2, 1)), "state": jnp.ones(1), "avail": jnp.ones((2, 0), bool), "alive": jnp.ones(2, bool)}

    def show(reward, ended):
        return TimeStep(reward=reward, terminated=ended, truncated=jnp.bool_(False), info={}, **one)

    def step(state, action, key):
        return state, show(jnp.broadcast_to(paid(action), (2,)), jnp.bool_(True))

    env = Env(NARROW, lambda key: (jnp.int32(0), show(jnp.zeros(2), jnp.bool_(False))), step)
    action = np.random.default_rng(0).uniform(-0.4, -0.1, (256, 1, 2, 1)).astype(np.float32)
    slots, ring = (256, 2), (256, 1)
    data = Episode(
        obs=np.ones((*slots, 2, 1), np.float32), state=np.ones((*slots, 1), np.float32),
        avail=np.ones((*slots, 2, 0), bool), alive=np.ones((*slots, 2), bool), action=action,
        reward=np.repeat(np.asarray(paid(action))[..., None], 2, -1), terminated=np.ones(ring, bool),
        truncated=np.zeros(ring, bool), mask=np.ones(ring, bool),
    )  # fmt: skip
    return env, data


def paid(action):
    return -4.0 * (action**2).sum((-2, -1))


@functools.cache
def learned(name, modifiers, updates=1500):
    """(what is done, what the critics promise for it, what is paid), from the data through the real program."""
    env, data = narrow()
    learner = parts_of(name, NARROW, recurrent=False, hidden_dim=32, target_update="soft")
    for modifier, config in modifiers:
        learner = modifier.make(config, learner)
    algorithm = dataclasses.replace(learner.assemble(), experience="dataset")
    program = Program(env, algorithm, RunConfig(batch_size=32, total_updates=updates, eval=EvalConfig(episodes=4)))
    values = {**algorithm.hparams, "lr": 1e-3, "critic_lr": 3e-3, "grad_clip": 10.0, "adam_eps": 1e-8}
    traced = {key: jnp.float32(value) for key, value in values.items()}
    learn = jax.jit(
        lambda data: program.chunk_offline(updates, program.init(jnp.int32(0)), traced, (start_clock(), data))
    )
    (state, metrics), clock = learn(data)
    shown = jax.tree.map(lambda x: jnp.asarray(x)[None], env.reset(KEY)[1])
    ctx = program.context(state, traced, clock)
    action = algorithm.act(state.learner.params, algorithm.initial_carry(1), shown, ctx, KEY, False)[1][0]
    return np.asarray(action), float(metrics["update"]["q/policy_mean"].ravel()[-1]), float(paid(action))


@pytest.mark.slow
@pytest.mark.parametrize("vary", ["own", "joint"])
@pytest.mark.parametrize("name", ["maddpg", "facmac"])
def test_from_narrow_data_it_stays_where_the_data_are(name, vary):
    """The learner alone goes on in the direction in which the data get better, promises much, and gets little."""
    _, promised, got = learned(name, ())
    assert promised - got > 4
    assert got < -4
    careful, promised, got = learned(name, ((cql, cql.Config(vary=vary)),))
    assert np.all((careful > -0.6) & (careful < 0.1)), careful
    assert got > -1.5
    assert promised - got < 1


# ---- from the command's settings


def test_presets_have_og_marls_settings():
    settings = {name: cli.settings([f"preset=offline/{name}_cql"]) for name in ("maddpg", "facmac")}
    for name, found in settings.items():
        config = found.modifiers["cql"]
        assert (found.algo_name, list(found.modifiers)) == (name, ["cql"])
        assert (config.weight, config.samples, config.action_std, config.vary) == (5.0, 10, 0.2, "joint")
        assert (found.algo.target_update, found.algo.recurrent, found.run.batch_size) == ("soft", True, 32)
        assert (found.algo.hparams.gamma, found.algo.hparams.grad_clip, found.algo.hparams.adam_eps) == (
            0.99, np.inf, 1e-8,
        )  # fmt: skip
    h = settings["maddpg"].algo.hparams
    assert (h.lr, h.critic_lr, h.tau, h.action_reg) == (1e-3, 1e-3, 0.01, 1e-3)
    assert (settings["maddpg"].algo.others, settings["maddpg"].algo.critic_agent_id) == ("buffer", False)
    h = settings["facmac"].algo.hparams
    assert (h.lr, h.critic_lr, h.tau, h.action_reg) == (1e-4, 1e-4, 0.005, 1e-3)
    assert (settings["facmac"].algo.embed_dim, settings["facmac"].algo.hypernet_dim) == (32, 64)


def test_presets_have_the_settings_of_sits_table():
    for name in ("qmix", "facmac"):
        found = cli.settings([f"preset=offline/{name}"])
        assert (found.algo.target_update, found.algo.target_update_period, found.algo.hidden_dim) == ("hard", 100, 64)
        assert (found.algo.embed_dim, found.algo.bootstrap_on_timeout, found.run.batch_size) == (32, True, 32)
        assert (found.algo.hparams.lr, found.algo.hparams.gamma, found.algo.hparams.grad_clip) == (5e-4, 0.99, 10.0)
        assert (found.run.total_updates, getattr(found.algo.hparams, "critic_lr", 1e-4)) == (15_000, 1e-4)


SMALL = ("env.max_steps=4", "algo.hidden_dim=4", "batch_size=4", "total_updates=20", "eval.every=10", "eval.episodes=2",
         "checkpoint.every=0", "progress=false")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["preset=offline/facmac_cql", "preset=offline/maddpg_cql", "algo=bc", "algo=icq"])
def test_a_run_from_a_data_set_of_continuous_actions(learner, tmp_path):
    """Eight episodes of predator-prey, written to disk and read again: losses are finite, and it is evaluated."""
    task = ("env=mpe", "env.scenario=pred_prey_3a", "env.max_steps=4")
    program = build.prepare(cli.settings(["algo=facmac", *task, "num_envs=8", "algo.hidden_dim=4"]))
    hparams = {name: jnp.float32(value) for name, value in program.algorithm.hparams.items()}
    played = jax.jit(lambda: program.explore(program.init(jnp.int32(0)), hparams, start_clock()).batch)()
    path = tmp_path / "prey.jds"
    own.save(records.from_rollout(jax.tree.map(np.asarray, played), card=card.card_of(program.env.spec)), path)
    place = () if learner.startswith("preset") else task[:2]
    tiny.train(tmp_path / "run", learner, *place, f"data={path}", *SMALL)
    shown = tiny.records(tmp_path / "run")
    assert shown[-1]["updates"] == 20
    assert any("eval/return" in record for record in shown)
    losses = [value for record in shown for key, value in record.items() if key.startswith("loss/")]
    assert losses
    assert np.all(np.isfinite(losses))

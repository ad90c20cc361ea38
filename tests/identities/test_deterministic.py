"""MADDPG and FACMAC: the numbers of their specification, what must not matter, windows, and what is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from actor_critic_cases import main_loss, view_of
from value_cases import AGENTS, BATCH, KEY, SPEC, STEPS, assert_close, context, flat, init, random_batch, step

from jaxshare import cli, compatibility
from jaxshare.algos import facmac, maddpg
from jaxshare.learners.deterministic_losses import individual_lambda_loss, team_lambda_loss
from jaxshare.learners.deterministic_values import actor_input, compute_values, next_actions
from jaxshare.learners.value import Values
from jaxshare.models import inputs
from jaxshare.models.agents import AgentNetwork
from jaxshare.models.critics import FreeMixer, joint_actions
from jaxshare.models.mixers import Mixer, QMixer, mix_two_layers
from jaxshare.modifiers.differ import modifier as differ
from jaxshare.run import build
from jaxshare.training import replay
from jaxshare.training.counting import start_clock
from jaxshare.types import Box, Discrete, EnvSpec, Episode, LearnerState, RefusedError, TimeStep

BOX = Box(2, (-1.0, 0.0), (1.0, 4.0))
PLANE = dataclasses.replace(SPEC, name="plane", action=BOX)
OWN = dataclasses.replace(SPEC, name="own", common_reward=False)
FEED_FORWARD = {"recurrent": False, "obs_last_action": False}
PERSONAL = {"share_params": "none", "clip": "set", "over_agents": "sum", "target_update_period": 3, **FEED_FORWARD}


def parts_of(name, spec=SPEC, **config):
    module = {"maddpg": maddpg, "facmac": facmac}[name]
    small = {"hidden_dim": 4, **({"embed_dim": 3, "hypernet_dim": 4} if name == "facmac" else {}), **config}
    return module.make(module.Config(**small), spec)


def values_of(learner, state, batch, ctx):
    """What the critics' loss looks at, with the best target actions."""
    return compute_values(view_of(learner, state, batch, ctx, key=None))


def batch_of(spec=SPEC, seed=0):
    """`random_batch`, with actions from the box where there is one, and rewards of their own if agents have them."""
    batch = random_batch(seed, dataclasses.replace(spec, action=Discrete(4)))
    rng = np.random.default_rng(seed)
    if not spec.common_reward:
        reward = rng.normal(size=batch.reward.shape) * np.asarray(batch.mask)[..., None]
        batch = batch.replace(reward=jnp.array(reward, jnp.float32))
    if isinstance(spec.action, Box):
        action = rng.uniform(spec.action.low, spec.action.high, (*batch.mask.shape, spec.num_agents, spec.action.dim))
        action = jnp.array(action * np.asarray(batch.mask)[..., None, None], jnp.float32)
        batch = batch.replace(action=action, avail=batch.avail[..., :0])
    return batch


@functools.cache
def compiled(name, spec=SPEC, **config):
    """(algorithm, its update compiled once for all tests, a learner)."""
    algorithm = parts_of(name, spec, **config).assemble()
    return algorithm, jax.jit(algorithm.update), init(algorithm)


# ---- masks


def junk(batch, seed):
    """Large random values wherever the mask is 0."""
    rng = np.random.default_rng(seed)
    off = np.asarray(batch.mask) == 0
    unreached = np.concatenate([np.zeros_like(off[:1]), off])

    def fill(x, where):
        values = rng.random(x.shape) < 0.5 if x.dtype == bool else 1e3 * rng.normal(size=x.shape)
        return jnp.where(where.reshape(where.shape + (1,) * (x.ndim - 2)), jnp.asarray(values, x.dtype), x)

    slots = {name: fill(getattr(batch, name), unreached) for name in ("obs", "state", "alive")}
    ends = {name: fill(getattr(batch, name), off) for name in ("action", "reward", "terminated", "truncated")}
    return batch.replace(**slots, **ends)


FACMAC = ("facmac", PLANE, FEED_FORWARD)
LEARNERS = [("maddpg", SPEC, {"target_action": "sample", "share_params": "none", "clip": "set"}), FACMAC]
MORE = [
    ("facmac", PLANE, {"share_params": "type"}),
    ("facmac", SPEC, {"target": "td_lambda", "mixer": "free", "target_update": "hard"}),
]


@pytest.mark.parametrize(
    ("name", "spec", "config"), [*LEARNERS, *(pytest.param(*row, marks=pytest.mark.slow) for row in MORE)], ids=str
)
def test_padding_changes_nothing(name, spec, config):
    algorithm, update, state = compiled(name, spec, **config)
    ctx, batch = context(algorithm), batch_of(spec)
    clean, clean_metrics = update(state, batch, ctx, KEY)
    found, metrics = update(state, junk(batch, 1), ctx, KEY)
    jax.tree.map(np.testing.assert_array_equal, clean, found)
    for key, value in metrics.items():
        np.testing.assert_allclose(value, clean_metrics[key], rtol=1e-5, err_msg=key)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((found, metrics)))
    for module in state.params:
        assert np.any(flat(clean.params[module]) != flat(state.params[module])), module


@pytest.mark.parametrize(("name", "spec", "config"), LEARNERS, ids=str)
def test_the_step_that_ends_an_episode_is_trained_on(name, spec, config):
    """EPyMARL's mask leaves it out: a reward that comes at the end is never learned there."""
    algorithm, update, state = compiled(name, spec, **config)
    ctx, batch = context(algorithm), batch_of(spec)
    _, plain = update(state, batch, ctx, KEY)
    last = batch.terminated | batch.truncated
    assert last.sum() == BATCH
    for where in (batch.terminated, batch.truncated):
        _, found = update(state, batch.replace(reward=batch.reward + 10.0 * where[..., None]), ctx, KEY)
        share = where.sum() / batch.mask.sum()
        np.testing.assert_allclose(found["q/target_mean"] - plain["q/target_mean"], 10 * share, rtol=1e-3)
        assert found["loss/td"] != plain["loss/td"]


@pytest.mark.parametrize(("name", "spec"), [("maddpg", SPEC), ("facmac", PLANE)])
def test_only_terminations_end_the_bootstrap_unless_asked(name, spec):
    batch = batch_of(spec)
    for on_timeout in (True, False):
        learner = parts_of(name, spec, bootstrap_on_timeout=on_timeout, **FEED_FORWARD)
        algorithm = learner.assemble()
        state, ctx = init(algorithm), context(algorithm, gamma=0.9)
        see = lambda batch, p=learner, a=state, c=ctx: values_of(p, a, batch, c)  # noqa: E731
        values = jax.jit(see)(batch)
        end = batch.terminated if on_timeout else batch.terminated | batch.truncated
        np.testing.assert_allclose(values.discount, 0.9 * (1 - np.asarray(end, float)), rtol=1e-6)


@pytest.mark.slow
def test_a_cropped_batch_keeps_its_draws():
    """The longest of these episodes is one step shorter than the limit."""
    name, spec, config = LEARNERS[0]
    algorithm, update, state = compiled(name, spec, **config)
    batch = jax.tree.map(lambda x: x[:, 1:], batch_of(spec))
    assert batch.mask.sum(0).max() == STEPS - 1
    full, cut = (update(state, b, context(algorithm), KEY)[0] for b in (batch, replay.crop(batch, STEPS - 1)))
    np.testing.assert_allclose(flat(full.params), flat(cut.params), rtol=1e-5, atol=1e-6)


# ---- what actors and critics see


def test_a_critic_sees_its_agents_own_action_and_the_others():
    own, others = (jnp.arange(6.0).reshape(1, 1, 3, 2) + add for add in (0, 100))
    np.testing.assert_array_equal(
        joint_actions(own, others)[0, 0],
        [[0, 1, 102, 103, 104, 105], [100, 101, 2, 3, 104, 105], [100, 101, 102, 103, 4, 5]],
    )


def test_target_actions_come_from_memory_since_the_first_step_and_are_available():
    learner = parts_of("maddpg")
    algorithm, batch = learner.assemble(), batch_of()
    state = init(algorithm)
    params, actor = state.target_params["actor"], learner.networks["actor"]
    view = view_of(learner, state, batch, context(algorithm), key=None)
    x = actor_input(view)
    found = np.asarray(jax.jit(lambda: next_actions(view))())
    logits = []
    carry = actor.initial_carry(BATCH)
    unroll = jax.jit(actor.unroll)
    for t in range(STEPS + 1):
        carry, y = unroll(params, carry, x[t][None])
        logits.append(y[0])
    best = np.where(batch.avail, np.stack(logits), -np.inf).argmax(-1)
    np.testing.assert_array_equal(found.argmax(-1), best[1:])
    np.testing.assert_array_equal(np.sort(found, -1)[..., -2:], np.broadcast_to([0, 1], (*found.shape[:-1], 2)))
    assert np.all((found * np.asarray(batch.avail)[1:]).sum(-1) == 1)
    late = np.asarray(unroll(params, actor.initial_carry(BATCH), x[1:])[1])
    assert np.any(np.where(batch.avail[1:], late, -np.inf).argmax(-1) != best[1:])  # the usual mistake shows


def test_the_actor_step_changes_actors_only_and_sees_the_new_critics():
    name, spec, config = FACMAC
    algorithm, update, state = compiled(name, spec, **config)
    batch = batch_of(spec)
    run = lambda **h: update(state, batch, context(algorithm, tau=0.0, **h), KEY)  # noqa: E731
    both, actors, critics = run(), run(critic_lr=0.0), run(lr=0.0)
    same = lambda a, b, names: all(np.array_equal(flat(a.params[n]), flat(b.params[n])) for n in names)  # noqa: E731
    assert same(actors[0], state, ("critic", "mixer"))
    assert same(critics[0], state, ("actor",))
    assert same(both[0], critics[0], ("critic", "mixer"))
    assert not same(both[0], actors[0], ("actor",))
    assert both[1]["loss/td"] == actors[1]["loss/td"]
    assert both[1]["q/policy_mean"] != actors[1]["q/policy_mean"]


def test_rewards_of_their_own_and_norms_of_their_own():
    """With clip=set nothing of agent 1's reward reaches agent 0, though its gradient is far above the norm."""
    algorithm, update, state = compiled("maddpg", OWN, **PERSONAL)
    batch, ctx = batch_of(OWN), context(algorithm, grad_clip=0.01)
    other = batch.replace(reward=batch.reward.at[..., 1].add(5.0 * batch.mask))
    first, second = (jax.tree.leaves(update(state, b, ctx, KEY)[0].opt_state["critic"][1].mu) for b in (batch, other))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[2], b[2])
    assert any(np.any(a[1] != b[1]) for a, b in zip(first, second, strict=True))
    norm = np.sqrt(sum(np.square(a[0] / 0.1).sum() for a in map(np.asarray, first)))
    np.testing.assert_allclose(norm, 0.01, rtol=1e-4)


@pytest.mark.slow
def test_the_sum_over_agents_is_n_times_the_mean():
    found = {}
    for over in ("sum", "mean"):
        algorithm, update, state = compiled("maddpg", OWN, over_agents=over, **FEED_FORWARD)
        found[over], _ = update(state, batch_of(OWN), context(algorithm, critic_lr=0.0), KEY)
    for group in ("actor", "critic"):
        moments = [flat(found[over].opt_state[group][1].mu) for over in ("sum", "mean")]
        np.testing.assert_allclose(moments[0], AGENTS * moments[1], rtol=1e-4, atol=1e-7)


# ---- made-up networks: a_i = theta_i, Q and the mixer as wanted

DUO = EnvSpec("duo", 2, 1, 1, Box(1, (-1.0,), (1.0,)), 1, (0, 1), ("one", "two"))


def actor_of(theta_names=2):
    """Two agents that always do theta_i, whatever they see."""
    return AgentNetwork(
        init=lambda key: jnp.zeros(theta_names),
        initial_carry=lambda batch: jnp.zeros((batch, 2, 0)),
        unroll=lambda theta, carry, x: (carry, jnp.broadcast_to(jnp.arctanh(theta)[:, None], (*x.shape[:3], 1))),
        param_sets=(0, 1),
    )


def critic_of(q):
    """(params, x [T, B, N, D]) -> Q_i [T, B, N]."""
    return AgentNetwork(
        init=lambda key: jnp.zeros(()),
        initial_carry=lambda batch: jnp.zeros((batch, 2, 0)),
        unroll=lambda params, carry, x: (carry, q(params, x)[..., None]),
        param_sets=(0, 1),
    )


def duo(name, q, mix=None, **config):
    learner = parts_of(name, DUO, **config)
    learner = learner.with_network("actor", actor_of()).with_network("critic", critic_of(q))
    if mix is None:
        assert learner.mixer is None
        return learner
    return learner.with_network("mixer", Mixer(lambda key: jnp.zeros(()), lambda p, q, seen: mix(p, q)))


def one_step(action, reward=1.0, terminated=False):
    """An episode of one step, [2, 1, 2, 1] observations of 1."""
    return Episode(
        obs=jnp.ones((2, 1, 2, 1)),
        state=jnp.ones((2, 1, 1)),
        avail=jnp.ones((2, 1, 2, 0), bool),
        alive=jnp.ones((2, 1, 2), bool),
        action=jnp.array(action, jnp.float32).reshape(1, 1, 2, 1),
        reward=jnp.full((1, 1, 2), reward),
        terminated=jnp.full((1, 1), terminated),
        truncated=jnp.full((1, 1), not terminated),
        mask=jnp.ones((1, 1)),
    )


def actors_loss(learner, theta, batch, ctx):
    """(loss, metrics) of the actors, who always do theta."""
    params = {"actor": theta, "critic": jnp.zeros(()), "mixer": jnp.zeros(())}
    step = learner.steps["actor"]
    loss, metrics = step.loss(view_of(learner, LearnerState(params, params, {}, {}), batch, ctx))
    return step.weight * loss, metrics


def policy_gradient(learner, theta, batch):
    """What the actors climb, by theta: minus the gradient of their loss."""
    ctx = context(learner.assemble(), action_reg=0.0)
    loss = lambda theta: actors_loss(learner, theta, batch, ctx)[0]  # noqa: E731
    return -np.asarray(jax.jit(jax.grad(loss))(jnp.array(theta)))


def test_facmac_climbs_all_actions_at_once():
    """Q_tot = a_1 a_2 at (1/2, -1/2): the joint policy gradient is (-1/2, 1/2)."""
    learner = duo("facmac", lambda params, x: x[..., 1], lambda params, q: q[..., 0] * q[..., 1])
    np.testing.assert_allclose(policy_gradient(learner, [0.5, -0.5], one_step([0.9, 0.3])), [-0.5, 0.5], rtol=1e-5)


@pytest.mark.parametrize(("others", "gradient"), [("buffer", [0.3, 0.9]), ("current", [-0.5, 0.5])])
def test_maddpg_climbs_each_action_alone_beside_those_of_the_others(others, gradient):
    """The same critic for both; the mean over two agents halves the gradient."""
    learner = duo("maddpg", lambda params, x: x[..., 1] * x[..., 2], others=others)
    found = policy_gradient(learner, [0.5, -0.5], one_step([0.9, 0.3]))
    np.testing.assert_allclose(2 * found, gradient, rtol=1e-5)


@pytest.mark.parametrize(("name", "gamma", "bootstrapped"), [("maddpg", 0.95, 2.9), ("facmac", 0.85, 2.7)])
def test_targets_of_one_step(name, gamma, bootstrapped):
    """r = 1 and Q' = 2."""
    mix = (lambda params, q: q.sum(-1)) if name == "facmac" else None
    learner = duo(name, lambda params, x: jnp.broadcast_to(params, x.shape[:3]), mix)
    target = {"actor": jnp.zeros(2), "critic": jnp.float32(1.0 if mix else 2.0), "mixer": jnp.zeros(())}
    params = {**target, "critic": jnp.float32(0.0)}
    ctx = context(learner.assemble(), gamma=gamma)
    state = LearnerState(params, target, {}, {})
    judge = jax.jit(lambda batch: main_loss(view_of(learner, state, batch, ctx, key=None), params))
    for terminated, expected in ((False, bootstrapped), (True, 1.0)):
        loss, metrics = judge(one_step([0.0, 0.0], terminated=terminated))
        np.testing.assert_allclose(metrics["q/target_mean"], expected, rtol=1e-6)
        np.testing.assert_allclose(loss, expected**2, rtol=1e-6)


def test_the_penalty_is_the_mean_square_of_continuous_actions():
    learner = duo("facmac", lambda params, x: 0.0 * x[..., 1], lambda params, q: q.sum(-1))
    ctx = context(learner.assemble(), action_reg=1e-3)
    find = jax.jit(lambda theta: actors_loss(learner, theta, one_step([0.0, 0.0]), ctx))
    loss, metrics = find(jnp.array([0.5, -0.1]))
    np.testing.assert_allclose(loss, 1e-3 * (0.25 + 0.01) / 2, rtol=1e-5)
    np.testing.assert_allclose(metrics["policy/mean_square"], 0.13, rtol=1e-5)


# ---- TD(lambda)


def chain(terminated):
    """r = [1, 0, 2] with q = [.5, 1, 1.5, .7], one episode of one agent."""
    field = lambda x: jnp.array(x, jnp.float32)[:, None]  # noqa: E731
    reward, q = field([1, 0, 2]), field([0.5, 1, 1.5, 0.7])
    end = jnp.arange(3)[:, None] == 2
    blank = one_step([0.0, 0.0])
    batch = blank.replace(reward=reward[..., None], terminated=end & terminated, truncated=end & (not terminated),
                          mask=jnp.ones((3, 1)))  # fmt: skip
    discount = 0.99 * (1.0 - batch.terminated)
    values = Values(
        q=jnp.zeros(()), q_taken=q[:3, :, None], next_q=q[1:, :, None], q_tot=q[:3], next_q_tot=q[1:],
        discount=discount, team_reward=reward, mix=jnp.sum,
    )  # fmt: skip
    return values, batch


LAMBDA = (team_lambda_loss, individual_lambda_loss)


@functools.partial(jax.jit, static_argnums=0)
def by_lambda(loss, values, batch, ctx):
    nobody = LearnerState({}, {}, {}, {})
    return loss(view_of(None, nobody, batch, ctx, values=values))


@pytest.mark.parametrize(
    ("lambda_", "terminated", "target"),
    [
        (0.8, True, [2.687752, 1.881, 2]),
        (0.8, False, [3.122446, 2.429856, 2.693]),
        (0.0, True, [1.99, 1.485, 2]),
        (1.0, True, [2.9602, 1.98, 2]),
    ],
)
def test_td_lambda_targets(lambda_, terminated, target):
    (values, batch), ctx = chain(terminated), context(parts_of("facmac").assemble(), td_lambda=lambda_)
    for loss_of in LAMBDA:
        loss, metrics = by_lambda(loss_of, values, batch, ctx)
        np.testing.assert_allclose(metrics["q/target_mean"], np.mean(target), rtol=1e-5)
        np.testing.assert_allclose(loss, np.mean((np.array(target) - [0.5, 1, 1.5]) ** 2), rtol=1e-5)


@pytest.mark.parametrize("name", ["maddpg", "facmac"])
def test_lambda_zero_is_one_step(name):
    learner = parts_of(name, OWN, target="td_lambda", **FEED_FORWARD)
    algorithm, batch = learner.assemble(), batch_of(OWN)
    state, ctx = init(algorithm), context(algorithm, td_lambda=0.0)

    @jax.jit
    def both(params):
        view = view_of(learner, state.replace(params=params), batch, ctx, key=None)
        view = view.replace(values=compute_values(view))
        other = parts_of(name, OWN, **FEED_FORWARD)
        return learner.steps["critic"].loss(view), other.steps["critic"].loss(view)

    (loss, metrics), (usual, other) = both(state.params)
    np.testing.assert_allclose(loss, usual, rtol=1e-5)
    for key, value in metrics.items():
        np.testing.assert_allclose(value, other[key], rtol=1e-5, err_msg=key)


# ---- mixers

W1, B1, W2, V = [[1.0, -2.0], [3.0, 0.5]], [0.0, 0.1], [0.5, -1.0], 0.3


@pytest.mark.parametrize(
    ("sign", "q_tot", "slope"),
    [(jnp.abs, 0.9033690, [2.0033690, 0.5101069]), (lambda w: w, 0.7483458, [0.1134154, -0.0174047])],
    ids=["monotone", "free"],
)
def test_the_mixers_of_the_specification(sign, q_tot, slope):
    mix = lambda q: mix_two_layers(q, sign(jnp.array(W1)), jnp.array(B1), sign(jnp.array(W2)), jnp.array(V))  # noqa: E731
    found, gradient = jax.value_and_grad(mix)(jnp.array([1.0, -2.0]))
    np.testing.assert_allclose(found, q_tot, rtol=1e-6)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5)


def test_one_mixer_is_monotone_and_the_other_is_not():
    rng = np.random.default_rng(0)
    q, state = jnp.array(rng.normal(size=(50, 3)), jnp.float32), jnp.array(rng.normal(size=(50, 2)), jnp.float32)
    monotone, free = QMixer(4, 8, 2), FreeMixer(4, 8, 2)
    params = jax.jit(monotone.init)(KEY, q, state)
    assert jax.tree.structure(params) == jax.tree.structure(jax.eval_shape(free.init, KEY, q, state))
    slopes = {
        m: np.asarray(jax.jit(jax.grad(lambda q, m=m: m.apply(params, q, state).sum()))(q)) for m in (monotone, free)
    }
    assert np.all(slopes[monotone] >= 0)
    assert np.any(slopes[monotone] > 0)
    assert np.any(slopes[free] < 0)


def test_the_settings_choose_the_mixer():
    alone = EnvSpec("alone", 1, 3, 2, BOX, 5, (0,), ("unit",))
    leaves = lambda **c: jax.tree.leaves(jax.eval_shape(parts_of("facmac", **c).mixer.init, KEY))  # noqa: E731
    assert leaves(mixer="vdn") == leaves(spec=alone) == []
    one, two = leaves(hypernet_layers=1), leaves(hypernet_layers=2)
    assert len(two) == len(one) + 4


# ---- acting

OTHERS = [field.name for field in dataclasses.fields(TimeStep) if field.name != "obs"]


@functools.cache
def actions(name, spec, explore):
    """(hparams, env_steps) -> many actions of one fixed policy in one observation, [rows, N(, U)]; what is allowed."""
    algorithm = parts_of(name, spec, **FEED_FORWARD).assemble()
    state, rows, batch = init(algorithm), 2000, batch_of(spec)
    avail = jnp.broadcast_to(batch.avail[0, 0], (rows, *batch.avail.shape[2:]))
    obs = jnp.broadcast_to(batch.obs[0, 0], (rows, *batch.obs.shape[2:]))
    timestep = TimeStep(obs=obs, **{**dict.fromkeys(OTHERS), "avail": avail})
    act = jax.jit(
        lambda ctx: algorithm.act(state.params, algorithm.initial_carry(rows), timestep, ctx, KEY, explore)[1]
    )
    return lambda env_steps=0, **h: np.asarray(act(context(algorithm, env_steps=env_steps, **h))), np.asarray(avail)


def share_of(action, num):
    return np.stack([(action == a).mean(0) for a in range(num)], -1)


def test_discrete_exploration_mixes_samples_of_the_policy_with_uniform_ones():
    greedy, avail = actions("maddpg", SPEC, False)
    explore, _ = actions("maddpg", SPEC, True)
    best = greedy()
    assert np.all(best == best[0])
    allowed = avail[0] / avail[0].sum(-1, keepdims=True)
    uniform, policy = share_of(explore(epsilon_start=1.0, epsilon_end=1.0), 4), share_of(explore(), 4)
    tolerance = 5 * np.sqrt(0.25 / 2000)
    np.testing.assert_allclose(uniform, allowed, atol=tolerance)
    half = share_of(explore(epsilon_start=0.5, epsilon_end=0.5), 4)
    np.testing.assert_allclose(half, (uniform + policy) / 2, atol=tolerance)
    assert np.all(share_of(explore(env_steps=3), 4)[~avail[0]] == 0)
    first, later = (share_of(explore(uniform_steps=10.0, env_steps=n), 4) for n in (9, 10))
    np.testing.assert_array_equal(first, uniform)
    np.testing.assert_array_equal(later, policy)
    annealed = share_of(explore(epsilon_start=1.0, epsilon_end=0.0, epsilon_anneal_steps=10.0, env_steps=10), 4)
    np.testing.assert_array_equal(annealed, policy)


def test_the_policy_is_the_softmax_of_available_logits():
    explore, avail = actions("maddpg", SPEC, True)
    learner = parts_of("maddpg", **FEED_FORWARD)
    batch = batch_of()
    state = init(learner.assemble())
    actor, x = learner.networks["actor"], actor_input(view_of(learner, state, batch, None))
    y = actor.unroll(state.params["actor"], actor.initial_carry(BATCH), x)[1][0, 0]
    expected = jax.nn.softmax(jnp.where(avail[0], y, -jnp.inf), axis=-1)
    np.testing.assert_allclose(share_of(explore(), 4), expected, atol=5 * np.sqrt(0.25 / 2000))


def test_continuous_exploration_is_noise_in_the_box_and_uniform_at_first():
    low, high = np.array(BOX.low), np.array(BOX.high)
    greedy, explore = (actions("facmac", PLANE, e)[0] for e in (False, True))
    best, noisy, still = greedy(), explore(action_noise=0.02), explore(action_noise=0.0)
    np.testing.assert_array_equal(still, best)
    assert np.all(best == best[0])
    assert np.all((best >= low) & (best <= high))
    spread = inputs.encode(jnp.array(noisy - best + (low + high) / 2), PLANE)  # on [-1, 1], around 0
    inside = np.abs(np.asarray(inputs.encode(jnp.array(best[0]), PLANE))) < 0.9
    assert inside.any()
    np.testing.assert_allclose(np.std(spread, axis=0)[inside], 0.02, rtol=0.1)
    uniform = explore(uniform_steps=5.0, env_steps=4)
    assert np.all((uniform >= low) & (uniform <= high))
    np.testing.assert_allclose(uniform.mean(0), np.broadcast_to((low + high) / 2, uniform.shape[1:]), atol=0.2)
    assert len(np.unique(uniform)) > 0.99 * uniform.size
    np.testing.assert_array_equal(explore(uniform_steps=5.0, env_steps=5, action_noise=0.0), best)
    loud = explore(action_noise=10.0)
    assert np.mean((loud == low) | (loud == high)) > 0.8


# ---- targets


@pytest.mark.parametrize(("updates", "copied"), [(0, False), (1, False), (2, True), (3, False)])
def test_hard_targets_are_copied_when_their_time_comes(updates, copied):
    algorithm, update, state = compiled("maddpg", OWN, **PERSONAL)
    new, _ = update(state, batch_of(OWN), context(algorithm, updates=updates), KEY)
    np.testing.assert_array_equal(flat(new.target_params), flat(new.params if copied else state.target_params))


def test_soft_targets_follow():
    name, spec, config = FACMAC
    algorithm, update, state = compiled(name, spec, **config)
    new, _ = update(state, batch_of(spec), context(algorithm, tau=0.25), KEY)
    np.testing.assert_allclose(
        flat(new.target_params), 0.75 * flat(state.target_params) + 0.25 * flat(new.params), rtol=1e-5, atol=1e-6
    )


# ---- windows


@pytest.mark.slow
def test_all_windows_of_one_step_are_the_whole_episodes():
    """Feed-forward and without noise: one update on every stored transition is the update on the episodes."""
    algorithm, update, state = compiled("facmac", PLANE, **FEED_FORWARD)
    batch, ctx = batch_of(PLANE), context(algorithm)
    ring = replay.add(replay.init(batch, BATCH, "float32"), batch, context(algorithm).clock)
    steps = np.asarray(replay.steps_stored(ring))
    slot = jnp.array(np.repeat(np.arange(BATCH), steps))
    at = jnp.array(np.concatenate([np.arange(n) for n in steps]))
    windows = replay.gather_windows(ring, slot, at, 1)
    assert windows.mask.shape == (1, int(batch.mask.sum()))
    whole, pieces = (update(state, b, ctx, KEY) for b in (batch, windows))
    for group in whole[0].opt_state:
        moments = [w[0].opt_state[group][1].mu for w in (whole, pieces)]
        assert_close(moments[1], moments[0], 1e-4)
    np.testing.assert_allclose(whole[1]["loss/td"], pieces[1]["loss/td"], rtol=1e-5)


def run_of(window, batch_size=6, **run):
    """A program of FACMAC on predator-prey of five steps."""
    settings = tiny.settings("unused", "algo=facmac", "env=mpe", "env.scenario=pred_prey_3a", "env.max_steps=5",
                             "algo.hidden_dim=4", "algo.embed_dim=4", "algo.recurrent=false", f"algo.window={window}",
                             "algo.obs_last_action=false", f"batch_size={batch_size}", "replay.capacity=12",
                             "num_envs=2", "updates_per_episode=2", *(f"{k}={v}" for k, v in run.items()))  # fmt: skip
    return build.prepare(settings)


@pytest.mark.parametrize(("window", "batch_size", "prefill"), [(0, 6, 3), (1, 6, 1), (1, 11, 2), (3, 2, 1)], ids=str)
def test_a_batch_of_windows_needs_as_many_steps_and_no_more(window, batch_size, prefill):
    program = run_of(window, batch_size)
    assert program.prefill_iterations == prefill
    assert program.crops == [window or 5]


@pytest.mark.slow
def test_a_run_on_windows_draws_them_from_all_that_is_stored():
    """The same run vmapped over two seeds; nothing is compiled again, and parameters move."""
    program = run_of(2)
    hparams = {name: jnp.float32(value) for name, value in program.algorithm.hparams.items()}

    def play(seed):
        state, clock = program.prefill(program.init(seed), hparams, start_clock())
        (after, metrics), clock = program.chunk(3, state, hparams, clock)
        return state.learner.params, after.learner.params, metrics["update"], clock

    before, after, metrics, clock = jax.jit(jax.vmap(play, out_axes=(0, 0, 0, None)))(jnp.arange(2))
    assert (int(clock.episodes), int(clock.updates)) == (8, 12)
    assert metrics["loss/td"].shape == (2, 3, 4)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((after, metrics)))
    for module in before:
        assert np.any(flat(before[module]) != flat(after[module])), module
    alone = jax.jit(play)(jnp.int32(1))
    np.testing.assert_allclose(flat(alone[1]), np.concatenate([np.ravel(x[1]) for x in jax.tree.leaves(after)]),
                               rtol=1e-3, atol=1e-4)  # fmt: skip


# ---- DIFFER, whose losses are made for a mixer of utilities


@pytest.mark.slow
def test_dividing_facmacs_reward_changes_no_gradient():
    """With every transition selected the utilities' and the mixer's gradients are those of the team's error."""
    learner = parts_of("facmac", PLANE, **FEED_FORWARD)
    config = differ.Config(select="all", g_clamp=None, alive_mask=False, normaliser="team")
    divided = differ.make(config, learner)
    found = {}
    for name, one in (("base", learner), ("divided", divided)):
        algorithm = one.assemble()
        state, batch = init(algorithm), batch_of(PLANE)
        found[name], metrics, _ = step(algorithm, state, batch, context(algorithm, critic_lr=0.0))
    for module in ("critic", "mixer", "actor"):
        assert_close(found["divided"][module], found["base"][module], 1e-4)
    assert "loss/individual" in metrics
    assert {"grad_norm/agent", "grad_norm/mixer", "grad_norm/actor"} <= set(metrics)
    assert algorithm.inspect(state, batch, context(algorithm))["individual_reward"].shape == batch.reward.shape
    with pytest.raises(RefusedError, match=r"algo\.target=one_step"):
        differ.make(config, parts_of("facmac", PLANE, target="td_lambda", **FEED_FORWARD)).assemble()


# ---- refusals


@pytest.mark.parametrize(
    ("module", "config", "told"),
    [
        (maddpg, {"window": 1}, "algo.window=1: recurrent agents .* algo.recurrent=false"),
        (facmac, {"window": 2, "recurrent": False}, "algo.window=2: the action before .* algo.obs_last_action=false"),
        (maddpg, {"window": 1, "recurrent": False, "target": "td_lambda"}, "algo.target=td_lambda: with algo.window=1"),
        (maddpg, {"window": -1}, "algo.window=-1 must be at least 0"),
        (maddpg, {"others": "all"}, "algo.others=all is not one of current, buffer"),
        (maddpg, {"critic_reads": "all"}, "algo.critic_reads=all is not one of state, obs"),
        (maddpg, {"over_agents": "max"}, "algo.over_agents=max is not one of mean, sum"),
        (maddpg, {"relaxation": "none"}, "algo.relaxation=none is not one of hard, soft"),
        (maddpg, {"target_action": "best"}, "algo.target_action=best is not one of greedy, sample"),
        (facmac, {"mixer": "qplex"}, "algo.mixer=qplex is not one of qmix, free, vdn"),
        (facmac, {"hypernet_layers": 3}, "algo.hypernet_layers=3 is not one of 1, 2"),
        (facmac, {"embed_dim": 0}, "algo.embed_dim=0 must be at least 1"),
        (facmac, {"target": "n_step"}, "algo.target=n_step is not one of one_step, td_lambda"),
    ],
)
def test_impossible_settings_are_refused(module, config, told):
    with pytest.raises(RefusedError, match=told):
        module.Config(**config)


def test_tasks_that_do_not_fit_are_refused():
    with pytest.raises(RefusedError, match=f"algo.window=9 is longer .*{STEPS} steps"):
        parts_of("maddpg", window=9, recurrent=False)
    assert "algo.target_action=greedy" in compatibility.refusal("maddpg", (), BOX, target_action="sample")
    for low, high in (((-np.inf, 0.0), (1.0, 1.0)), ((0.0, 1.0), (1.0, 1.0))):
        assert "finite bounds" in compatibility.refusal("facmac", (), Box(2, low, high))
    for name in ("maddpg", "facmac"):
        for action in (Discrete(3), BOX):
            assert compatibility.refusal(name, (), action) is None
            assert compatibility.refusal(name, ("standardise",), action) is None
            assert compatibility.refusal(name, ("a_pps",), action, share_params="none") is None
    assert "no mixer" in compatibility.refusal("maddpg", ("differ",), Discrete(3))


# ---- presets: the table of FACMAC's configurations, and openai/maddpg

TABLE = {  # (lr, critic_lr, adam_eps, gamma, grad_clip, action_reg), (hidden, recurrent, target, its update), batch
    "pred_prey": ((1e-2, 1e-2, 1e-2, 0.85, 0.5, 1e-3), (64, True, "one_step", "soft"), 32),
    "mamujoco": ((1e-3, 1e-3, 1e-2, 0.99, 0.5, 1e-3), (400, False, "one_step", "soft"), 100),
    "smax": ((2.5e-3, 5e-4, 1e-7, 0.99, 10.0, 0.0), (64, True, "td_lambda", "hard"), 32),
}
MIXER = {"pred_prey": (64, 1), "mamujoco": (64, 2), "smax": (32, 2)}


@pytest.mark.parametrize("name", ["facmac", "maddpg"])
@pytest.mark.parametrize("column", TABLE)
def test_presets_have_the_settings_of_the_table(name, column):
    settings = cli.settings([f"preset={name}/{column}"])
    algo, h, run = settings.algo, settings.algo.hparams, settings.run
    scalars, choices, batch_size = TABLE[column]
    assert settings.algo_name == name
    assert (h.lr, h.critic_lr, h.adam_eps, h.gamma, h.grad_clip, h.action_reg) == scalars
    assert (algo.hidden_dim, algo.recurrent, algo.target, algo.target_update) == choices
    assert (run.batch_size, run.replay.capacity) == (batch_size, 1000 if column == "mamujoco" else 5000)
    assert (algo.obs_agent_id, algo.obs_last_action) == ((False,) * 2 if column == "mamujoco" else (True,) * 2)
    if name == "facmac":
        assert (algo.mixer, algo.embed_dim, algo.hypernet_layers) == ("qmix", *MIXER[column])
        assert algo.hypernet_dim == 64
    else:
        assert (algo.others, algo.critic_agent_id) == ("buffer", False)
    if column == "mamujoco":
        assert (algo.window, h.tau, h.uniform_steps, h.action_noise) == (1, 1e-3, 10_000, 0.1)
        assert run.updates_per_episode == 1000  # one per environment step
    if column == "smax":
        assert (h.td_lambda, algo.target_update_period, algo.bootstrap_on_timeout) == (0.8, 200, False)
        assert (h.epsilon_start, h.epsilon_end, h.epsilon_anneal_steps) == (0.5, 0.05, 50_000)


def test_the_preset_of_the_paper_of_maddpg_is_its_codes():
    settings = cli.settings(["preset=maddpg/openai"])
    algo, h, run = settings.algo, settings.algo.hparams, settings.run
    assert (h.lr, h.critic_lr, h.gamma, h.tau, h.grad_clip, h.action_reg) == (1e-2, 1e-2, 0.95, 0.01, 0.5, 1e-3)
    assert (algo.share_params, algo.clip, algo.over_agents, algo.others) == ("none", "set", "sum", "buffer")
    assert (algo.target_action, algo.relaxation, algo.target_update) == ("sample", "soft", "soft")
    assert (algo.hidden_dim, algo.window, run.batch_size) == (64, 1, 1024)
    assert run.updates_per_episode / settings.env.max_steps == 1 / 100
    assert run.replay.capacity * settings.env.max_steps == 10**6


# ---- learning


@pytest.mark.slow
def test_maddpg_finds_the_best_joint_action_of_the_monotonic_game(tmp_path, optimised):
    """Rewards 0, 0, 0, 10: a uniform policy has 2.5. All four runs reach 10."""
    tiny.train(tmp_path, "algo=maddpg", "env=matrix", "env.game=monotonic", "total_env_steps=3000", "seeds=4",
               "algo.recurrent=false", "algo.hidden_dim=64", "algo.hparams.lr=1e-3", "algo.hparams.critic_lr=1e-3",
               "algo.target_update=soft", "eval.every=1000", "progress=false")  # fmt: skip
    last = [record for record in tiny.records(tmp_path) if "eval/return" in record][-4:]
    assert {record["seed"] for record in last} == {0, 1, 2, 3}
    assert [record["eval/return"] for record in last] == [10.0] * 4


@pytest.mark.slow
def test_facmac_catches_prey(tmp_path, optimised):
    """Uniformly random predators have a return of 0.3 (2000 episodes), FACMAC's untrained ones less."""
    tiny.train(tmp_path, "preset=facmac/pred_prey", "total_env_steps=60000", "eval.every=60000", "progress=false",
               "checkpoint.every=0")  # fmt: skip
    returns = [record["eval/return"] for record in tiny.records(tmp_path) if "eval/return" in record]
    assert returns[0] < 1
    assert returns[-1] > 3

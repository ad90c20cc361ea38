"""MAA2C, COMA and PAC by their numbers: what critics read, baselines, targets, maxima, schedules; padding; refusals."""

import dataclasses
import functools
import itertools

import actor_critic_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from actor_critic_cases import KEY, SPEC, context, init, main_loss, no_memory, parts_of, view_of
from value_cases import random_batch

from jaxshare.algos import maa2c
from jaxshare.algos.coma.values import action_values
from jaxshare.algos.pac import algorithm as pac
from jaxshare.algos.pac import optimism
from jaxshare.envs.matrix import environment as matrix
from jaxshare.envs.matrix.tables import STAG_HUNT, TABLES
from jaxshare.learners import actor_critic_losses as family
from jaxshare.learners import actor_critic_streams as read
from jaxshare.learners import central
from jaxshare.learners.optimisers import followed
from jaxshare.models.streams import Read, StreamNetwork
from jaxshare.ops import coma as coma_ops
from jaxshare.ops import pareto
from jaxshare.training.rollout import as_segment
from jaxshare.types import Box, Discrete, EnvSpec, LearnerState, RefusedError, Segment

CLIMBING = np.array(TABLES["climbing"], np.float32)
HUNT = np.array(STAG_HUNT, np.float32)  # the last axis is the agent
GAME = EnvSpec("game", 2, 1, 1, Discrete(3), 1, (0, 0), ("player",))

# ------------------------------------------------------------------------------------------------------------ stand-ins


def network(say, agents=2):
    """A network of no layers: say(params, x [T, B, N, D]) -> y [T, B, N, Y]."""

    def unroll(params, carry, stream):
        after = None if stream.after is None else say(params, stream.after)
        return carry, Read(y=say(params, stream.x), after=after)

    return StreamNetwork(
        init=lambda key: {}, initial_carry=lambda batch: jnp.zeros((batch, agents, 0)), unroll=unroll, every=None,
        param_sets=tuple(range(agents)),
    )  # fmt: skip


def prefers(order, agents=2):
    """A policy that takes the first of these actions that is available, and one of `order` with all but certainty."""
    logits = jnp.zeros(len(order)).at[jnp.array(order)].set(100.0 * jnp.arange(len(order), 0, -1))
    return network(lambda _, x: jnp.broadcast_to(logits, (*x.shape[:3], len(order))), agents)


def line(rewards, values, action=None, terminated=False, spec=GAME):
    """One episode of T steps whose state is `values`, of which the last is the true successor of its last step."""
    steps, agents, actions = len(rewards), spec.num_agents, spec.action.num_actions
    state = jnp.array(values, jnp.float32)[:, None, None]
    obs = jnp.broadcast_to(state[:, :, None], (steps + 1, 1, agents, 1))
    every = jnp.ones((steps, 1, agents, actions), bool)
    last = jnp.arange(steps)[:, None] == steps - 1
    return Segment(
        obs=obs[:-1], state=state[:-1], avail=every, alive=every[..., 0],
        action=jnp.zeros((steps, 1, agents), jnp.int32) if action is None else jnp.array(action, jnp.int32)[:, None],
        reward=jnp.broadcast_to(jnp.array(rewards, jnp.float32)[:, None, None], (steps, 1, agents)),
        terminated=last & terminated, truncated=last & (not terminated), mask=jnp.ones((steps, 1)), next_obs=obs[1:],
        next_state=state[1:], next_avail=every, first=jnp.arange(steps)[:, None] == 0, carry=no_memory(spec),
    )  # fmt: skip


@functools.cache
def preparing(make, *args):
    """(algorithm, compiled prepare) of make(*args): critics and actors without parameters."""
    learner = make(*args)
    params = {"actor": {}, "critic": {"value": {}, "joint": {}}}
    state = LearnerState(params, {"critic": params["critic"]}, {}, {})
    return learner.assemble(), jax.jit(lambda segment, ctx: cases.prepared(learner, state, segment, ctx))


def prepared(case, segment, **hparams):
    """What the learner aims at, [T, B, N] each."""
    algorithm, run = preparing(*case)
    return run(segment, context(algorithm, **hparams))


def every_joint_action(payoffs):
    """The whole one-step game as a batch: one column for every joint action. payoffs [A, A, N]."""
    pairs = np.array(list(itertools.product(range(len(payoffs)), repeat=2)))
    one = line([0.0], [1.0, 1.0], action=pairs[:1], terminated=True)
    many = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (*x.shape[:1], len(pairs), *x.shape[2:])), one.replace(carry=None)
    )
    memory = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(pairs), *x.shape[1:])), one.carry)
    reward = jnp.array(payoffs[pairs[:, 0], pairs[:, 1]])[None]
    return many.replace(action=jnp.array(pairs)[None], reward=reward, carry=memory)


def exact(params, x):
    """Q in a one-step game: params [N, A, A] by agent, the other's action, one's own; x ends in one-hot actions."""
    choices = params.shape[-1]
    others = x[..., -2 * choices :].reshape(*x.shape[:-1], 2, choices).sum(-2)  # the own slot is zero
    return jnp.einsum("tbnj,nja->tbna", others, params)


def tables(payoffs):
    """Parameters of `exact` from payoffs [A, A, N]."""
    return jnp.stack([jnp.array(payoffs[..., 0]).T, jnp.array(payoffs[..., 1])])


def constant(params, x):
    """A state value for each agent, which are its parameters [N]."""
    return jnp.broadcast_to(params[:, None], (*x.shape[:2], 2, 1))


def hoping_by(joint, state):
    """PAC with this Q."""
    (phase,) = state.phases
    phase = dataclasses.replace(phase, prepare=functools.partial(pac.prepare, joint))
    return dataclasses.replace(state, phases=(phase,)).with_main(loss=functools.partial(pac.loss, joint))


@functools.cache
def exact_gradients(name):
    """(learner, compiled gradients) with critics that are tables and a feed-forward actor for each agent."""
    learner = parts_of(name, GAME, share_params="none", recurrent=False)
    if name == "pac":
        joint = network(exact)
        learner = hoping_by(joint, learner).with_network("critic", optimism.both(network(constant), joint))
    else:
        learner = learner.with_network("critic", network(constant))
    return learner, cases.compiled(learner)


def logit_ascent(name, payoffs, values):
    """Minus the gradient of the loss by the logits of a uniform policy, over all joint actions: [N, A]."""
    learner, run = exact_gradients(name)
    actor = jax.tree.map(lambda x: jnp.zeros(x.shape), jax.eval_shape(learner.networks["actor"].init, KEY))
    critic = {"value": jnp.array(values), "joint": tables(payoffs)} if name == "pac" else jnp.array(values)
    state = LearnerState({"actor": actor, "critic": critic}, {"critic": critic}, {}, {})
    ctx = context(learner.assemble(), entropy_coef=0.0, **({"entropy_end": 0.0} if name == "pac" else {}))
    _, found, _ = run(state, every_joint_action(payoffs), ctx)
    return -2 * np.asarray(found["actor"]["head"]["linear"]["bias"])  # the loss is the mean over two agents


def common(payoffs):
    return np.repeat(payoffs[..., None], 2, axis=-1)


# -------------------------------------------------------------------------------------------------- what critics read


def test_the_central_input_by_hand():
    obs = np.arange(6.0).reshape(1, 1, 3, 2)
    state, previous = np.array([[[7.0, 8.0]]]), np.eye(4)[[[[1, 0, 3]]]]
    spec = dataclasses.replace(SPEC, obs_dim=2)
    every = {"critic_obs": True, "critic_last_actions": True, "critic_agent_id": True}
    for chosen, state_dims in (((), (2,)), (("critic_obs",), (0,)), (tuple(every), (2, 0))):
        for state_dim in state_dims:
            config = maa2c.Config(**{key: key in chosen for key in every})
            here = dataclasses.replace(spec, state_dim=state_dim)
            z = central.central_input(config, here, *map(jnp.asarray, (obs, state[..., :state_dim], previous)))
            for i in range(3):
                expected = [7.0, 8.0] if state_dim else list(range(6))
                expected = [*expected, *(obs[0, 0, i] if "critic_obs" in chosen else [])]
                expected = [*expected, *(previous.ravel() if "critic_last_actions" in chosen else [])]
                expected = [*expected, *(np.eye(3)[i] if "critic_agent_id" in chosen else [])]
                np.testing.assert_array_equal(z[0, 0, i], expected)
            assert z.shape[-1] == central.central_input_dim(config, here)


@pytest.fixture(scope="module", params=["maa2c", "coma", "pac"])
def learned(request):
    """(learner, state, episodes, compiled gradients) of a small learner."""
    learner = parts_of(request.param, SPEC, recurrent=False)
    return learner, init(learner), cases.episodes(learner), cases.compiled(learner)


@pytest.fixture(scope="module")
def clean(learned):
    learner, state, segment, run = learned
    return run(state, segment, context(learner.assemble()))


def test_actors_do_not_see_the_state(learned, clean):
    """Another state changes what critics say and aim at, and no policy."""
    learner, state, segment, run = learned
    elsewhere = segment.replace(state=segment.state + 1.0, next_state=segment.next_state + 1.0)
    targets, _, metrics = run(state, elsewhere, context(learner.assemble()))
    assert metrics["policy/entropy"] == clean[2]["policy/entropy"]
    assert np.abs(targets.value - clean[0].value).max() > 1e-3
    assert np.abs(targets.returns - clean[0].returns).max() > 1e-3


def test_padding_changes_nothing(learned, clean):
    learner, state, segment, run = learned
    targets, found, metrics = run(state, cases.junk(segment), context(learner.assemble()))
    cases.assert_close(found, clean[1])
    mask = np.asarray(segment.mask)[..., None]
    for name in ("returns", "advantage", "value"):
        expected = getattr(clean[0], name)
        np.testing.assert_allclose(getattr(targets, name) * mask, expected * mask, rtol=1e-5, atol=1e-6)
    for name, value in metrics.items():
        np.testing.assert_allclose(value, clean[2][name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_an_empty_batch_has_no_gradient(learned):
    learner, state, segment, run = learned
    _, found, metrics = run(state, segment.replace(mask=0 * segment.mask), context(learner.assemble()))
    assert not np.any(cases.flat(found))
    assert all(np.isfinite(value) for value in metrics.values())


def test_critics_and_actors_have_gradients_of_their_own(learned, clean):
    """Targets and advantages are data: only the squared errors move the critics, and only the rest moves the actors."""
    learner, state, segment, run = learned
    actor_only = {"value_coef": 0.0}
    _, found, _ = run(state, segment, context(learner.assemble(), **actor_only))
    assert not np.any(cases.flat(found["critic"]))
    cases.assert_close(found["actor"], clean[1]["actor"])
    assert np.abs(cases.flat(clean[1]["critic"])).max() > 1e-3


# -------------------------------------------------------------------------------------------------------------- MAA2C


def maa2c_learner(n_step):
    """V(z) = the first number of the state."""
    learner = parts_of("maa2c", GAME, recurrent=False, n_step=n_step)
    return learner.with_network("critic", network(lambda _, x: x[..., :1]))


@pytest.mark.parametrize(("terminated", "advantage"), [(False, 1.394), (True, 0.8)])
def test_maa2c_advantage(terminated, advantage):
    """r = 1, V(z) = .2, V(z') = .6, gamma = .99."""
    found = prepared((maa2c_learner, 5), line([1.0], [0.2, 0.6], terminated=terminated))
    np.testing.assert_allclose(found.advantage, np.full((1, 1, 2), advantage), rtol=1e-6)


@pytest.mark.parametrize(
    ("n", "values", "terminated", "expected"),
    [
        (5, [0.5, 0.5, 0.5, 0.9], True, [2.9701, 1.99, 1.0]),  # EPyMARL's code bootstraps here: [3.8433691, ...]
        (2, [0.5, 0.6, 0.7, 0.9], False, [2.67607, 2.87209, 1.891]),
    ],
)
def test_maa2c_returns_of_n_steps(n, values, terminated, expected):
    found = prepared((maa2c_learner, n), line([1.0, 1.0, 1.0], values, terminated=terminated))
    np.testing.assert_allclose(found.returns[:, 0, 1], expected, rtol=1e-6)
    np.testing.assert_allclose(found.advantage[:, 0, 1], np.array(expected) - values[:-1], rtol=1e-5)


def test_the_slow_critic_follows_with_a_hundredth():
    learner = parts_of("maa2c", GAME)
    state = LearnerState({"critic": jnp.ones(2)}, {"critic": jnp.zeros(2)}, {}, {})
    found = followed(view_of(learner, state, None, context(learner.assemble()))).target_params
    np.testing.assert_allclose(cases.flat(found), 0.01, rtol=1e-6)


@pytest.mark.slow
def test_maa2c_leaves_the_best_joint_action():
    """Climbing, uniform play, exact values: towards C, away from A and B (the mean pay-off is -3.444)."""
    assert CLIMBING.mean() == pytest.approx(-3.444444, rel=1e-6)
    found = logit_ascent("maa2c", common(CLIMBING), [CLIMBING.mean()] * 2)
    np.testing.assert_allclose(found[0], [-0.962963, -1.407407, 2.370370], rtol=1e-5)


# --------------------------------------------------------------------------------------------------------------- COMA

PI = np.array([0.2, 0.3, 0.5])


def test_coma_baseline_by_hand():
    found = [coma_ops.counterfactual(*map(jnp.array, ([1.0, 2.0, 5.0], PI, a))) for a in range(3)]
    np.testing.assert_allclose([b for _, b in found], 3.3, rtol=1e-6)
    advantage = np.array([a for a, _ in found])
    np.testing.assert_allclose(advantage, [-2.3, -1.3, 1.7], rtol=1e-5)
    assert PI @ advantage == pytest.approx(0.0, abs=1e-6)


def coma_learner(say, actor, *config):
    """COMA whose critic says say(params, x), and whose policy is `actor()`."""
    learner = parts_of("coma", GAME, recurrent=False, **dict(config))
    return learner.with_network("critic", network(say)).with_network("actor", actor())


def three_values(_, x):
    return jnp.broadcast_to(jnp.array([1.0, 2.0, 5.0]), (*x.shape[:3], 3))


def of_pi():
    return network(lambda _, x: jnp.broadcast_to(jnp.log(jnp.array(PI, jnp.float32)), (*x.shape[:3], 3)))


def prefers_one():
    return prefers([1, 0, 2])


def prefers_two():
    return prefers([2, 0, 1])


@pytest.mark.parametrize(
    ("avail", "pi", "b", "advantage"),
    [
        ([True, True, True], PI, 3.3, {0: -2.3, 1: -1.3, 2: 1.7}),
        ([True, False, True], [0.285714, 0, 0.714286], 3.857143, {0: -2.857143, 2: 1.142857}),
    ],
)
def test_coma_advantage_of_a_policy(avail, pi, b, advantage):
    """With action 1 masked the baseline is over the others."""
    for action, expected in advantage.items():
        segment = line([1.0], [0.0, 0.0], action=[[action, action]], terminated=True)
        segment = segment.replace(avail=jnp.broadcast_to(jnp.array(avail), segment.avail.shape))
        found = prepared((coma_learner, three_values, of_pi), segment)
        np.testing.assert_allclose(found.advantage, np.full((1, 1, 2), expected), rtol=1e-5)
        np.testing.assert_allclose(found.value, np.full((1, 1, 2), b), rtol=1e-6)
    assert sum(pi[a] * x for a, x in advantage.items()) == pytest.approx(0.0, abs=1e-5)


def test_coma_policy_gradient_by_hand():
    """pi = [.2, .3, .5], action 2, A = 1.7: minus 1.7 (onehot - pi), halved by the mean over two agents."""
    learner = parts_of("coma", GAME, recurrent=False)
    params = jax.tree.map(lambda x: jnp.zeros(x.shape), jax.eval_shape(learner.assemble().init, KEY).params)
    params["actor"]["head"]["linear"]["bias"] = jnp.log(jnp.array(PI, jnp.float32))
    nothing = jnp.zeros((1, 1, 2))
    targets = family.Aims(returns=nothing, advantage=nothing + 1.7, log_prob=nothing, value=nothing)
    segment = line([1.0], [0.0, 0.0], action=[[2, 2]], terminated=True)
    ctx = context(learner.assemble(), entropy_coef=0.0)
    state = LearnerState(params, {}, {}, {})
    view = view_of(learner, state, segment, ctx, targets=targets)
    found = jax.jit(jax.grad(lambda p: main_loss(view, p)[0]))(params)["actor"]
    np.testing.assert_allclose(found["head"]["linear"]["bias"], [0.34, 0.51, -0.85], rtol=1e-5)


@pytest.fixture(scope="module")
def coma_case():
    learner = parts_of("coma", SPEC, recurrent=False)
    state, segment, ctx = init(learner), cases.episodes(learner), context(learner.assemble())
    every = jnp.ones_like(segment.avail)
    segment = segment.replace(avail=every)

    @jax.jit
    def run(action):
        view = view_of(learner, state, segment, ctx)
        q = action_values(view, state.params["critic"], read.critic_here(view), action)
        targets = cases.prepared(learner, state, segment.replace(action=action), ctx)
        return q, targets.advantage, read.policies(view).probs

    return run, segment


def test_own_actions_do_not_leak_into_the_values(coma_case):
    """Row i is the same whatever agent i did, and the other rows are not."""
    run, segment = coma_case
    before, _, _ = run(segment.action)
    for i in range(SPEC.num_agents):
        changed = segment.action.at[..., i].set((segment.action[..., i] + 1) % 4)
        after, _, _ = run(changed)
        np.testing.assert_array_equal(after[:, :, i], before[:, :, i])
        others = [j for j in range(SPEC.num_agents) if j != i]
        assert np.abs(after[:, :, others] - before[:, :, others]).min(-1).max() > 1e-4


def test_the_advantage_has_no_mean_under_the_policy(coma_case):
    """Agent i's own action enumerated, everybody else's as it was."""
    run, segment = coma_case
    for i in range(SPEC.num_agents):
        found = [run(segment.action.at[..., i].set(a)) for a in range(4)]
        advantage = np.stack([advantage[..., i] for _, advantage, _ in found], axis=-1)
        probability = np.asarray(found[0][2][:, :, i])
        np.testing.assert_allclose((probability * advantage).sum(-1), 0.0, atol=1e-5)
        assert np.abs(advantage).max() > 0.1


def state_value(_, x):
    """The state's number whatever the action."""
    return jnp.broadcast_to(x[..., :1], (*x.shape[:3], 3))


@pytest.mark.parametrize(
    ("td_lambda", "terminated", "expected"),
    [
        (0.8, True, [2.687752, 1.881, 2]),
        (0.8, False, [3.122446, 2.429856, 2.693]),
        (0.0, True, [1.99, 1.485, 2]),
        (1.0, True, [2.9602, 1.98, 2]),
    ],
)
def test_coma_targets(td_lambda, terminated, expected):
    segment = line([1.0, 0.0, 2.0], [0.5, 1.0, 1.5, 0.7], terminated=terminated)
    found = prepared((coma_learner, state_value, of_pi), segment, td_lambda=td_lambda)
    np.testing.assert_allclose(found.returns[:, 0, 0], expected, rtol=1e-6)


@pytest.mark.slow
def test_coma_targets_of_n_steps():
    """EPyMARL's way; the same numbers as MAA2C's."""
    case = (coma_learner, state_value, of_pi, ("returns", "n_step"), ("n_step", 2))
    found = prepared(case, line([1.0, 1.0, 1.0], [0.5, 0.6, 0.7, 0.9]))
    np.testing.assert_allclose(found.returns[:, 0, 0], [2.67607, 2.87209, 1.891], rtol=1e-6)


def powers(_, x):
    """10^(own action) + a hundredth of the other's."""
    other = x[..., -6:].reshape(*x.shape[:3], 2, 3).sum(-2) @ jnp.array([[0.0], [0.01], [0.02]])
    return jnp.array([1.0, 10.0, 100.0]).reshape(1, 1, 1, 3) + other


def test_the_next_action_is_the_one_taken_and_else_a_drawn_one():
    """Inside an episode by the data, after its end by a policy that all but always takes 1 if it can, else 0."""
    learner = (coma_learner, powers, prefers_one)
    action = [[0, 1], [2, 0], [0, 0]]
    cut = prepared(learner, line([0.0] * 3, [0.0] * 4, action=action), td_lambda=0.0, gamma=1.0)
    # after step 0: (2, 0); after step 1: (0, 0); after the end: both take 1
    np.testing.assert_allclose(cut.returns[:, 0], [[100.0, 1.02], [1.0, 1.0], [10.01, 10.01]], rtol=1e-6)
    over = prepared(learner, line([0.0] * 3, [0.0] * 4, action=action, terminated=True), td_lambda=0.0, gamma=1.0)
    np.testing.assert_allclose(over.returns[2, 0], 0.0, atol=0)
    gone = line([0.0] * 3, [0.0] * 4, action=action)
    masked = gone.replace(next_avail=gone.next_avail.at[..., 1].set(False))  # then both would take 0
    np.testing.assert_allclose(prepared(learner, masked, td_lambda=0.0, gamma=1.0).returns[2, 0], 1.0, rtol=1e-6)


ORDER = [2, 0, 3, 1]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "recurrent"), [("coma", False), ("coma", True), ("pac", False)])
def test_a_stream_of_episodes_gives_the_targets_of_the_episodes(name, recurrent):
    """From segments as from whole episodes: ends inside, and no padding. The actors all but always act alike."""
    learner = parts_of(name, SPEC, recurrent=recurrent)
    state, segment, ctx = init(learner), cases.episodes(learner), context(learner.assemble())
    head = state.params["actor"]["head"]["linear"]
    for leaf in head:  # one policy is sharp, so that what is drawn after an end depends on no key
        state.params["actor"]["head"]["linear"][leaf] = 1e4 * head[leaf]
    stream = cases.one_after_another(segment, ORDER)
    run = jax.jit(lambda s: cases.prepared(learner, state, s, ctx))
    whole, found = run(segment), run(stream)
    for field in ("returns", "advantage", "value"):
        expected = cases.one_after_another(segment.replace(reward=getattr(whole, field)), ORDER).reward
        np.testing.assert_allclose(getattr(found, field), expected, rtol=1e-4, atol=1e-4)


def test_the_critic_is_copied_every_200_updates():
    learner = parts_of("coma", GAME)
    state = LearnerState({"critic": jnp.ones(2)}, {"critic": jnp.zeros(2)}, {}, {})
    algorithm = learner.assemble()
    for updates, expected in ((198, 0.0), (199, 1.0), (200, 0.0), (399, 1.0)):  # made before this one
        after = followed(view_of(learner, state, None, context(algorithm, updates=updates)))
        assert set(cases.flat(after.target_params).tolist()) == {expected}


def test_exploration_is_mixed_into_the_policy():
    logits = jnp.array([[0.0, jnp.log(2.0), 50.0, jnp.log(3.0)]])
    avail = jnp.array([[True, True, False, True]])
    mix = jax.jit(lambda y, epsilon: coma_ops.mix_uniform(y, avail, epsilon))
    for epsilon in (0.0, 0.4, 1.0):
        found = np.exp(mix(logits, jnp.float32(epsilon)))
        expected = (1 - epsilon) * np.array([1, 2, 0, 3]) / 6 + epsilon * np.array([1, 1, 0, 1]) / 3
        np.testing.assert_allclose(found[0], expected, atol=1e-6)
    slope = jax.jit(jax.grad(lambda y: mix(y, jnp.float32(0.0))[0, 0]))(logits)
    np.testing.assert_allclose(slope, np.array([[1 - 1 / 6, -2 / 6, 0, -3 / 6]]), atol=1e-6)


def test_coma_explores_and_evaluates_without():
    """A policy that is all but certain of action 2, half of the time replaced by an even draw at the start."""
    algorithm = coma_learner(three_values, prefers_two).assemble()
    params = {"actor": {}, "critic": {}}
    carry = no_memory(GAME, streams=600)
    seen = matrix.make(matrix.Config(game="climbing")).reset(KEY)[1]
    seen = jax.tree.map(lambda x: jnp.broadcast_to(x, (600, *x.shape)), seen)
    act = jax.jit(algorithm.act, static_argnums=5)
    h = {"epsilon_start": 0.5, "epsilon_end": 0.1, "epsilon_anneal_steps": 100.0}
    for steps, epsilon in ((0, 0.5), (50, 0.3), (100, 0.1), (1000, 0.1)):
        _, action, _ = act(params, carry, seen, context(algorithm, env_steps=steps, **h), KEY, True)
        share = np.bincount(np.asarray(action).ravel(), minlength=3) / 1200
        np.testing.assert_allclose(share, [epsilon / 3, epsilon / 3, 1 - 2 * epsilon / 3], atol=0.05)
    assert np.all(act(params, carry, seen, context(algorithm, **h), KEY, False)[1] == 2)
    assert np.all(act(params, carry, seen, context(algorithm), KEY, True)[1] == 2)  # by default none explore


def test_the_loss_has_the_exploration_of_the_time_of_play():
    """What was collected counts among env_steps only after it was played."""
    segment = line([1.0] * 4, [0.0] * 5)
    h = {"epsilon_start": 0.6, "epsilon_end": 0.0, "epsilon_anneal_steps": 10.0}
    found = prepared((coma_learner, three_values, prefers_two), segment, env_steps=4, **h)
    np.testing.assert_allclose(found.value, np.full((4, 1, 2), 0.2 * (1 + 2) + 0.6 * 5), rtol=1e-5)


# ---------------------------------------------------------------------------------------------------------------- PAC


@pytest.mark.parametrize(("actions", "agents", "count"), [(3, 2, 3), (5, 3, 25), (6, 4, 216)])
def test_all_joint_actions_of_the_others(actions, agents, count):
    found = pareto.all_joint_actions(actions, agents)
    assert found.shape == (count, agents, agents)
    for i in range(agents):
        rows = {tuple(row) for row in np.delete(found[:, i], i, axis=1)}
        assert rows == {*itertools.product(range(actions), repeat=agents - 1)}
        assert not found[:, i, i].any()


@functools.cache
def hoping(choices, *config):
    learner = parts_of("pac", dataclasses.replace(GAME, action=Discrete(choices)), **dict(config))
    view = view_of(learner, LearnerState({}, {}, {}, {}), None, None)
    z = jnp.zeros((1, 1, 2, 1))

    def look(table, own, avail):
        return optimism.optimistic(network(exact), view, table, optimism.Asked(z, own, avail))

    return jax.jit(look)


def joint_critic(state):
    """Q of PAC."""
    return state.phases[0].prepare.args[0]


def hoped(payoffs, action, avail=None, **config):
    """Q+ of this joint action under exact critics, [N]."""
    avail = jnp.ones((2, len(payoffs)), bool) if avail is None else jnp.array(avail)
    own = jnp.array(action, jnp.int32).reshape(1, 1, 2)
    return np.asarray(hoping(len(payoffs), *config.items())(tables(payoffs), own, avail[None, None]))[0, 0]


def test_what_is_hoped_for_in_the_matrix_games():
    climbing = np.stack([hoped(common(CLIMBING), (a, a)) for a in range(3)], axis=1)
    np.testing.assert_allclose(climbing, [[11, 7, 6], [11, 7, 5]], rtol=1e-6)
    np.testing.assert_allclose(climbing.mean(1), [8, 7.666667], rtol=1e-6)
    hunt = np.stack([hoped(HUNT, (a, a)) for a in range(2)], axis=1)
    np.testing.assert_allclose(hunt, [[4, 3], [4, 3]], rtol=1e-6)  # the hare's 2.5 is above the stag's 2 on average
    np.testing.assert_allclose(HUNT[..., 0].mean(1), [2, 2.5], rtol=1e-6)


def test_only_available_actions_are_hoped_for():
    """Without A for the second agent: rows [-30, 0], [7, 0], [6, 5] are left; the second agent's hopes stay."""
    avail = [[True, True, True], [False, True, True]]
    found = np.stack([hoped(common(CLIMBING), (a, max(a, 1)), avail) for a in range(3)], axis=1)
    np.testing.assert_allclose(found[0], [0, 7, 6], rtol=1e-6)
    np.testing.assert_allclose(found[1, 1:], [7, 5], rtol=1e-6)


def test_draws_find_what_all_joint_actions_do():
    many = np.stack([hoped(common(CLIMBING), (a, a), enumerate="sample", samples=64) for a in range(3)], axis=1)
    np.testing.assert_allclose(many, [[11, 7, 6], [11, 7, 5]], rtol=1e-6)
    alone = hoped(common(CLIMBING), (0, 1), enumerate="sample", samples=1)  # only the one taken
    np.testing.assert_allclose(alone, [-30, -30], rtol=1e-6)


def test_draws_are_even_among_what_is_available():
    avail = jnp.array([[[True, False, True], [True, True, True]]])
    found = np.asarray(pareto.drawn_joint_actions(KEY, jnp.array([[2, 1]]), avail, 3001))
    assert found.shape == (3001, 1, 2)
    np.testing.assert_array_equal(found[0, 0], [2, 1])
    np.testing.assert_allclose(np.bincount(found[1:, 0, 0], minlength=3) / 3000, [0.5, 0, 0.5], atol=0.03)
    np.testing.assert_allclose(np.bincount(found[1:, 0, 1], minlength=3) / 3000, [1 / 3] * 3, atol=0.03)


def test_the_maximum_by_brute_force_and_in_pieces(monkeypatch):
    """Three agents with masks: the others' joint actions asked about one by one; and a few steps at a time."""
    learner = parts_of("pac", SPEC)
    state, segment = init(learner), cases.episodes(learner)
    joint, view = joint_critic(learner), view_of(learner, state, segment, None)
    params, z = state.params["critic"]["joint"], read.critic_here(view)
    asked = optimism.Asked(z, segment.action, segment.avail)
    look = lambda: optimism.optimistic(joint, view, params, asked)  # noqa: E731
    found, q = np.asarray(jax.jit(look)()), jax.jit(lambda o: central.ask(joint, params, z, o))
    best = np.full(found.shape, -np.inf)
    for others in itertools.product(range(4), repeat=2):
        for i in range(3):
            action = np.insert(np.array(others), i, 0)
            encoded = pareto.others_only(jnp.broadcast_to(jnp.array(action), segment.action.shape), 4)
            value = np.take_along_axis(np.asarray(q(encoded)), np.asarray(segment.action)[..., None], -1)[..., 0, None]
            ok = np.all([np.asarray(segment.avail)[:, :, j, action[j]] for j in range(3) if j != i], axis=0)
            best[:, :, i] = np.where(ok, np.maximum(best[:, :, i], value[:, :, i, 0]), best[:, :, i])
    np.testing.assert_allclose(found, best, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(optimism, "ROWS", 16 * 4 * 3 * 2)  # two steps
    np.testing.assert_allclose(jax.jit(lambda: look())(), found, rtol=1e-5, atol=1e-6)


def test_pac_climbs_where_a2c_does_not():
    """Uniform play, exact critics: towards A, whatever the baseline (only its variance depends on V)."""
    for values in ([8.0, 23 / 3], [0.0, 0.0], [-3.444, -3.444]):
        found = logit_ascent("pac", common(CLIMBING), values)
        np.testing.assert_allclose(found[0], [1, -1 / 3, -2 / 3], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[1], (np.array([11, 7, 5]) - 23 / 3) / 3, rtol=1e-4, atol=1e-5)


def pac_line():
    """V of .5 and .25, and Q of `powers`, which is largest where the other takes 2."""
    joint, value = network(powers), network(lambda _, x: constant(jnp.array([0.5, 0.25]), x))
    learner = parts_of("pac", GAME, n_step=2)
    learner = hoping_by(joint, learner).with_network("critic", optimism.both(value, joint))
    return learner.with_network("actor", prefers_one())


def test_pac_targets():
    """Two steps of rewards, then the best that the other could do beside one's own next action."""
    action = [[0, 1], [2, 0], [0, 0]]
    for terminated, last in ((False, 10.02), (True, 0.0)):  # after the end both take 1
        segment = line([1.0, 2.0, 3.0], [0.0] * 4, action=action, terminated=terminated)
        found = prepared((pac_line,), segment, gamma=0.5)
        end = 3 + 0.5 * last
        expected = [[1 + 0.5 * (2 + 0.5 * 1.02)] * 2, [2 + 0.5 * end] * 2, [end] * 2]
        np.testing.assert_allclose(found.returns[:, 0], expected, rtol=1e-6)
        best = 10.0 ** np.array(action) + 0.02
        np.testing.assert_allclose(found.advantage[:, 0], best - [0.5, 0.25], rtol=1e-5)


@pytest.mark.parametrize("learned", ["pac"], indirect=True)
def test_both_critics_learn_from_the_same_target(learned, clean):
    learner, state, segment, _ = learned
    mask = np.asarray(segment.mask)[..., None]
    joint, params = joint_critic(learner), state.params["critic"]
    others = pareto.others_only(segment.action, 4)
    z = read.critic_here(view_of(learner, state, segment, None))
    q = jax.jit(lambda: central.ask(joint, params["joint"], z, others))()
    taken = np.take_along_axis(np.asarray(q), np.asarray(segment.action)[..., None], -1)[..., 0]
    errors = [(taken - clean[0].returns), (clean[0].value - clean[0].returns)]
    expected = sum((np.square(e) * mask).sum() for e in errors) / (3 * mask.sum())
    np.testing.assert_allclose(clean[2]["loss/critic"], expected, rtol=1e-5)
    for name in ("value", "joint"):
        assert np.abs(cases.flat(clean[1]["critic"][name])).max() > 1e-3


@pytest.mark.parametrize(("share", "expected"), [(0.0, 20.0), (0.2, 15.0025), (0.4, 10.005), (0.8, 0.01), (1.0, 0.01)])
def test_entropy_coefficient(share, expected):
    learner = parts_of("pac", GAME)
    ctx = context(learner.assemble(), env_steps=int(share * 1000))
    assert ctx.total_env_steps == 1000
    view = view_of(learner, LearnerState({}, {}, {}, {}), None, ctx)
    np.testing.assert_allclose(pac.entropy_coefficient(view), expected, rtol=1e-6, atol=1e-6)  # of 20, in f32


def test_a_shared_critic_knows_whose_it_is():
    width = {}
    for share in ("all", "none"):
        learner = parts_of("pac", SPEC, share_params=share)
        params = jax.eval_shape(learner.networks["critic"].init, KEY)
        width[share] = [params[name]["embed"]["linear"]["kernel"].shape[-2] for name in ("value", "joint")]
    assert width == {"all": [2 + 3, 2 + 3 + 12], "none": [2, 2 + 12]}


# ----------------------------------------------------------------------------------------------------------- refusals

OWN = dataclasses.replace(SPEC, common_reward=False)
REAL = dataclasses.replace(SPEC, action=Box(1, (-1.0,), (1.0,)))
CROWD = EnvSpec("crowd", 5, 1, 1, Discrete(10), 1, (0,) * 5, ("unit",))


def test_coma_needs_a_common_reward():
    with pytest.raises(RefusedError, match=r"algo=coma.*common reward.*env=fake.*env\.reward=sum"):
        parts_of("coma", OWN)
    parts_of("pac", OWN)
    parts_of("maa2c", OWN)


@pytest.mark.parametrize("name", ["coma", "pac"])
def test_continuous_actions_are_refused(name):
    with pytest.raises(RefusedError, match=rf"algo={name} needs discrete actions; env=fake"):
        parts_of(name, REAL)


@pytest.mark.parametrize("name", ["coma", "pac"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 2),
        ("minibatches", 2),
        ("critic_recurrent", True),
        ("standardise_advantage", True),
        ("returns", "gae"),
    ],
)
def test_settings_without_a_meaning_are_refused(name, key, value):
    with pytest.raises(RefusedError, match=rf"algo\.{key}={value}"):
        parts_of(name, SPEC, **{key: value})


def test_refused_settings_of_pac():
    with pytest.raises(RefusedError, match=r"algo\.enumerate=all: 4 others with 10 actions have 10000.*=sample"):
        parts_of("pac", CROWD, enumerate="all")
    with pytest.raises(RefusedError, match=r"algo\.enumerate=some is not one of"):
        parts_of("pac", SPEC, enumerate="some")
    with pytest.raises(RefusedError, match=r"algo\.samples=0"):
        parts_of("pac", SPEC, samples=0)


def test_a_crowd_is_drawn_from():
    """10 000 joint actions of the others: sampled by default, and the work is that of the samples."""
    assert not optimism.enumerates(pac.Config(), CROWD)
    assert optimism.enumerates(pac.Config(), SPEC)
    assert not optimism.enumerates(pac.Config(enumerate="sample"), SPEC)
    learner = parts_of("pac", CROWD, samples=8)
    state, segment = init(learner), line([1.0], [0.0, 0.0], spec=CROWD)
    found = jax.eval_shape(lambda: cases.prepared(learner, state, segment, context(learner.assemble())))
    assert found.returns.shape == (1, 1, 5)


@pytest.mark.parametrize("name", ["coma", "pac"])
def test_what_inspection_shows(name):
    """COMA's baseline, PAC's V: the values beside the advantages of the same episodes."""
    learner = parts_of(name, SPEC, recurrent=False)
    algorithm, state, episode = learner.assemble(), init(learner), random_batch()
    ctx = context(algorithm)
    found = jax.jit(algorithm.inspect)(state, episode, ctx)["value"]
    segment = as_segment(episode, algorithm.initial_carry(episode.mask.shape[1]))
    expected = jax.jit(lambda: cases.prepared(learner, state, segment, ctx).value)()
    assert found.shape == segment.reward.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.std(found) > 0.1

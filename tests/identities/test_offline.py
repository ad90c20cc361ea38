"""The offline learners: their losses by hand, what may not matter, and what they make of a small set of data.

Losses are checked on tables in place of networks: the parameters of a network are what it says, [T+1, B, N, A], so that
a gradient shows which entries a loss looks at.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from actor_critic_cases import view_of
from value_cases import ACTIONS, KEY, SPEC, context, flat, init, random_batch

from jaxshare import registry
from jaxshare.envs.matrix import environment as matrix
from jaxshare.models import inputs
from jaxshare.models.agents import AgentNetwork
from jaxshare.models.mixers import MixerInputs
from jaxshare.models.offline import LinearMixer
from jaxshare.ops import offline
from jaxshare.settings.records import RunConfig
from jaxshare.settings.run_parts import EvalConfig
from jaxshare.training.counting import start_clock
from jaxshare.training.program import Program
from jaxshare.types import Box, Discrete, EnvSpec, Episode, LearnerState, RefusedError, TimeStep

ALGOS = ("bc", "mabcq", "macql", "icq")
SMALL = {"hidden_dim": 4, "embed_dim": 3, "critic_dim": 5}


def parts_of(name, spec=SPEC, **config):
    module = registry.get("algo", name)
    known = {key: value for key, value in SMALL.items() if key in module.Config.__dataclass_fields__}
    return module.make(module.Config(**{**known, **config}), spec)


def with_hparams(name, **hparams):
    return type(registry.get("algo", name).Config().hparams)(**hparams)


# ------------------------------------------------------------------------------------------------------------- tables


@functools.cache
def tables(name, spec=SPEC, keep_mixer=False, **config):
    """A learner with tables as networks, and a mixer whose parameters are its weights [N] and its bias []."""
    learner = parts_of(name, spec, **config)

    def table(network):
        says = lambda params, carry, x: (carry, params)  # noqa: E731
        return AgentNetwork(lambda key: None, lambda batch: jnp.zeros((batch, 1, 0)), says, network.param_sets)

    def weights(params, state):
        shape = (*state.shape[:-1], learner.spec.num_agents)
        return jnp.broadcast_to(params["w"], shape), jnp.broadcast_to(params["b"], shape[:-1])

    networks = {name: network if name == "mixer" else table(network) for name, network in learner.networks.items()}
    if learner.mixer and not keep_mixer:
        networks["mixer"] = LinearMixer(lambda key: None, weights)
    return dataclasses.replace(learner, networks=networks)


def task(agents, actions, steps):
    return EnvSpec("hand", agents, 1, 1, Discrete(actions), steps, (0,) * agents, ("unit",))


def episode(action, reward, terminated, truncated, mask=None, actions=2, avail=None):
    """Episodes from action [T, B, N], and the others [T, B]."""
    action = jnp.array(action, jnp.int32)
    steps, batch, agents = action.shape
    slots, every = (steps + 1, batch), jnp.ones((steps, batch))
    reward = jnp.broadcast_to(jnp.array(reward, jnp.float32)[..., None], action.shape)
    return Episode(
        obs=jnp.zeros((*slots, agents, 1)), state=jnp.zeros((*slots, 1)),
        avail=jnp.ones((*slots, agents, actions), bool) if avail is None else jnp.array(avail, bool),
        alive=jnp.ones((*slots, agents), bool), action=action, reward=reward,
        terminated=jnp.array(terminated, bool), truncated=jnp.array(truncated, bool),
        mask=every if mask is None else jnp.array(mask, jnp.float32),
    )  # fmt: skip


def hand(learner, **hparams):
    return context(learner.assemble(), **hparams)


def plain(weights, bias=0.0):
    return {"w": jnp.array(weights, jnp.float32), "b": jnp.float32(bias)}


def along(*rows):
    """One episode of one agent: slots of action values -> [T+1, 1, 1, A]."""
    return jnp.array(rows, jnp.float32)[:, None, None]


COMPILED = {}  # by the identity of a learner, which `tables` keeps


def loss_of(learner, name, params, target, batch, ctx):
    """(loss, metrics) of a step."""
    return learner.steps[name].loss(view_of(learner, LearnerState(params, target, {}, {}), batch, ctx))


def run_loss(learner, name, *args):
    """(loss, metrics) of (params, target params, batch, ctx)."""
    key = id(learner), name
    if key not in COMPILED:
        COMPILED[key] = jax.jit(functools.partial(loss_of, learner, name))
    return COMPILED[key](*args)


def slopes(learner, name, *args):
    """The loss and its gradient by all parameters."""
    key = id(learner), name, "slopes"
    if key not in COMPILED:
        COMPILED[key] = jax.jit(jax.value_and_grad(lambda *args: loss_of(learner, name, *args)[0]))
    return COMPILED[key](*args)


# ------------------------------------------------------------------------------------------------------------ cloning


def test_cloning_by_hand():
    """Probabilities .5, .25, .8 of what was done; a fourth step is padding, and a third action not available."""
    learner = tables("bc", task(1, 3, 4))
    rows = [[0.5, 0.5, 9.0], [0.75, 0.25, 9.0], [0.8, 0.2, 9.0], [1e-9, 1.0, 9.0], [1.0, 1.0, 1.0]]
    avail = np.array([[1, 1, 0]] * 3 + [[1, 1, 1]] * 2)[:, None, None]
    batch = episode(
        [[[0]], [[1]], [[0]], [[0]]], np.zeros((4, 1)), [[0], [0], [1], [0]], np.zeros((4, 1)), [[1], [1], [1], [0]],
        avail=avail,
    )  # fmt: skip
    params = {"actor": jnp.log(along(*rows))}
    loss, metrics = run_loss(learner, "actor", params, {}, batch, hand(learner))
    np.testing.assert_allclose(loss, 0.7675283, rtol=1e-6)
    np.testing.assert_allclose(metrics["policy/accuracy"], 2 / 3, rtol=1e-6)


# -------------------------------------------------------------------------------------------------------------- mabcq

ENDS = {"goes on": (0, 0, 1.0), "terminated": (1, 0, 0.0), "truncated": (0, 1, 1.0), "both": (1, 1, 0.0)}


@pytest.mark.parametrize(("double_q", "best"), [(True, 20.0), (False, 30.0)])
def test_batch_constrained_targets_by_hand(double_q, best):
    """Of mu = .6, .2, .15, .05 two are allowed; online they are worth 1 and 3, to the target networks 30 and 20."""
    learner = tables("mabcq", task(1, 4, 1), double_q=double_q)
    terminated, truncated, left = (np.array(x) for x in zip(*ENDS.values(), strict=True))
    count = len(ENDS)
    wide = lambda rows: jnp.broadcast_to(along(*rows), (2, count, 1, 4))  # noqa: E731
    batch = episode(np.full((1, count, 1), 2), np.ones((1, count)), terminated[None], truncated[None], actions=4)
    params = {
        "agent": wide([[0, 0, 7, 0], [1, 3, 5, 9]]),
        "behaviour": jnp.log(wide([[1, 1, 1, 1], [0.6, 0.2, 0.15, 0.05]])),
        "mixer": plain([0.5], 2.0),
    }
    target = {"agent": wide([[0, 0, 0, 0], [30, 20, 90, 90]]), "mixer": plain([2.0], 1.0)}
    y = 1 + 0.99 * left * (2 * best + 1)
    loss, metrics = run_loss(learner, "joint", params, target, batch, hand(learner))
    np.testing.assert_allclose(loss, np.square(y - (0.5 * 7 + 2)).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["q/target_mean"], y.mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["behaviour/allowed"], 1.0)
    once, _ = run_loss(learner, "joint", params, target, batch.replace(avail=batch.avail.at[1, ..., 1].set(False)),
                       hand(learner))  # fmt: skip
    alone = 1 + 0.99 * left * (2 * 30.0 + 1)
    np.testing.assert_allclose(once, np.square(alone - 5.5).mean(), rtol=1e-5)


def test_the_behaviour_is_cloned_and_then_stays():
    """behaviour_updates=2: mu alone in updates 0 and 1, the utilities alone afterwards; by default always both."""
    moved = {"behaviour": [1, 1, 0, 0], "agent": [0, 0, 1, 1], "mixer": [0, 0, 1, 1]}
    learner = tables("mabcq", task(1, 2, 1), behaviour_updates=2)
    state, batch = start(learner, seed=3, slots=(2, 2)), episode([[[0], [1]]], [[1, 2]], [[1, 0]], [[0, 1]])
    algorithm = learner.assemble()
    update = jax.jit(algorithm.update)
    for i in range(4):
        after, metrics = update(state, batch, context(algorithm, updates=i), KEY)
        for name, expected in moved.items():
            assert np.any(flat(after.params[name]) != flat(state.params[name])) == expected[i]
        assert (metrics["loss/behaviour"] > 0) == moved["behaviour"][i]
        assert (metrics["loss/td"] > 0) == moved["agent"][i]
        state = after
    assert {step.due for step in parts_of("mabcq").steps.values()} == {None}


def start(learner, seed, slots):
    """A LearnerState of tables [*slots, N, A], and a mixer with weights 1 / N."""
    spec, rng = learner.spec, np.random.default_rng(seed)
    shape = (*slots, spec.num_agents, spec.action.num_actions)
    table = lambda: jnp.array(rng.normal(size=shape), jnp.float32)  # noqa: E731
    params = {name: table() for name in learner.networks if name != "mixer"}
    if learner.mixer:
        params["mixer"] = plain(np.full(spec.num_agents, 1 / spec.num_agents), 0.5)
    inits = {
        name: dataclasses.replace(one, init=lambda key, n=name: params[n]) for name, one in learner.networks.items()
    }
    return dataclasses.replace(learner, networks=inits).assemble().init(KEY)


# -------------------------------------------------------------------------------------------------------------- macql


def conservative(penalty, bias=0.5):
    """The penalty of w = (.25, .75), Q_1 = (1, 2), Q_2 = (0, 4), a bias and the actions (1, 1)."""
    learner = tables("macql", task(2, 2, 1), penalty=penalty)
    q = jnp.array([[1.0, 2.0], [0.0, 4.0]])[None, None]
    params = {"agent": jnp.concatenate([q, 0 * q]), "mixer": plain([0.25, 0.75], bias)}
    batch = episode([[[1, 1]]], [[3.0]], [[1]], [[0]])
    return run_loss(learner, "joint", params, params, batch, hand(learner, beta=2.0))


@pytest.mark.parametrize(
    ("penalty", "price"), [("joint", 0.6245268), ("printed", 1.1245268), ("counterfactual", 0.6245268 / 2)]
)
def test_conservative_loss_by_hand(penalty, price):
    """Q = 4 and y = 3: half a squared error of 1, and twice the penalty."""
    loss, metrics = conservative(penalty)
    np.testing.assert_allclose(metrics["loss/conservative"], price, rtol=1e-5)
    np.testing.assert_allclose(metrics["q/tot_mean"], 4.0)
    np.testing.assert_allclose(loss, 0.5 + 2 * price, rtol=1e-5)


@pytest.mark.parametrize("kind", ["one_step", "td_lambda"])
def test_conservative_targets_by_hand(kind):
    """Online the next best action is 0, and to the target networks that is worth 10, behind a time limit too."""
    learner = tables("macql", task(1, 2, 2), target=kind)
    batch = episode([[[0]], [[1]]], [[3.0], [1.0]], [[0], [0]], [[0], [1]])
    params = {"agent": along([7, 0], [4, 2], [5, 3]), "mixer": plain([0.5])}
    target = {"agent": along([0, 0], [30, 20], [10, 90]), "mixer": plain([1.0], 2.0)}
    loss, _ = run_loss(learner, "joint", params, target, batch, hand(learner, beta=0.0, td_lambda=0.8))
    last = 1 + 0.99 * 12
    first = 3 + 0.99 * (32 if kind == "one_step" else 0.2 * 32 + 0.8 * last)
    np.testing.assert_allclose(loss, 0.5 * ((first - 3.5) ** 2 + (last - 1.0) ** 2) / 2, rtol=1e-5)


def test_as_printed_the_bias_falls_without_end():
    """N - 1 times a higher bias is paid whatever the values are; of the exact joint sum it is no part."""
    for penalty, slope in (("joint", 0.0), ("printed", 1.0), ("counterfactual", 0.0)):
        low, high = (conservative(penalty, bias)[1]["loss/conservative"] for bias in (0.5, 2.5))
        np.testing.assert_allclose(high - low, 2.0 * slope, atol=1e-5)


QMIX = {"penalty": "counterfactual", "mixer": "qmix", "hypernet_dim": 4}


def test_counterfactual_sums_go_through_any_mixer():
    """QMIX: each agent's action varied by hand, the others' as in the data, unavailable ones left out."""
    learner, batch = tables("macql", keep_mixer=True, **QMIX), random_batch()
    rng = np.random.default_rng(5)
    shapes = jax.eval_shape(learner.mixer.init, KEY)
    mixer = jax.tree.map(lambda x: jnp.array(rng.normal(size=x.shape), jnp.float32), shapes)
    q = jnp.array(rng.normal(size=batch.avail.shape), jnp.float32)
    params = {"agent": q, "mixer": mixer}
    _, metrics = run_loss(learner, "joint", params, params, batch, hand(learner))
    mix = jax.jit(lambda taken: learner.mixer.apply(mixer, taken, MixerInputs(taken, taken, batch.state[:-1])))
    taken = np.take_along_axis(np.asarray(q[:-1]), np.asarray(batch.action)[..., None], -1)[..., 0]
    price = np.zeros(batch.mask.shape)
    for agent in range(SPEC.num_agents):
        total = np.zeros(batch.mask.shape)
        for action in range(ACTIONS):
            varied = taken.copy()
            varied[..., agent] = q[:-1, :, agent, action]
            total += np.exp(np.asarray(mix(varied), np.float64)) * np.asarray(batch.avail[:-1, :, agent, action])
        price += np.log(total) / SPEC.num_agents
    price -= np.asarray(mix(taken))
    expected = (price * batch.mask).sum() / batch.mask.sum()
    np.testing.assert_allclose(metrics["loss/conservative"], expected, rtol=1e-4)


# ---------------------------------------------------------------------------------------------------------------- icq

REWARDS, NEXT = [[1.0], [0.0], [2.0]], [0.5, 1.0, 1.5, 0.7]


def critic_metrics(terminated, truncated, mask=None, last=0, form="code", critic_beta=1e9, **hparams):
    """One agent that did 0, worth NEXT to the target critic, until its `last` action; 1 is unlikely and worth 50."""
    learner = tables("icq", task(1, 2, 3), form=form)
    batch = episode([[[0]], [[0]], [[last]]], REWARDS, terminated, truncated, mask)
    slow = along(*([q, 50.0] for q in NEXT))
    params = {"actor": along(*[[50.0, -50.0]] * 4), "critic": 0 * slow, "mixer": plain([1.0])}
    target = {"critic": slow, "mixer": plain([1.0])}
    ctx = hand(learner, critic_beta=critic_beta, **hparams)
    return run_loss(learner, "critic", params, target, batch, ctx)


NEVER = [[0], [0], [0]]


@pytest.mark.parametrize(
    ("terminated", "truncated", "lambda_", "returns"),
    [
        ([[0], [0], [1]], NEVER, 0.8, [2.687752, 1.881, 2.0]),
        ([[0], [0], [1]], [[0], [0], [1]], 0.8, [2.687752, 1.881, 2.0]),
        (NEVER, [[0], [0], [1]], 0.8, [3.122446, 2.429856, 2.693]),
        ([[0], [0], [1]], NEVER, 0.0, [1.99, 1.485, 2.0]),
        ([[0], [0], [1]], NEVER, 1.0, [2.9602, 1.98, 2.0]),
    ],
)
def test_lambda_returns_of_the_critic_by_hand(terminated, truncated, lambda_, returns):
    """With an even weight; behind a time limit the policy's mean, here the value of action 0."""
    loss, metrics = critic_metrics(terminated, truncated, td_lambda=lambda_)
    np.testing.assert_allclose(metrics["q/target_mean"], np.mean(returns), rtol=1e-5)
    np.testing.assert_allclose(loss, np.square(returns).mean(), rtol=1e-5)


@pytest.mark.parametrize(("truncated", "last"), [([[0], [0], [1]], 0), ([[0], [1], [0]], 1)])
def test_no_target_looks_past_what_is_in_the_data(truncated, last):
    """Step 2 has mask 0. It is cut without a successor: step 1 bootstraps from what it led to and the action there.

    Or it is padding after a time limit, and holds no action: step 1 bootstraps from the policy's mean.
    """
    loss, _ = critic_metrics(NEVER, truncated, [[1], [1], [0]], last)
    after = 0.99 * 1.5
    first = 1 + 0.99 * (0.2 * 1.0 + 0.8 * after)
    np.testing.assert_allclose(loss, (first**2 + after**2) / 2, rtol=1e-5)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_the_critics_weights_are_over_what_follows(form):
    """F_c of 1 and 1.5, the values that are bootstrapped from; the end has none. paper: beta is the policy's."""
    betas = {"critic_beta": 0.5} if form == "code" else {"beta": 0.5, "critic_beta": 1e9}
    loss, _ = critic_metrics([[0], [0], [1]], NEVER, form=form, td_lambda=0.0, **betas)
    even = 2 / (1 + np.exp(0.5 / 0.5))
    returns = [1 + 0.99 * even, 0.99 * (2 - even) * 1.5, 2.0]
    np.testing.assert_allclose(loss, np.square(returns).mean(), rtol=1e-5)


def policy_case(form="code", seed=0, **config):
    """(tables, batch, params) of two agents, with an action that is not available and padding."""
    spec = task(2, 3, 3)
    learner = tables("icq", spec, form=form, **config)
    rng = np.random.default_rng(seed)
    avail = np.ones((4, 2, 2, 3), bool)
    avail[:, 0, 0, 2] = False
    batch = episode(
        rng.integers(0, 2, (3, 2, 2)), rng.normal(size=(3, 2)), [[0, 0], [0, 1], [0, 0]], [[0, 0], [0, 0], [1, 0]],
        [[1, 1], [1, 1], [1, 0]], avail=avail,
    )  # fmt: skip
    table = lambda: jnp.array(rng.normal(size=avail.shape), jnp.float32)  # noqa: E731
    params = {"actor": table(), "critic": 0.3 * table(), "mixer": plain([0.3, 0.7], 0.4)}
    return learner, batch, params


@pytest.mark.parametrize("form", ["code", "paper"])
def test_the_policys_loss_by_hand(form):
    learner, batch, params = policy_case(form)
    loss, _ = run_loss(learner, "actor", params, params, batch, hand(learner, beta=0.2))
    mask, k = np.asarray(batch.mask)[..., None] * np.ones(2), np.array([0.3, 0.7])
    logits = np.where(batch.avail[:-1], params["actor"][:-1], -np.inf)
    pi = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    q = np.asarray(params["critic"][:-1])
    at = lambda x: np.take_along_axis(x, np.asarray(batch.action)[..., None], -1)[..., 0]  # noqa: E731
    score = at(q) - (pi * q).sum(-1) if form == "code" else k * at(q)
    raw = np.exp(score / 0.2) * mask
    weight = raw / raw.sum((0, 1)) * mask.sum((0, 1)) * (k if form == "code" else 1.0)
    np.testing.assert_allclose(loss, -(weight * np.log(at(pi)) * mask).sum() / mask.sum(), rtol=1e-5)


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize("axis", offline.AXES)
def test_a_constant_on_all_values_changes_no_policy(form, axis):
    learner, batch, params = policy_case(form, softmax_axis=axis)
    shifted = {**params, "critic": params["critic"] + 3.0}
    (loss, grads), (same, again) = (
        slopes(learner, "actor", p, params, batch, hand(learner)) for p in (params, shifted)
    )
    np.testing.assert_allclose(loss, same, rtol=1e-4)
    np.testing.assert_allclose(grads["actor"], again["actor"], rtol=1e-3, atol=1e-6)
    assert np.abs(grads["actor"]).max() > 1e-3


def test_the_policys_loss_moves_the_policy_alone():
    """No gradient into the critic, nor into k; and none through the weights, but through log pi."""
    learner, batch, params = policy_case()
    ctx = hand(learner)
    _, grads = slopes(learner, "actor", params, params, batch, ctx)
    assert np.abs(flat([grads["critic"], grads["mixer"]])).max() == 0
    q, log_pi = params["critic"][:-1], offline.log_policy(params["actor"][:-1], batch.avail[:-1])
    taken = lambda x: jnp.take_along_axis(x, batch.action[..., None], -1)[..., 0]  # noqa: E731
    mask = batch.mask[..., None] * jnp.ones(2)[None, None]
    score = taken(q) - (jnp.exp(log_pi) * q).sum(-1)
    fixed = offline.filter_weights("softmax", score, mask, ctx.hparams["beta"]) * jnp.array([0.3, 0.7])[None, None]

    def alone(logits):
        return -(fixed * taken(offline.log_policy(logits[:-1], batch.avail[:-1])) * mask).sum() / mask.sum()

    np.testing.assert_allclose(grads["actor"], jax.jit(jax.grad(alone))(params["actor"]), rtol=1e-4, atol=1e-6)


def test_without_a_filter_it_is_cloning_weighted_by_k():
    learner, batch, params = policy_case()
    even = {**params, "mixer": plain([0.5, 0.5])}
    loss, metrics = run_loss(learner, "actor", even, even, batch, hand(learner, beta=1e9))
    np.testing.assert_allclose(loss, 0.5 * metrics["loss/cloning"], rtol=1e-5)
    np.testing.assert_allclose(metrics["weight/effective"], 1.0, rtol=1e-4)  # of both agents' steps


@pytest.mark.parametrize(("updates", "epsilon"), [(0, 0.5), (2500, 0.275), (5000, 0.05), (9000, 0.05)])
def test_the_policy_of_the_code_is_a_mixture(updates, epsilon):
    """code: softmax over all actions, (1 - eps) pi + eps / A, then those that are available, normalised."""
    learner, batch, params = policy_case(mixture=True)
    ctx = context(learner.assemble(), updates=updates, beta=0.2)
    loss, _ = run_loss(learner, "actor", params, params, batch, ctx)
    mask, k = np.asarray(batch.mask)[..., None] * np.ones(2), np.array([0.3, 0.7])
    raw = np.exp(np.asarray(params["actor"][:-1], np.float64))
    pi = ((1 - epsilon) * raw / raw.sum(-1, keepdims=True) + epsilon / 3) * np.asarray(batch.avail[:-1])
    pi = pi / pi.sum(-1, keepdims=True)
    q = np.asarray(params["critic"][:-1], np.float64)
    at = lambda x: np.take_along_axis(x, np.asarray(batch.action)[..., None], -1)[..., 0]  # noqa: E731
    weight = np.exp((at(q) - (pi * q).sum(-1)) / 0.2) * mask
    weight = weight / weight.sum((0, 1)) * mask.sum((0, 1)) * k
    np.testing.assert_allclose(loss, -(weight * np.log(at(pi)) * mask).sum() / mask.sum(), rtol=1e-5)


def test_the_mixture_is_of_discrete_actions_and_on_request():
    assert not registry.get("algo", "icq").Config().mixture
    with pytest.raises(RefusedError, match=r"algo\.mixture=true is of discrete actions.*algo\.mixture=false"):
        parts_of("icq", dataclasses.replace(SPEC, action=Box(1, (-1.0,), (1.0,))), mixture=True)


def test_the_policy_learns_from_the_critic_as_it_is_after_its_step():
    learner, batch, _ = policy_case()
    state = start(learner, seed=2, slots=(4, 2))
    algorithm = learner.assemble()
    ctx = context(algorithm, critic_lr=0.5)
    after, metrics = jax.jit(algorithm.update)(state, batch, ctx, KEY)
    both = {**after.params, "actor": state.params["actor"]}
    new, _ = run_loss(learner, "actor", both, state.target_params, batch, ctx)
    old, _ = run_loss(learner, "actor", state.params, state.target_params, batch, ctx)
    np.testing.assert_allclose(metrics["loss/actor"], new, rtol=1e-5)
    assert abs(new - old) > 1e-3


# ---------------------------------------------------------------------------------------- what no loss may look at

LOSSES = {
    "bc": {}, "mabcq": {}, "macql": {}, "macql printed": {"penalty": "printed"},
    "macql counterfactual": {"penalty": "counterfactual", "target": "td_lambda"}, "icq": {},
    "icq paper": {"form": "paper", "softmax_axis": "batch"}, "icq crr": {"filter": "crr"},
}  # fmt: skip


@pytest.mark.parametrize("case", LOSSES)
def test_no_loss_looks_at_illegal_actions_or_padding(case):
    """Gradients of the losses by what the networks say: exactly 0 there, and huge values there change nothing."""
    learner = tables(case.split()[0], **LOSSES[case])
    batch = random_batch()
    state, ctx = start(learner, seed=4, slots=batch.avail.shape[:2]), context(learner.assemble())
    reached = jnp.concatenate([jnp.ones_like(batch.mask[:1]), batch.mask]) > 0  # a successor counts too
    seen = batch.avail & reached[..., None, None]
    assert not seen.all()

    @jax.jit
    def gradients(params, target):
        total = lambda p: sum(loss_of(learner, name, p, target, batch, ctx)[0] for name in learner.steps)  # noqa: E731
        return jax.value_and_grad(total)(params)

    names = [name for name in state.params if name != "mixer"]
    spoil = lambda tree: {n: jnp.where(seen, x, 1e4) if n in names else x for n, x in tree.items()}  # noqa: E731
    loss, grads = gradients(state.params, state.target_params)
    same, again = gradients(spoil(state.params), spoil(state.target_params))
    np.testing.assert_array_equal(loss, same)
    for name in names:
        assert np.abs(np.where(seen, 0.0, grads[name])).max() == 0
        assert np.abs(grads[name]).max() > 1e-4
        np.testing.assert_array_equal(grads[name], again[name])


def junk(batch, seed=1):
    """Large random values wherever the mask is 0."""
    rng = np.random.default_rng(seed)
    off = np.asarray(batch.mask) == 0
    unreached = np.concatenate([np.zeros_like(off[:1]), off])

    def fill(x, where, values):
        return jnp.where(where.reshape(where.shape + (1,) * (x.ndim - 2)), jnp.asarray(values, x.dtype), x)

    noise = lambda x: 100.0 * rng.normal(size=x.shape)  # noqa: E731
    flips = lambda x: rng.random(x.shape) < 0.5  # noqa: E731
    return batch.replace(
        obs=fill(batch.obs, unreached, noise(batch.obs)), state=fill(batch.state, unreached, noise(batch.state)),
        action=fill(batch.action, off, rng.integers(0, ACTIONS, batch.action.shape)),
        reward=fill(batch.reward, off, noise(batch.reward)),
        terminated=fill(batch.terminated, off, flips(batch.terminated)),
        truncated=fill(batch.truncated, off, flips(batch.truncated)),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["icq", "bc", "mabcq", "macql"])
def test_padding_changes_nothing(name):
    """With the true networks: one update of the padded batch and of the same one with junk after the ends."""
    algorithm = parts_of(name, share_params="type").assemble()
    state, ctx, batch = init(algorithm), context(algorithm, grad_clip=10.0), random_batch()
    update = jax.jit(lambda *args: algorithm.update(*args)[0].params)
    found, other = (flat(update(state, b, ctx, KEY)) for b in (batch, junk(batch)))
    np.testing.assert_allclose(found, other, rtol=0, atol=1e-6)
    assert np.abs(found - flat(state.params)).max() > 1e-4


# ----------------------------------------------------------------------------------------------------- around a learner


@pytest.mark.parametrize("name", ["mabcq", "macql", "icq"])
def test_targets_are_copied_at_their_period_alone(name):
    learner = tables(name, task(1, 2, 1), target_update_period=2)
    algorithm = learner.assemble()
    state, batch = start(learner, seed=3, slots=(2, 2)), episode([[[0], [1]]], [[1, 2]], [[1, 0]], [[0, 1]])
    update = jax.jit(algorithm.update)
    first, _ = update(state, batch, context(algorithm, updates=0), KEY)
    second, _ = update(first, batch, context(algorithm, updates=1), KEY)
    assert set(state.target_params) == set(learner.targets.networks)
    np.testing.assert_array_equal(flat(first.target_params), flat(state.target_params))
    np.testing.assert_array_equal(
        flat(second.target_params), flat({n: second.params[n] for n in learner.targets.networks})
    )
    assert np.any(flat(second.target_params) != flat(state.target_params))


def seen_by(avail):
    batch, agents = avail.shape[:2]
    zero = jnp.zeros(batch, bool)
    return TimeStep(
        obs=jnp.zeros((batch, agents, 1)), state=jnp.zeros((batch, 1)), avail=jnp.array(avail),
        alive=jnp.ones((batch, agents), bool), reward=jnp.zeros((batch, agents)), terminated=zero, truncated=zero,
        info={},
    )  # fmt: skip


def acted(name, says, avail, explore=False):
    """What one agent does, [B]: `says` [B, A] for each network that acts."""
    learner = tables(name, task(1, 3, 1))
    params = {network: jnp.array(values, jnp.float32)[None, :, None] for network, values in says.items()}
    algorithm = learner.assemble()
    carry = algorithm.initial_carry(len(avail))
    shown = seen_by(np.array(avail, bool)[:, None])
    return jax.jit(algorithm.act, static_argnums=5)(params, carry, shown, hand(learner), KEY, explore)[1][:, 0]


@pytest.mark.parametrize("explore", [False, True])
def test_values_act_greedily_over_what_is_available_and_allowed(explore):
    q, avail = [[1, 2, 3]] * 2, [[1, 1, 1], [1, 1, 0]]
    assert acted("macql", {"agent": q}, avail, explore).tolist() == [2, 1]
    mu = np.log([[0.6, 0.3, 0.1], [0.6, 0.1, 0.3]])
    assert acted("mabcq", {"agent": q, "behaviour": mu}, avail, explore).tolist() == [1, 0]


@pytest.mark.parametrize("name", ["bc", "icq"])
def test_policies_take_the_likeliest_action_or_draw(name):
    logits = np.log([[0.3, 0.1, 0.6]] * 2000)
    avail = np.ones((2000, 3), bool)
    avail[1000:, 2] = False
    greedy = acted(name, {"actor": logits}, avail)
    assert set(greedy[:1000].tolist()) == {2}
    assert set(greedy[1000:].tolist()) == {0}
    drawn = np.asarray(acted(name, {"actor": logits}, avail, explore=True))
    np.testing.assert_allclose(np.bincount(drawn[:1000], minlength=3) / 1000, [0.3, 0.1, 0.6], atol=0.05)
    np.testing.assert_allclose(np.bincount(drawn[1000:], minlength=3) / 1000, [0.75, 0.25, 0.0], atol=0.05)


# -------------------------------------------------------------------------------------------------- continuous actions

CONTINUOUS = dataclasses.replace(SPEC, action=Box(2, (-1.0, 0.0), (1.0, 4.0)))
LINE = EnvSpec("line", 1, 1, 1, Box(1, (0.0,), (4.0,)), 3, (0,), ("unit",))  # an action of 3 is 0.5 to the networks


@pytest.mark.parametrize("name", ["bc", "icq", "mabcq", "macql"])
def test_actions_without_bounds_are_refused(name):
    with pytest.raises(RefusedError, match=f"algo={name} needs actions between finite bounds"):
        parts_of(name, dataclasses.replace(SPEC, action=Box(1, (-np.inf,), (1.0,))))


def on_a_line(actions, truncated=(0, 0, 1), mask=(1, 1, 1)):
    """One episode of three steps of one agent."""
    column = lambda x: np.array(x)[:, None]  # noqa: E731
    batch = episode(np.zeros((3, 1, 1)), np.ones((3, 1)), np.zeros((3, 1)), column(truncated), column(mask))
    action = jnp.array(actions, jnp.float32).reshape(3, 1, 1, 1)
    return batch.replace(action=action, avail=batch.avail[..., :0])


@functools.cache
def linear_critic(name, **config):
    """Tables of what actors say, and Q_i(a) = the critic's only parameter times a."""
    learner = tables(name, LINE, **config)
    if "critic" not in learner.networks:
        return learner
    judge = lambda params, carry, x: (carry, params * x[..., -1:])  # noqa: E731
    return learner.with_network("critic", dataclasses.replace(learner.networks["critic"], unroll=judge))


SAID = jnp.arctanh(jnp.array([0.25, -0.5, 0.5, 0.0]))[:, None, None, None]  # means of the policies in four slots
OFF = np.array([0.25, 0.25])  # of 0.25 and -0.5 from the actions 0.5 and -0.25


def test_cloning_of_continuous_actions_is_the_squared_error_by_hand():
    """Two steps are 1.25 deviations off, the third is padding and far away."""
    learner, batch = linear_critic("bc"), on_a_line([3.0, 1.5, 9.0], (0, 1, 0), (1, 1, 0))
    loss, metrics = run_loss(learner, "actor", {"actor": SAID}, {}, batch, hand(learner, action_std=0.2))
    constant = np.log(0.2 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(loss, np.square(OFF / 0.2).mean() / 2 + constant, rtol=1e-5)
    np.testing.assert_allclose(metrics["policy/error"], 0.25, rtol=1e-5)
    shown = learner.inspect[0](view_of(learner, start_line(learner), batch, hand(learner, action_std=0.2)))["log_prob"]
    np.testing.assert_allclose(shown[:2, 0, 0], -np.square(OFF / 0.2) / 2 - constant, rtol=1e-5)


def start_line(learner):
    actor = dataclasses.replace(learner.networks["actor"], init=lambda key: SAID)
    return learner.with_network("actor", actor).assemble().init(KEY)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_the_policys_loss_of_continuous_actions_by_hand(form):
    """Advantages -- or values -- of 0.5 and -0.25 under Q = 2a, weights of their softmax, densities times k = 1."""
    learner = linear_critic("icq", form=form, filter_samples=4000)
    batch, ctx = on_a_line([3.0, 1.5, 9.0], (0, 1, 0), (1, 1, 0)), hand(learner, action_std=0.1, beta=1.0)
    params = {"actor": SAID, "critic": jnp.float32(2.0), "mixer": plain([1.0], 0.3)}
    loss, grads = slopes(learner, "actor", params, params, batch, ctx)
    q, mean = np.array([1.0, -0.5]), np.array([0.25, -0.5])
    score = q - 2 * mean if form == "code" else q
    weight = 2 * np.exp(score) / np.exp(score).sum()
    log_pi = -np.square(OFF / 0.1) / 2 - np.log(0.1 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(loss, -(weight * log_pi).mean(), rtol=0.01)
    slope = -weight / 2 * OFF / 0.01 * (1 - mean**2)  # by y, through tanh
    np.testing.assert_allclose(grads["actor"][:2, 0, 0, 0], slope, rtol=0.02)
    assert not np.any(flat([grads["actor"][2:], grads["critic"], grads["mixer"]]))


def test_the_critics_targets_of_continuous_actions_by_hand():
    """One step each to what the data do next, 2 * 1.5 of the target critic; behind the time limit to its mean there."""
    learner = linear_critic("icq", filter_samples=4000)
    batch, ctx = on_a_line([3.0, 1.5, 2.0]), hand(learner, action_std=0.1, td_lambda=0.0, critic_beta=1e9)
    params = {"actor": SAID + 0.5, "critic": jnp.float32(2.0), "mixer": plain([1.0])}
    _, metrics = run_loss(learner, "critic", params, {**params, "critic": 6.0}, batch, ctx)
    target = 1 + 0.99 * 6.0 * np.array([-0.25, 0.0, np.tanh(0.5)])
    np.testing.assert_allclose(metrics["q/target_mean"], target.mean(), rtol=0.01)
    np.testing.assert_allclose(metrics["q/tot_mean"], np.mean([1.0, -0.5, 0.0]), rtol=1e-5)


def continuous_batch():
    batch = random_batch()
    action = np.random.default_rng(0).uniform((-1, 0), (1, 4), (*batch.action.shape, 2))
    action = jnp.array(action * np.asarray(batch.mask)[..., None, None], jnp.float32)
    return batch.replace(action=action, avail=batch.avail[..., :0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bc", "icq", "mabcq", "macql"])
def test_padding_changes_nothing_with_continuous_actions(name):
    algorithm = parts_of(name, CONTINUOUS, share_params="type").assemble()
    state, ctx, batch = init(algorithm), context(algorithm, grad_clip=10.0), continuous_batch()
    spoilt = junk(batch.replace(action=jnp.zeros((*batch.mask.shape, 3), jnp.int32)))
    off = np.asarray(batch.mask)[..., None, None] == 0
    spoilt = spoilt.replace(action=jnp.where(off, 50.0, batch.action))
    update = jax.jit(algorithm.update)
    (found, metrics), (other, _) = (update(state, b, ctx, KEY) for b in (batch, spoilt))
    np.testing.assert_allclose(flat(found.params), flat(other.params), rtol=0, atol=1e-6)
    for module in state.params:
        assert np.abs(flat(found.params[module]) - flat(state.params[module])).max() > 1e-4
    assert all(np.isfinite(x) for x in metrics.values())


@pytest.mark.parametrize("name", ["bc", "icq"])
def test_a_continuous_policy_plays_its_mean_or_draws_near_it(name):
    """tanh y = 0.5 and 0.99 in a box from 0 to 4; what is drawn stays in it."""
    learner = tables(name, LINE)
    algorithm = learner.assemble()
    says = {"actor": jnp.repeat(jnp.arctanh(jnp.array([0.5, 0.99])), 500)[None, :, None, None]}
    shown = seen_by(np.zeros((1000, 1, 0), bool))
    act = jax.jit(algorithm.act, static_argnums=5)
    carry, ctx = algorithm.initial_carry(1000), hand(learner, action_std=0.1)
    after, best, _ = act(says, carry, shown, ctx, KEY, False)
    assert (best.shape, best.dtype) == ((1000, 1, 1), jnp.float32)
    np.testing.assert_allclose(best[::500, 0, 0], [3.0, 3.98], rtol=1e-6)
    np.testing.assert_allclose(after["previous"], inputs.encode(best, LINE), rtol=1e-6)
    drawn = np.asarray(act(says, carry, shown, ctx, KEY, True)[1])[:, 0, 0]
    np.testing.assert_allclose([drawn[:500].mean(), drawn[:500].std()], [3.0, 0.2], atol=0.03)
    assert drawn.max() == 4.0


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("bc", {"share_params": "some"}, "algo.share_params=some is not one of all, type, none"),
        ("bc", {"hidden_dim": 0}, "algo.hidden_dim=0 must be at least 1"),
        ("mabcq", {"target_update_period": 0}, "algo.target_update_period=0 must be at least 1"),
        ("mabcq", {"behaviour_updates": -1}, "algo.behaviour_updates=-1 must be at least 0"),
        ("mabcq", {"action_samples": 0}, "algo.action_samples=0 must be at least 1"),
        ("mabcq", {"hparams": {"perturbation": -0.1}}, "algo.hparams.perturbation=-0.1 must be "),
        ("macql", {"action_samples": 0}, "algo.action_samples=0 must be at least 1"),
        ("mabcq", {"hparams": {"zeta": 1.0}}, r"algo.hparams.zeta=1.0 must be in \[0, 1\)"),
        ("macql", {"embed_dim": 0}, "algo.embed_dim=0 must be at least 1"),
        ("macql", {"penalty": "none"}, "algo.penalty=none is not one of joint, printed, counterfactual"),
        ("macql", {"mixer": "qmix"}, "algo.penalty=joint: with algo.mixer=qmix .* algo.penalty=counterfactual"),
        ("icq", {"form": "book"}, "algo.form=book is not one of code, paper"),
        ("icq", {"softmax_axis": "time"}, "algo.softmax_axis=time is not one of batch, batch_time"),
        ("icq", {"form": "paper", "filter": "crr"}, "algo.filter=crr is of advantages.*algo.form=code"),
        ("icq", {"hparams": {"beta": 0.0}}, "algo.hparams.beta=0.0 must be positive"),
        ("icq", {"hparams": {"action_std": 0.0}}, "algo.hparams.action_std=0.0 must be positive"),
        ("icq", {"filter_samples": 0}, "algo.filter_samples=0 must be at least 1"),
        ("bc", {"hparams": {"action_std": -1.0}}, "algo.hparams.action_std=-1.0 must be positive"),
    ],
)
def test_refusals_name_key_value_and_remedy(name, config, message):
    if "hparams" in config:
        config = {"hparams": with_hparams(name, **config["hparams"])}
    with pytest.raises(RefusedError, match=message):
        parts_of(name, **config)


# ---------------------------------------------------------------------------------------------------- a small data set

PLAYED = {(0, 0): 12, (0, 1): 4, (1, 0): 4, (1, 1): 12}  # of 32 episodes; nobody ever plays 2
PAYOFF = [[-5, -9, 20], [-9, -3, 20], [20, 20, -50]]  # less than the 0 that a new network says of an unknown action
LEARN = {"lr": 1e-2, "critic_lr": 1e-2}


def small_task():
    env = matrix.make(matrix.Config(game="custom", payoff=PAYOFF))
    joint = np.array([pair for pair, times in PLAYED.items() for _ in range(times)])
    ring = (len(joint), 1)
    reward = np.array(PAYOFF, np.float32)[joint[:, 0], joint[:, 1]]
    slots = (len(joint), 2)
    data = Episode(
        obs=np.ones((*slots, 2, env.spec.obs_dim), np.float32), state=np.ones((*slots, env.spec.state_dim), np.float32),
        avail=np.ones((*slots, 2, 3), bool), alive=np.ones((*slots, 2), bool), action=joint[:, None].astype(np.uint8),
        reward=np.repeat(reward[:, None, None], 2, -1), terminated=np.ones(ring, bool), truncated=np.zeros(ring, bool),
        mask=np.ones(ring, bool),
    )  # fmt: skip
    return env, data


def learned(name, updates, hparams=None, **config):
    """What the agents do after so many updates from the data, through the real program."""
    env, data = small_task()
    period = {} if name == "bc" else {"target_update_period": 20}
    learner = parts_of(name, env.spec, **{"recurrent": False, "hidden_dim": 16, **period, **config})
    algorithm = learner.assemble()
    run = RunConfig(batch_size=32, total_updates=updates, eval=EvalConfig(episodes=4))
    program = Program(env, algorithm, run)
    values = {**algorithm.hparams, **{k: v for k, v in LEARN.items() if k in algorithm.hparams}, **(hparams or {})}
    traced = {key: jnp.float32(value) for key, value in values.items()}
    learn = jax.jit(
        lambda data: program.chunk_offline(updates, program.init(jnp.int32(0)), traced, (start_clock(), data))
    )
    (state, metrics), clock = learn(data)
    assert clock.updates == state.updates == updates
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(metrics["update"]))
    shown = env.reset(KEY)[1]
    shown = jax.tree.map(lambda x: jnp.asarray(x)[None], shown)
    ctx = program.context(state, traced, clock)
    return lambda explore, key=KEY, count=1: [
        int(a)
        for k in jax.random.split(key, count)
        for a in algorithm.act(state.learner.params, algorithm.initial_carry(1), shown, ctx, k, explore)[1][0]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mabcq", "macql", "icq"])
def test_actions_that_are_not_in_the_data_are_not_chosen(name):
    """All that was done was bad, and what nobody did looks good to a new network."""
    assert learned(name, 200)(explore=False) in ([0, 0], [1, 1])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "without"), [("macql", {"beta": 0.0}), ("mabcq", {"zeta": 0.0})])
def test_without_its_constraint_the_unknown_action_is_chosen(name, without):
    """So that the test above can fail."""
    assert 2 in learned(name, 200, hparams=without)(explore=False)


@pytest.mark.slow
def test_cloning_gives_the_behaviour():
    """Each agent did 0 and 1 equally often."""
    act = learned("bc", 200)
    drawn = np.bincount(act(True, count=200), minlength=3) / 400
    np.testing.assert_allclose(drawn, [0.5, 0.5, 0.0], atol=0.08)


# ------------------------------------------------------------------------------------- a small one, continuous actions


def aiming():
    """One step: agents see a number x in [-1, 1] and are paid for being at -x/2. The data: half there, half at x/2."""
    rng = np.random.default_rng(0)
    spec = EnvSpec("aiming", 2, 1, 1, Box(1, (-2.0,), (2.0,)), 1, (0, 0), ("unit",))
    x = np.broadcast_to(rng.uniform(-1, 1, (512, 1, 1)), (512, 2, 1)).astype(np.float32)
    right = rng.random((512, 1, 1)) < 0.5  # of both agents
    action = np.where(right, -x, x) + 0.02 * rng.normal(size=x.shape)  # -x is -x/2 to the networks
    reward = np.repeat(np.where(right, 1.0, 0.0)[:, :, 0, None], 2, -1)
    slots, ring = (512, 2), (512, 1)
    data = Episode(
        obs=np.repeat(x[:, None], 2, 1), state=np.repeat(x[:, None, 0], 2, 1), avail=np.ones((*slots, 2, 0), bool),
        alive=np.ones((*slots, 2), bool), action=np.clip(action, -2, 2)[:, None].astype(np.float32),
        reward=reward.astype(np.float32), terminated=np.ones(ring, bool), truncated=np.zeros(ring, bool),
        mask=np.ones(ring, bool),
    )  # fmt: skip
    return spec, data, x[:, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "slope", "within"), [("bc", 0.0, 0.12), ("icq", -0.5, 0.15)])
def test_of_two_ways_cloning_takes_the_mean_and_the_filter_the_better(name, slope, within):
    """A Gaussian has one mode: bc ends between -x/2 and x/2, icq at what is paid."""
    learner, state, whole, x, _ = aimed(name)
    y = learner.networks["actor"].unroll(
        state.params["actor"], learner.networks["actor"].initial_carry(512), line_inputs(learner, whole)
    )[1]
    off = np.abs(np.tanh(y[0, :, 0, 0]) - slope * x)
    assert off.mean() < within, off.mean()


def aimed(name, **hparams):
    """(learner, its state after 1500 updates of all data, the data, x, context)."""
    spec, data, x = aiming()
    learner = parts_of(name, spec, recurrent=False, hidden_dim=32)
    algorithm = learner.assemble()
    rates = {rate: 1e-3 for rate in ("lr", "critic_lr") if rate in algorithm.hparams}
    ctx = context(algorithm, **rates, grad_clip=10.0, **hparams)
    whole = jax.tree.map(lambda field: jnp.swapaxes(field, 0, 1), data).replace(mask=jnp.ones((1, 512)))

    def body(state, made):
        at = ctx.replace(clock=ctx.clock._replace(updates=made))
        return algorithm.update(state, whole, at, jax.random.fold_in(KEY, made))

    state, metrics = jax.jit(lambda s: jax.lax.scan(body, s, jnp.arange(1500)))(jax.jit(algorithm.init)(KEY))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(metrics))
    return learner, state, whole, x, ctx


def line_inputs(learner, batch):
    return learner.reads.build(batch.obs[:1], jnp.zeros((1, 512, 2, 1)))

"""SIT in its three stages: which stage learns what, whose data it learns from, what must not matter, and refusals."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import value_cases as cases
from actor_critic_cases import view_of

from jaxshare import cli, registry
from jaxshare.algos.sit import algorithm as sit
from jaxshare.algos.sit import equations as decompose
from jaxshare.algos.sit import policies as policy
from jaxshare.algos.sit import rewards, tables
from jaxshare.algos.sit import trajectories as paths
from jaxshare.algos.sit.networks import Decomposition, GraphCritic, Question
from jaxshare.algos.sit.sets import sets_of
from jaxshare.algos.sit.settings import HParams
from jaxshare.data import card, own, records
from jaxshare.learners.optimisers import advance
from jaxshare.learners.passes import phase_from
from jaxshare.run import build
from jaxshare.training import replay, sum_tree
from jaxshare.training.counting import start_clock
from jaxshare.types import Box, Clock, Discrete, EnvSpec, LearnerState, RefusedError, TimeStep

SPEC = cases.SPEC  # three agents, the first two of one type; four actions, five steps
SMALL = {
    "stage1_updates": 2, "capacity": 6, "ensemble": 2, "reward_dim": 4, "attention_dim": 4, "hidden_dim": 4,
    "critic_dim": 4, "target_update_period": 2,
}  # fmt: skip
BATCH, KEY, CLOCK = 3, cases.KEY, Clock(*[jnp.int32(0)] * 4)
UPDATES = 5  # two of the first stage, three of the last


def parts_of(spec=SPEC, **config):
    return sit.make(sit.Config(**{**SMALL, **config}), spec)


def sets_in(learner):
    """Its parameter sets and buffers."""
    return sets_of(learner.config, learner.spec)


NOBODY = LearnerState(params={}, target_params={}, opt_state={}, stats={})


@jax.jit
def data_of(batch):
    """A batch of time-first episodes in the layout of a replay."""
    return replay.add(replay.init(batch, batch.mask.shape[1], "float32"), batch, CLOCK)


def context(learner, updates, **hparams):
    return cases.context(learner.assemble(), updates=updates, min_ess=0.0, **hparams)


class Case:
    """A learner, and its jitted update from a data set."""

    def __init__(self, **config):
        self.learner = parts_of(**config)
        self.algorithm = self.learner.assemble()
        self.start = jax.jit(self.algorithm.init)(KEY)
        self._update = jax.jit(self.algorithm.update_from, static_argnums=4)

    def update(self, state, data, made, **hparams):
        return self._update(state, data, context(self.learner, made, **hparams), jax.random.fold_in(KEY, made), BATCH)

    def run(self, data, updates=UPDATES, **hparams):
        """States and metrics after every update, the first state before them."""
        states, metrics = [self.start], []
        for made in range(updates):
            state, found = self.update(states[-1], data, made, **hparams)
            states.append(state)
            metrics.append(found)
        return states, metrics


@pytest.fixture(scope="module")
def case():
    return Case()


DATA = data_of(cases.random_batch())


@pytest.fixture(scope="module")
def trained(case):
    return case.run(DATA)


ALL_OF_IT = {"key", "query", "reward", "state", "own.hidden", "own.out.kernel"}  # a bias of all keys cancels


def moved_by_attention(old, new):
    """Which parts of the ensemble an update has changed in every one of their tensors."""
    old, new = (state.params["reward"] for state in (old, new))
    pick = lambda tree, name: functools.reduce(lambda t, part: t[part], name.split("."), tree)  # noqa: E731
    return {name for name in ALL_OF_IT if differ_everywhere(pick(old, name), pick(new, name))}


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def differ_everywhere(a, b):
    return all(np.any(np.asarray(x) != y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


# --------------------------------------------------------------------------------------------------------------- stages


@pytest.mark.slow
def test_each_stage_learns_its_own(trained):
    states, metrics = trained
    assert [m["sit/stage"] for m in metrics] == [1, 1, 3, 3, 3]
    assert len({tuple(sorted(m)) for m in metrics}) == 1
    for made, (old, new) in enumerate(itertools.pairwise(states)):
        first = made < SMALL["stage1_updates"]
        assert equal(old.params["reward"], new.params["reward"]) != first
        assert moved_by_attention(old, new) == (ALL_OF_IT if first else set())
        for name in ("actor", "critic"):
            assert differ_everywhere(old.params[name], new.params[name]) != first, name
            assert equal(old.opt_state[name], new.opt_state[name]) == first
        shown = {name for name, value in metrics[made].items() if value != 0}
        assert ("loss/reward" in shown, "loss/critic" in shown, "grad_norm/actor" in shown) == (first,) + (
            not first,
        ) * 2
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((states[-1], metrics)))


def test_the_tables_are_made_once_between_the_stages(trained):
    states, _ = trained
    kept = [{name: x for name, x in state.stats["sit"].items() if name != "floor"} for state in states]
    assert equal(kept[0], kept[2])
    assert not equal(kept[2], kept[3])
    assert equal(kept[3], kept[5])
    assert not any(x.any() for x in jax.tree.leaves(kept[2]))


def test_the_target_is_copied_every_second_update_of_the_last_stage(trained):
    states, _ = trained
    copied = [equal(state.target_params["critic"], state.params["critic"]) for state in states]
    assert copied == [True, True, True, False, True, False]


def test_a_table_holds_what_the_equations_say(case, trained):
    """Rewards and uncertainties of whole episodes, priorities by a loop, and the tree's probabilities."""
    after = trained[0][3]
    kept, h = after.stats["sit"], case.algorithm.hparams
    episodes = DATA.mask.shape[0]
    shown = jax.jit(case.algorithm.inspect)(
        after, jax.jit(replay.gather)(DATA, np.arange(episodes)), context(case.learner, 3)
    )
    mask = np.asarray(DATA.mask)[..., None]
    reward = np.moveaxis(np.asarray(shown["individual_reward"]), 0, 1) * mask
    np.testing.assert_allclose(kept["reward"][:episodes], reward, atol=1e-6)
    spread = np.moveaxis(np.asarray(shown["individual_uncertainty"]), 0, 1) * mask
    np.testing.assert_allclose(kept["uncertainty"][:episodes], spread, atol=1e-6)
    assert np.all(spread[mask[..., 0]] > 0)
    steps = mask.shape[1]
    to_go = np.array([(h["gamma"] ** np.arange(steps - t) @ reward[:, t:].transpose(1, 0, 2).reshape(steps - t, -1))
                      .reshape(episodes, -1) for t in range(steps)])  # fmt: skip
    raw = (to_go.transpose(1, 0, 2) * mask).sum(1) / mask.sum(1)
    for k, members in enumerate(sets_in(case.learner).members):
        own = raw[:, members]
        scaled = (own - own.min()) / (own.max() - own.min()) * h["priority_range"]
        np.testing.assert_allclose(kept["priority"][:episodes, members], scaled, atol=1e-3)
        tree = sum_tree.SumTree(kept[f"tree_{k}"], SMALL["capacity"] * len(members))
        found = sum_tree.probability(tree, jnp.arange(tree.capacity))
        expected = np.exp((scaled - scaled.max()) / h["alpha"]).ravel()
        np.testing.assert_allclose(found[: own.size], expected / expected.sum(), atol=2e-3)
        assert not found[own.size :].any()  # room that the data set does not fill
        np.testing.assert_allclose(kept["median"][k], np.median(spread[..., members][mask[..., 0]]), rtol=1e-5)
        np.testing.assert_allclose(kept["ess"][k], 1 / np.square(found).sum(), rtol=1e-3)


# ------------------------------------------------------------------------------------------------- what must not matter


def test_padding_changes_nothing(case, trained):
    """Anything under mask 0, and after an end that is terminal."""
    rng = np.random.default_rng(1)
    past = ~np.asarray(DATA.mask)
    ended = np.asarray(DATA.terminated)
    slot = np.concatenate([np.zeros_like(past[:, :1]), past | ended], axis=1)  # slots that no step leads to or from
    slot[:, 1:] = past | ended
    slot[:, :-1] &= past
    garbage = lambda x, where: jnp.where(  # noqa: E731
        where.reshape(*where.shape, *(1,) * (x.ndim - 2)), rng.integers(0, 3, x.shape).astype(x.dtype), x
    )
    noisy = DATA.replace(
        obs=garbage(DATA.obs, slot),
        state=garbage(DATA.state, slot),
        action=garbage(DATA.action, past),
        reward=garbage(DATA.reward, past) * 100.0,
    )
    noisy = noisy.replace(reward=jnp.where(past[..., None], noisy.reward, DATA.reward))
    assert not equal(noisy, DATA)
    states, metrics = case.run(noisy)
    assert equal(states[-1], trained[0][-1])
    assert equal(metrics, trained[1])


def test_where_the_time_limit_cuts_the_next_observation_counts_and_after_a_terminal_state_it_does_not(case, trained):
    length = np.asarray(DATA.mask).sum(1)
    cut = np.asarray(DATA.truncated).any(1)
    assert cut.tolist() == [True, False, False, False]
    for chosen, same in ((cut, False), (~cut, True)):
        obs = np.asarray(DATA.obs).copy()
        obs[chosen, length[chosen]] += 1.0
        state, _ = case.update(trained[0][2], DATA.replace(obs=jnp.array(obs)), 2, alpha=1e6)
        before, _ = case.update(trained[0][2], DATA, 2, alpha=1e6)
        assert equal(state.params, before.params) == same
        assert equal(state.stats, before.stats)  # decomposition never looks at a successor


@pytest.mark.slow
def test_the_ensemble_and_the_graph_do_not_care_for_the_order_of_agents():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.array(rng.normal(size=shape), jnp.float32)  # noqa: E731
    order = jnp.array([2, 0, 1])
    state, own = draw(5, 2), draw(5, 3, 4)
    network = Decomposition("attention", 4, 4, scaled=False)
    params = jax.jit(network.init)(KEY, state, own)
    decomposed = jax.jit(network.apply)
    found, total = decomposed(params, state, own)
    permuted, same = decomposed(params, state, own[:, order])
    np.testing.assert_allclose(permuted, found[:, order], atol=1e-6)
    np.testing.assert_allclose(same, total, atol=1e-6)
    critic = GraphCritic(4, "attention")
    asked = Question(
        history=draw(2, 5, 6), action=draw(2, 5, 2, 3), obs=draw(2, 5, 3, 4), index=jnp.full((2, 5), 1, jnp.int32)
    )
    params = jax.jit(critic.init)(KEY, jnp.zeros((5, 0)), asked)
    judge = jax.jit(lambda asked: critic.apply(params, jnp.zeros((5, 0)), asked)[1])
    value = judge(asked)
    moved = asked.replace(obs=asked.obs[:, :, order], index=jnp.full((2, 5), 2, jnp.int32))  # 1 stands at 2 now
    np.testing.assert_allclose(judge(moved), value, atol=1e-6)
    alone = judge(moved.replace(index=asked.index))
    assert np.abs(alone - value).max() > 1e-5  # but whose place it is does


def test_the_critic_is_the_graph_network_of_the_paper():
    """Against a loop over steps and agents, with the parameters by name."""
    rng = np.random.default_rng(3)
    asked = Question(
        history=jnp.array(rng.normal(size=(1, 2, 5))), action=jnp.array(rng.normal(size=(1, 2, 2, 3))),
        obs=jnp.array(rng.normal(size=(1, 2, 3, 2))), index=jnp.array([[2, 0]]),
    )  # fmt: skip
    critic = GraphCritic(4, "attention")
    params = jax.jit(critic.init)(KEY, jnp.zeros((2, 0)), asked)
    found = jax.jit(critic.apply)(params, jnp.zeros((2, 0)), asked)[1]
    p = jax.tree.map(np.asarray, params["params"])
    asked = jax.tree.map(np.asarray, asked)
    layer = lambda name, x: x @ p[name]["kernel"] + p[name]["bias"]  # noqa: E731
    for row in range(2):
        world = np.asarray(asked.obs)[0, row] @ p["graph_kernel"]
        second = p["graph_score"].T.ravel()  # [W_1 o_i ; W_1 o_j]
        score = np.array([second @ np.concatenate([world[asked.index[0, row]], other]) for other in world])
        weight = np.exp(np.where(score > 0, score, 0.2 * score))
        pooled = (weight / weight.sum()) @ world
        for k in range(2):
            x = np.concatenate([asked.history[0, row], asked.action[0, row, k]])
            local = layer("local_out", np.maximum(x @ p["local_kernel"] + p["local_bias"], 0))
            head = p["aggregate"]
            hidden = np.maximum(np.concatenate([local, pooled]) @ head["hidden"]["kernel"] + head["hidden"]["bias"], 0)
            value = hidden @ head["out"]["kernel"] + head["out"]["bias"]
            np.testing.assert_allclose(found[0, row, k], value[0], atol=1e-5)


# ----------------------------------------------------------------------------------------------------------- whose data


@pytest.mark.parametrize(
    ("share", "buffers", "sets"),
    [
        ("none", (0, 0, 1), (0, 0, 1)),
        pytest.param("type", (0, 0, 1), (0, 1), marks=pytest.mark.slow),
        pytest.param("all", (0, 0, 0), (0,), marks=pytest.mark.slow),
    ],
)
def test_a_policy_draws_from_the_buffer_of_its_type(share, buffers, sets):
    learner = parts_of(share_params=share)
    found = sets_in(learner)
    assert (found.buffers, found.set_buffers) == (buffers, sets)
    weight = np.random.default_rng(0).random((SMALL["capacity"], 3)).astype(np.float32)
    weight[4:] = 0.0  # no such episodes
    kept = {
        f"tree_{k}": sum_tree.build(weight[:, own].size, jnp.array(weight[:, own].ravel())).nodes
        for k, own in enumerate(found.members)
    }
    view = view_of(learner, NOBODY, None, None)
    episode, agent = jax.jit(lambda kept: tables.drawn(found, view.replace(tables=kept), 2000))(kept)
    assert episode.shape == agent.shape == (2000, len(sets))
    for s, buffer in enumerate(sets):
        count = np.zeros_like(weight)
        np.add.at(count, (np.asarray(episode[:, s]), np.asarray(agent[:, s])), 1 / 2000)
        expected = np.where(np.array(buffers) == buffer, weight, 0.0)
        np.testing.assert_allclose(
            count, expected / expected.sum(), atol=2e-3
        )  # strata: at most 1/2000 off at each end


def individual_batch(learner, ctx, agent):
    """The trajectories of agents `agent` [B, S] in episodes 0, 1, ..., from tables of distinct numbers."""
    agent = jnp.array(agent)
    shape = (SMALL["capacity"], SPEC.episode_limit, SPEC.num_agents)
    table = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    episode = np.broadcast_to(np.arange(agent.shape[0])[:, None], agent.shape)

    @jax.jit
    def cut(data, table, agent, ctx):
        gathered = replay.gather(data, episode.ravel())
        kept = {"reward": table, "uncertainty": table + 0.5}
        view = view_of(learner, NOBODY, gathered, ctx, tables=kept)
        return paths.trajectories(view, episode, agent), gathered

    own, gathered = cut(DATA, table, agent, ctx)
    return own, gathered, table


def test_a_trajectory_is_agent_j_s_for_policy_i():
    """Own observation, last action, choices, reward, and everybody's observations, all at (episode, j)."""
    learner = parts_of()
    agent = np.array([[1, 2], [0, 2], [1, 2]])
    own, gathered, table = jax.tree.map(np.asarray, individual_batch(learner, context(learner, 2), agent))
    for b in range(3):
        for s, j in enumerate(agent[b]):
            whole = jax.tree.map(lambda x, at=2 * b: np.asarray(x)[:, at], gathered)  # the same episode for both sets
            action = np.eye(4)[whole.action[:, j]]
            previous = np.concatenate([np.zeros((1, 4)), action])
            np.testing.assert_array_equal(own.history[:, b, s], np.concatenate([whole.obs[:, j], previous], axis=1))
            np.testing.assert_array_equal(own.obs[:, b, s], whole.obs)
            np.testing.assert_array_equal(own.encoded[:, b, s], action)
            np.testing.assert_array_equal(own.action[:, b, s], whole.action[:, j])
            np.testing.assert_array_equal(own.avail[:, b, s], whole.avail[:, j])
            np.testing.assert_array_equal(own.mask[:, b, s], whole.mask)
            np.testing.assert_array_equal(own.reward[:, b, s], table[b, :, j])
            np.testing.assert_array_equal(own.uncertainty[:, b, s], table[b, :, j] + 0.5)
            np.testing.assert_allclose(own.discount[:, b, s], 0.99 * ~whole.terminated, rtol=1e-6)
            np.testing.assert_array_equal(own.cut[:, b, s], whole.truncated)
    np.testing.assert_array_equal(own.index, agent)


def test_steps_of_dead_agents_can_be_left_out():
    learner = parts_of(mask_dead=True)
    agent = np.array([[0, 2], [1, 2]])
    own, gathered, _ = individual_batch(learner, context(learner, 2), agent)
    alive = np.asarray(gathered.alive)[:-1]
    for b, s in np.ndindex(2, 2):
        expected = np.asarray(gathered.mask)[:, 2 * b + s] * alive[:, 2 * b + s, agent[b, s]]
        np.testing.assert_array_equal(own.mask[:, b, s], expected)
    assert own.mask[:, 0, 0].sum() == 3  # agent 0 dies in slot 3 of episode 0


# ------------------------------------------------------------------------------------------- the last stage's losses


class Policies:
    """Random parameters for the last stage, and a batch of agents 1, 0, 1, 1 for one policy and 2 for the other."""

    def __init__(self):
        self.learner = parts_of()
        self.state = cases.init(self.learner.assemble())
        own, _, _ = individual_batch(self.learner, self.context(), [[1, 2], [0, 2], [1, 2], [1, 2]])
        self.own = own.replace(reward=own.reward / 50.0)
        self.weight = 1.0 + own.uncertainty / 100.0
        self.sets = sets_in(self.learner)
        actor = self.sets.actor
        unroll = jax.jit(lambda p, x: actor.unroll(p, actor.initial_carry(4), x)[1])
        self.y = unroll(self.state.params["actor"], own.history)
        self.gradient = jax.jit(functools.partial(self._gradient, self.learner))
        self.log_pi = jax.jit(lambda: policy.log_probability(self.view(self.context()), self.y[:-1], self.own))()

    def context(self, **hparams):
        return context(self.learner, 2, **hparams)

    def view(self, ctx, learner=None):
        """Of the last stage's losses."""
        prepared = paths.Prepared(trajectory=self.own, weight=self.weight, y=self.y, pullback=None)
        return view_of(learner or self.learner, self.state, None, ctx, targets=prepared)

    def _gradient(self, learner, ctx):
        loss = lambda y: policy.actor_loss(self.sets, self.view(ctx, learner), y)[0]  # noqa: E731
        return jax.value_and_grad(loss)(self.y)

    def literal(self, ctx):
        config = dataclasses.replace(self.learner.config, literal_actor=True, filter="q")
        return jax.jit(functools.partial(self._gradient, dataclasses.replace(self.learner, config=config)))(ctx)


@pytest.fixture(scope="module")
def policies():
    return Policies()


def test_the_target_is_sarsa_s_and_an_end_is_an_end(policies):
    """Terminated: nothing follows. Cut: the policy's mean value. Else the value of the data's next action."""
    own, y, sets = policies.own, policies.y, policies.sets
    target = policies.state.target_params["critic"]

    @jax.jit
    def judged():
        asked = lambda action: paths.question(own, slice(0, 6), action)  # noqa: E731
        every = jnp.broadcast_to(jnp.eye(4), (6, 4, 2, 4, 4))
        return policy.next_values(sets, policies.view(policies.context())), sets.judge(target, asked(every))

    after, every = (np.asarray(x) for x in judged())
    own, y = jax.tree.map(np.asarray, (own, y))
    found, valid, ended = own.discount * after, own.mask > 0, own.discount == 0
    assert (ended & valid).sum() == 6  # three of four episodes, for both sets
    assert not found[ended].any()
    chosen = np.take_along_axis(every[1:5], own.action[1:][..., None], axis=-1)[..., 0]
    inner = valid[:-1] & ~ended[:-1] & ~own.cut[:-1]
    assert inner.sum() > 6
    np.testing.assert_allclose(found[:-1][inner], 0.99 * chosen[inner], rtol=1e-5)
    weight = np.where(own.avail, np.exp(y), 0.0)
    mean = (weight / weight.sum(-1, keepdims=True) * every).sum(-1)[1:]
    assert own.cut.sum() == 2
    np.testing.assert_allclose(found[own.cut], 0.99 * mean[own.cut], rtol=1e-5)


def test_the_actor_learns_and_by_the_printed_equation_it_does_not(policies):
    loss, gradient = policies.gradient(policies.context())
    own, gradient = jax.tree.map(np.asarray, (policies.own, gradient[:-1]))
    valid, avail = own.mask > 0, own.avail[:-1]
    several = avail.sum(-1) > 1  # a single available action has probability 1
    assert np.all(np.abs(gradient[valid & several]).max(-1) > 0)
    assert not gradient[~valid].any()
    assert not gradient[~avail].any()  # illegal actions
    printed, nothing = policies.literal(policies.context())
    assert not nothing.any()
    assert np.isfinite(printed)
    assert printed != loss


def test_a_large_beta_is_weighted_behaviour_cloning(policies):
    found, _ = policies.gradient(policies.context(beta=1e9))
    mask = np.asarray(policies.own.mask)
    cloning = -(np.asarray(policies.weight) * np.asarray(policies.log_pi) * mask).sum((0, 1)) / mask.sum((0, 1))
    np.testing.assert_allclose(found, cloning.sum(), rtol=1e-5)
    assert abs(policies.gradient(policies.context())[0] - found) > 1e-3


def test_log_pi_is_over_available_actions(policies):
    own, y, found = jax.tree.map(np.asarray, (policies.own, policies.y, policies.log_pi))
    for t, b, s in np.argwhere(own.mask > 0):
        legal = own.avail[t, b, s]
        p = np.exp(y[t, b, s][legal])
        chosen = np.flatnonzero(legal).tolist().index(int(own.action[t, b, s]))
        np.testing.assert_allclose(found[t, b, s], np.log(p[chosen] / p.sum()), rtol=1e-4, atol=1e-6)


def weight_of(learner, own, ctx, **kept):
    return paths._weight(sets_in(learner), view_of(learner, NOBODY, None, ctx, tables=kept), own)


def test_weights_of_a_type_have_its_floor(policies):
    learner, own = policies.learner, policies.own
    median = np.array([0.1, 40.0], np.float32)
    weigh = jax.jit(lambda ctx: weight_of(learner, own, ctx, median=jnp.array(median)))
    found, half = weigh(policies.context()), weigh(policies.context(kappa=0.5))
    u, mask = np.asarray(own.uncertainty), np.asarray(own.mask)
    inverse = 1.0 / (u + 0.05 * median)
    mean = (inverse * mask).sum((0, 1)) / mask.sum((0, 1))
    np.testing.assert_allclose(found, np.clip(inverse / mean, 0.1, 10.0), rtol=1e-5)
    np.testing.assert_allclose(half, 0.5 + 0.5 * found, rtol=1e-5)
    literal = dataclasses.replace(learner, config=dataclasses.replace(learner.config, literal_weight=True))
    np.testing.assert_allclose(weight_of(literal, own, policies.context(eta=3.0)), 3.0 / u, rtol=1e-6)
    for plain in ({"ensemble": 1}, {"decomposition": "none", "stage1_updates": 0}):
        assert np.all(np.asarray(weight_of(parts_of(**plain), own, policies.context())) == 1)


def test_each_policy_is_clipped_by_its_own_norm(case):
    """The first step of RMSprop from gradients of which the second policy's are small."""
    old = case.start.params["critic"]
    grads = jax.tree.map(
        lambda x: np.stack([np.ones(x.shape[1:]), 1e-4 * np.ones(x.shape[1:])]).astype(np.float32), old
    )
    ctx = context(case.learner, 2, grad_clip=1e-2)
    view = view_of(case.learner, case.start, None, ctx)
    new, metrics = jax.jit(lambda: advance(view, case.learner.steps["critic"], {"critic": grads}))()
    norms = [np.sqrt(sum(np.square(x[s]).sum() for x in jax.tree.leaves(grads))) for s in (0, 1)]
    assert norms[0] > 1e-2 > norms[1]
    for s, norm in enumerate(norms):
        for a, b, g in zip(*(jax.tree.leaves(tree) for tree in (new.params["critic"], old, grads)), strict=True):
            clipped = g[s] * min(1.0, 1e-2 / norm)
            expected = -1e-4 * clipped / (np.sqrt(0.01 * clipped**2) + 1e-5)
            np.testing.assert_allclose(a[s] - b[s], expected, rtol=2e-3, atol=1e-7)
    np.testing.assert_allclose(metrics["grad_norm/critic"], norms[0], rtol=1e-5)


# -------------------------------------------------------------------------------------------------- settings, refusals


BOX = dataclasses.replace(SPEC, action=Box(2, (-1.0, -2.0), (1.0, 2.0)))


def continuous_data():
    batch = cases.random_batch()
    action = jax.random.uniform(KEY, (*batch.action.shape, 2), minval=-1.0) * batch.mask[..., None, None]
    return data_of(batch.replace(action=action, avail=batch.avail[..., :0]))


VARIANTS = {
    "no attention": {"decomposition": "sum"},
    "monotone": {"decomposition": "monotone"},
    "no decomposition": {"decomposition": "none", "stage1_updates": 0},
    "no ensemble": {"ensemble": 1},
    "scaled": {"scaled_attention": True},
    "no graph": {"graph": "none"},
    "mean graph": {"graph": "mean"},
    "uniform": {"priority": "uniform"},
    "return": {"priority": "return"},
    "exponential": {"filter": "exponential"},
    "binary": {"filter": "binary"},
    "paper": {
        "filter": "q", "literal_return": True, "literal_bootstrap": True, "literal_weight": True,
        "literal_actor": True, "share_params": "none",
    },
    "per step": {"filter_axis": "batch"},
    "one policy": {"share_params": "all", "mask_dead": True},
}  # fmt: skip


CONTINUOUS = ["monotone", "no graph", "exponential", "paper", "one policy"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "continuous"), [*((name, False) for name in VARIANTS), *((name, True) for name in CONTINUOUS)]
)
def test_every_variant_learns(name, continuous):
    spec, data = (BOX, continuous_data()) if continuous else (SPEC, DATA)
    found = Case(spec=spec, **VARIANTS[name])
    states, metrics = found.run(data, updates=4)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((states[-1], metrics)))
    assert equal(states[0].params["actor"], states[-1].params["actor"]) == (name == "paper")
    assert differ_everywhere(states[0].params["critic"], states[-1].params["critic"])
    assert equal(states[0].params["reward"], states[-1].params["reward"]) == (name == "no decomposition")
    kept, team = states[-1].stats["sit"], np.asarray(data.reward[..., 0] * data.mask)
    explained = np.asarray(kept["reward"])[: team.shape[0]]
    if name == "no decomposition":
        np.testing.assert_allclose(explained, np.broadcast_to(team[..., None], explained.shape))
    assert (np.ptp(np.asarray(kept["priority"])) == 0) == (name == "uniform")
    assert (not np.asarray(kept["uncertainty"]).any()) == (name in ("no ensemble", "no decomposition"))


@pytest.mark.slow
def test_several_seeds_at_once_are_the_same_and_choose_a_branch():
    one = Case()
    inits = [one.algorithm.init(jax.random.key(s)) for s in (0, 1)]
    both = jax.tree.map(lambda *x: jnp.stack(x), *inits)
    keys = jax.random.split(KEY, 2)
    step = lambda state, key, ctx: one.algorithm.update_from(state, DATA, ctx, key, BATCH)  # noqa: E731
    for made in (1, 2):
        ctx = context(one.learner, made)
        mapped = jax.vmap(step, in_axes=(0, 0, None))
        if made == 1:
            assert str(jax.make_jaxpr(mapped)(both, keys, ctx)).count(" cond[") >= 2
        found, _ = jax.jit(mapped)(both, keys, ctx)
        alone = [one._update(inits[s], DATA, ctx, keys[s], BATCH)[0] for s in (0, 1)]
        jax.tree.map(lambda x, *y: np.testing.assert_allclose(x, np.stack(y), rtol=1e-4, atol=1e-5), found, *alone)


def test_acting_is_greedy_or_a_draw_among_available_actions():
    learner = parts_of(share_params="none")
    algorithm, batch = learner.assemble(), jax.tree.map(np.asarray, cases.random_batch())
    params = cases.init(algorithm).params
    seen = TimeStep(
        obs=batch.obs[0], state=batch.state[0], avail=batch.avail[0], alive=batch.alive[0], reward=batch.reward[0],
        terminated=batch.terminated[0], truncated=batch.truncated[0], info={},
    )  # fmt: skip
    ctx = context(learner, 0)

    @jax.jit
    def play():
        carry = algorithm.initial_carry(4)
        act = lambda key, explore: algorithm.act(params, carry, seen, ctx, key, explore)[1]  # noqa: E731
        x = jnp.concatenate([seen.obs, carry["previous"]], -1)[None]
        y = learner.networks["actor"].unroll(params["actor"], carry["actor"], x)[1][0]
        return y, act(KEY, False), jax.vmap(lambda key: act(key, True))(jax.random.split(KEY, 200))

    y, best, draws = (np.asarray(x) for x in play())
    np.testing.assert_array_equal(best, np.where(seen.avail, y, -np.inf).argmax(-1))
    assert np.take_along_axis(seen.avail[None], draws[..., None], axis=-1).all()
    assert (draws != best).any()


def test_defaults_are_the_paper_s_and_run_settings_add_up():
    config, h = sit.Config(), HParams()
    assert sit.RUN["total_updates"] == 35_000 == config.stage1_updates + 15_000
    assert (h.lr, h.critic_lr, h.reward_lr, h.alpha, h.beta, h.eta, h.gamma) == (5e-4, 1e-4, 1e-4, 0.2, 0.1, 1.0, 0.99)
    assert (config.ensemble, config.capacity, config.critic_dim, config.hidden_dim) == (5, 0, 32, 64)
    assert sit.fitted(config, 10_000, 35_000).capacity == 10_000
    assert "sit" in registry.modules("algo")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decomposition": "shapley"}, "algo.decomposition=shapley is not one of attention, sum, monotone, none"),
        ({"graph": "star"}, "algo.graph=star is not one of"),
        ({"filter": "argmax"}, "algo.filter=argmax is not one of"),
        ({"filter_axis": "time"}, "algo.filter_axis=time is not one of"),
        ({"priority": "td"}, "algo.priority=td is not one of"),
        ({"share_params": "some"}, "algo.share_params=some is not one of"),
        ({"ensemble": 0}, "algo.ensemble=0 must be at least 1"),
        ({"capacity": -1}, "algo.capacity=-1 must be at least 0"),
        ({"stage1_updates": -1}, "algo.stage1_updates=-1 must be at least 0"),
        ({"decomposition": "none"}, "algo.decomposition=none .*Use algo.stage1_updates=0"),
        ({"scaled_attention": True, "decomposition": "sum"}, "algo.scaled_attention=true .*Leave it out"),
        ({"literal_weight": True, "ensemble": 1}, "algo.literal_weight=true.*algo.ensemble=1"),
        ({"filter_axis": "batch", "filter": "binary"}, "algo.filter_axis=batch .*algo.filter=binary"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(RefusedError, match=message):
        sit.Config(**settings)


@pytest.mark.parametrize("key", ["alpha", "beta", "priority_range", "filter_cap", "action_std"])
def test_scalars_that_must_be_positive(key):
    with pytest.raises(RefusedError, match=f"algo.hparams.{key}=0.0 must be positive"):
        HParams(**{key: 0.0})
    with pytest.raises(RefusedError, match=r"algo\.priority=uniform"):
        HParams(alpha=np.inf)


def test_data_that_does_not_fit_is_refused():
    algorithm = parts_of(capacity=3).assemble()
    state, ctx = jax.eval_shape(algorithm.init, KEY), cases.context(algorithm)

    def update(data, size):
        return jax.eval_shape(lambda *args: algorithm.update_from(*args, size), state, data, ctx, KEY)

    with pytest.raises(RefusedError, match=r"algo.capacity=3 .*Use algo.capacity=4"):
        update(DATA, 2)
    with pytest.raises(RefusedError, match=r"algo\.capacity=0 stands for"):
        jax.eval_shape(parts_of(capacity=0).assemble().init, KEY)
    small = jax.tree.map(lambda x: x[:3], DATA)
    with pytest.raises(RefusedError, match=r"batch_size=5 .*Use batch_size=3"):
        update(small, 5)
    longer = jax.tree.map(lambda x: jnp.concatenate([x, x[:, :1]], axis=1), small)
    with pytest.raises(RefusedError, match=r"episodes of 6 steps.*after 5"):
        update(longer, 2)
    with pytest.raises(RefusedError, match=r"data=set\.jds"):
        algorithm.update(state, DATA, ctx, KEY)


@pytest.mark.slow
def test_a_run_that_is_resumed_in_either_stage_is_the_same_run(tmp_path):
    """From the command's settings: a data set on disk, checkpoints, three chunks of ten updates."""
    game = ("env=matrix", "env.game=two_step")
    program = build.prepare(cli.settings(["algo=qmix", *game, "num_envs=8"]))
    hparams = {name: jnp.float32(value) for name, value in program.algorithm.hparams.items()}
    played = jax.jit(lambda: program.explore(program.init(jnp.int32(0)), hparams, start_clock()).batch)()
    path = tmp_path / "two.jds"
    own.save(records.from_rollout(jax.tree.map(np.asarray, played), card=card.card_of(program.env.spec)), path)
    sizes = [f"algo.{name}={value}" for name, value in {**SMALL, "stage1_updates": 15, "capacity": 10}.items()]
    arguments = (
        "algo=sit", *game, f"data={path}", "total_updates=30", "batch_size=4", "eval.every=10", "eval.episodes=4",
        "checkpoint.every=10", "progress=false", *sizes,
    )  # fmt: skip
    whole = tiny.restore(tiny.train(tmp_path / "whole", *arguments), *arguments)
    for stopped in (1, 2):
        folder = tmp_path / f"after_{stopped}"
        tiny.train(folder, *arguments, max_chunks=stopped)
        tiny.train(folder, *arguments, "resume=auto")
        tiny.assert_equal(tiny.restore(folder, *arguments), whole)
    stages = {r["updates"]: r["sit/stage"] for r in tiny.records(tmp_path / "whole") if "sit/stage" in r}
    assert (stages[10], stages[30]) == (1, 3)
    assert 1 < stages[20] < 3  # the mean of a chunk with both


# ----------------------------------------------------------------------------------------------------- on made-up tasks


def counting(spec, agents=3, episodes=32):
    """r_tot = the sum of binary actions; agent 0 acts at random, the others mostly choose 1. One step per episode."""
    rng = np.random.default_rng(0)
    action = (rng.random((1, episodes, agents)) < np.array([0.5, 0.9, 0.9][:agents])).astype(np.int32)
    reward = np.broadcast_to(action.sum(-1, keepdims=True), action.shape).astype(np.float32)
    slots = (2, episodes)
    return data_of(cases.random_batch().replace(
        obs=np.ones((*slots, agents, 1)), state=np.ones((*slots, 1)), avail=np.ones((*slots, agents, 2), bool),
        alive=np.ones((*slots, agents), bool), action=action, reward=reward,
        terminated=np.ones((1, episodes), bool), truncated=np.zeros((1, episodes), bool),
        mask=np.ones((1, episodes)),
    ))  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("decomposition", ["attention", "sum"])
def test_the_first_stage_finds_who_did_it(decomposition):
    """r_tot = sum_i a_i, so that what an agent contributes is 1 more where it chose 1; and the random one has less."""
    spec = EnvSpec("counting", 3, 1, 1, Discrete(2), 1, (0, 0, 0), ("unit",))
    data = counting(spec)
    learner = sit.make(
        sit.Config(**{**SMALL, "capacity": 32, "reward_dim": 16, "attention_dim": 16, "decomposition": decomposition}),
        spec,
    )
    ctx = context(learner, 0, reward_lr=3e-3)

    def body(state, key):
        view = view_of(learner, state, data, ctx, key, tables={"floor": 0.0})
        state, metrics = phase_from(learner.phases[0], view, 32)
        return state, metrics["loss/reward"]

    state = jax.jit(learner.assemble().init)(KEY)
    state, loss = jax.jit(lambda x: jax.lax.scan(body, x, jax.random.split(KEY, 600)))(state)
    episodes = jax.jit(replay.gather)(data, np.arange(32))
    view = view_of(learner, state, episodes, ctx)
    reward, spread = map(np.asarray, jax.jit(lambda: rewards.individual(view, 0.0))())
    loss, action = np.asarray(loss), np.asarray(episodes.action)
    assert loss[0] > 1.0
    assert loss[-1] < 0.01
    for agent in range(3):
        mine, others = action[0, :, agent], np.delete(action[0], agent, axis=1)
        for alike in np.unique(others.sum(1)):  # the weights of attention depend on what the others do
            same = others.sum(1) == alike
            if 0 < mine[same].sum() < same.sum():
                on, off = (reward[0, same & (mine == a), agent].mean() for a in (1, 0))
                assert abs(on - off - 1.0) < 0.2, (agent, alike, on, off)
    assert spread.max() < 0.2
    good = np.broadcast_to(np.array([0, 1, 1]), (32, 3))
    order, auroc = jax.jit(lambda r, a: (decompose.pair_order(r, good, (0, 0, 0)), decompose.auroc(r, a)))(
        reward[0], action[0] == 1
    )
    assert order > 0.6
    assert auroc == 1.0


def guessing(episodes=128, steps=4, agents=3):
    """Every agent sees one of three signs and has to name it; agent 0 guesses, the others mostly know."""
    rng = np.random.default_rng(0)
    sign = rng.integers(0, 3, (steps + 1, episodes, agents))
    right = rng.random((steps, episodes, agents)) < np.array([0.0, 0.85, 0.85])
    action = np.where(right, sign[:-1], rng.integers(0, 3, sign[:-1].shape))
    reward = np.broadcast_to((action == sign[:-1]).sum(-1, keepdims=True), action.shape)
    obs, slots = np.eye(3)[sign], (steps + 1, episodes)
    end = np.broadcast_to(np.arange(steps)[:, None] == steps - 1, (steps, episodes))
    return data_of(cases.random_batch().replace(
        obs=jnp.array(obs, jnp.float32), state=jnp.array(obs.reshape(*slots, -1), jnp.float32),
        avail=jnp.ones((*slots, agents, 3), bool), alive=jnp.ones((*slots, agents), bool),
        action=jnp.array(action, jnp.int32), reward=jnp.array(reward, jnp.float32),
        terminated=jnp.array(end), truncated=jnp.zeros(end.shape, bool), mask=jnp.ones(end.shape),
    ))  # fmt: skip


@pytest.mark.slow
def test_the_one_that_guesses_learns_from_the_ones_that_know():
    """All three stages: the random agent's policy, a network of its own, is right in the end."""
    spec = EnvSpec("guessing", 3, 3, 9, Discrete(3), 4, (0, 0, 0), ("unit",), common_reward=True)
    data, first, all_of_it = guessing(), 4000, 4800
    sizes = {
        "ensemble": 5,
        "scaled_attention": True,
        "reward_dim": 32,
        "attention_dim": 16,
        "hidden_dim": 16,
        "critic_dim": 16,
        "target_update_period": 50,
    }
    learner = sit.make(
        sit.Config(**{**SMALL, **sizes, "capacity": 128, "stage1_updates": first, "share_params": "none"}), spec
    )
    algorithm = learner.assemble()
    ctx = cases.context(algorithm, reward_lr=1e-3, lr=3e-3, critic_lr=1e-3, min_ess=16.0)

    def body(state, made):
        at = ctx.replace(clock=ctx.clock._replace(updates=made))
        return algorithm.update_from(state, data, at, jax.random.fold_in(KEY, made), 32)

    state, metrics = jax.jit(lambda x: jax.lax.scan(body, x, jnp.arange(all_of_it)))(jax.jit(algorithm.init)(KEY))
    kept = state.stats["sit"]
    assert metrics["loss/reward"][first - 1] < 0.1
    level = jnp.broadcast_to(jnp.array([0, 1, 1]), (128, 3))
    score = kept["reward"].mean(1)[:128]
    assert decompose.pair_order(score, level, (0, 0, 0)) > 0.8
    tree = sum_tree.SumTree(kept["tree_0"], 128 * 3)
    mass = np.asarray(sum_tree.probability(tree, jnp.arange(tree.capacity))).reshape(128, 3).sum(0)
    assert mass[0] < 0.2
    x = jnp.broadcast_to(jnp.concatenate([jnp.eye(3), jnp.zeros((3, 3))], -1)[None, :, None], (1, 3, 3, 6))
    actor = learner.networks["actor"]
    y = actor.unroll(state.params["actor"], actor.initial_carry(3), x)[1][0]
    np.testing.assert_array_equal(y.argmax(-1), np.broadcast_to(np.arange(3)[:, None], (3, 3)))


def test_costs_are_decomposed_above_the_worst_of_them(case):
    """Rewards c below others, c the least there is: the ensemble learns the same, and each agent bears c / N."""
    rewarded = DATA.replace(reward=jnp.where(DATA.mask[..., None] > 0, jnp.abs(DATA.reward).at[0, 0].set(0.0), 0.0))
    cost = rewarded.replace(reward=jnp.where(DATA.mask[..., None] > 0, rewarded.reward - 3.0, 0.0))
    config = case.learner.config
    low = float(rewards.least_reward(config, SPEC, cost))
    assert rewards.least_reward(config, SPEC, rewarded) == 0.0
    assert low == pytest.approx(-3.0 if SPEC.common_reward else -9.0)
    one, other = (case.update(case.start, data, 0)[0] for data in (rewarded, cost))
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert other.stats[tables.NAME]["floor"] == low  # from the first update on: who looks on sees the same
    sets, ctx = sets_in(case.learner), context(case.learner, 2)
    judged = jax.jit(lambda data, floor: tables.judged(sets, view_of(case.learner, one, data, ctx), floor))
    found = [judged(data, floor) for data, floor in ((rewarded, 0.0), (cost, low))]
    valid = np.asarray(DATA.mask)[..., None] > 0
    np.testing.assert_allclose(found[1]["reward"], np.where(valid, found[0]["reward"] + low / 3, 0.0), atol=1e-5)
    assert rewards.least_reward(parts_of(lift_rewards=False).config, SPEC, cost) == 0.0  # as in the paper


def test_modifiers_of_rewards_and_what_goes_by_them_are_refused_together():
    for config, remedy in ({}, "lift_rewards=false"), ({"decomposition": "none", "stage1_updates": 0}, "Leave them"):
        learner = parts_of(**config).extend(relabel=lambda view: (view.batch, view.stats))
        with pytest.raises(RefusedError, match=remedy):
            learner.assemble()
    parts_of(lift_rewards=False).extend(relabel=lambda view: (view.batch, view.stats)).assemble()


def test_a_run_that_ends_in_the_first_stage_is_refused():
    assert sit.fitted(sit.Config(), 50, 20_000).capacity == 50
    with pytest.raises(RefusedError, match=r"total_updates=19999 ends before algo.stage1_updates=20000.*39999"):
        sit.fitted(sit.Config(), 50, 19_999)
    with pytest.raises(RefusedError, match="omega_low=2"):
        HParams(omega_low=2.0, omega_high=1.0)

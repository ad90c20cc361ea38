"""MASER and ROMA: QMIX where their terms are off, slow loops where they are on, DIFFER on top, and padding."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_padding_and_ends import junk
from value_cases import (
    ACTIONS,
    AGENTS,
    BATCH,
    KEY,
    SPEC,
    STEPS,
    _read_gradients,
    assert_close,
    context,
    flat,
    init,
    learner_parts,
    random_batch,
    step,
    values_of,
    view_of,
)

from jaxshare.algos.maser import algorithm as maser
from jaxshare.algos.roma import algorithm as roma
from jaxshare.algos.roma.networks import Roles
from jaxshare.models import inputs
from jaxshare.models.agents import q_network
from jaxshare.models.mixers import MixerInputs
from jaxshare.modifiers.differ import modifier as differ_modifier
from jaxshare.types import RefusedError, TimeStep

EXACT = {"select": "all", "g_clamp": None, "alive_mask": False, "normaliser": "team"}
SMALL = {"embed_dim": 3, "hypernet_layers": 1}
EXTRA = {"maser": {"embedding_dim": 5}, "roma": {"role_dim": 2, "role_hidden_dim": 4}}


def parts_of(name, differ=None, **config):
    return learner_parts(name, differ=differ, **{**SMALL, **EXTRA.get(name, {}), **config})


@cache
def compiled(name, exact=False, bare=False, **config):
    """(parts, algorithm, compiled update); exact: with DIFFER that changes nothing; bare: without further losses."""
    parts = parts_of(name, differ=EXACT if exact else None, **config)
    if bare:
        networks = {name: parts.networks[name] for name in ("agent", "mixer")}
        parts = dataclasses.replace(parts, aux=(), networks=networks)
    algorithm = parts.assemble()
    return parts, algorithm, jax.jit(algorithm.update)


def gradients_of(case, learner, batch, dtype=jnp.float32, **hparams):
    """(gradients, metrics, learner) of one update of those of the learner's parameters that this case has."""
    _, algorithm, update = case
    own = jax.eval_shape(algorithm.init, KEY)
    pick = lambda tree: {name: tree[name] for name in own.params}  # noqa: E731
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, dtype if x.dtype == jnp.float32 else x.dtype), own.opt_state)
    learner = learner.replace(params=pick(learner.params), target_params=pick(learner.target_params), opt_state=zeros)
    new, metrics = update(learner, batch, context(algorithm, dtype, **hparams), KEY)
    return _read_gradients(new.opt_state), metrics, new


@cache
def maser_values(**config):
    """(parts, learner, ctx, batch, Values) of MASER in float32, with nothing but its own shaping done."""
    parts, algorithm, _ = compiled("maser", **config)
    batch = random_batch()
    learner, ctx = init(algorithm), context(algorithm, intrinsic_scale=0.5)
    find = jax.jit(lambda: values_of(parts, learner, batch, ctx).replace(mix=None))
    return parts, learner, ctx, batch, find()


# --------------------------------------------------------------------------------------------------------------- MASER


def test_mas5_without_its_terms_it_is_qmix():
    case, batch = compiled("maser"), random_batch()
    learner = init(case[1])
    off = {"intrinsic_scale": 0.0, "individual_coef": 0.0, "mixed_coef": 0.0}
    expected, metrics, updated = gradients_of(compiled("qmix"), learner, batch)
    found, own, new = gradients_of(case, learner, batch, **off)
    assert not flat(found.pop("embedding")).any()
    assert_close(found, expected, 1e-6)
    np.testing.assert_allclose(own["loss/td"], metrics["loss/td"], rtol=1e-6)
    np.testing.assert_allclose(flat(new.params["mixer"]), flat(updated.params["mixer"]), rtol=1e-6)


def embed(params, x):
    hidden = np.maximum(x @ np.asarray(params["hidden"]["kernel"]) + np.asarray(params["hidden"]["bias"]), 0)
    return hidden @ np.asarray(params["out"]["kernel"]) + np.asarray(params["out"]["bias"])


def slow_maser(parts, learner, ctx, batch, values):
    """R', L_ind, L_dist, L_expl by loops over episodes, agents and steps."""
    q, target = np.asarray(values.q), np.asarray(values.target_q)
    avail, mask = np.asarray(batch.avail), np.asarray(batch.mask)
    scale, found = float(ctx.hparams["intrinsic_scale"]), {"goal": np.zeros((BATCH, AGENTS), int)}
    u = np.zeros((STEPS, BATCH, AGENTS))
    for at in np.ndindex(u.shape):
        u[at] = target[at][np.where(avail[at], q[at], -np.inf).argmax()]
    inputs = MixerInputs(q_max=None, action=None, state=batch.state[:-1])
    team = np.asarray(parts.mixer.apply(learner.target_params["mixer"], jnp.asarray(u, jnp.float32), inputs))
    phi, reward = embed(learner.params["embedding"], np.asarray(batch.obs)), np.zeros(u.shape)
    far, expl = np.zeros((BATCH, AGENTS)), np.zeros((BATCH, AGENTS))
    for b, i in np.ndindex(BATCH, AGENTS):
        real = np.flatnonzero(mask[:, b])
        goal = real[np.argmax([0.5 * u[t, b, i] + 0.5 * team[t, b] / AGENTS for t in real])]
        found["goal"][b, i] = goal
        kept = []
        for t in real:
            reward[t, b, i] = -np.linalg.norm(phi[t, b, i] - phi[goal, b, i])
            x, y = (np.where(avail[s, b, i], target[s, b, i], 0) for s in (t, goal))
            far[b, i] += (-reward[t, b, i] - 1 + x @ y / np.linalg.norm(x) / np.linalg.norm(y)) ** 2 / len(real)
            if t >= goal:
                logits = q[t, b, i][avail[t, b, i]]
                p = np.exp(logits) / np.exp(logits).sum()
                kept.append((p * np.log(p * len(p))).sum())
        expl[b, i] = np.mean(kept)
    shaped = np.asarray(batch.reward[..., 0] if parts.spec.common_reward else batch.reward.sum(-1))
    shaped = shaped + scale * reward.mean(-1)
    next_q = np.asarray(values.next_q)
    share = np.exp(next_q) / np.exp(next_q).sum(-1, keepdims=True)
    ended = np.asarray(batch.terminated) | (np.asarray(batch.truncated) & ~np.bool_(parts.config.bootstrap_on_timeout))
    y = share * shaped[..., None] + scale * reward + 0.99 * (~ended)[..., None] * next_q
    individual = (mask[..., None] * (np.asarray(values.q_taken) - y) ** 2).sum() / mask.sum()
    return {**found, "reward": reward, "shaped": shaped, "ind": individual, "dist": far.mean(), "expl": expl.mean()}


@pytest.mark.parametrize("config", [pytest.param({}, marks=pytest.mark.slow), {"bootstrap_on_timeout": True}], ids=str)
def test_rewards_and_losses_by_hand(config):
    parts, learner, ctx, batch, values = maser_values(**config)
    expected, real = slow_maser(parts, learner, ctx, batch, values), np.asarray(batch.mask) > 0
    np.testing.assert_array_equal(values.extras[maser.GOAL], expected["goal"])
    np.testing.assert_allclose(np.asarray(values.extras[maser.REWARD])[real], expected["reward"][real], atol=1e-4)
    np.testing.assert_allclose(np.asarray(values.team_reward)[real], expected["shaped"][real], atol=1e-4)
    loss, metrics = jax.jit(lambda: parts.aux[0](view_of(parts, learner, batch, ctx, values=values)))()
    np.testing.assert_allclose(metrics["maser/individual_loss"], expected["ind"], rtol=1e-4)
    np.testing.assert_allclose(metrics["maser/distance_loss"], expected["dist"], rtol=1e-4)
    np.testing.assert_allclose(metrics["maser/explore_loss"], expected["expl"], rtol=1e-4)
    total = 0.001 * (expected["ind"] + expected["dist"] + expected["expl"])
    np.testing.assert_allclose(loss, total, rtol=1e-4)


def test_what_the_released_code_does_not_train():
    """M-1: nothing reaches phi, and L_expl has no gradient, unless asked for; the distance term has none in Q."""
    parts, learner, ctx, batch, values = maser_values(bootstrap_on_timeout=True)

    def slopes(**config):
        """Of the two losses with these coefficients, in the utilities and in all parameters."""
        made = maser.make(dataclasses.replace(parts.config, **config), SPEC)

        def loss(q, params, coef):
            h = {**ctx.hparams, "individual_coef": 0.0, "extra_scale": 1.0, **coef}
            view = view_of(made, learner, batch, ctx.replace(hparams=h), params=params)
            return made.aux[0](view.replace(values=values.replace(q=q)))[0]

        compiled = jax.jit(jax.grad(loss, argnums=(0, 1)))
        return lambda explore, distance: compiled(
            values.q, learner.params, {"explore_coef": jnp.float32(explore), "distance_coef": jnp.float32(distance)}
        )

    trained, code = slopes(), slopes(train_embedding=False, explore_online=False)
    both, only_phi, only_q, nothing = trained(1, 1), trained(0, 1), trained(1, 0), code(1, 1)
    assert both[0].any()
    assert flat(both[1]["embedding"]).any()
    assert not only_phi[0].any()
    assert not flat(only_q[1]).any()
    assert not nothing[0].any()
    assert not flat(nothing[1]).any()


# ---------------------------------------------------------------------------------------------------------------- ROMA


@cache
def roma_case():
    """(case, learner, batch) of ROMA."""
    case = compiled("roma")
    return case, init(case[1]), random_batch()


@pytest.mark.slow
def test_roma3_without_weights_it_is_qmix_with_a_generated_head_and_log_two():
    case, learner, batch = roma_case()
    off = {"entropy_coef": 0.0, "kl_coef": 0.0, "diversity_coef": 0.0}
    found, metrics, _ = gradients_of(case, learner, batch, **off)
    expected, plain, _ = gradients_of(compiled("roma", bare=True), learner, batch)
    assert not flat(found["inference"]).any()
    assert not flat(found["unlikeness"]).any()
    assert_close({name: found[name] for name in ("agent", "mixer")}, expected, 1e-6)
    np.testing.assert_allclose(metrics["roma/identity_loss"], np.log(2), rtol=1e-6)
    np.testing.assert_allclose(metrics["loss/td"], plain["loss/td"], rtol=1e-6)


def test_a_fixed_role_is_an_ordinary_agent():
    """With a role that depends on nothing the generated head is one linear layer."""
    (parts, _, _), learner, _ = roma_case()
    params = learner.params["agent"]
    encoder, head = params["role_encoder"], params["head"]
    fixed = {**encoder["out"], "kernel": 0 * encoder["out"]["kernel"]}
    params = {**params, "role_encoder": {**encoder, "out": fixed}}
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, AGENTS, SPEC.obs_dim + ACTIONS + AGENTS)), jnp.float32)
    noisy = jnp.concatenate([x, jnp.zeros((3, 2, AGENTS, 2))], axis=-1)
    _, y = jax.jit(parts.networks["agent"].unroll)(params, parts.networks["agent"].initial_carry(2), noisy)
    role = np.asarray(fixed["bias"])[:2]
    code = role @ np.asarray(head["hidden"]["linear"]["kernel"]) + np.asarray(head["hidden"]["linear"]["bias"])
    code = (code - code.mean()) / np.sqrt(code.var() + 1e-5)
    norm = head["hidden"]["LayerNorm_0"]
    code = code * np.asarray(norm["scale"]) + np.asarray(norm["bias"])
    code = np.where(code > 0, code, 0.01 * code)
    weight = np.einsum("c,cha->ha", code, head["weight_kernel"]) + np.asarray(head["weight_bias"])
    bias = code @ np.asarray(head["bias_kernel"]) + np.asarray(head["bias_bias"])
    plain = q_network(x.shape[-1], ACTIONS, 4, True, (0,) * AGENTS)
    same = {"embed": params["embed"], "gru": params["gru"], "head": {"kernel": weight, "bias": bias}}
    _, q = jax.jit(plain.unroll)(same, plain.initial_carry(2), x)
    np.testing.assert_allclose(y[..., :ACTIONS], q, rtol=1e-4, atol=1e-4)
    roles = Roles.split(y[..., ACTIONS:], 2)
    np.testing.assert_allclose(roles.role[..., 1], role[1], rtol=1e-6)
    np.testing.assert_allclose(roles.before[0], 0)
    assert roles.before.shape[-1] == 4
    assert np.all(roles.var >= 0.002)


def test_roles_are_drawn_when_acting_and_not_when_shown():
    (_, algorithm, _), learner, batch = roma_case()
    ctx, fill = context(algorithm), lambda x: jnp.broadcast_to(x[0, :1], (256, *x.shape[2:]))
    now = TimeStep(
        obs=fill(batch.obs), state=fill(batch.state), avail=jnp.ones((256, AGENTS, ACTIONS), bool),
        alive=fill(batch.alive), reward=jnp.zeros((256, AGENTS)), terminated=jnp.zeros(256, bool),
        truncated=jnp.zeros(256, bool), info={},
    )  # fmt: skip
    wide = jax.tree.map(lambda x: 3 * x, learner.params)
    act = jax.jit(lambda key: algorithm.act(wide, algorithm.initial_carry(256), now, ctx, key, False)[1])
    assert len(np.unique(act(KEY), axis=0)) > 1  # one situation, no exploration
    shown = jax.jit(algorithm.inspect)(learner, batch, ctx)
    assert set(shown) == {"q_taken", "role_0", "role_1"}
    assert {x.shape for x in shown.values()} == {(STEPS, BATCH, AGENTS)}


def test_every_network_learns_and_the_diversity_waits():
    case, learner, batch = roma_case()
    heavy = {"entropy_coef": 1.0, "kl_coef": 1.0, "diversity_coef": 1.0}
    found, metrics, _ = gradients_of(case, learner, batch, **heavy)
    assert all(flat(found[name]).any() for name in ("agent", "mixer", "inference", "unlikeness"))
    waiting, later, _ = gradients_of(case, learner, batch, **heavy, diversity_start=1.0)
    assert not flat(waiting["unlikeness"]).any()
    np.testing.assert_allclose(later["roma/diversity_loss"], metrics["roma/diversity_loss"])


def test_batch_normalisation_is_over_the_rows_of_a_step():
    parts = parts_of("roma", norm="batch")
    params = init(parts.assemble()).params["agent"]
    x = jnp.asarray(
        np.random.default_rng(1).normal(size=(2, 3, AGENTS, SPEC.obs_dim + ACTIONS + AGENTS + 2)), jnp.float32
    )
    start = parts.networks["agent"].initial_carry(3)
    unroll = jax.jit(parts.networks["agent"].unroll)
    y = unroll(params, start, x)[1]
    other = unroll(params, start, x.at[:, 0].add(1.0))[1]
    assert not np.allclose(y[:, 1:], other[:, 1:])
    one = unroll(params, start, x.at[1].add(1.0))[1]
    np.testing.assert_allclose(y[0], one[0], rtol=1e-6)


def test_padding_has_no_last_action_in_the_statistics():
    """norm=batch counts padded rows, whose inputs are zeros in the code: a stored action 0 there is nobody's."""
    parts = parts_of("roma", norm="batch", mask_padding=False)
    algorithm, batch = parts.assemble(), random_batch()
    learner, ctx = init(algorithm), context(algorithm)
    off = np.asarray(batch.mask)[..., None] == 0
    assert off.any()
    other = batch.replace(action=jnp.where(off, 2, batch.action))

    @jax.jit
    def seen(batch):
        values = values_of(parts, learner, batch, ctx)
        roles = Roles.split(values.features[:-1], parts.config.role_dim)
        view = view_of(parts, learner, batch, ctx, values=values)
        return values.features, roma._infer(parts.networks["inference"], view, roles)

    for found, expected in zip(jax.tree.leaves(seen(other)), jax.tree.leaves(seen(batch)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_last_actions_of_real_steps_are_all_there():
    batch = random_batch()
    found = np.asarray(inputs.last_actions(batch.action, SPEC, batch.mask))
    every = np.asarray(inputs.last_actions(batch.action, SPEC))
    after = np.concatenate([np.zeros((1, BATCH)), batch.mask]) > 0  # slots behind a real step, the last one too
    np.testing.assert_array_equal(found[after], every[after])
    assert not found[~after].any()
    assert every[1:][~after[1:]].any()


# ---------------------------------------------------------------------------------------------------------------- both


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maser", "roma"])
def test_dividing_the_reward_changes_no_gradient(name):
    """DIFFER shares out MASER's R', and ROMA's roles belong to the agents: 7.6 holds for both."""
    with jax.enable_x64(True):
        base, divided = compiled(name), compiled(name, exact=True)
        learner, batch = init(base[1], dtype=jnp.float64), random_batch(dtype=jnp.float64)
        expected, metrics, _ = gradients_of(base, learner, batch, jnp.float64)
        found, own, _ = gradients_of(divided, learner, batch, jnp.float64)
        assert flat(found).dtype == np.float64
        assert_close(found, expected, 1e-10)
        np.testing.assert_allclose(own["loss/td"], metrics["loss/td"], rtol=1e-10)


CASES = [("maser", False), ("roma", False)]
CASES += [pytest.param(name, True, marks=pytest.mark.slow) for name in ("maser", "roma")]


@pytest.mark.parametrize(("name", "differ"), CASES, ids=str)
def test_padding_changes_nothing(name, differ):
    _, algorithm, update = compiled(name, exact=differ)
    learner, ctx, batch = init(algorithm), context(algorithm), random_batch()
    clean, clean_metrics = update(learner, batch, ctx, KEY)
    found, metrics = update(learner, junk(batch), ctx, KEY)
    jax.tree.map(np.testing.assert_array_equal, clean, found)
    for key, value in metrics.items():
        np.testing.assert_allclose(value, clean_metrics[key], rtol=1e-6, err_msg=key)
    empty, nothing = update(learner, batch.replace(mask=0 * batch.mask), ctx, KEY)
    np.testing.assert_array_equal(flat(empty.params), flat(learner.params))
    assert all(np.all(np.isfinite(value)) for value in nothing.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maser", "roma"])
def test_cropping_to_the_longest_episode_changes_nothing(name):
    algorithm, batch, room = parts_of(name).assemble(), random_batch(), 2
    pad = lambda x, value=0: jnp.concatenate([x, jnp.full((room, *x.shape[1:]), value, x.dtype)])  # noqa: E731
    padded = jax.tree.map(pad, batch).replace(avail=pad(batch.avail, True))
    learner, ctx = init(algorithm), context(algorithm)
    expected, metrics, _ = step(algorithm, learner, batch, ctx)
    found, own, _ = step(algorithm, learner, padded, ctx)
    assert_close(found, expected, 1e-5)
    for key, value in metrics.items():
        np.testing.assert_allclose(own[key], value, rtol=1e-4, atol=1e-6, err_msg=key)


@pytest.mark.parametrize(
    ("config", "changed", "message"),
    [
        (maser.Config, {"hypernet_layers": 3}, r"algo\.hypernet_layers=3"),
        (maser.Config, {"embedding_dim": 0}, r"algo\.embedding_dim=0"),
        (roma.Config, {"hypernet_layers": 0}, r"algo\.hypernet_layers=0"),
        (roma.Config, {"norm": "group"}, r"algo\.norm=group.*layer, batch"),
        (roma.Config, {"recurrent": False}, r"algo\.recurrent=false.*roma"),
        (roma.Config, {"role_dim": 0}, r"algo\.role_dim=0"),
        (roma.Config, {"var_floor": 0.0}, r"algo\.var_floor=0\.0.*positive"),
    ],
)
def test_refused_settings(config, changed, message):
    with pytest.raises(RefusedError, match=message):
        config(**changed)


def test_differ_may_not_be_used_twice():
    once = parts_of("maser", differ=EXACT)
    with pytest.raises(RefusedError, match="both replace the loss of maser"):
        differ_modifier.make(differ_modifier.Config(), once)

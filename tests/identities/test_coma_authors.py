"""COMA as its authors' code trains it (PyMARL's coma_learner), beside a loop over time steps in numpy, in float64.

The loop below was written from the equations of that code: targets from the target critic, one RMSprop step of the
critic for each time step from the last to the first, then the actors with the values of before each step.
"""

import functools

import actor_critic_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from actor_critic_cases import KEY, SPEC, context, parts_of

from jaxshare.types import RefusedError

AUTHORS = {
    "critic_steps": "slices", "mask_before_softmax": False, "optimizer": "rmsprop", "obs_last_action": True,
    "critic_obs": True, "critic_last_actions": True, "critic_dim": 5, "recurrent": False,
}  # fmt: skip
H = {
    "lr": 5e-4, "critic_lr": 3e-3, "grad_clip": 10.0, "entropy_coef": 0.0, "epsilon_start": 0.5, "epsilon_end": 0.01,
    "epsilon_anneal_steps": 100.0, "gamma": 0.99, "td_lambda": 0.8, "rms_decay": 0.99, "rms_eps": 1e-5,
}  # fmt: skip
AGENTS, ACTIONS = SPEC.num_agents, SPEC.action.num_actions
LAYERS = ("embed", "body", "head")

# -------------------------------------------------------------------------------------------------- the authors' loop


def weights(tree):
    """[(kernel, bias)] of a common network of linear layers."""
    return [tuple(np.array(tree[name]["linear"][kind], np.float64) for kind in ("kernel", "bias")) for name in LAYERS]


def forward(layers, x):
    """(y, what each layer read)."""
    read = []
    for i, (kernel, bias) in enumerate(layers):
        read.append(x)
        x = x @ kernel + bias
        x = np.maximum(x, 0.0) if i < len(layers) - 1 else x
    return x, read


def backward(layers, read, dy):
    """Gradients of the layers from dy [rows, Y]."""
    found = []
    for i in reversed(range(len(layers))):
        found.append((read[i].T @ dy, dy.sum(0)))
        dy = (dy @ layers[i][0].T) * (read[i] > 0)
    return found[::-1]


def rmsprop(layers, squares, grads, lr):
    """One step of torch's RMSprop, clipped by the global norm."""
    norm = np.sqrt(sum((g**2).sum() for pair in grads for g in pair))
    scale = min(1.0, H["grad_clip"] / norm)
    for pair, square, grad in zip(layers, squares, grads, strict=True):
        for x, s, g in zip(pair, square, grad, strict=True):
            g = g * scale
            s[...] = H["rms_decay"] * s + (1 - H["rms_decay"]) * g**2
            x -= lr * g / (np.sqrt(s) + H["rms_eps"])
    return norm


def zeros(layers):
    return [tuple(np.zeros_like(x) for x in pair) for pair in layers]


def onehot(action):
    return np.eye(ACTIONS)[action]


def critic_inputs(batch, t):
    """[B, N, D]: state, own observation, all last actions, index, the others' actions."""
    episodes = batch["mask"].shape[1]
    last = onehot(batch["action"][t - 1]) if t else np.zeros((episodes, AGENTS, ACTIONS))
    rows = np.zeros((episodes, AGENTS, AGENTS, ACTIONS))
    for i in range(AGENTS):
        for j in range(AGENTS):
            if j != i:
                rows[:, i, j] = onehot(batch["action"][t][:, j])
    everybody = [
        np.repeat(batch["state"][t][:, None], AGENTS, 1), batch["obs"][t],
        np.repeat(last.reshape(episodes, 1, -1), AGENTS, 1), np.repeat(np.eye(AGENTS)[None], episodes, 0),
    ]  # fmt: skip
    return np.concatenate([*everybody, rows.reshape(episodes, AGENTS, -1)], -1)


def taken(values, action):
    return np.take_along_axis(values, action[..., None], -1)[..., 0]


def targets_of(batch, target):
    """PyMARL's build_td_lambda_targets; every episode ends terminated, so nothing follows its last step."""
    steps, episodes = batch["mask"].shape
    q = [taken(forward(target, critic_inputs(batch, t))[0], batch["action"][t]) for t in range(steps)]
    q.append(np.zeros((episodes, AGENTS)))  # whatever it is, 1 - sum(terminated) = 0 is before it
    found, after = [], q[-1]
    for t in reversed(range(steps)):
        mask, going = batch["mask"][t][:, None], 1.0 - batch["terminated"][t][:, None]
        one = batch["reward"][t] + (1 - H["td_lambda"]) * H["gamma"] * q[t + 1] * going
        after = H["td_lambda"] * H["gamma"] * after + mask * one
        found.append(after)
    return np.stack(found[::-1])


def authors(batch, actor, critic, target, epsilon):
    """Losses and gradient of the actors, the parameters after one batch, and the critic's steps."""
    returns, steps = targets_of(batch, target), len(batch["mask"])
    values, square, count, losses = np.zeros((*batch["action"].shape, ACTIONS)), zeros(critic), 0, []
    for t in reversed(range(steps)):
        mask = np.repeat(batch["mask"][t][:, None], AGENTS, 1)
        if mask.sum() == 0:
            continue
        x = critic_inputs(batch, t)
        y, read = forward(critic, x.reshape(-1, x.shape[-1]))
        values[t] = y.reshape(values[t].shape)
        error = (taken(values[t], batch["action"][t]) - returns[t]) * mask
        losses.append((error**2).sum())
        dy = onehot(batch["action"][t]) * (2 * error / mask.sum())[..., None]
        rmsprop(critic, square, backward(critic, read, dy.reshape(-1, ACTIONS)), H["critic_lr"])
        count += 1
    loss, grads = actors_loss(batch, actor, values, epsilon)
    norm = rmsprop(actor, zeros(actor), grads, H["lr"])
    return {
        "loss/actor": loss, "loss/critic": sum(losses) / (AGENTS * batch["mask"].sum()), "grad_norm/actor": norm,
        "grads": grads, "actor": actor, "critic": critic, "count": count,
    }  # fmt: skip


def actors_loss(batch, actor, values, epsilon):
    """(loss, gradients) of the actors, values [T, B, N, A] before each of the critic's steps."""
    steps, episodes = batch["mask"].shape
    last = np.concatenate([np.zeros((1, episodes, AGENTS, ACTIONS)), onehot(batch["action"][:-1])])
    index = np.broadcast_to(np.eye(AGENTS), (steps, episodes, AGENTS, AGENTS))
    x = np.concatenate([batch["obs"], last, index], -1)
    logits, read = forward(actor, x.reshape(-1, x.shape[-1]))
    soft = np.exp(logits - logits.max(-1, keepdims=True))
    soft = (soft / soft.sum(-1, keepdims=True)).reshape(values.shape)
    mixed = ((1 - epsilon) * soft + epsilon / ACTIONS) * batch["avail"]
    pi = mixed / mixed.sum(-1, keepdims=True)
    mask = np.repeat(batch["mask"][..., None], AGENTS, -1)
    chosen = np.where(mask > 0, taken(pi, batch["action"]), 1.0)
    advantage = taken(values, batch["action"]) - (pi * values).sum(-1)
    loss = -(advantage * np.log(chosen) * mask).sum() / mask.sum()
    # d log pi(a) / d mixed, then through the softmax
    by_mixed = onehot(batch["action"]) / np.where(mask > 0, taken(mixed, batch["action"]), 1.0)[..., None]
    by_mixed = (by_mixed - 1 / mixed.sum(-1, keepdims=True)) * batch["avail"]
    by_soft = (1 - epsilon) * by_mixed * (-advantage * mask / mask.sum())[..., None]
    by_logits = soft * (by_soft - (soft * by_soft).sum(-1, keepdims=True))
    return loss, backward(actor, read, by_logits.reshape(-1, ACTIONS))


# ------------------------------------------------------------------------------------------------------------- beside


def finished(segment):
    """Whole episodes that all end by themselves, as their game counts a time limit."""
    end = segment.end & (segment.mask > 0)
    team = jnp.broadcast_to(segment.reward[..., :1], segment.reward.shape)
    return segment.replace(terminated=end, truncated=jnp.zeros_like(end), reward=team)


def plain(segment):
    names = ("obs", "state", "avail", "action", "reward", "terminated", "mask")
    found = {name: np.array(getattr(segment, name)) for name in names}
    wide = ("obs", "state", "reward", "terminated", "mask")
    return {name: x.astype(np.float64) if name in wide else x for name, x in found.items()}


def wide(tree):
    return jax.tree.map(lambda x: x.astype("float64") if x.dtype == jnp.float32 else x, tree)


@functools.cache
def compared():
    """(the authors', ours) after one update on one batch, from the same weights."""
    learner = parts_of("coma", SPEC, **AUTHORS)
    algorithm, state, segment = learner.assemble(), cases.init(learner), finished(cases.episodes(learner))
    with jax.enable_x64(True):
        state, segment = wide(state), wide(segment)
        ctx = context(algorithm, jnp.float64, env_steps=25 + int(segment.mask.sum()), **H)
        after, metrics = jax.jit(algorithm.update)(state, segment, ctx, KEY)

        @jax.jit
        def gradients(state, segment, ctx):
            view = cases.view_of(learner, state, segment, ctx)
            view = view.replace(targets=cases.prepared(learner, state, segment, ctx))
            state, targets, _ = learner.steps["critic"].advance(view)
            view = view.after(state).replace(targets=targets)
            return jax.grad(lambda p: cases.main_loss(view, p)[0])(state.params)

        ours = jax.device_get((after, metrics, gradients(state, segment, ctx)))
    kinds = (state.params["actor"], state.params["critic"], state.target_params["critic"])
    return authors(plain(segment), *map(weights, kinds), epsilon=0.5 - 0.49 / 4), ours


def assert_layers(found, expected, tolerance):
    found, expected = ([np.ravel(x) for pair in layers for x in pair] for layers in (found, expected))
    found, expected = np.concatenate(found), np.concatenate(expected)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_the_losses_are_the_authors():
    expected, (_, metrics, _) = compared()
    for name in ("loss/actor", "loss/critic", "grad_norm/actor"):
        np.testing.assert_allclose(metrics[name][0], expected[name], rtol=1e-13, err_msg=name)


def test_the_gradient_of_the_actors_is_the_authors():
    expected, (_, _, grads) = compared()
    assert max(np.abs(x).max() for pair in expected["grads"] for x in pair) > 1e-3
    assert_layers(weights(grads["actor"]), expected["grads"], 1e-14)
    assert not any(np.any(x) for x in jax.tree.leaves(grads["critic"]))  # it has had its steps


def test_the_critics_steps_are_the_authors():
    """Its parameters after a step for each time step, backwards, and the actors' after their one."""
    expected, (after, metrics, _) = compared()
    assert_layers(weights(after.params["critic"]), expected["critic"], 1e-13)
    assert_layers(weights(after.params["actor"]), expected["actor"], 1e-13)
    assert metrics["coma/critic_steps"][0] == expected["count"] == SPEC.episode_limit


def test_the_target_is_copied_by_critic_steps():
    """5 copies in 10 batches of 5 time steps and a period of 10; a time step without an episode is no step."""
    learner = parts_of("coma", SPEC, **AUTHORS, target_update_period=10)
    algorithm, state, segment = learner.assemble(), cases.init(learner), finished(cases.episodes(learner))
    ctx, update = context(algorithm, **H), jax.jit(algorithm.update)
    copies, due = 0, []
    for _ in range(10):
        before = state.target_params
        state, _ = update(state, segment, ctx, KEY)
        changed = np.any(cases.flat(before) != cases.flat(state.target_params))
        copies += changed
        due.append(bool(changed))
        if changed:
            target, critic = state.target_params["critic"], state.params["critic"]
            np.testing.assert_array_equal(cases.flat(target), cases.flat(critic))
    assert due == [False, True] * 5
    assert copies == 5
    short = segment.replace(mask=segment.mask.at[3:].set(0.0))
    made = state.stats["coma"].made
    assert update(state, short, ctx, KEY)[0].stats["coma"].made == made + 3


@pytest.mark.parametrize(("key", "value"), [("optimizers", "joint"), ("rollout", "segments")])
def test_slices_are_of_whole_episodes_with_an_optimiser_for_the_critic(key, value):
    with pytest.raises(RefusedError, match=rf"critic_steps=slices with algo\.{key}={value}.*Use algo\.{key}="):
        parts_of("coma", SPEC, **{**AUTHORS, key: value})
    parts_of("coma", SPEC, **{key: value})


@pytest.mark.parametrize("key", ["critic_steps", "optimizer"])
def test_unknown_ways_are_refused(key):
    with pytest.raises(RefusedError, match=rf"algo\.{key}=magic is not one of"):
        parts_of("coma", SPEC, **{key: "magic"})


def test_the_critic_has_a_width_of_its_own():
    shapes = jax.eval_shape(parts_of("coma", SPEC, **AUTHORS, hidden_dim=7).assemble().init, KEY).params
    width = {name: shapes[name]["embed"]["linear"]["kernel"].shape[-1] for name in ("actor", "critic")}
    assert width == {"actor": 7, "critic": 5}
    alike = jax.eval_shape(parts_of("coma", SPEC, hidden_dim=7).assemble().init, KEY).params
    assert alike["critic"]["embed"]["linear"]["kernel"].shape[-1] == 7

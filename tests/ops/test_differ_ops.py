"""DIFFER's equations: the numbers DIF-1 to DIF-8, slow numpy loops, and the statistics of its draws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxshare.algos import vdn
from jaxshare.learners.records import View
from jaxshare.learners.value import Values
from jaxshare.learners.value_losses import team_td_loss
from jaxshare.models.mixers import mix_two_layers
from jaxshare.modifiers.differ import modifier
from jaxshare.ops import differ
from jaxshare.types import Clock, Context, Discrete, EnvSpec, Episode

KEY = jax.random.key(0)
SPEC = EnvSpec("hand", 2, 1, 1, Discrete(2), 4, (0, 0), ("unit",))
LEARNER = vdn.make(vdn.Config(), SPEC)
HPARAMS = {
    f"differ.{name}": jnp.float32(getattr(modifier.Config(), name))
    for name in ("alpha", "epsilon_p", "beta_start", "beta_end", "eta_start", "eta_end", "eta_portion", "l1_coef")
}


def context(env_steps=0, total=1000, **changed):
    hparams = {**HPARAMS, **{f"differ.{name}": jnp.float32(value) for name, value in changed.items()}}
    clock = Clock(*[jnp.int32(0)] * 4)
    return Context(hparams=hparams, clock=clock, env_steps=jnp.int32(env_steps), total_env_steps=total)


def view_of(ctx, key=KEY):
    """What a modifier is given where it looks at hyper-parameters and the key only."""
    return View(LEARNER, None, {}, None, ctx, key)


def weights(abs_error, mask, num, config, beta=0.6, key=KEY):
    """What `select` gives when eta is such that n = num."""
    mask = jnp.asarray(mask, jnp.float32)
    eta = jnp.float32(num) / mask.sum()
    return select_at(config, jnp.asarray(abs_error), mask, eta, beta, key)


def select_at(config, abs_error, mask, eta, beta=0.6, key=KEY):
    """What `select` gives at this eta and beta."""
    ctx = context(eta_start=eta, eta_end=eta, beta_start=beta, beta_end=beta)
    return modifier.select(config, view_of(ctx, key), abs_error, mask)


# ---- numbers of the specification


def test_dif1_individual_rewards_of_a_monotone_mixer():
    q, next_q = jnp.array([[1.0, 2.0]]), jnp.array([[0.5, 1.0]])
    w1, b1, w2 = jnp.array([[[1.0, 2.0], [0.5, 1.0]]]), jnp.array([[0.0, -5.0]]), jnp.array([[1.0, 0.5]])
    q_tot, pullback = jax.vjp(lambda q: mix_two_layers(q, w1, b1, w2, jnp.array([0.25])), q)
    gradient = pullback(jnp.ones_like(q_tot))[0]
    delta = 1 + 0.9 * 2.0 - q_tot
    np.testing.assert_allclose(delta, [0.8660603], rtol=1e-6)
    np.testing.assert_allclose(gradient * delta[:, None], [[1.1846660, 0.5923330]], rtol=1e-6)
    reward = differ.individual_reward(delta, gradient, q, next_q, jnp.full((1, 2), 0.9))
    np.testing.assert_allclose(reward, [[1.7346660, 1.6923330]], rtol=1e-6)
    np.testing.assert_allclose(reward + 0.9 * next_q - q, gradient * delta[:, None], rtol=1e-5)


def test_dif2_individual_rewards_of_a_sum():
    q, next_q, one = jnp.array([[1.0, 2.0]]), jnp.array([[0.5, 1.5]]), jnp.ones((1, 2))
    delta = 1 + 0.9 * next_q.sum(-1) - q.sum(-1)
    reward = differ.individual_reward(delta, one, q, next_q, 0.9 * one)
    np.testing.assert_allclose(delta, [-0.2], rtol=1e-5)
    np.testing.assert_allclose(reward, [[0.35, 0.45]], rtol=1e-5)
    np.testing.assert_allclose(reward.sum(), 0.8, rtol=1e-5)


# DIF-3: Q_i = theta x_i, and a linear mixer with gradient G whose constant makes Q_tot - y = ERROR
X, G, ERROR = np.array([[[1.0, 2.0]], [[3.0, 1.0]]]), np.array([[[1.367879, 0.683940]], [[0.5, 1.5]]]), [[-0.4], [0.3]]


def dif3_view(theta, alive, **changed):
    shape = (2, 1)
    x, g, error = jnp.array(X, jnp.float32), jnp.array(G, jnp.float32), jnp.array(ERROR, jnp.float32)
    at_one = (g * x).sum(-1)
    values = Values(
        q=jnp.zeros((3, 1, 2, 2)), q_taken=theta * x, next_q=jnp.zeros((2, 1, 2)),
        q_tot=(g * theta * x).sum(-1) - at_one + error, next_q_tot=jnp.zeros(shape), discount=jnp.zeros(shape),
        team_reward=jnp.zeros(shape),
        mix=lambda q: (g * q).sum(-1) - at_one + error,
    )  # fmt: skip
    batch = Episode(
        obs=jnp.zeros((3, 1, 2, 1)), state=jnp.zeros((3, 1, 1)), avail=jnp.ones((3, 1, 2, 2), bool), alive=alive,
        action=jnp.zeros((2, 1, 2), jnp.int32), reward=jnp.zeros((2, 1, 2)), terminated=jnp.zeros(shape, bool),
        truncated=jnp.zeros(shape, bool), mask=jnp.ones(shape),
    )  # fmt: skip
    return View(LEARNER, None, {"agent": {"theta": theta}}, batch, context(**changed), KEY, values=values)


def dif3_gradient(loss, alive=True):
    alive = jnp.ones((3, 1, 2), bool).at[1, 0, 1].set(alive)  # agent 2 at step 2

    def of_theta(theta):
        return loss(dif3_view(theta, alive))[0]

    return float(jax.jit(jax.grad(of_theta))(jnp.float32(1.0)))


@pytest.mark.parametrize(
    ("normaliser", "alive_mask", "alive", "gradient"),
    [
        ("team", False, True, -0.1943036),
        ("individual", False, True, -0.0971518),
        ("team", True, True, -0.1943036),
        ("team", True, False, -0.6443036),
        ("individual", True, False, -0.4295357),
        ("team", False, False, -0.1943036),
    ],
)
def test_dif3_gradient_of_the_shared_parameter(normaliser, alive_mask, alive, gradient):
    config = modifier.Config(select="all", normaliser=normaliser, alive_mask=alive_mask, g_clamp=None)
    found = dif3_gradient(partial(modifier.loss, config), alive)
    np.testing.assert_allclose(found, gradient, rtol=3e-6)


def test_dif3_gradient_of_the_team_loss():
    np.testing.assert_allclose(dif3_gradient(team_td_loss), -0.1943036, rtol=3e-6)


def test_dif4_priorities_importance_and_their_product():
    error, mask = jnp.array([0.99, 0.09, 123.0]), jnp.array([1.0, 1.0, 0.0])
    probability = differ.priorities(error, mask, 0.8, 0.01)
    np.testing.assert_allclose(probability, [0.863193, 0.136807, 0], rtol=1e-5)
    omega = differ.importance(probability, mask, 0.6)
    np.testing.assert_allclose(omega, [0.331131, 1, 0], rtol=1e-5)
    config = modifier.Config(select="per_expected")
    weight, count = weights(error, mask, 2, config)
    np.testing.assert_allclose(weight, [0.571660, 0.273614, 0], rtol=1e-5)
    np.testing.assert_allclose(weight[0] / weight[1], 10**0.32, rtol=1e-4)
    np.testing.assert_allclose(count.sum(), 2, rtol=1e-5)
    np.testing.assert_allclose(weights(error, mask, 2, config, beta=1.0)[0], [0.273614, 0.273614, 0], rtol=1e-5)


def test_dif4_with_a_third_item():
    mask = jnp.ones(3)
    probability = differ.priorities(jnp.array([0.99, 0.09, 0.0]), mask, 0.8, 0.01)
    np.testing.assert_allclose(probability, [0.844874, 0.133904, 0.021222], rtol=1e-4)
    np.testing.assert_allclose(differ.importance(probability, mask, 0.6), [0.109648, 0.331131, 1], rtol=1e-4)


def test_dif5_equal_sensitivities_give_equal_priorities_within_a_step():
    error = 0.7 * jnp.broadcast_to(jnp.array([1.0, 0.25])[:, None, None], (2, 1, 3))
    probability = differ.priorities(error, jnp.ones_like(error), 0.8, 0.01)
    np.testing.assert_allclose(probability[0, 0], [0.248574] * 3, rtol=1e-5)
    np.testing.assert_allclose(probability[1, 0], [0.084759] * 3, rtol=1e-5)


def test_dif6_schedules():
    schedule = jax.jit(lambda step: modifier.schedule(view_of(context().replace(env_steps=step))))
    eta = [float(schedule(jnp.int32(step))[0]) for step in (0, 300, 600, 900, 2000)]
    beta = [float(schedule(jnp.int32(step))[1]) for step in (0, 500, 1000, 2000)]
    np.testing.assert_allclose(eta, [0.8, 0.9, 1, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(beta, [0.6, 0.8, 1, 1], rtol=1e-6)
    whole = jax.vmap(schedule)(jnp.arange(1000, dtype=jnp.int32))[0]
    np.testing.assert_allclose(whole.mean(), 0.94, atol=2e-4)


@pytest.mark.parametrize(
    ("ratio", "valid", "num"), [(0.85, 10, 8), (0.3, 10, 3), (1.0, 7, 7), (0.05, 10, 1), (0.8, 0, 1), (0.7, 10, 7)]
)
def test_dif6_number_selected(ratio, valid, num):
    assert float(jax.jit(differ.num_selected)(jnp.float32(ratio), jnp.float32(valid))) == num


def test_dif7_greedy():
    error, mask = jnp.array([3.0, 1, 2, 99, 2]), jnp.array([1.0, 1, 1, 0, 1])
    num = differ.num_selected(jnp.float32(0.5), mask.sum())
    assert float(num) == 2
    assert differ.greedy_weights(error, mask, num, weighted=False).tolist() == [1, 0, 1, 0, 1]
    assert differ.greedy_weights(error, mask, num, weighted=True).tolist() == [1, 0, 0, 0, 0]


def test_dif8_coefficient_of_variation():
    found = differ.coefficient_of_variation(jnp.array([1.0, -3.0, 50.0]), jnp.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(found, 0.5, rtol=1e-6)


# ---- corners


@pytest.mark.parametrize("level", [0.0, 2.5])
def test_greedy_weight_falls_back_to_greedy_when_all_errors_are_equal(level):
    error, mask = jnp.full((2, 3), level), jnp.array([[1.0, 1, 0], [1, 1, 1]])
    for weighted in (False, True):
        np.testing.assert_array_equal(differ.greedy_weights(error, mask, jnp.float32(3), weighted), mask)


@pytest.mark.parametrize("select", differ.SELECTIONS)
def test_zero_errors_everywhere_select_without_nan(select):
    mask = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    weight, _ = weights(jnp.zeros((2, 2)), mask, 3, modifier.Config(select=select))
    assert np.all(np.isfinite(weight))
    assert weight[0, 1] == 0
    if select in ("all", "greedy", "greedy_weight", "per_expected"):
        np.testing.assert_allclose(weight, mask, rtol=1e-6)


@pytest.mark.parametrize("select", differ.SELECTIONS)
def test_nothing_valid_selects_nothing(select):
    zeros = jnp.zeros((2, 2))
    weight, _ = select_at(modifier.Config(select=select), zeros + 5, zeros, eta=0.8)
    np.testing.assert_array_equal(weight, zeros)


@pytest.mark.parametrize("select", ["greedy", "per", "per_expected"])
def test_less_than_one_item_means_one(select):
    mask = jnp.ones(5)
    error = jnp.array([1.0, 5, 2, 3, 4])
    _, count = select_at(modifier.Config(select=select), error, mask, eta=0.01)
    np.testing.assert_allclose(count.sum(), 1, rtol=1e-6)


def test_equal_errors_or_no_exponent_are_uniform():
    mask = jnp.array([1.0, 1, 0, 1])
    for error, alpha in ((jnp.full(4, 3.0), 0.8), (jnp.array([1.0, 9, 7, 0]), 0.0)):
        probability = differ.priorities(error, mask, alpha, 0.01)
        np.testing.assert_allclose(probability, mask / 3, rtol=1e-6)
        np.testing.assert_allclose(differ.importance(probability, mask, 0.7), mask, rtol=1e-6)


def test_masked_nan_goes_nowhere():
    error, mask = jnp.array([1.0, jnp.nan, 2.0]), jnp.array([1.0, 0.0, 1.0])
    for select in differ.SELECTIONS:
        weight, count = weights(error, mask, 2, modifier.Config(select=select))
        assert np.all(np.isfinite(weight))
        assert weight[1] == count[1] == 0


# ---- slow loops, jit and vmap


def slow_priorities(error, mask, alpha, epsilon):
    scaled = [(abs(e) + epsilon) ** alpha if m else 0.0 for e, m in zip(error.flat, mask.flat, strict=True)]
    return np.array([s / sum(scaled) for s in scaled]).reshape(error.shape)


def slow_importance(probability, mask, num, beta):
    raw = [(1 / (num * p)) ** beta if m else 0.0 for p, m in zip(probability.flat, mask.flat, strict=True)]
    return np.array([r / max(raw) for r in raw]).reshape(mask.shape)


def slow_greedy(error, mask, num, weighted):
    valid = sorted((e for e, m in zip(error.flat, mask.flat, strict=True) if m), reverse=True)
    pivot = valid[num - 1]
    chosen = np.where((mask > 0) & (error >= pivot), 1.0, 0.0)
    excess = np.where(chosen > 0, error - pivot, 0.0)
    return excess / excess.max() if weighted and excess.max() > 0 else chosen


def cases(num=6, shape=(5, 2, 3)):
    rng = np.random.default_rng(3)
    error = np.abs(rng.normal(size=(num, *shape))).astype(np.float32)
    error[:, 1] = error[:, 0]  # ties
    mask = (rng.random(error.shape) < 0.7).astype(np.float32)
    mask[:, 0, 0, 0] = 1
    return error, mask


def test_priorities_and_importance_against_a_loop():
    error, mask = cases()
    fast = jax.jit(jax.vmap(lambda e, m: differ.priorities(e, m, 0.8, 0.01)))(error, mask)
    omega = jax.jit(jax.vmap(lambda p, m: differ.importance(p, m, 0.7)))(fast, mask)
    for k in range(len(error)):
        slow = slow_priorities(error[k], mask[k], 0.8, 0.01)
        np.testing.assert_allclose(fast[k], slow, rtol=1e-5)
        np.testing.assert_allclose(fast[k], differ.priorities(error[k], mask[k], 0.8, 0.01), rtol=1e-6)
        np.testing.assert_allclose(omega[k], slow_importance(slow, mask[k], 17, 0.7), rtol=1e-4)


@pytest.mark.parametrize("weighted", [False, True])
def test_greedy_against_a_loop(weighted):
    error, mask = cases()
    num = np.array([1, 2, 3, 5, 8, 12], np.float32)
    fast = jax.jit(jax.vmap(lambda e, m, n: differ.greedy_weights(e, m, n, weighted)))(error, mask, num)
    for k in range(len(error)):
        np.testing.assert_allclose(fast[k], slow_greedy(error[k], mask[k], int(num[k]), weighted), rtol=1e-5, atol=1e-6)


def test_draw_counts_against_a_loop():
    index = jax.random.randint(KEY, (4, 9), 0, 5)
    num = jnp.array([0.0, 1, 5, 9])
    fast = jax.jit(jax.vmap(lambda i, n: differ.draw_counts(i, n, 5)))(index, num)
    for k in range(4):
        np.testing.assert_array_equal(fast[k], np.bincount(index[k, : int(num[k])], minlength=5))


def test_spread_and_effective_sample_size_against_a_loop():
    error, mask = cases()
    signed = error * np.where(np.arange(error.shape[-1]) % 2, 1, -1).astype(np.float32)
    spread = jax.jit(jax.vmap(differ.coefficient_of_variation))(signed, mask)
    size = jax.jit(jax.vmap(differ.effective_sample_size))(error, mask)
    for k in range(len(error)):
        valid = error[k][mask[k] > 0].astype(np.float64)
        np.testing.assert_allclose(spread[k], valid.std() / valid.mean(), rtol=1e-5)
        np.testing.assert_allclose(size[k], valid.sum() ** 2 / (valid**2).sum(), rtol=1e-5)
    assert float(differ.coefficient_of_variation(jnp.zeros(3), jnp.ones(3))) == 0
    assert float(differ.effective_sample_size(jnp.zeros(3), jnp.ones(3))) == 0
    np.testing.assert_allclose(differ.effective_sample_size(jnp.full(4, 7.0), jnp.array([1.0, 1, 0, 1])), 3, rtol=1e-6)


# ---- the draws of select=per


def test_draws_average_to_the_expected_weights():
    error, mask = jnp.array([[3.0, 0.5], [0.0, 1.0], [9.0, 2.0]]), jnp.array([[1.0, 1], [1, 0], [1, 1]])
    num, trials = 4, 20_000
    draw = jax.jit(jax.vmap(lambda key: weights(error, mask, num, modifier.Config(select="per"), key=key)))
    weight, count = jax.tree.map(np.asarray, draw(jax.random.split(KEY, trials)))
    expected_weight, expected_count = weights(error, mask, num, modifier.Config(select="per_expected"))
    np.testing.assert_array_equal(count.sum((1, 2)), num)
    assert np.all(count[:, 1, 1] == 0)  # masked: never drawn
    assert np.all(weight[:, 1, 1] == 0)
    p = np.asarray(expected_count) / num
    sigma = np.sqrt(num * p * (1 - p) / trials)
    assert np.all(np.abs(count.mean(0) - num * p) <= 5 * sigma)
    omega = np.asarray(differ.importance(jnp.array(p), mask, 0.6))
    assert np.all(np.abs(weight.mean(0) - np.asarray(expected_weight)) <= 5 * sigma * omega + 1e-6)
    np.testing.assert_allclose(count.var(0), num * p * (1 - p), rtol=0.05, atol=5e-3)  # independent draws, put back


def test_where_agents_are_alike_draws_are_those_of_the_usual_replay():
    """Sec. 3.2: errors equal everywhere make draws uniform; equal within a step, uniform over agents."""
    steps, agents, repeats = 6, 3, 400
    config, mask = modifier.Config(), jnp.ones((steps, 1, agents))
    draw = jax.jit(jax.vmap(lambda error, key: select_at(config, error, mask, jnp.float32(0.8), key=key)[1], (None, 0)))
    keys = jax.random.split(KEY, repeats)

    def drawn(error):
        return np.asarray(draw(jnp.broadcast_to(error, mask.shape), keys)).sum(0)[:, 0]

    def unlikely(counts, expected):
        """Pearson's statistic beyond its 0.999 quantile for so many cells; draws are independent."""
        statistic = (np.square(counts - expected) / expected).sum()
        return statistic > stats.chi2.ppf(0.999, counts.size - 1)

    total = np.floor(0.8 * steps * agents) * repeats
    alike = drawn(jnp.float32(0.3))
    assert alike.sum() == pytest.approx(total)
    assert not unlikely(alike, np.full(alike.shape, total / alike.size))

    # steps differ: each agent has its third, steps have not theirs
    by_step = drawn(jnp.linspace(0.05, 1.0, steps)[:, None, None])
    assert not unlikely(by_step.sum(0), np.full(agents, total / agents))
    assert unlikely(by_step.sum(1), np.full(steps, total / steps))

    # and where agents differ, they have not
    by_agent = drawn(jnp.array([0.1, 0.1, 1.0]))
    assert unlikely(by_agent.sum(0), np.full(agents, total / agents))


def test_with_replacement_even_all_draws_miss_a_third():
    size = 400
    draw = jax.jit(lambda key: weights(jnp.ones(size), jnp.ones(size), size, modifier.Config(select="per"), key=key)[1])
    distinct = np.mean([np.mean(np.asarray(draw(jax.random.key(s))) > 0) for s in range(20)])
    np.testing.assert_allclose(distinct, 1 - np.exp(-1), atol=0.02)


def test_keeping_fewer_draws_favours_no_position():
    size = 60
    config = modifier.Config(select="per")
    draw = jax.jit(jax.vmap(lambda key: weights(jnp.ones(size), jnp.ones(size), size // 2, config, key=key)[1]))
    count = np.asarray(draw(jax.random.split(KEY, 4000))).mean(0)
    np.testing.assert_allclose(count, 0.5, atol=5 * np.sqrt(0.5 / 4000))


def test_the_selection_is_the_same_inside_vmap():
    error, mask = cases(num=3)
    keys = jax.random.split(KEY, 3)
    every = jax.jit(lambda e, m, k: [weights(e, m, 5, modifier.Config(select=s), key=k)[0] for s in differ.SELECTIONS])
    together = jax.jit(jax.vmap(every))(error, mask, keys)
    for run in range(3):
        for found, alone in zip(together, every(error[run], mask[run], keys[run]), strict=True):
            np.testing.assert_allclose(found[run], alone, rtol=1e-5, atol=1e-7)


def test_learning_needs_no_individual_reward_but_reports_the_exact_one():
    """The logged r_i reproduces g_i delta with the bootstrap ended by either death or the end of the episode."""
    alive = jnp.ones((3, 1, 2), bool).at[1:, 0, 1].set(False)
    view = dif3_view(jnp.float32(1.0), alive)
    values = view.values.replace(next_q=jnp.full((2, 1, 2), 5.0), discount=jnp.array([[0.9], [0.0]]))
    config = modifier.Config(g_clamp=None)
    reward = modifier.individual_rewards(config, view.replace(values=values))["individual_reward"]
    discount = np.array([[[0.9, 0.0]], [[0.0, 0.0]]])  # agent 2 dies in the first step, the second is the last
    error = G * -np.array(ERROR)[..., None]
    np.testing.assert_allclose(reward, error + X - discount * 5.0, rtol=1e-5)


def test_clamped_gradients_are_reported():
    view = dif3_view(jnp.float32(1.0), jnp.ones((3, 1, 2), bool))
    config = modifier.Config(select="all", g_clamp=1.0)
    _, metrics = jax.jit(lambda: modifier.loss(config, view))()
    np.testing.assert_allclose(metrics["differ/clamped"], 0.5)
    shares = [float(metrics[f"differ/share/agent_{i}"]) for i in range(2)]
    np.testing.assert_allclose(shares, [0.5, 0.5])
    _, gradient = modifier._decompose(config, view.values)
    np.testing.assert_allclose(gradient, np.clip(G, -1, 1), rtol=1e-6)


def test_the_rate_is_one_where_only_the_length_of_lives_differs():
    view = dif3_view(jnp.float32(1.0), jnp.ones((3, 1, 2), bool).at[1:, 0, 1].set(False))
    config = modifier.Config(select="all")
    _, metrics = jax.jit(lambda: modifier.loss(config, view))()
    for name, expected in {"share": [2 / 3, 1 / 3], "rate": [1.0, 1.0]}.items():
        found = [float(metrics[f"differ/{name}/agent_{i}"]) for i in range(2)]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_l1_term_is_added_to_the_agents_only():
    config = modifier.Config(select="all")
    alive = jnp.ones((3, 1, 2), bool)
    loss = jax.jit(lambda c: modifier.loss(config, dif3_view(jnp.float32(-3.0), alive, l1_coef=c))[0])
    losses = [float(loss(c)) for c in (0.0, 0.5)]
    np.testing.assert_allclose(losses[1] - losses[0], 1.5, rtol=1e-4)
    assert HPARAMS["differ.l1_coef"] == 0

"""Shared Individual Trajectories (Tian et al. 2023, "Learning from Good Trajectories in Offline
Multi-Agent Reinforcement Learning", arXiv 2211.15612): its equations, by the paper's numbers.

Letters: M members of the ensemble, T steps, B trajectories, N agents, K trajectories of a buffer, Z
any axes.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from jaxshare.ops import offline
from jaxshare.ops.masking import masked_mean

TINY = 1e-8  # keeps a quotient of two numbers that are both 0 finite
WIDEST = 1e6  # times alpha: uniform sampling, as far as an f32 can tell

# ---------------------------------------------------------------------- stage I: whose reward is it


def similarity(query: jax.Array, key: jax.Array) -> jax.Array:
    """Scores q . k_i of eq. 1: query [..., H], key [..., N, H] -> [..., N].

    Their softmax over agents is lambda.
    """
    return (query[..., None, :] * key).sum(-1)


def contributions(score: jax.Array, reward: jax.Array) -> jax.Array:
    """lambda_i r_i with lambda = softmax_i(score), eqs. 1 and 2.

    both [..., N] -> [..., N]; their sum is r_tot.
    """
    chex.assert_equal_shape([score, reward])
    return jax.nn.softmax(score, axis=-1) * reward


def ensemble_loss(total: jax.Array, reward: jax.Array, mask: jax.Array) -> jax.Array:
    """(1/M) sum_m mean (r_tot,m - r_tot)^2 over valid steps (eq. 3).

    total [M, T, B], reward and mask [T, B] -> [].
    """
    chex.assert_equal_shape([reward, mask])
    error = jnp.where(mask > 0, total - reward[None], 0.0)
    return jax.vmap(masked_mean, in_axes=(0, None))(jnp.square(error), mask).mean()


def ensemble_moments(contribution: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and population standard deviation over members (eqs. 4 and 5).

    [M, ...] -> [...], [...].
    """
    mean = contribution.mean(0)
    return mean, jnp.sqrt(jnp.square(contribution - mean[None]).mean(0))


# --------------------------------------------------------------- stage II: which trajectory is good


def returns_to_go(reward: jax.Array, gamma: jax.Array, literal: bool = False) -> jax.Array:
    """g_t = sum_{t' >= t} gamma^(t'-t) r_t', [T, ...] -> [T, ...].

    paper: eq. 6 prints gamma^(t-t'), which grows with the distance; `literal` computes that.
    """
    factor = 1.0 / gamma if literal else gamma

    def step(after: jax.Array, now: jax.Array) -> tuple[jax.Array, jax.Array]:
        to_go = now + factor * after
        return to_go, to_go

    return jax.lax.scan(step, jnp.zeros_like(reward[0]), reward, reverse=True)[1]


def mean_over_steps(value: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean over the valid steps of each trajectory, which is the priority p.

    value and mask [T, ...] -> [...].
    """
    chex.assert_equal_shape([value, mask])
    return jnp.where(mask > 0, value, 0.0).sum(0) / jnp.maximum(mask.sum(0), 1.0)


def rescaled(priority: jax.Array, valid: jax.Array, high: jax.Array) -> jax.Array:
    """The valid entries mapped linearly onto [0, high]; 0 where all are equal, and elsewhere.

    [Z], [Z] bool -> [Z].
    """
    chex.assert_equal_shape([priority, valid])
    least = jnp.min(jnp.where(valid, priority, jnp.inf))
    range_ = jnp.max(jnp.where(valid, priority, -jnp.inf)) - least
    scaled = (priority - least) / jnp.where(range_ > 0, range_, 1.0) * high
    return jnp.where(valid & (range_ > 0), scaled, 0.0)


def log_weights(priority: jax.Array, valid: jax.Array, alpha: jax.Array) -> jax.Array:
    """(p - max p) / alpha, -inf where not valid: eq. 7 is the softmax of it. [Z], [Z] bool -> [Z].

    ours: without the maximum exp(20 / 0.2) is beyond an f32.
    """
    chex.assert_equal_shape([priority, valid])
    largest = jnp.max(jnp.where(valid, priority, -jnp.inf))
    return jnp.where(valid, (priority - largest) / alpha, -jnp.inf)


def effective_size(log_weight: jax.Array) -> jax.Array:
    """(sum w)^2 / sum w^2 of w = exp(log_weight), so many equally likely items: [Z] -> []."""
    both = jax.nn.logsumexp(log_weight), jax.nn.logsumexp(2.0 * log_weight)
    return jnp.exp(2.0 * both[0] - both[1])


def wide_enough(
    priority: jax.Array, valid: jax.Array, alpha: jax.Array, least: jax.Array
) -> jax.Array:
    """alpha, or the smallest larger one whose effective size is min(least, half the valid items).

    [Z] -> [].

    ours: the paper's alpha gives a handful of trajectories where priorities are bell-shaped. By
    bisection of log alpha.
    """
    goal = jnp.minimum(least, valid.sum().astype(priority.dtype) / 2.0)

    def reached(alpha: jax.Array) -> jax.Array:
        return effective_size(log_weights(priority, valid, alpha)) >= goal

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2.0
        enough = reached(jnp.exp(middle))
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    ends = jnp.log(alpha), jnp.log(alpha) + jnp.log(WIDEST)
    return jnp.where(reached(alpha), alpha, jnp.exp(jax.lax.fori_loop(0, 40, halve, ends)[1]))


# -------------------------------------------------------------------------- stage III: conservative


def graph_weights(own: jax.Array, other: jax.Array, slope: float = 0.2) -> jax.Array:
    """w_ij = softmax_j LeakyReLU(own_i + other_j) (eq. 8): own [...], other [..., N] -> [..., N].

    W_2^T [W_1 o_i ; W_1 o_j] is a sum of a number of i's and one of j's. slope: that of Velickovic
    et al. 2018.
    """
    return jax.nn.softmax(jax.nn.leaky_relu(own[..., None] + other, slope), axis=-1)


def softmax_filter(
    x: jax.Array, mask: jax.Array, beta: jax.Array, per_step: bool = False
) -> jax.Array:
    """F = n e^(x / beta) / Z over the n valid entries, whose mean is 1 (eq. 10's factor).

    [T, B], [T, B] -> [T, B].

    per_step: Z and n of each time index alone (code: ICQ, which counts padding). 0 where masked.
    """
    return offline.filter_weights("softmax", x, mask, beta, "batch" if per_step else "batch_time")


def exponential_filter(advantage: jax.Array, beta: jax.Array, most: jax.Array) -> jax.Array:
    """min(e^(A / beta), most), [...] -> [...]: CRR's exp (Wang et al. 2020, arXiv 2006.15134,
    eq. 4).
    """
    return jnp.exp(jnp.minimum(advantage / beta, jnp.log(most)))


def binary_filter(advantage: jax.Array) -> jax.Array:
    """1 where A > 0, [...] -> [...]: CRR's binary (eq. 3 there)."""
    return (advantage > 0).astype(advantage.dtype)


def stable_weight(
    uncertainty: jax.Array,
    mask: jax.Array,
    eta: jax.Array,
    floor: jax.Array,
    low: jax.Array,
    high: jax.Array,
) -> jax.Array:
    """omega = clip(eta (u + floor)^-1 / mean (u + floor)^-1, low, high) over valid steps.

    [T, B], [T, B] -> [T, B].

    ours: eta / u (eqs. 9, 10) has no bound, and where nothing happens u is next to 0.
    """
    chex.assert_equal_shape([uncertainty, mask])
    inverse = 1.0 / jnp.maximum(uncertainty + floor, TINY)
    return jnp.clip(eta * inverse / jnp.maximum(masked_mean(inverse, mask), TINY), low, high)


def literal_weight(uncertainty: jax.Array, eta: jax.Array) -> jax.Array:
    """omega = eta / u as in eqs. 9 and 10, [...] -> [...]; u is at least 1e-8."""
    return eta / jnp.maximum(uncertainty, TINY)


def critic_loss(q: jax.Array, target: jax.Array, weight: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of omega (y - Q)^2 over valid steps (eq. 9), y and omega held fixed.

    all [T, B] -> [].
    """
    error = jnp.where(mask > 0, jax.lax.stop_gradient(target) - q, 0.0)
    return masked_mean(jax.lax.stop_gradient(weight) * jnp.square(error), mask)


def actor_loss(
    log_pi: jax.Array, weight: jax.Array, filter_: jax.Array, mask: jax.Array
) -> jax.Array:
    """Mean of - omega F log pi(a | tau) over valid steps, omega and F held fixed: all [T, B] -> [].

    paper: eq. 10 prints Q in the place of log pi, and then no actor's parameter is in it. Eq. 14,
    and that a large beta is to give behaviour cloning (appendix E.2), say log pi.
    """
    return masked_mean(-jax.lax.stop_gradient(weight * filter_) * log_pi, mask)


def literal_actor_loss(
    q: jax.Array, weight: jax.Array, filter_: jax.Array, mask: jax.Array
) -> jax.Array:
    """Eq. 10 as printed, the mean of - omega F Q with omega and F held fixed: all [T, B] -> [].

    Q is of the data's actions, so that no actor's parameter is in it.
    """
    return masked_mean(-jax.lax.stop_gradient(weight * filter_) * q, mask)


# ----------------------------------------------------------------------------- to judge the outcome


def masked_median(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Median of x over mask > 0, 0 without any: [Z], [Z] -> []."""
    chex.assert_equal_shape([x, mask])
    ordered = jnp.sort(jnp.where(mask > 0, x, jnp.inf).ravel())
    count = jnp.sum(mask > 0)
    low = ordered[jnp.maximum(count - 1, 0) // 2]
    high = ordered[jnp.minimum(count // 2, ordered.size - 1)]
    return jnp.where(count > 0, (low + high) / 2.0, 0.0)


def auroc(score: jax.Array, positive: jax.Array) -> jax.Array:
    """P(score of a positive > score of a negative) + P(=) / 2.

    [Z], [Z] bool -> []; nan if one kind is missing.

    The Mann-Whitney statistic over all pairs.
    """
    chex.assert_equal_shape([score, positive])
    score = score.ravel()
    positive = positive.ravel()
    # positives stand behind all finite scores
    negatives = jnp.sort(jnp.where(positive, jnp.inf, score))
    below, upto = (jnp.searchsorted(negatives, score, side=side) for side in ("left", "right"))
    wins = jnp.where(positive, (below + upto) / 2.0, 0.0).sum()
    return wins / (jnp.sum(positive, dtype=score.dtype) * jnp.sum(~positive, dtype=score.dtype))


def better_pairs(level: jax.Array, groups: tuple[int, ...]) -> jax.Array:
    """Whether agent i of an episode is better than agent j and of its type.

    [E, N] -> [E, N (i), N (j)] bool.

    groups[i]: the type of agent i. A level that is not known is nan, and in no pair.
    """
    kind = jnp.array(groups)
    alike = (kind[:, None] == kind[None, :])[None]  # [1, N, N]
    return (level[:, :, None] > level[:, None, :]) & alike


def pair_order(score: jax.Array, level: jax.Array, groups: tuple[int, ...]) -> jax.Array:
    """How often the better of two agents of one type in one episode has the larger score.

    Ties count half. score, level [E, N], groups and unknown levels as in `better_pairs` -> []; nan
    without a pair of unequal levels.
    """
    chex.assert_equal_shape([score, level])
    better = better_pairs(level, groups)
    mine = score[:, :, None]
    other = score[:, None, :]
    wins = jnp.where(mine > other, 1.0, jnp.where(mine == other, 0.5, 0.0))
    return jnp.where(better, wins, 0.0).sum() / better.sum()


def share_of(log_weight: jax.Array, chosen: jax.Array, among: jax.Array) -> jax.Array:
    """P(chosen | among) if items are drawn with probability ~ exp(log_weight).

    [Z], [Z] bool, [Z] bool -> [].
    """
    chex.assert_equal_shape([log_weight, chosen, among])

    def log_sum(items: jax.Array) -> jax.Array:
        return jax.nn.logsumexp(jnp.where(items, log_weight, -jnp.inf))

    return jnp.exp(log_sum(chosen & among) - log_sum(among))

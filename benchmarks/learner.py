"""One QMIX update of 32 episodes against the same update written as plainly as JaxMARL writes it, in one process.

    python benchmarks/learner.py                            all shapes, one table
    python benchmarks/learner.py --shapes 3m --parts        where the time of ours goes
    python benchmarks/learner.py --save                     also benchmarks/results/learner.json

The rival has agents first under a vmap, flax's GRUCell with resets inside a scan, no product taken out of the scan,
separate unrolls of the online and the target network, a mixer with batched products, optax's RMSprop behind a clip.
Ours is Algorithm.update of algo=qmix. A third call has the matrix products of the agent's network alone, in the best
form found: what no way of writing the rest could go below. A call makes four updates in a scan, on a batch each; train
states are donated, calls alternate, medians count, per update. Beside the times
stands the share of the peak: floating-point operations by formula (`gflop`) per second, over those of the best square
f32 product measured in the same rounds.

The maths is equal, which is checked before anything is timed: from the same parameters and batch both must give the
same loss and gradient norm. What is not: ours has torch's second bias on two gates; it makes its network's inputs from
observation, last action and index in every update, while the rival is handed them ready and agents first; ours also
reports four means as metrics that the rival does not. All three favour the rival, whose optimiser is ours, not RAdam.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import _common
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxshare.algos import qmix
from jaxshare.learners.optimisers import torch_rmsprop
from jaxshare.models import inputs
from jaxshare.models.agents import q_network
from jaxshare.models.inputs import Reads
from jaxshare.models.mixers import MixerInputs, qmix_mixer
from jaxshare.models.products import outer_sums
from jaxshare.models.recurrent import Gates, GRUWeights, gru_unroll
from jaxshare.training import replay
from jaxshare.types import Discrete, EnvSpec, Episode, LearnerState

OUT = pathlib.Path(__file__).parent / "results" / "learner.json"
BATCH = 32
HALVES = 2  # devices of a CPU
UPDATES = 4  # of one call, each on a batch of its own, inside a scan as in training
PEAK_SIZES = (512, 1024, 2048)
TOLERANCE = 1e-3  # f32 over 101 steps, relative


@dataclass(frozen=True)
class Shape:
    """Sizes of one update."""

    agents: int
    obs: int
    state: int
    actions: int
    steps: int = 100
    hidden: int = 64
    batch: int = BATCH

    def spec(self) -> EnvSpec:
        """An environment of these sizes."""
        return EnvSpec(
            name="sizes",
            num_agents=self.agents,
            obs_dim=self.obs,
            state_dim=self.state,
            action=Discrete(self.actions),
            episode_limit=self.steps,
            groups=(0,) * self.agents,
            group_names=("agent",),
        )


SHAPES = {
    "3m": Shape(3, 75, 72, 8),  # SMAX's sizes
    "2s3z": Shape(5, 127, 120, 10),  # SMAX's sizes
    "10 agents": Shape(10, 150, 150, 16),
    "hidden 512": Shape(3, 75, 72, 8, steps=128, hidden=512),  # as JaxMARL ships it
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=tuple(SHAPES), default=tuple(SHAPES))
    parser.add_argument("--repeats", type=int, default=20, help="timed updates of each (default %(default)s)")
    parser.add_argument("--parts", action="store_true", help="also time the parts of ours on their own")
    parser.add_argument("--save", action="store_true", help=f"write {OUT.name} into benchmarks/results")
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", HALVES)
    found: dict[str, Any] = {"machine": _common.machine(), "repeats": options.repeats, "shapes": {}}
    print(f"{found['machine']}; load {os.getloadavg()[0]:.1f}")
    for name in options.shapes:
        one: dict[str, Any] = measure(SHAPES[name], options.repeats)
        found["shapes"][name] = one
        print(row(name, one), flush=True)
        if options.parts:
            one["parts_ms"] = parts(SHAPES[name], options.repeats)
            print("\n".join(f"    {part:<34} {ms:8.2f} ms" for part, ms in one["parts_ms"].items()), flush=True)
    found["load_after"] = os.getloadavg()[0]
    print(f"load {found['load_after']:.1f}")
    if options.save:
        OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def row(name: str, one: dict[str, Any]) -> str:
    """A line of the table."""
    return (
        f"{name:<12} {one['gflop']:6.2f} GFLOP   ours {one['ours_ms']:8.2f} ms   rival {one['rival_ms']:8.2f} ms   "
        f"{one['ratio']:.2f} x its speed   {100 * one['ours_share_of_peak']:.0f} % of the peak "
        f"(rival {100 * one['rival_share_of_peak']:.0f} %) of {one['peak_gflops']:.0f} GFLOP/s; "
        f"products alone {one['limit_ms']:.2f} ms"
        + (f", ours in halves {one['halves_ms']:.2f} ms, {one['halves_ratio']:.2f} x" if "halves_ms" in one else "")
    )


def measure(shape: Shape, repeats: int) -> dict[str, float]:
    """Times of both updates and of the products, in rounds."""
    batches, learner = [episodes(shape, seed) for seed in range(UPDATES)], start(shape)
    ours, rival = our_update(shape, batches, learner), rival_update(shape, batches, learner)
    require_equal(ours(), rival())
    limit = products_alone(shape)
    calls = {"ours": ours, "rival": rival, "limit": limit, **{f"peak {n}": square_product(n) for n in PEAK_SIZES}}
    if len(jax.devices()) >= HALVES:
        calls["halves"] = halves(shape, batches, learner)
    times = interleaved(calls, repeats)
    updates = [name for name in times if not name.startswith("peak")]
    for name in updates:
        times[name] = [value / UPDATES for value in times[name]]
    peak = max(2 * n**3 / np.median(times[f"peak {n}"]) for n in PEAK_SIZES)
    flop = 1e9 * gflop(shape)
    ms = {name: float(1e3 * np.median(times[name])) for name in updates}
    ratios = {name: float(np.median(np.array(times["rival"]) / np.array(times[name]))) for name in updates}
    return {
        "gflop": gflop(shape),
        **{f"{name}_ms": value for name, value in ms.items()},
        "ratio": ratios["ours"],
        **({"halves_ratio": ratios["halves"]} if "halves" in ratios else {}),
        **{f"{name}_share_of_peak": flop / (1e-3 * ms[name]) / peak for name in ("ours", "rival")},
        "peak_gflops": peak / 1e9,
    }


def interleaved(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, once per round; the first two rounds do not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 2):
        for name, call in calls.items():
            times[name] += _common.seconds(call, 1)
    return {name: values[2:] for name, values in times.items()}


def square_product(n: int) -> Callable[[], Any]:
    """f32 [n, n] @ [n, n]."""
    product, x = jax.jit(jnp.matmul), jax.random.normal(jax.random.key(n), (n, n))
    return lambda: product(x, x)


def gflop(shape: Shape) -> float:
    """Products of one update, 2 per multiply and add; elementwise work is not counted.

    agent, per agent and slot: Linear D x H, six H x H of the GRU, Linear H x A; mixer, per slot: hyper-networks of two
    layers (64 wide) to N E and E weights, biases from G x E and from two layers E wide, then N E and E to mix.
    Each is run forward by the online and the target network, and backward twice over (gradients of weights and of
    inputs); what reads data, D x H and the G x ... of the mixer, has no gradient of inputs.
    """
    settings = qmix.Config()
    n, h, a, g = shape.agents, shape.hidden, shape.actions, shape.state
    e, w = settings.embed_dim, settings.hypernet_dim
    d = Reads(shape.spec(), settings.obs_last_action, settings.obs_agent_id).dim
    agent = (shape.steps + 1) * shape.batch * n * (3 * d * h + 4 * (6 * h * h + h * a))
    mixer = shape.steps * shape.batch * (3 * g * (2 * w + 2 * e) + 4 * (w * n * e + w * e + e + n * e + e))
    return 2 * (agent + mixer) / 1e9


# -------------------------------------------------------------------------------------------------- what both are given


def episodes(shape: Shape, seed: int = 0) -> Episode:
    """Random episodes of full length that end by the time limit."""
    keys = iter(jax.random.split(jax.random.key(seed), 8))
    slots, steps = (shape.steps + 1, shape.batch), (shape.steps, shape.batch)
    avail = jax.random.bernoulli(next(keys), 0.6, (*slots, shape.agents, shape.actions)).at[..., 0].set(True)
    last = jnp.broadcast_to((jnp.arange(shape.steps) == shape.steps - 1)[:, None], steps)
    reward = jax.random.uniform(next(keys), (*steps, 1))
    return Episode(
        obs=jax.random.normal(next(keys), (*slots, shape.agents, shape.obs)),
        state=jax.random.normal(next(keys), (*slots, shape.state)),
        avail=avail,
        alive=jnp.ones((*slots, shape.agents), bool),
        action=jax.random.randint(next(keys), (*steps, shape.agents), 0, shape.actions),
        reward=jnp.broadcast_to(reward, (*steps, shape.agents)),
        terminated=jnp.zeros(steps, bool),
        truncated=last,
        mask=jnp.ones(steps),
    )


def algorithm(shape: Shape) -> Any:
    """algo=qmix with its defaults but for the hidden size."""
    return qmix.make(qmix.Config(hidden_dim=shape.hidden), shape.spec()).assemble()


def start(shape: Shape) -> LearnerState:
    """A new learner whose target network is another one, so that mixing the two up would show."""
    init = algorithm(shape).init
    return init(jax.random.key(1)).replace(target_params=init(jax.random.key(2)).params)


def require_equal(ours: dict[str, Any], rival: dict[str, Any]) -> None:
    """Both computed the same update."""
    for name, value in rival.items():
        if not np.isclose(ours[name], value, rtol=TOLERANCE):
            raise SystemExit(f"the two do not compute the same: {name} is {ours[name]} and {value}")


# ----------------------------------------------------------------------------------------------------------------- ours


def our_update(shape: Shape, batches: list[Episode], learner: LearnerState) -> Callable[[], Any]:
    """A call that makes UPDATES updates more and returns the metrics of the first."""
    made = algorithm(shape)
    ctx, key = _common.context(made.hparams), jax.random.key(3)
    return stepper(lambda state, batch: made.update(state, batch, ctx, key), learner, batches)


def stepper(update: Callable[..., Any], state: Any, data: list[Any]) -> Callable[[], Any]:
    """Calls of `update(state, data) -> (state, metrics)` in a scan, from the state that the last call left, donated.

    One update by itself would take the system's time as well: its temporary memory is fresh in every call.
    """
    held = [jax.tree.map(jnp.copy, state)]  # buffers of its own, to donate
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *data)
    many = jax.jit(lambda state, data: jax.lax.scan(update, state, data), donate_argnums=0)

    def call() -> Any:
        held[0], metrics = many(held[0], stacked)
        jax.block_until_ready(held[0])
        return jax.tree.map(lambda x: x[0], metrics)

    return call


def halves(shape: Shape, batches: list[Episode], learner: LearnerState) -> Callable[[], Any]:
    """The batch split over two devices that never exchange anything: two halves' updates, not one update of the whole.

    A real split would add the devices' gradients up in every update, so that this is a limit.
    """
    mesh, half = jax.make_mesh((HALVES,), ("rows",), devices=jax.devices()[:HALVES]), P(None, "rows")
    made = algorithm(shape)
    ctx, key = _common.context(made.hparams), jax.random.key(3)

    def update(state: LearnerState, batch: Episode) -> Any:
        return made.update(state, batch, ctx, key)

    halved = jax.shard_map(update, mesh=mesh, in_specs=(P(), half), out_specs=P(), check_vma=False)
    learner, batches = jax.device_put((learner, batches), (NamedSharding(mesh, P()), NamedSharding(mesh, half)))
    return stepper(halved, learner, batches)


def products_alone(shape: Shape) -> Callable[[], Any]:
    """The agent's matrix products of one update and next to nothing else: no gates, losses, mixers or optimiser."""
    rows, steps, h = shape.agents * shape.batch, shape.steps + 1, shape.hidden
    d = Reads(shape.spec(), True, True).dim
    keys = iter(jax.random.split(jax.random.key(0), 20 + UPDATES))
    matrix = lambda m, n: 0.1 * jax.random.normal(next(keys), (m, n))  # noqa: E731
    make = lambda: {  # noqa: E731
        "embed": matrix(d, h), "gates": [matrix(h, h) for _ in range(3)],
        "recurrent": [matrix(h, h) for _ in range(3)], "head": matrix(h, shape.actions),
    }  # fmt: skip

    def unrolled(kernels: list[jax.Array]) -> jax.Array:
        def step(carry: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            total = jnp.zeros_like(carry)
            for kernel in kernels:
                total = total + carry @ kernel
            total = 0.1 * total
            return total, total

        return jax.lax.scan(step, jnp.ones((rows, h)), length=steps)[1]

    def forward(w: dict[str, Any], x: jax.Array) -> tuple[Any, ...]:
        first = x @ w["embed"]
        hidden = unrolled(w["recurrent"])
        return first, [first @ kernel for kernel in w["gates"]], hidden, hidden @ w["head"]

    def update(state: tuple[Any, Any], x: jax.Array) -> tuple[Any, Any]:
        (online, target), flat = state, lambda y: y.reshape(-1, y.shape[-1])
        first, gates, hidden, q = forward(online, x)
        seen = forward(target, x)
        unused = sum(y.mean() for y in (seen[3], *seen[1])) + seen[2][-1].mean()
        back = unrolled([kernel.T for kernel in online["recurrent"]]) + q @ online["head"].T
        into = sum(y @ kernel.T for y, kernel in zip(gates, online["gates"], strict=True))
        grads = {
            "embed": outer_sums(flat(x), [flat(into)])[0],
            "gates": outer_sums(first, gates),
            "recurrent": outer_sums(hidden, [g + back for g in gates]),
            "head": outer_sums(hidden, [q])[0],
        }
        online = jax.tree.map(lambda w, g: w - 1e-6 * jnp.tanh(g), online, grads)
        return (online, target), {"unused": unused}

    data = [jax.random.normal(next(keys), (steps, rows, d)) for _ in range(UPDATES)]
    return stepper(update, (make(), make()), data)


# ------------------------------------------------------------------------------------------------------------ the rival


class ResetGRU(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, carry, at):
        x, reset = at
        return nn.GRUCell(self.hidden, name="cell")(jnp.where(reset[:, None], jnp.zeros_like(carry), carry), x)


class RivalAgent(nn.Module):
    """One agent: memory [B, H], x [T, B, D], reset [T, B] -> (memory, q [T, B, A])."""

    hidden: int
    actions: int

    @nn.compact
    def __call__(self, carry, x, reset):
        x = nn.relu(nn.Dense(self.hidden, name="embed")(x))
        scanned = nn.scan(ResetGRU, variable_broadcast="params", split_rngs={"params": False})
        carry, hidden = scanned(self.hidden, name="gru")(carry, (x, reset))
        return carry, nn.Dense(self.actions, name="head")(hidden)


class RivalMixer(nn.Module):
    """q [N, T, B], state [T, B, G] -> q_tot [T, B]."""

    embed: int
    hyper: int

    @nn.compact
    def __call__(self, q, state):
        agents, steps, batch = q.shape
        w1 = jnp.abs(self._two("w1", self.hyper, agents * self.embed, state)).reshape(steps, batch, agents, self.embed)
        b1 = nn.Dense(self.embed, name="b1")(state).reshape(steps, batch, 1, self.embed)
        w2 = jnp.abs(self._two("w2", self.hyper, self.embed, state)).reshape(steps, batch, self.embed, 1)
        bias = self._two("v", self.embed, 1, state).reshape(steps, batch, 1, 1)
        hidden = nn.elu(jnp.matmul(jnp.transpose(q, (1, 2, 0))[:, :, None, :], w1) + b1)
        return (jnp.matmul(hidden, w2) + bias).reshape(steps, batch)

    def _two(self, name, hidden, out, state):
        return nn.Dense(out, name=f"{name}_out")(nn.relu(nn.Dense(hidden, name=f"{name}_hidden")(state)))


def rival_update(shape: Shape, batches: list[Episode], learner: LearnerState) -> Callable[[], Any]:
    """As `our_update`, from the same parameters and the same batch with agents first."""
    settings, h = qmix.Config(), qmix.Config().hparams
    mixer = RivalMixer(settings.embed_dim, settings.hypernet_dim)
    agent = RivalAgent(shape.hidden, shape.actions)
    scale = optax.scale_by_rms(decay=h.rms_decay, eps=h.rms_eps, eps_in_sqrt=False, initial_scale=0.0)
    optimizer = optax.chain(optax.clip_by_global_norm(h.grad_clip), scale, optax.scale_by_learning_rate(h.lr))

    def utilities(params, data):
        carry = jnp.zeros((shape.agents, shape.batch, shape.hidden))
        apply = jax.vmap(agent.apply, in_axes=(None, 0, 0, 0))
        return apply({"params": params["agent"]}, carry, data["x"], data["reset"])[1]

    def chosen(q, action):
        return jnp.take_along_axis(q, action[..., None], axis=-1).squeeze(-1)

    def loss_fn(params, target, data):
        next_q, q = utilities(target, data), utilities(params, data)
        greedy = jnp.argmax(q - 1e10 * (1 - data["avail"]), axis=-1)
        next_tot = mixer.apply({"params": target["mixer"]}, chosen(next_q, greedy)[:, 1:], data["state"][1:])
        goal = jax.lax.stop_gradient(data["reward"] + (1 - data["done"]) * h.gamma * next_tot)
        q_tot = mixer.apply({"params": params["mixer"]}, chosen(q[:, :-1], data["action"]), data["state"][:-1])
        return jnp.mean(jnp.square(q_tot - goal))

    def update(state, data):
        params, target, opt_state = state
        loss, grads = jax.value_and_grad(loss_fn)(params, target, data)
        changes, opt_state = optimizer.update(grads, opt_state)
        params = optax.apply_updates(params, changes)
        target = jax.lax.cond(data["updates"] % settings.target_update_period == 0, lambda: params, lambda: target)
        return (params, target, opt_state), {"loss/td": loss, "grad_norm/joint": norm_with_double_biases(grads)}

    params, target = as_rival(learner.params), as_rival(learner.target_params)
    state = (params, target, optimizer.init(params))
    return stepper(update, state, [agents_first(shape, batch) for batch in batches])


def agents_first(shape: Shape, batch: Episode) -> dict[str, jax.Array]:
    """The rival's data: inputs of its network [N, T+1, B, D], and so on."""
    first = lambda x: jnp.moveaxis(x, 2, 0)  # noqa: E731
    spec = shape.spec()
    x = Reads(spec, True, True).build(batch.obs, inputs.last_actions(batch.action, spec))
    return {
        "x": first(x),
        "reset": jnp.zeros((shape.agents, shape.steps + 1, shape.batch), bool),
        "avail": first(batch.avail).astype(jnp.float32),
        "action": first(batch.action),
        "state": batch.state,
        "reward": batch.reward[..., 0],
        "updates": jnp.int32(1),
        "done": jnp.logical_or(batch.terminated, batch.truncated).astype(jnp.float32),
    }


def as_rival(params: dict[str, Any]) -> dict[str, Any]:
    """Our parameters under flax's names; the two biases of a gate become one."""
    agent, gru = params["agent"], params["agent"]["gru"]
    cell: dict[str, Any] = {}
    for gate, letter in {"reset": "r", "update": "z", "new": "n"}.items():
        bias, own = gru[f"input_{gate}_bias"], gru[f"hidden_{gate}_bias"]
        cell[f"i{letter}"] = {"kernel": gru[f"input_{gate}_kernel"], "bias": bias if gate == "new" else bias + own}
        cell[f"h{letter}"] = {"kernel": gru[f"hidden_{gate}_kernel"], **({"bias": own} if gate == "new" else {})}
    return {"agent": {**agent, "gru": {"cell": cell}}, "mixer": params["mixer"]}


def norm_with_double_biases(grads: dict[str, Any]) -> jax.Array:
    """The global norm as ours has it, with both biases of the reset and the update gate."""
    cell = grads["agent"]["gru"]["cell"]
    return optax.tree.norm((grads, cell["ir"]["bias"], cell["iz"]["bias"]))


# -------------------------------------------------------------------------------------------------------- parts of ours


def parts(shape: Shape, repeats: int) -> dict[str, float]:
    """Milliseconds of pieces of our update, each called by itself: fresh memory counts, and they need not add up."""
    batch, learner = episodes(shape), start(shape)
    calls = {**agent_parts(shape, batch, learner), **other_parts(shape, batch, learner)}
    return {name: float(1e3 * np.median(values)) for name, values in interleaved(calls, repeats).items()}


def both_ways(name: str, loss: Callable[..., jax.Array], *args: Any) -> dict[str, Callable[[], Any]]:
    """A loss forward, and with its gradient by the first argument."""
    forward, both = jax.jit(loss), jax.jit(jax.value_and_grad(loss))
    return {f"{name}, forward": lambda: forward(*args), f"{name}, forward + backward": lambda: both(*args)}


def agent_parts(shape: Shape, batch: Episode, learner: LearnerState) -> dict[str, Callable[[], Any]]:
    """The agent's network, and the recurrence inside it."""
    spec, rows = shape.spec(), shape.batch * shape.agents
    reads = Reads(spec, True, True)
    build = lambda b: reads.build(b.obs, inputs.last_actions(b.action, spec))  # noqa: E731
    x, made = build(batch), jax.jit(build)
    net = q_network(x.shape[-1], shape.actions, shape.hidden, True, spec.groups)
    carry, gru = net.initial_carry(shape.batch), learner.params["agent"]["gru"]
    weights = GRUWeights(
        reset=gru["hidden_reset_kernel"],
        update=gru["hidden_update_kernel"],
        new=gru["hidden_new_kernel"],
        new_bias=gru["hidden_new_bias"],
    )
    keys = jax.random.split(jax.random.key(4), 3)
    gates = Gates(*[jax.random.normal(k, (shape.steps + 1, rows, shape.hidden)) for k in keys])
    unroll = lambda given, h: jnp.square(gru_unroll(*given, h)).mean()  # noqa: E731
    return {
        "inputs built": lambda: made(batch),
        **both_ways("recurrence", unroll, (weights, gates), carry.reshape(rows, -1)),
        **both_ways(
            "agent", lambda p, h, y: jnp.square(net.unroll(p, h, y)[1]).mean(), learner.params["agent"], carry, x
        ),
    }


def other_parts(shape: Shape, batch: Episode, learner: LearnerState) -> dict[str, Callable[[], Any]]:
    """The mixer, the optimiser and the gather from a ring of 8 batches in f32."""
    settings = qmix.Config()
    mixer = qmix_mixer(shape.agents, shape.state, settings.embed_dim, settings.hypernet_dim, settings.hypernet_layers)
    q = jax.random.normal(jax.random.key(5), batch.action.shape)
    now = MixerInputs(q, batch.action, batch.state[:-1])
    hparams = _common.context(algorithm(shape).hparams).hparams
    optimizer = torch_rmsprop(hparams, hparams["lr"], optax.clip_by_global_norm(hparams["grad_clip"]))

    @jax.jit
    def optimise(params: Any, opt_state: Any) -> Any:
        changes, opt_state = optimizer.update(params, opt_state)
        return optax.apply_updates(params, changes), opt_state

    def mixed(given: Any) -> jax.Array:
        params, q = given
        return jnp.square(mixer.apply(params, q, now)).mean()

    first = optimizer.init(learner.params)
    ring = replay.init(batch, 8 * shape.batch, "float32")
    gather, index = jax.jit(replay.gather), jnp.arange(shape.batch) * 7
    return {
        **both_ways("mixer", mixed, (learner.params["mixer"], q)),
        "optimiser": lambda: optimise(learner.params, first),
        "gather (not part of an update)": lambda: gather(ring, index),
    }


if __name__ == "__main__":
    main()

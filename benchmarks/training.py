"""Whole training of QMIX on SMAX: ours against a trainer written as plainly as JaxMARL's, in one process.

    python benchmarks/training.py                        environment steps/s while learning, 3m and 2s3z
    python benchmarks/training.py --to-win-rate 0.75     seconds to a test win rate on 3m, one side after the other
        --seeds 0 1 2                                    of ours with each of these seeds; the rival has the first
    python benchmarks/training.py --save                 also benchmarks/results/training.json

Steps per second. Both have 16 environments, a GRU of 64, a mixer of 32/64, RMSprop at 5e-4 and inputs without the last
action, and learn from 16 stored transitions per environment step. Ours is the trainer's own compiled program: 16
episodes, then 8 updates of 32 whole episodes. The rival (Rutherford et al. 2023, JaxMARL, qmix_rnn) steps jaxmarl's
environment through jaxmarl's wrappers: 128 steps of 16 environments that reset themselves, kept as 16 windows in a
flashbax buffer, then 8 updates of 32 windows, all in one scan. Compiling is not counted. Chunks of the two alternate,
from when the replay of ours is full; the rival has taken at least as many steps by then. `replay ratio` is measured:
the updates made, times the mean length of the episodes stored; windows have no padding. An update of ours replays fewer
transitions than one of the rival's, so ours makes more updates per environment step. Steps per CPU second (of all
threads of the process) are for a machine that does other work as well.

What the two do not share: the rival sees the raw world state in its mixer and zeros in place of the observations of
dead agents, copies its target network every 10 rollouts (ours: every 200 updates), cuts episodes at the ends of
windows, and starts from kernels as JaxMARL's. It differs from JaxMARL's script in three places (effect not measured):
that one resets the memory of dead agents only (here: of all agents when an episode ends), stops its targets one step
after the end of an episode (here: at it), and starts to learn after 32 rollouts (here: after 10 000 steps).

Seconds to a win rate. Both play 128 greedy episodes about every 20 000 steps; the time of evaluations is given but not
counted. Reached: the first evaluation at the target ("first"), and the second of two in a row ("held"). Seconds to
compile are those of everything before the counted start: one chunk and one evaluation more than needed. The 32 episodes
that ours plays before its first update are not counted as time. With several seeds the middle one of ours is kept as
its race, by seconds to the first evaluation at the target, and the seconds of all stand beside it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pathlib
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import _common
import flashbax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from learner import RivalAgent, RivalMixer

from jaxshare import cli
from jaxshare.algos import qmix
from jaxshare.envs._jaxmarl import import_jaxmarl, quiet
from jaxshare.envs.smax import environment as smax
from jaxshare.training.counting import start_clock

OUT = pathlib.Path(__file__).parent / "results" / "training.json"
MAPS = ("3m", "2s3z")
ENVS, WINDOW, BATCH, UPDATES = 16, 128, 32, 8  # of the rival: JaxMARL's, which give 16 replayed transitions per step
TARGET_PERIOD = 10  # rollouts; JaxMARL
LEARNING_STARTS = 10_000  # environment steps; JaxMARL
MIXER_SCALE = 0.001  # of the mixer's first kernels; JaxMARL
CHUNK = 4  # rollouts of the rival between two looks at it
TEST_EPISODES, TEST_EVERY = 128, 20_000  # environment steps
SAME = (  # what makes ours equal to the rival
    "algo=qmix", "env=smax", f"num_envs={ENVS}", f"batch_size={BATCH}", f"updates_per_episode={UPDATES / ENVS}",
    "algo.obs_last_action=false",
)  # fmt: skip
SOON = (  # of ours, to reach a win rate; all else is the default
    "algo=qmix", "env=smax", "num_envs=16", "updates_per_episode=0.5", "algo.hparams.epsilon_anneal_steps=20000",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", nargs="+", choices=MAPS, default=MAPS)
    parser.add_argument("--rounds", type=int, default=10, help="timed chunks of each (default %(default)s)")
    parser.add_argument("--capacity", type=int, default=5000, help="episodes, and windows (default %(default)s)")
    parser.add_argument("--to-win-rate", type=float, help="instead: seconds to this test win rate on 3m")
    parser.add_argument("--sides", nargs="+", choices=("ours", "rival"), default=("ours", "rival"))
    parser.add_argument("--most-seconds", type=float, default=240.0, help="of learning to a win rate, for each side")
    parser.add_argument("--most-steps", type=int, default=1_500_000, help="likewise, environment steps")
    parser.add_argument("--ours", nargs="*", default=SOON, help=f"settings of ours there (default {' '.join(SOON)})")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="(default 0)")
    parser.add_argument("--save", action="store_true", help=f"write {OUT.name} into benchmarks/results")
    cli.run_command(lambda: measure(parser.parse_args()))


def measure(options: argparse.Namespace) -> None:
    """Run one of the two parts; --save replaces it in the file and leaves the other."""
    before, found = os.getloadavg()[0], {}
    if options.to_win_rate:
        key = "to_win_rate"
        found["target"] = options.to_win_rate
        for name in options.sides:
            seeds = options.seeds if name == "ours" else options.seeds[:1]
            found[name] = races(name, seeds, options)
    else:
        key = "steps_per_second"
        for scenario in options.maps:
            found[scenario] = one = compare(scenario, options)
            print(table(scenario, one), flush=True)
    found |= {"machine": _common.machine(), "seeds": options.seeds, "load": [before, os.getloadavg()[0]]}
    print(f"{found['machine']}; load before and after {before:.1f}, {found['load'][1]:.1f}")
    if options.save:
        old = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
        OUT.write_text(json.dumps({**old, key: found}, indent=1) + "\n", encoding="utf-8")


def side(name: str, scenario: str, capacity: int, seed: int, settings: tuple[str, ...] = SAME) -> Any:
    """Ours or the rival, compiled on first use."""
    if name == "ours":
        return Ours(scenario, [*settings, f"replay.capacity={capacity}", f"seed={seed}"])
    return Rival(scenario, capacity, seed)


# ---------------------------------------------------------------------------------------------------- steps per second


def compare(scenario: str, options: argparse.Namespace) -> dict[str, Any]:
    """Steps per second of both, in alternating chunks, and what goes with them."""
    seed = options.seeds[0]
    ours = side("ours", scenario, options.capacity, seed)
    rival = side("rival", scenario, options.capacity, seed)
    for one in (ours, rival):
        one.start()
    while ours.filled < 1:
        ours.chunk()
    while rival.env_steps < ours.env_steps:
        rival.chunk()
    print(f"{scenario}: both have taken {ours.env_steps:,} steps or more", flush=True)
    before = {one: (one.env_steps, one.updates, one.replayed) for one in (ours, rival)}
    spent: dict[Any, list[np.ndarray]] = {ours: [], rival: []}
    rates: dict[Any, list[float]] = {ours: [], rival: []}
    for _ in range(options.rounds):
        for one in (ours, rival):
            steps = one.env_steps
            spent[one].append(timed(one.chunk))
            rates[one].append((one.env_steps - steps) / spent[one][-1][0])
    found: dict[str, Any] = {one.name: figures(one, before[one], *np.sum(spent[one], axis=0)) for one in (ours, rival)}
    found["ratio"] = found["ours"]["steps_per_second"] / found["rival"]["steps_per_second"]
    found["ratio_median_of_rounds"] = float(np.median(np.array(rates[ours]) / np.array(rates[rival])))
    return found


def timed(call: Callable[[], Any]) -> np.ndarray:
    """Wall-clock and CPU seconds of a call that waits for what it computes: [2]."""
    start = np.array([time.perf_counter(), time.process_time()])
    call()
    return np.array([time.perf_counter(), time.process_time()]) - start


def figures(one: Any, before: tuple[int, int, float], seconds: float, cpu: float) -> dict[str, float]:
    """What one side did in so many seconds, since (environment steps, updates, replayed transitions)."""
    steps, updates, replayed = (now - then for now, then in zip(seen(one), before, strict=True))
    return {
        "steps_per_second": steps / seconds,
        "steps_per_cpu_second": steps / cpu,
        "replay_ratio": replayed / steps,
        "transitions_per_second": replayed / seconds,
        "updates_per_second": updates / seconds,
        "episode_length": one.length,
        "training_win_rate": one.win_rate,
        "replay_filled": one.filled,
        "env_steps": one.env_steps,
        "seconds": float(seconds),
    }


def seen(one: Any) -> tuple[int, int, float]:
    """Environment steps, updates and replayed transitions so far."""
    return one.env_steps, one.updates, one.replayed


def table(scenario: str, one: dict[str, Any]) -> str:
    """Rows of both sides, and the ratio of each."""
    lines = [f"{scenario:<26}{'ours':>12}{'rival':>12}{'ratio':>9}"]
    for name, ours in one["ours"].items():
        rival = one["rival"][name]
        ratio = f"{ours / rival:9.2f}" if rival else f"{'-':>9}"
        lines.append(f"  {name.replace('_', ' '):<24}{ours:12,.2f}{rival:12,.2f}{ratio}")
    return "\n".join([*lines, f"  {'median ratio of rounds':<48}{one['ratio_median_of_rounds']:9.2f}"])


# ------------------------------------------------------------------------------------------------ seconds to a win rate


def races(name: str, seeds: list[int], options: argparse.Namespace) -> dict[str, Any]:
    """The race of the middle seed, and the seconds of every seed to its first test at the target."""
    runs = []
    seconds = []
    for seed in seeds:
        run = race(partial(side, name, "3m", options.capacity, seed, tuple(options.ours)), options)
        runs.append({"seed": seed, **run})
        seconds.append(run["first"]["seconds"] if "first" in run else float("inf"))
    middle = sorted(range(len(seeds)), key=seconds.__getitem__)[len(seeds) // 2]
    each = [None if value == float("inf") else value for value in seconds]
    if len(seeds) > 1:
        shown = ", ".join("not reached" if value is None else f"{value:.1f} s" for value in each)
        print(f"{name}, seeds {seeds}: {shown}; seed {seeds[middle]} is the middle one", flush=True)
    return {**runs[middle], "seconds_of_each_seed": dict(zip(map(str, seeds), each, strict=True))}


def race(make: Callable[[], Any], options: argparse.Namespace) -> dict[str, Any]:
    """Train from the start until the target holds, or time or steps are used up."""
    start = time.perf_counter()
    one = make()
    for step in (one.start, one.chunk, one.evaluate):
        step()
    compiled = time.perf_counter() - start
    one.start()
    spent, testing, due, held = np.zeros(2), 0.0, 0, 0
    tests: list[dict[str, float]] = []
    reached: dict[str, dict[str, float]] = {}
    while "held" not in reached and spent[0] < options.most_seconds and one.env_steps < options.most_steps:
        spent += timed(one.chunk)
        if one.env_steps < due:
            continue
        due = one.env_steps + TEST_EVERY
        start = time.perf_counter()
        test = {"env_steps": one.env_steps, "updates": one.updates, "seconds": spent[0].item()}
        test["cpu_seconds"] = spent[1].item()
        test |= one.evaluate()
        testing += time.perf_counter() - start
        held = held + 1 if test["win_rate"] >= options.to_win_rate else 0
        tests.append(test)
        print(f"{one.name:<6}{line(test)}", flush=True)
        if held:
            reached.setdefault("first" if held == 1 else "held", test)
    for name, test in reached.items():
        test["seconds_with_compiling"] = test["seconds"] + compiled
        print(f"{one.name} {name}: {test['seconds']:.1f} s, with compiling {test['seconds_with_compiling']:.1f} s")
    print(f"{one.name}: evaluations {testing:.1f} s and compiling {compiled:.1f} s, not counted; {one.settings}")
    settings = {"settings": one.settings, "compile_seconds": compiled, "evaluation_seconds": testing}
    return {**settings, **reached, "tests": tests}


def line(test: dict[str, float]) -> str:
    """One evaluation, for the screen."""
    return (
        f"{test['env_steps']:10,} steps {test['updates']:8,} updates {test['seconds']:7.1f} s (CPU "
        f"{test['cpu_seconds']:.1f} s)   win rate {test['win_rate']:.3f}, episodes of {test['length']:.1f}"
    )


# ---------------------------------------------------------------------------------------------------------------- ours


class Ours:
    """The trainer's own program of one run, without run directory or loggers."""

    name = "ours"

    def __init__(self, scenario: str, arguments: list[str]) -> None:
        self.settings = " ".join(arguments)
        tests = [f"eval.episodes={TEST_EPISODES}", "eval.every=1000000"]  # so that a chunk makes 200 updates
        self._settings, _, self._runs = _common.program_and_runs([*arguments, f"env.scenario={scenario}", *tests])
        self._fresh = True

    def start(self) -> None:
        """A new learner, and a replay with a first batch."""
        if not self._fresh:
            self._runs.clock = self._runs.layout.replicate(start_clock())
            self._runs.start()
        self._fresh, self.replayed, self.length, self.win_rate = False, 0.0, 0.0, 0.0

    def chunk(self) -> None:
        """Iterations that make 200 updates."""
        updates = self.updates
        metrics = self._runs.chunk()
        jax.block_until_ready(self._runs.states)
        assert metrics is not None
        self.length, self.win_rate = (float(metrics["collect"][name].mean()) for name in ("length", "win_rate"))
        # what is drawn has the mean length of what is stored
        stored = float(self._runs.states[0].replay.mask.sum()) / min(int(self._runs.clock.stored), self._capacity)
        self.replayed += (self.updates - updates) * self._settings.run.batch_size * stored

    def evaluate(self) -> dict[str, float]:
        """Win rate and length of greedy episodes."""
        found = self._runs.evaluate()
        return {name: float(found[name].mean()) for name in ("win_rate", "length")}

    @property
    def env_steps(self) -> int:
        """Environment steps so far."""
        return int(self._runs.env_steps.sum())

    @property
    def updates(self) -> int:
        """Updates so far."""
        return int(self._runs.updates.sum())

    @property
    def filled(self) -> float:
        """Share of the replay that is in use."""
        return min(int(self._runs.clock.stored) / self._capacity, 1.0)

    @property
    def _capacity(self) -> int:
        return self._settings.run.replay.capacity


# ------------------------------------------------------------------------------------------------------------ the rival


def as_jaxmarl(params: Any, key: jax.Array, scale: float) -> Any:
    """Orthogonal kernels of this scale wherever JaxMARL has them: all but those of the GRU."""

    def leaf(path: Any, x: jax.Array) -> jax.Array:
        names = [part.key for part in path]
        if "gru" in names or names[-1] != "kernel":
            return x
        own = jax.random.fold_in(key, zlib.crc32("/".join(names).encode()))
        return nn.initializers.orthogonal(scale)(own, x.shape)

    return jax.tree_util.tree_map_with_path(leaf, params)


class Rival:
    """JaxMARL's way, agents first: x [N, T, B, D] for the network, actions and utilities [N, T, B]."""

    name = "rival"

    def __init__(self, scenario: str, capacity: int, seed: int) -> None:
        config, self._seed, self._capacity = qmix.Config(), seed, capacity
        h = config.hparams
        jaxmarl = import_jaxmarl("smax")
        with quiet():
            wrappers = importlib.import_module("jaxmarl.wrappers.baselines")
        game = jaxmarl.HeuristicEnemySMAX(scenario=jaxmarl.map_name_to_scenario(scenario))
        self._env, self._tests = (
            wrappers.CTRolloutManager(wrappers.SMAXLogWrapper(game), batch_size=n) for n in (ENVS, TEST_EPISODES)
        )
        self._limit, self._hidden, self._h = game.max_steps + 1, config.hidden_dim, h
        self._agent = RivalAgent(config.hidden_dim, self._env.max_action_space)
        self._mixer = RivalMixer(config.embed_dim, config.hypernet_dim)
        scale = optax.scale_by_rms(decay=h.rms_decay, eps=h.rms_eps, eps_in_sqrt=False, initial_scale=0.0)
        clip = optax.clip_by_global_norm(h.grad_clip)
        self._optimizer = optax.chain(clip, scale, optax.scale_by_learning_rate(h.lr))
        self._buffer = flashbax.make_trajectory_buffer(
            max_length_time_axis=capacity // ENVS,
            min_length_time_axis=BATCH // ENVS,
            sample_batch_size=BATCH,
            add_batch_size=ENVS,
            sample_sequence_length=1,
            period=1,
        )
        self._start, self._test = jax.jit(self._new), jax.jit(self._play)
        self._advance = jax.jit(partial(jax.lax.scan, self._iteration, length=CHUNK), donate_argnums=0)
        self.settings = f"hidden {self._hidden}, lr {h.lr}, epsilon over {h.epsilon_anneal_steps:.0f} steps, RMSprop"

    # what `compare` and `race` use

    def start(self) -> None:
        """A new learner and an empty buffer."""
        self._state: dict[str, Any] = {}  # free the old buffer first
        self._state = jax.block_until_ready(self._start(jax.random.key(self._seed)))
        self.length, self.win_rate = 0.0, 0.0

    def chunk(self) -> None:
        """CHUNK rollouts, each followed by its updates."""
        self._state, found = jax.block_until_ready(self._advance(self._state))
        ended = max(float(found["ended"].sum()), 1.0)
        self.length, self.win_rate = (float(found[name].sum()) / ended for name in ("length", "won"))

    def evaluate(self) -> dict[str, float]:
        """Win rate and length of greedy episodes."""
        return {name: float(x) for name, x in self._test(self._state["params"]).items()}

    @property
    def env_steps(self) -> int:
        """Environment steps so far."""
        return int(self._state["rollouts"]) * ENVS * WINDOW

    @property
    def updates(self) -> int:
        """Updates so far."""
        return int(self._state["updates"])

    @property
    def replayed(self) -> float:
        """Transitions replayed so far."""
        return float(self.updates * BATCH * WINDOW)

    @property
    def filled(self) -> float:
        """Share of the buffer that is in use."""
        return min(int(self._state["rollouts"]) * ENVS / (self._capacity // ENVS * ENVS), 1.0)

    # the program

    def _new(self, key: jax.Array) -> dict[str, Any]:
        agent_key, mixer_key, run_key = jax.random.split(key, 3)
        agents, obs = self._env.num_agents, jnp.zeros((1, 1, self._env.obs_size))
        carry, first = jnp.zeros((1, self._hidden)), jnp.zeros((1, 1), bool)
        state = jnp.zeros((1, 1, self._env.state_size))
        agent = self._agent.init(agent_key, carry, obs, first)["params"]
        mixer = self._mixer.init(mixer_key, jnp.zeros((agents, 1, 1)), state)["params"]
        params = {"agent": as_jaxmarl(agent, agent_key, 1.0), "mixer": as_jaxmarl(mixer, mixer_key, MIXER_SCALE)}
        shapes = jax.eval_shape(lambda: self._rollout(params, jnp.float32(1), run_key)[0])
        window = jax.tree.map(lambda x: jnp.zeros((WINDOW, *x.shape[2:]), x.dtype), shapes)
        return {
            "params": params,
            "target": jax.tree.map(jnp.copy, params),
            "opt_state": self._optimizer.init(params),
            "buffer": self._buffer.init(window),
            "key": run_key,
            "rollouts": jnp.int32(0),
            "updates": jnp.int32(0),
        }

    def _iteration(self, state: dict[str, Any], _: None) -> tuple[dict[str, Any], dict[str, jax.Array]]:
        """A rollout and, once there is enough to learn from, its updates."""
        key, roll_key, learn_key = jax.random.split(state["key"], 3)
        h, steps = self._h, state["rollouts"] * ENVS * WINDOW
        part = jnp.minimum(steps / h.epsilon_anneal_steps, 1.0)
        epsilon = h.epsilon_start + part * (h.epsilon_end - h.epsilon_start)
        played, found = self._rollout(state["params"], epsilon, roll_key)
        buffer = self._buffer.add(state["buffer"], jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1)[:, None], played))
        learner = (state["params"], state["target"], state["opt_state"])
        enough = self._buffer.can_sample(buffer) & (steps + ENVS * WINDOW > LEARNING_STARTS)
        learner = jax.lax.cond(enough, lambda x: self._learn(x, buffer, learn_key), lambda x: x, learner)
        params, target, opt_state = learner
        target = jax.lax.cond(state["rollouts"] % TARGET_PERIOD == 0, lambda: params, lambda: target)
        counts = {"rollouts": state["rollouts"] + 1, "updates": state["updates"] + UPDATES * enough}
        new = {"params": params, "target": target, "opt_state": opt_state, "buffer": buffer, "key": key, **counts}
        return new, found

    def _rollout(self, params: Any, epsilon: jax.Array, key: jax.Array) -> tuple[dict[str, Any], dict[str, jax.Array]]:
        """WINDOW steps of new environments: fields [T, B, ...], and sums over the episodes that ended."""
        reset_key, scan_key = jax.random.split(key)
        obs, game = self._env.batch_reset(reset_key)
        start = (jnp.zeros((self._env.num_agents, ENVS, self._hidden)), obs, jnp.ones(ENVS, bool), game)
        keys = jax.random.split(scan_key, WINDOW)
        _, (played, ended) = jax.lax.scan(partial(self._step, self._env, params, epsilon), start, keys)
        return played, {name: jnp.sum(jnp.where(ended["ended"], x, 0.0)) for name, x in ended.items()}

    def _step(self, env: Any, params: Any, epsilon: jax.Array, carry: Any, key: jax.Array) -> Any:
        """One step of a batch of environments that reset themselves; `first`: a step is the first of its episode."""
        hidden, obs, first, game = carry
        act_key, random_key, env_key = jax.random.split(key, 3)
        avail = env.get_valid_actions(game.env_state)
        valid = self._stack(avail)
        hidden, q = self._unroll(params["agent"], hidden, self._stack(obs)[:, None], first[None])
        q = q[:, 0]
        greedy = jnp.argmax(q - 1e10 * (1 - valid), axis=-1)
        chance = jax.random.categorical(random_key, jnp.where(valid > 0, 0.0, -1e10))
        action = jnp.where(jax.random.uniform(act_key, greedy.shape) < epsilon, chance, greedy)
        actions = {agent: action[i] for i, agent in enumerate(env.agents)}
        new_obs, new_game, reward, done, info = env.batch_step(env_key, game, actions)
        seen = {"obs": obs, "avail": avail, "action": actions, "first": first}
        ended = {
            "ended": info["returned_episode"][:, 0],
            "length": info["returned_episode_lengths"][:, 0],
            "won": info["returned_won_episode"][:, 0],
        }
        return (hidden, new_obs, done["__all__"], new_game), ({**seen, "reward": reward["__all__"]}, ended)

    def _learn(self, learner: Any, buffer: Any, key: jax.Array) -> Any:
        """UPDATES updates, each on a batch of windows."""

        def update(learner: Any, key: jax.Array) -> Any:
            params, target, opt_state = learner
            batch = jax.tree.map(lambda x: jnp.swapaxes(x[:, 0], 0, 1), self._buffer.sample(buffer, key).experience)
            grads = jax.grad(self._loss)(params, target, batch)
            changes, opt_state = self._optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, changes), target, opt_state), None

        return jax.lax.scan(update, learner, jax.random.split(key, UPDATES))[0]

    def _loss(self, params: Any, target: Any, batch: dict[str, Any]) -> jax.Array:
        """Mean squared error of double Q-learning over windows, fields [T, B, ...]."""
        chosen = lambda q, action: jnp.take_along_axis(q, action[..., None], axis=-1).squeeze(-1)  # noqa: E731
        x, action, state = self._stack(batch["obs"]), self._stack(batch["action"]), batch["obs"]["__all__"]
        hidden = jnp.zeros((self._env.num_agents, BATCH, self._hidden))
        q, next_q = (self._unroll(p["agent"], hidden, x, batch["first"])[1] for p in (params, target))
        greedy = jnp.argmax(q - 1e10 * (1 - self._stack(batch["avail"])), axis=-1)
        next_tot = self._mixer.apply({"params": target["mixer"]}, chosen(next_q, greedy), state)
        reward = smax.Config().reward_scale * batch["reward"][:-1]
        goal = reward + (1 - batch["first"][1:]) * self._h.gamma * next_tot[1:]
        q_tot = self._mixer.apply({"params": params["mixer"]}, chosen(q, action), state)[:-1]
        return jnp.mean(jnp.square(q_tot - jax.lax.stop_gradient(goal)))

    def _unroll(self, params: Any, hidden: jax.Array, x: jax.Array, first: jax.Array) -> Any:
        """Every agent with the same parameters: (hidden [N, B, H], q [N, T, B, A])."""
        return jax.vmap(self._agent.apply, in_axes=(None, 0, 0, None))({"params": params}, hidden, x, first)

    def _stack(self, by_agent: dict[str, jax.Array]) -> jax.Array:
        return jnp.stack([by_agent[agent] for agent in self._env.agents])

    def _play(self, params: Any) -> dict[str, jax.Array]:
        """One greedy episode in each environment of the tests, the same ones every time."""
        reset_key, scan_key = jax.random.split(jax.random.key(0))
        obs, game = self._tests.batch_reset(reset_key)
        hidden = jnp.zeros((self._env.num_agents, TEST_EPISODES, self._hidden))
        carry, keys = (hidden, obs, jnp.ones(TEST_EPISODES, bool), game), jax.random.split(scan_key, self._limit)
        _, (_, ended) = jax.lax.scan(partial(self._step, self._tests, params, jnp.float32(0)), carry, keys)
        at = jnp.argmax(ended["ended"], axis=0)  # when the first episode ended
        won, length = (jnp.take_along_axis(ended[name], at[None], axis=0).mean() for name in ("won", "length"))
        return {"win_rate": won, "length": length}


if __name__ == "__main__":
    main()

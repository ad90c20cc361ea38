"""Episodes of teams in which every agent plays a policy of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import Progress

from jaxshare.collection.policies import Acted, random_actor
from jaxshare.data import records
from jaxshare.data.composition import Composition
from jaxshare.data.own import Writer
from jaxshare.data.records import Dataset
from jaxshare.run.build import make_algorithm
from jaxshare.run.saved import SavedRun
from jaxshare.settings.records import Settings
from jaxshare.training import rollout
from jaxshare.training.counting import start_clock
from jaxshare.training.rollout import Players
from jaxshare.trees import Carry, Params
from jaxshare.types import Algorithm, Array, Context, EnvSpec, Episode, TimeStep

Player = Callable[[Params, np.ndarray, Array], Episode]

EPSILONS = ("epsilon_start", "epsilon_end")  # of policies that explore by it
TRAINED = 2**30  # environment steps after which exploration has come to its end


@dataclass(frozen=True)
class Schedule:
    """Who plays in which episode."""

    level: np.ndarray  # [E, N]: index into LEVELS
    policy: np.ndarray  # [E, N]: index into the policies; behind the last one, at random
    component: np.ndarray  # [E]: of the composition


def schedule(
    composition: Composition, members: dict[int, np.ndarray], episodes: int, seed: int
) -> Schedule:
    """The episodes of a composition, in an order that mixes its components.

    members: policies of each level; every agent of every episode draws one anew.
    """
    draw = np.random.default_rng(seed)
    counts = composition.counts(episodes)
    component = draw.permutation(np.repeat(np.arange(len(counts)), counts))
    levels = np.array([part.levels for part in composition.components])
    level = levels[component]
    policy = np.vectorize(lambda i: draw.choice(members[i]))(level)
    return Schedule(level, policy, component)


def play(
    player: Player, params: Params, schedule: Schedule, batch: int, seed: int
) -> Iterator[Dataset]:
    """Play the episodes of a schedule, `batch` at a time, and label them.

    player, params: of `make_player` and `Policies`.
    """
    episodes = len(schedule.component)
    params = jax.device_put(params)
    for begin in range(0, episodes, batch):
        # the last batch is filled up with the first episodes, which are left out again
        rows = np.arange(begin, begin + batch) % episodes
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), begin), batch)
        policy = schedule.policy[rows]
        labels: dict[str, Any] = {
            "level": schedule.level[rows],
            "policy": policy,
            "component": schedule.component[rows],
        }
        dataset = records.from_rollout(player(params, policy, keys), **labels)
        yield dataset.take(slice(0, min(batch, episodes - begin)))


def record(batches: Iterator[Dataset], total: int, writer: Writer, bar: Progress) -> None:
    """Write episodes as they are played.

    total: how many there are, for the bar on which that can be followed.
    """
    task = bar.add_task("playing episodes", total=total)
    for batch in batches:
        writer.append(batch)
        bar.update(task, advance=len(batch))


def make_player(run: SavedRun, epsilon: float) -> Player:
    """(params [P, N, ...], policy [B, N], keys [B]) -> Episode [T(+1), B, ...].

    Each episode has a team of its own. Policy P has no parameters, and acts uniformly at random.
    epsilon: the share of random actions of policies that explore by it; 0: all are greedy.
    """
    # explore by this share from now on, whatever training has come to
    env = run.program.env
    agents = env.spec.num_agents
    twin = _personal_twin(run.settings, env.spec)
    hparams = {name: jnp.float32(value) for name, value in twin.hparams.items()}
    hparams |= {name: jnp.float32(epsilon) for name in EPSILONS if name in hparams}
    ctx = Context(hparams=hparams, clock=start_clock(), env_steps=jnp.int32(TRAINED))
    at_random = random_actor(env.spec.action)

    def play_episode(params: Params, policy: Array, key: Array) -> Episode:
        # the parameters of each agent's policy, leaves [N, ...]
        count = jax.tree.leaves(params)[0].shape[0]
        index = jnp.minimum(policy, count - 1)
        team = jax.tree.map(lambda x: x[index, jnp.arange(agents)], params)

        def act(
            params: Params,
            carry: Carry,
            timestep: TimeStep,
            ctx: Context,
            key: Array,
            explore: bool,
        ) -> Acted:
            carry, action, extras = twin.act(params, carry, timestep, ctx, key, explore)
            random_key = jax.random.fold_in(key, 1)
            _, uniform, _ = at_random(params, (), timestep, ctx, random_key, explore)
            without = (policy == count).reshape(1, agents, *(1,) * (action.ndim - 2))
            return carry, jnp.where(without, uniform, action), extras

        # play an episode
        mixed = replace(twin, act=act)
        played = rollout.episodes(Players(env, mixed, team, ctx, epsilon > 0), key, 1)
        return played.episode

    def play_batch(params: Params, policy: Array, keys: Array) -> Episode:
        episode = jax.vmap(play_episode, in_axes=(None, 0, 0))(params, policy, keys)  # [B, T, 1, …]
        steps_first = jax.tree.map(lambda x: jnp.moveaxis(x[:, :, 0], 0, 1), episode)
        return replace(steps_first, extras={})

    return jax.jit(play_batch)


def _personal_twin(settings: Settings, spec: EnvSpec) -> Algorithm:
    """The run's algorithm with parameters of its own for every agent.

    A critic that listens to the acting is left out: nothing is learned here.
    """
    changes: dict[str, Any] = {"share_params": "none"}
    if hasattr(settings.algo, "critic_recurrent"):
        changes["critic_recurrent"] = False
    changed = replace(settings, algo=replace(settings.algo, **changes))
    return make_algorithm(changed, spec)

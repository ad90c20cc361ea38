"""python -m jaxshare.collect: a data set of teams whose agents play at different levels, from a run's checkpoints.

Tian et al. 2023 (SIT), appendix C.2: checkpoints of one run are cut by their return into pools (random, medium,
expert); for every episode each agent draws one checkpoint from the pool that the composition gives it, and plays its
own individual policy of it. ours: the draw is made anew for every episode, and policies explore a little (`epsilon`),
which the paper leaves open.
"""

from __future__ import annotations

import pathlib
import shlex
import sys
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from jaxshare import cli, registry
from jaxshare.run import output
from jaxshare.settings.fields import COUNT, UNITS, static
from jaxshare.settings.validate import check_record
from jaxshare.trust import Permission, run_settings
from jaxshare.types import Discrete, RefusedError

if TYPE_CHECKING:
    import numpy as np

    from jaxshare.config import Settings
    from jaxshare.data.composition import Composition, Pools
    from jaxshare.runner import Program

LISTS = ("low", "medium", "extreme", "balanced_random", "balanced_medium", "balanced_expert")  # names of presets
EPSILONS = ("epsilon_start", "epsilon_end")  # of policies that explore by it
ACTING = ("agent", "actor", "behaviour")  # names of the networks that teams act by


@dataclass(frozen=True)
class Config:
    """What to collect."""

    run_dir: str = ""  # a run whose checkpoints are the policies: checkpoint.keep=1000 checkpoint.every=… replay=false
    out: str = ""  # the data set to write, as in sets/2s3z_low.jds
    composition: str = "low"  # levels of the agents, as in "rrr + rrm", or the paper's: low, medium, extreme, …
    episodes: int = static(10_000, least=1, most=COUNT)  # paper: SIT appendix C.2
    batch: int = static(64, least=1, most=UNITS)  # episodes played at a time
    # share of random actions (ours: as after training); 0: greedy. Actors draw from themselves
    epsilon: float = static(0.05, least=0, most=1)
    pool_episodes: int = static(64, least=1, most=COUNT)  # to measure the return of each checkpoint
    rule: str | None = None  # 30/40/30 | thirds; null: the paper's for this environment
    seed: int = static(0, least=0, most=COUNT)
    dtype: str = "float16"  # of observations and states on disk
    overwrite: bool = False  # replace a data set of the same name
    progress: bool = True
    trust: bool = False  # run the code that config.yaml names from outside jaxshare
    # or name it again: dotted paths and files of what it has from outside jaxshare
    plugins: list[str] = field(default_factory=list)


HELP = """\
usage: python -m jaxshare.collect run_dir=RUN out=SET.jds [key=value ...]

Roll out teams whose agents play at different levels (r random, m medium, e expert) and write their episodes as a data
set, with a card and a picture of what is in it. The levels are checkpoints of one run, cut by their return, so train
with checkpoints kept:
  python -m jaxshare.train algo=qmix env=smax env.scenario=2s3z checkpoint.every=20000 checkpoint.keep=1000 \\
      checkpoint.replay=false run_dir=runs/2s3z
  python -m jaxshare.collect run_dir=runs/2s3z out=sets/2s3z_low.jds "composition='rrrrr + rmrmm'" episodes=2000

settings and their defaults
{settings}
"""


@dataclass(frozen=True)
class Policies:
    """Checkpoints as policies, with their returns."""

    params: dict[str, Any]  # of the acting networks, by name; leaves [P, N, ...]: every agent's own part
    returns: np.ndarray  # [P + 1]; the last one's is that of uniformly random actions
    names: list[str]  # which checkpoint of which run


def main() -> None:
    """Entry point."""
    cli.run_command(lambda: _main(sys.argv[1:]))


def _main(arguments: list[str]) -> None:
    if any(a in ("-h", "--help") for a in arguments):
        print(cli.small_help(HELP, Config))
        return
    collect(cli.small_config(Config, arguments))


def collect(config: Config) -> pathlib.Path:
    """Measure the checkpoints, roll out the composition, write the data set: its path. Raises RefusedError."""
    for key in ("run_dir", "out"):
        if not getattr(config, key):
            raise RefusedError(f"{key} is missing: python -m jaxshare.collect run_dir=RUN out=SET.jds.")
    check_record(config)
    _check_out(config)
    from jaxshare.session import prepare

    permission = Permission(config.trust, takes_env=False, plugins=config.plugins)
    settings = run_settings(pathlib.Path(config.run_dir), permission, _check_in_jax)
    program = prepare(settings)
    with closing(program):
        return _collect(config, settings, program)


def _check_in_jax(settings: Settings) -> None:
    if getattr(registry.get("env", settings.env_name), "HOST", False):
        raise RefusedError(f"env={settings.env_name} is on the host: data sets are collected in JAX environments only.")


def _check_out(config: Config) -> None:
    """Raise RefusedError for what the writer would refuse once the checkpoints are measured, which takes long."""
    from jaxshare.data import own
    from jaxshare.replay import DTYPES

    registry.one_of("dtype", config.dtype, DTYPES)
    out = pathlib.Path(config.out)
    if out.suffix != own.SUFFIX:
        raise RefusedError(f"out={out}: the name of a data set ends with {own.SUFFIX}, as in {out.name}{own.SUFFIX}.")
    for there in (out, out.with_name(out.name + own.UNFINISHED)):
        if there.exists() and not config.overwrite:
            state = "exists" if there == out else "was left unfinished"
            raise RefusedError(f"out={there} {state}. Choose another name, remove it, or say overwrite=true.")
    output.check_writable(out, "out", folder=True)


def _collect(config: Config, settings: Settings, program: Program) -> pathlib.Path:
    from jaxshare.data import composition as composing
    from jaxshare.data import own
    from jaxshare.data.card import card_of
    from jaxshare.terminal import open_console

    console, spec = open_console(), program.env.spec
    text = config.composition
    note: dict[str, Any] = {}
    if text in LISTS:
        environment, _, scenario = spec.name.partition("/")
        found = composing.preset(environment, scenario, text)
        note = {"preset": text, "confidence": found.confidence, "paper_average": found.average, "note": found.note}
        text = found.composition
    composition = composing.parse(text, spec.num_agents)
    low = _random_return(config, program)
    policies = _policies(config, settings, program, console, low)
    pools = composing.thresholds(
        low, float(policies.returns.max()), config.rule or composing.rule_of(settings.env_name)
    )
    members = _members(composition, pools, policies)
    console.print(_pool_table(pools, policies, members))
    about = {"low": pools.low, "high": pools.high, "cuts": list(pools.cuts), "returns": policies.returns.tolist()}
    card = card_of(
        spec, str(composition), run_dir=config.run_dir, algorithm=settings.algo_name, epsilon=config.epsilon,
        pools={**about, "policies": policies.names}, seed=config.seed, **note,
    )  # fmt: skip
    with own.Writer(config.out, card, config.dtype, spec, overwrite=config.overwrite) as writer:
        _roll_out(config, settings, program, policies, members, composition, writer, console)
    stored = own.open(config.out)
    picture = draw(stored.card, stored.path)
    _tell(config, stored, pools, console)
    console.print(
        f"written: {stored.path}\npicture: {picture}\n"
        f"learn:   python -m jaxshare.train algo=icq env={settings.env_name} {shlex.quote(f'data={stored.path}')} …"
    )
    return pathlib.Path(stored.path)


def _tell(config: Config, stored: Any, pools: Pools, console: Any) -> None:
    """How good the data set is, and whether it should be for the paper's set of that name."""
    from jaxshare.data import composition as composing

    mean, name = float(stored.card["returns"]["mean"]), config.composition
    quality = pools.quality(mean)
    console.print(f"{len(stored):,} episodes, mean return {mean:.2f} (quality {quality:.2f} of 0 random … 1 best)")
    if name in composing.WINDOWS and not composing.within(name, quality):
        low, high = composing.WINDOWS[name]
        console.print(
            f"note: the paper's {name} sets have a quality of {low} to {high}; with another number of "
            "random agents this one would."
        )


# ------------------------------------------------------------------------------------------------------------ policies


def _policies(config: Config, settings: Settings, program: Program, console: Any, low: float) -> Policies:
    """Every checkpoint of every run with its greedy return, and behind them uniformly random actions, with theirs."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from rich.progress import track

    from jaxshare.checkpoint import Checkpoints, DamagedError, GoneError, to_stderr
    from jaxshare.results import run_name

    checkpoints = Checkpoints(pathlib.Path(config.run_dir), read_only=True, spec=program.env.spec)
    steps = checkpoints.steps()
    if not steps:
        raise RefusedError(f"run_dir={config.run_dir} has no checkpoint. Train it first.")
    shapes = jax.eval_shape(program.init, jnp.int32(0)).replace(replay=None)
    hparams = {name: jnp.float32(value) for name, value in program.algorithm.hparams.items()}
    play = jax.jit(lambda s, c: program.returns(program.play(s, hparams, c, config.pool_episodes).episode).mean())
    kept, returns, names = [], [], []
    hidden = not (config.progress and console.is_terminal)
    for step in track(steps, "measuring checkpoints", console=console, disable=hidden):
        try:
            clock, states = checkpoints.restore(step, shapes, len(settings.runs()), with_replay=False)
        except (DamagedError, GoneError) as error:
            to_stderr(f"checkpoint {step} is left out of the pools: {error}")
            continue
        for label, state in zip(settings.labels(), states, strict=True):
            own = {name: x for name, x in state.learner.params.items() if name in ACTING}
            kept.append(_personal(own, settings, program))
            returns.append(float(play(state, clock)))
            when = f"{int(state.updates)} updates" if program.offline else f"{int(state.env_steps)} steps"
            names.append(f"{run_name(label)}, {when}")
    checkpoints.close()
    if not kept:
        raise RefusedError(
            f"run_dir={config.run_dir}: none of its checkpoints can be read. Restore one from a copy, or train anew."
        )
    params = jax.tree.map(lambda *x: np.stack(x), *kept)
    return Policies(params, np.array([*returns, low]), [*names, "uniformly random actions"])


def _personal(params: Any, settings: Settings, program: Program) -> Any:
    """Every agent's part of the acting networks' parameters, leaves [N, ...], however they were shared."""
    import jax
    import numpy as np

    from jaxshare.models.base import sharing_groups

    groups = sharing_groups(settings.algo.share_params, program.env.spec.groups)
    if max(groups) == 0:
        return jax.tree.map(lambda x: np.broadcast_to(x[None], (len(groups), *x.shape)), params)
    return jax.tree.map(lambda x: np.asarray(x)[np.array(groups)], params)


def _random_return(config: Config, program: Program) -> float:
    """Mean return of uniformly random available actions."""
    import jax

    from jaxshare import rollout
    from jaxshare.runner import start_clock
    from jaxshare.types import Context

    act = partial(_random, program.env.spec.action)
    algorithm = replace(program.algorithm, initial_carry=lambda batch: (), act=act)
    ctx = Context(hparams={}, clock=start_clock(), env_steps=start_clock().updates)

    def play(key: Any) -> Any:
        episode = rollout.episodes(program.env, algorithm, {}, ctx, key, config.pool_episodes, explore=True).episode
        return program.returns(episode).mean()

    return float(jax.jit(play)(jax.random.key(config.seed)))


def _random(box: Any, params: Any, carry: Any, timestep: Any, ctx: Any, key: Any, explore: bool) -> Any:
    """Acts uniformly at random: any available action [B, N], or any point of the box [B, N, U]."""
    import jax
    import jax.numpy as jnp

    if isinstance(box, Discrete):
        return carry, jax.random.categorical(key, jnp.where(timestep.avail, 0.0, -jnp.inf), axis=-1), {}
    low, high = (jnp.broadcast_to(jnp.array(x), (*timestep.alive.shape, box.dim)) for x in (box.low, box.high))
    return carry, jax.random.uniform(key, low.shape, minval=low, maxval=high), {}


def _members(composition: Composition, pools: Pools, policies: Policies) -> dict[int, np.ndarray]:
    """Policies of each level that the composition needs. Raises RefusedError if there are none of one.

    paper: the random pool begins at the return of random play (tables 4-6), so what is worse belongs to none.
    """
    import numpy as np

    from jaxshare.data.records import LEVELS

    level = np.where(policies.returns < pools.low, -1, pools.level(policies.returns))
    members = {}
    for needed in sorted({i for component in composition.components for i in component.levels}):
        members[needed] = np.flatnonzero(level == needed)
        if not len(members[needed]):
            shown = ", ".join(f"{value:.2f}" for value in sorted(policies.returns))
            raise RefusedError(
                f"composition={composition} needs {LEVELS[needed]} policies, and no checkpoint is one: the cuts are "
                f"{pools.cuts[0]:.2f} and {pools.cuts[1]:.2f}, the checkpoints return {shown}. Train with a smaller "
                "checkpoint.every and checkpoint.keep=1000, or train longer."
            )
    return members


def _pool_table(pools: Pools, policies: Policies, members: dict[int, np.ndarray]) -> Any:
    from rich.table import Table

    from jaxshare.data.records import LEVELS

    title = f"random play returns {pools.low:.2f}, the best of {len(policies.returns) - 1} checkpoints {pools.high:.2f}"
    table = Table("level", "returns", "policies", "their mean", title=title)
    for number, index in members.items():
        bounds = (f"{pools.low:.2f} to {pools.cuts[0]:.2f}", f"to {pools.cuts[1]:.2f}", f"from {pools.cuts[1]:.2f}")
        mean = f"{policies.returns[index].mean():.2f}"
        table.add_row(LEVELS[number], bounds[number], str(len(index)), mean)
    return table


# ------------------------------------------------------------------------------------------------------------- rollouts


def _roll_out(
    config: Config, settings: Settings, program: Program, policies: Policies, members: dict[int, np.ndarray],
    composition: Composition, writer: Any, console: Any,
) -> None:  # fmt: skip
    """Play all episodes, in an order that mixes the components, and write them."""
    import jax
    import numpy as np
    from rich.progress import Progress

    from jaxshare.data import records

    draw = np.random.default_rng(config.seed)
    counts = composition.counts(config.episodes)
    component = draw.permutation(np.repeat(np.arange(len(counts)), counts))
    levels = np.array([c.levels for c in composition.components])
    level = levels[component]  # [E, N]
    policy = np.vectorize(lambda i: draw.choice(members[i]))(level)  # [E, N]
    play, params = _player(config, settings, program), jax.device_put(policies.params)
    with Progress(console=console, disable=not (config.progress and console.is_terminal)) as bar:
        task = bar.add_task("playing episodes", total=config.episodes)
        for begin in range(0, config.episodes, config.batch):
            rows = np.arange(begin, begin + config.batch) % config.episodes  # the last batch is filled up
            keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), begin), config.batch)
            labels = {"level": level[rows], "policy": policy[rows], "component": component[rows]}
            dataset = records.from_rollout(play(params, policy[rows], keys), **labels)
            dataset.card["common_reward"] = program.env.spec.common_reward
            real = min(config.batch, config.episodes - begin)
            writer.append(dataset.take(slice(0, real)))
            bar.update(task, advance=real)


def _player(config: Config, settings: Settings, program: Program) -> Any:
    """(params [P, N, ...], policy [B, N], keys [B]) -> Episode [T(+1), B, ...]: each episode with a team of its own.

    Policy P has no parameters, and acts uniformly at random.
    """
    import jax
    import jax.numpy as jnp

    from jaxshare import rollout
    from jaxshare.runner import start_clock
    from jaxshare.session import make_algorithm
    from jaxshare.types import Context

    # the run's algorithm with parameters of its own for every agent, and without a critic that listens to the acting
    changes: dict[str, Any] = {"share_params": "none"}
    if hasattr(settings.algo, "critic_recurrent"):
        changes["critic_recurrent"] = False
    twin = make_algorithm(replace(settings, algo=replace(settings.algo, **changes)), program.env.spec)
    agents = program.env.spec.num_agents
    hparams = {name: jnp.float32(value) for name, value in twin.hparams.items()}
    hparams |= {name: jnp.float32(config.epsilon) for name in EPSILONS if name in hparams}
    ctx = Context(hparams=hparams, clock=start_clock(), env_steps=jnp.int32(2**30))

    at_random = partial(_random, program.env.spec.action)

    def one(params: Any, policy: Any, key: Any) -> Any:
        count = jax.tree.leaves(params)[0].shape[0]
        team = jax.tree.map(lambda x: x[jnp.minimum(policy, count - 1), jnp.arange(agents)], params)

        def act(params: Any, carry: Any, timestep: Any, ctx: Any, key: Any, explore: bool) -> Any:
            carry, action, extras = twin.act(params, carry, timestep, ctx, key, explore)
            _, uniform, _ = at_random(params, (), timestep, ctx, jax.random.fold_in(key, 1), explore)
            without = (policy == count).reshape(1, agents, *(1,) * (action.ndim - 2))
            return carry, jnp.where(without, uniform, action), extras

        mixed = replace(twin, act=act)
        return rollout.episodes(program.env, mixed, team, ctx, key, 1, explore=config.epsilon > 0).episode

    def play(params: Any, policy: Any, keys: Any) -> Any:
        episode = jax.vmap(one, in_axes=(None, 0, 0))(params, policy, keys)  # [B, T, 1, ...]
        return jax.tree.map(lambda x: jnp.moveaxis(x[:, :, 0], 0, 1), episode).replace(extras={})

    return jax.jit(play)


# ------------------------------------------------------------------------------------------------------------- picture


def draw(card: dict[str, Any], path: pathlib.Path) -> pathlib.Path:
    """Histograms of the returns, for each agent by the level at which it played, as a PNG beside the data set."""
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot as plt

    histogram, agents = card["histogram"], card["histogram"]["agents"]
    edges = np.array(histogram["edges"])
    columns = min(len(agents), 5)
    rows = -(-len(agents) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.6 * columns, 2.3 * rows + 0.6), sharex=True, sharey=True, squeeze=False
    )
    colours = {"random": "tab:red", "medium": "tab:orange", "expert": "tab:green", "unknown": "tab:gray"}
    for agent, axis in enumerate(axes.flat):
        if agent >= len(agents):
            axis.set_visible(False)
            continue
        below = np.zeros(len(edges) - 1)
        for level, counts in agents[agent].items():
            axis.bar(edges[:-1], counts, np.diff(edges), below, align="edge", color=colours[level], label=level)
            below += counts
        axis.set_title(f"agent {agent} ({card['agent_types'][agent]})", fontsize=9)
        axis.set_xlabel("team return", fontsize=8)
        axis.legend(fontsize=7)
    axes[0, 0].set_ylabel("episodes", fontsize=8)
    name = "/".join(part for part in (card["environment"], card["scenario"]) if part)
    figure.suptitle(f"{name}: {card['composition']}, {card['episodes']} episodes", fontsize=10)
    figure.tight_layout()
    out = path.with_suffix(".png")
    figure.savefig(out, dpi=120)
    plt.close(figure)
    return out


if __name__ == "__main__":
    main()

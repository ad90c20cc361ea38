"""python -m jaxshare.decompose: does a run of SIT know which agents played well? Numbers, a table and a picture.

Tian et al. 2023 (SIT, arXiv 2211.15612), Figure 3 and appendix E.4: each agent's decomposed reward over the first
stage, and how the priorities of its trajectories are spread. The paper compares curves by eye. ours: every trajectory
of a data set that `jaxshare.collect` made has the level of the policy that played it, so that the order can be counted:
how often a trajectory of a better policy has the larger reward, or priority, than one of a random policy (AUROC).
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import pathlib
import sys
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from jaxshare import cli
from jaxshare.run import output
from jaxshare.trust import Permission, run_settings
from jaxshare.types import RefusedError

if TYPE_CHECKING:
    import numpy as np

    from jaxshare.config import Settings
    from jaxshare.data.records import Dataset
    from jaxshare.runner import Program
    from jaxshare.types import EnvSpec

NAME = "decomposition"
REWARDS = "sit/reward_agent_"  # and the number of the agent: what the first stage logs
COLOURS = {"random": "tab:red", "medium": "tab:orange", "expert": "tab:green", "unknown": "tab:gray"}
COLUMNS = ("pairs", "reward\npairs", "reward\nall", "prio.\npairs", "prio.\nall", "drawn", "in set", "ESS")
BINS = 40
LEAST = 0.01  # share of the first stage in a logged mean below which the mean says nothing about it


@dataclass(frozen=True)
class Config:
    """What to look at."""

    run_dir: str = ""  # a run of algo=sit, finished or not
    data: str = ""  # a data set of the same environment; empty: the one that the run learns from
    out: str = ""  # without suffix: a .json and a .png; empty: RUN/decomposition
    trust: bool = False  # run the code that config.yaml names: environments, interpreters and games that are not ours
    env: dict[str, Any] = field(default_factory=dict)  # or name it again, as in env.id=mymodule:Env
    # dotted paths and files of what it has from outside jaxshare, as plugins=[my_pkg.my_algo]
    plugins: list[str] = field(default_factory=list)


HELP = """\
usage: python -m jaxshare.decompose run_dir=RUN [key=value ...]

What the reward ensemble in a run's newest checkpoint says of every (episode, agent) of a data set, against the levels
(random, medium, expert) of the policies that played there. Writes RUN/decomposition.json and .png, and prints a table:
  pairs           pairs of agents of one type in one episode, one of them at random and the other better
  reward, pairs   the AUROC of mean rewards over these pairs: 1 always in order, 0.5 chance, 0 always the wrong way
  reward, all     the same over all trajectories of the type
  prio.           the same two of the priorities that stage II makes of the rewards
  drawn, in set   the share of better policies in what stage III draws, and in the data set
  ESS             the effective number of trajectories that stage III draws from
The picture: (a) decomposed rewards over stage I, (b) priorities of each agent and (c) of each type, by level.
  python -m jaxshare.train algo=sit env=smax env.scenario=2s3z data=sets/2s3z_low.jds seeds=3 run_dir=runs/sit
  python -m jaxshare.decompose run_dir=runs/sit

settings and their defaults
{settings}
"""


def main() -> None:
    """Entry point."""
    cli.run_command(lambda: _main(sys.argv[1:]))


def _main(arguments: list[str]) -> None:
    if any(a in ("-h", "--help") for a in arguments):
        print(cli.small_help(HELP, Config))
        return
    decompose(cli.small_config(Config, arguments))


def decompose(config: Config) -> dict[str, Any]:
    """Judge, print the table, write the JSON and the picture: the dict that was written. Raises RefusedError."""
    if not config.run_dir:
        raise RefusedError("run_dir is missing: name a run of algo=sit, as in run_dir=runs/sit.")
    from jaxshare.session import prepare

    permission = Permission(config.trust, config.env, plugins=config.plugins)
    settings = run_settings(pathlib.Path(config.run_dir), permission, partial(_check_decomposes, config))
    path = pathlib.Path(config.data or settings.run.data)
    if not path.exists():
        why = "" if config.data else ", from which the run learned, is there no more: it"
        raise RefusedError(f"data={path}{why} does not exist. Name the data set, as in data=sets/2s3z_low.jds.")
    program = prepare(settings)
    with closing(program):
        return _decompose(config, settings, program, path)


def _check_decomposes(config: Config, settings: Settings) -> None:
    if settings.algo_name != "sit":
        raise RefusedError(
            f"run_dir={config.run_dir} is a run of algo={settings.algo_name}, which decomposes no rewards. Name a run "
            "of algo=sit."
        )


def _decompose(config: Config, settings: Settings, program: Program, path: pathlib.Path) -> dict[str, Any]:
    from jaxshare import results
    from jaxshare.data import open_like
    from jaxshare.data.checks import check_spec
    from jaxshare.loggers import METRICS
    from jaxshare.terminal import open_console

    run_dir, spec = pathlib.Path(config.run_dir), program.env.spec
    out = _out(config)
    records = results.load(run_dir) if (run_dir / METRICS).exists() else []
    step, clock, states = _restore(run_dir, settings, program)
    dataset = open_like(path, dataclasses.asdict(settings.run.dataset)).read()
    check_spec(dataset, spec, f"data={path}")
    first, done = settings.algo.stage1_updates, int(clock.updates)
    found = judge(settings, program, dataset, clock, states)
    level = known_levels(dataset)
    runs = [{**label, **statistics(each, level, spec)} for label, each in zip(settings.labels(), found, strict=True)]
    result: dict[str, Any] = {
        "run_dir": str(run_dir),
        "checkpoint": step,
        "environment": spec.name,
        "data": str(path),
        "learned_from": settings.run.data,
        "composition": dataset.card.get("composition"),
        "episodes": len(dataset),
        "agent_types": [spec.group_names[group] for group in spec.groups],
        "stage1": {"updates": min(done, first), "of": first, "finished": done >= first},
        "settings": {name: getattr(settings.algo, name) for name in ("decomposition", "ensemble", "priority")},
        "runs": runs,
        "mean": _mean([{"types": run["types"]} for run in runs]),
    }
    console = open_console()
    console.print(_table(result))
    for line in remarks(result):
        console.print(line)
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    curve = curves(records, spec.num_agents, first)
    picture = draw(result, curve, [each["priority"] for each in found], level)
    for suffix, content in ((".json", text.encode()), (".png", picture)):
        path = out.with_name(f"{out.name}{suffix}")
        console.print(output.write_if_possible(path, content, "out", chosen=bool(config.out)))
    return result


def _out(config: Config) -> pathlib.Path:
    """Where to write, without suffix. Another data set's figures leave the run's own alone.

    Raises RefusedError for a place that was named and cannot be written.
    """
    name = f"{NAME}_{pathlib.Path(config.data).stem}" if config.data else NAME
    out = pathlib.Path(config.out) if config.out else pathlib.Path(config.run_dir) / name
    out = out.with_suffix("") if out.suffix in (".json", ".png") else out
    if config.out:
        output.check_writable(out.with_name(f"{out.name}.json"), "out")
    return out


def _restore(run_dir: pathlib.Path, settings: Settings, program: Program) -> tuple[int, Any, list[Any]]:
    """(iteration, clock, states of all runs) of the newest checkpoint."""
    import jax
    import jax.numpy as jnp

    from jaxshare.checkpoint import Checkpoints, Wanted

    checkpoints = Checkpoints(run_dir, read_only=True, spec=program.env.spec)
    shapes = jax.eval_shape(program.init, jnp.int32(0)).replace(replay=None)
    wanted = Wanted(shapes, len(settings.runs()))
    newest = checkpoints.newest(lambda step: checkpoints.load(step, wanted))
    checkpoints.close()
    if newest is None:
        raise RefusedError(f"run_dir={run_dir} has no checkpoint. Train it first: it has one after a few seconds.")
    step, read = newest
    return step, read.clock, read.runs


# -------------------------------------------------------------------------------------------------------------- numbers


def judge(
    settings: Settings, program: Program, dataset: Dataset, clock: Any, states: list[Any]
) -> list[dict[str, np.ndarray]]:
    """For each run: reward, uncertainty (means over steps), priority, log_weight [E, N]; alpha [N], of each agent's
    buffer."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxshare import registry
    from jaxshare.algos import _sit_reward, sit
    from jaxshare.ops.decompose import mean_over_steps

    parts = registry.get("algo", "sit").make(settings.algo, program.env.spec)
    data = jax.device_put(dataset.episodes)

    @jax.jit
    def look(params: Any, data: Any, floor: Any, ctx: Any) -> dict[str, Any]:
        found = _sit_reward.judged(parts, params, data, floor, ctx)
        mask = jnp.broadcast_to(data.mask[..., None], found["reward"].shape).astype(jnp.float32)
        over_steps = lambda x: mean_over_steps(jnp.moveaxis(x, 1, 0), jnp.moveaxis(mask, 1, 0))  # noqa: E731
        return {
            **{name: over_steps(found[name]) for name in ("reward", "uncertainty")},
            **{name: found[name] for name in ("priority", "log_weight")},
            "alpha": found["alpha"][jnp.array(parts.buffers)],
        }

    found = []
    for state, (_, point) in zip(states, settings.runs(), strict=True):
        hparams = {name: jnp.float32(x) for name, x in {**program.algorithm.hparams, **point}.items()}
        params, floor = {"reward": state.learner.params["reward"]}, state.learner.stats[sit.KEPT]["floor"]
        found.append(jax.tree.map(np.asarray, look(params, data, floor, program.context(state, hparams, clock))))
    return found


def known_levels(dataset: Dataset) -> np.ndarray:
    """Level of every (episode, agent), [E, N]; unknown for an episode without a step."""
    import numpy as np

    from jaxshare.data.records import UNKNOWN

    mask: Any = dataset.episodes.mask
    return np.where(mask.any(1, keepdims=True), dataset.level, UNKNOWN)


def statistics(found: dict[str, np.ndarray], level: np.ndarray, spec: EnvSpec) -> dict[str, Any]:
    """What a run made of the data set: {"agents": {name: [N]}, "types": {name: …}}; found: of `judge`; level [E, N]."""
    agents = {name: found[name].mean(0).tolist() for name in ("reward", "uncertainty", "priority")}
    types = {}
    for group, name in enumerate(spec.group_names):
        members = [i for i, other in enumerate(spec.groups) if other == group]
        own = {key: x[..., members] for key, x in found.items()}
        types[name] = {"agents": members, **_of_type(own, level[:, members])}
    return {"agents": agents, "types": types}


def _of_type(found: dict[str, np.ndarray], level: np.ndarray) -> dict[str, Any]:
    """The statistics of the n agents of one type: level [E, n], found the same but alpha [n]."""
    import jax
    import numpy as np

    from jaxshare.data.records import LEVELS, UNKNOWN
    from jaxshare.ops import decompose as ops

    names = {**dict(enumerate(LEVELS)), UNKNOWN: "unknown"}
    better, known, same = np.greater(level, 0), np.greater_equal(level, 0), (0,) * level.shape[1]
    graded = np.where(known, better, np.nan).astype(np.float32)  # an unknown level is in no pair
    pairs = int(np.asarray(jax.jit(ops.better_pairs, static_argnums=1)(graded, same)).sum())
    order, auroc = jax.jit(ops.pair_order, static_argnums=2), jax.jit(ops.auroc)
    missing = _missing(level, pairs)
    scores = {}
    for name in ("reward", "priority"):
        scores[f"auroc_{name}"] = {
            "pairs": None if "pairs" in missing else float(order(found[name], graded, same)),
            "all": None if "all" in missing else float(auroc(found[name][known], better[known])),
        }
    weight, drawn = found["log_weight"], None
    if known.any():
        share = float(jax.jit(ops.share_of)(weight, better, known))
        drawn = {"probability": share, "trajectories": float(better[known].mean())}
    levels = {
        names[int(number)]: {
            "trajectories": int((level == number).sum()),
            **{name: float(found[name][level == number].mean()) for name in ("reward", "priority", "uncertainty")},
        }
        for number in np.unique(level)
    }
    return {
        "pairs": pairs, **scores, "missing": missing, "levels": levels, "better": drawn,
        "ess": float(jax.jit(ops.effective_size)(weight.ravel())), "alpha": float(found["alpha"][0]),
        "trajectories": int(level.size),
    }  # fmt: skip


def _missing(level: np.ndarray, pairs: int) -> dict[str, str]:
    """Why an order cannot be counted, {"pairs" and "all", or one, or none: reason}; level [E, n] of a type."""
    known = level >= 0
    if not known.any():
        return dict.fromkeys(("pairs", "all"), "the data set does not say at which levels the agents played")
    found = {}
    if not pairs:
        found["pairs"] = (
            "no episode has two agents of the type"
            if level.shape[1] == 1
            else "in no episode one agent of the type played at random and another better"
        )
    if not (level > 0).any():
        found["all"] = "all agents of the type played at random"
    elif not (level == 0).any():
        found["all"] = "no agent of the type played at random"
    return found


def _mean(found: list[Any]) -> Any:
    """The mean over runs of every number in equal trees; what is no number is equal in all, or null in one of them."""
    first = found[0]
    if isinstance(first, dict):
        return {key: _mean([each[key] for each in found]) for key in first}
    if all(each == first for each in found) or None in found:
        return None if None in found else first
    return sum(found) / len(found)


def curves(records: list[dict[str, Any]], agents: int, first: int) -> dict[str, tuple[list[float], np.ndarray]]:
    """{run: (updates [P], decomposed rewards [P, N])} over the first stage, from what a run has logged.

    A logged mean over updates of both stages counts 0 for those of the other one: it is divided by the share of the
    first, which the mean of the stages' numbers (1 and 3) tells.
    """
    import numpy as np

    from jaxshare.results import run_name

    found: dict[str, tuple[list[float], list[list[float]]]] = {}
    for record in records:
        share = (3.0 - record.get("sit/stage", 3.0)) / 2.0
        if share < LEAST or f"{REWARDS}{agents - 1}" not in record:
            continue
        updates, values = found.setdefault(run_name(record), ([], []))
        updates.append(min(record["updates"], first))
        values.append([record[f"{REWARDS}{i}"] / share for i in range(agents)])
    return {name: (updates, np.array(values)) for name, (updates, values) in found.items()}


# ---------------------------------------------------------------------------------------------------------------- table


def _table(result: dict[str, Any]) -> Any:
    from rich.box import SIMPLE
    from rich.table import Table

    from jaxshare.results import run_name

    title = f"{result['environment']}: {result['composition'] or 'levels not known'}, {result['episodes']} episodes"
    table = Table(title=f"{title}\nAUROC of better against random trajectories", box=SIMPLE, collapse_padding=True)
    for name in ("run", "type"):
        table.add_column(name, no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for run in result["runs"]:
        for name, own in run["types"].items():
            table.add_row(run_name(run), name, *_row(own))
    if len(result["runs"]) > 1:
        table.add_section()
        for name, own in result["mean"]["types"].items():
            table.add_row("mean", name, *_row(own))
    return table


def _row(own: dict[str, Any]) -> list[str]:
    shown = lambda x: "–" if x is None else f"{x:.3f}"  # noqa: E731
    reward, priority, drawn = own["auroc_reward"], own["auroc_priority"], own["better"]
    return [
        f"{own['pairs']:,}",
        *(shown(x) for x in (reward["pairs"], reward["all"], priority["pairs"], priority["all"])),
        *(f"{drawn[name]:.3f}" if drawn else "–" for name in ("probability", "trajectories")),
        f"{own['ess']:,.0f}",
    ]


def remarks(result: dict[str, Any]) -> list[str]:
    """What a reader of the table must know: a first stage that is not finished, and why numbers are missing."""
    stage, lines = result["stage1"], []
    if not stage["finished"]:
        lines.append(
            f"stage I is not finished: update {stage['updates']:,} of {stage['of']:,}. These are the priorities that "
            "would be made now."
        )
    names = {"pairs": "pairs", "all": "all trajectories"}
    for name, own in result["runs"][0]["types"].items():
        lines += [f"{name}, {names[what]}: {reason}." for what, reason in own["missing"].items()]
    if result["settings"]["decomposition"] == "none":
        lines.append("algo.decomposition=none: every agent has the whole team reward, and all orders are chance.")
    return lines


# -------------------------------------------------------------------------------------------------------------- picture


def draw(result: dict[str, Any], curves: dict[str, Any], priority: list[np.ndarray], level: np.ndarray) -> bytes:
    """Three panels as a PNG: rewards over stage I; priorities of each agent, and of each type, by level.

    curves: of the function of that name; priority [E, N] of each run; level [E, N].
    """
    import numpy as np
    from matplotlib.figure import Figure

    types, stage = result["agent_types"], result["stage1"]
    labels = [f"{i} {name}" for i, name in enumerate(types)]
    both, levels = np.concatenate(priority), np.tile(level, (len(priority), 1))
    figure = Figure(figsize=(15.5, max(4.2, 0.42 * len(types) + 1.2)), layout="constrained")
    rewards, agents, by_type = figure.subplots(1, 3, width_ratios=(1.15, 1, 1))
    _draw_rewards(rewards, curves, labels)
    if not stage["finished"]:
        rewards.set_title(f"{rewards.get_title()} (now at {stage['updates']:,} of {stage['of']:,})", fontsize=10)
    agents.set_title("(b) priorities of each agent's trajectories", fontsize=10)
    _ridges(agents, labels, [(both[:, i], levels[:, i]) for i in range(len(types))], each=False)
    by_type.set_title("(c) priorities of each type, every level by itself", fontsize=10)
    kinds = list(dict.fromkeys(types))
    own = [[i for i, name in enumerate(types) if name == kind] for kind in kinds]
    _ridges(by_type, kinds, [(both[:, i].ravel(), levels[:, i].ravel()) for i in own], each=True)
    what = f"{result['environment']}, {result['composition'] or 'levels not known'}"
    count = f"{len(priority)} run{'s' * (len(priority) > 1)}"
    figure.suptitle(f"{what}: decomposition={result['settings']['decomposition']}, {count}", fontsize=11)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    return picture.getvalue()


def _draw_rewards(axis: Any, curves: dict[str, Any], labels: list[str]) -> None:
    """The mean over runs of each agent's decomposed reward, with a band of one standard deviation."""
    import matplotlib
    import numpy as np
    from matplotlib import ticker

    axis.set_title("(a) decomposed rewards in stage I", fontsize=10)
    axis.set_xlabel("updates")
    axis.set_ylabel("mean reward of a step")
    axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    if not curves:
        axis.text(0.5, 0.5, "nothing was logged", ha="center", va="center", transform=axis.transAxes)
        return
    grid = np.array(min((updates for updates, _ in curves.values()), key=lambda updates: updates[-1]), float)
    along = np.array(
        [[np.interp(grid, updates, values[:, i]) for i in range(len(labels))] for updates, values in curves.values()]
    )  # fmt: skip  [R, N, P]
    colours = matplotlib.colormaps["tab10" if len(labels) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    for i, label in enumerate(labels):
        mean, spread = along[:, i].mean(0), along[:, i].std(0)
        axis.plot(grid, mean, color=colours[i % len(colours)], label=label, marker="." if len(grid) == 1 else None)
        if len(along) > 1:
            axis.fill_between(grid, mean - spread, mean + spread, color=colours[i % len(colours)], alpha=0.15, lw=0)
    axis.grid(alpha=0.3)
    axis.legend(title="agent", fontsize=8, ncols=math.ceil(len(labels) / 6))


def _ridges(axis: Any, labels: list[str], rows: list[tuple[np.ndarray, np.ndarray]], each: bool) -> None:
    """A histogram (priority [Z], level [Z]) on each row: levels stacked, or `each` by itself so that rare ones show."""
    import numpy as np

    from jaxshare.data.records import LEVELS, UNKNOWN

    names = {UNKNOWN: "unknown", **dict(enumerate(LEVELS))}
    edges = np.linspace(0.0, max(float(values.max()) for values, _ in rows) or 1.0, BINS + 1)
    for row, (values, level) in enumerate(rows):
        counts = {n: np.histogram(values[level == n], edges)[0].astype(float) for n in names if (level == n).any()}
        if each:
            counts = {n: count / count.sum() for n, count in counts.items()}
        top = max(c.max() for c in counts.values()) if each else sum(counts.values()).max()  # type: ignore[union-attr]
        below = np.full(BINS, float(-row))
        for number, count in counts.items():
            height, colour = 0.9 * count / top, COLOURS[names[number]]
            axis.stairs(below + height, edges, baseline=below, fill=True, color=colour, alpha=0.45 if each else 0.9)
            if each:
                axis.stairs(below + height, edges, baseline=below, color=colour, lw=1.2)
            else:
                below = below + height
    for number in sorted({int(n) for _, level in rows for n in np.unique(level)}):
        axis.bar(0, 0, color=COLOURS[names[number]], label=names[number])
    axis.legend(fontsize=8, loc="upper center", ncols=4)
    axis.set_yticks([-i for i in range(len(rows))], labels)
    axis.set_ylim(-len(rows) + 0.95, 1.0 + 0.1 * len(rows))  # room for the legend
    axis.set_xlabel("priority")
    axis.grid(alpha=0.3)


if __name__ == "__main__":
    main()

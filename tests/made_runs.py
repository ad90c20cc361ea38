"""Made-up run directories: settings and a log as a run writes them, with chosen scores; data sets of random play."""

import copy
import dataclasses
import itertools
import json
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import yaml

from jaxshare import cli
from jaxshare.collection.policies import random_actor
from jaxshare.data import card, own, records
from jaxshare.run import build
from jaxshare.run.folder import plain as as_plain
from jaxshare.settings.plain import from_plain
from jaxshare.training import rollout
from jaxshare.training.counting import start_clock
from jaxshare.types import Context

SMAX = ("algo=vdn", "env=smax", "env.scenario=2s3z", "total_env_steps=1000")
QMIX = ("algo=qmix", *SMAX[1:])


@cache
def plain(*arguments):
    return as_plain(cli.settings(arguments))


def make(
    run_dir, finals, arguments=SMAX, steps=(0, 500, 1000), seed=0, changed=None, more=(), versions=None, logged=None
):
    """A run directory whose seeds go on a line from 0 to their final win rate; the return is twenty times that.

    changed: settings of config.yaml by their full key; more: evaluation records added as they are; logged: numbers that
    every evaluation has besides.
    """
    tree = copy.deepcopy(plain(*arguments))
    tree["run"] |= {"seed": seed, "seeds": len(finals), "run_dir": str(run_dir)}
    for key, value in (changed or {}).items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node[part]
        if value is None:
            del node[last]
        else:
            node[last] = value
    points = [{f"sweep.{k}": v for k, v in p.items()} for p in from_plain(tree).points()] if tree["sweep"] else [{}]
    offline = bool(tree["run"]["data"])
    lines = [{"seed": 0, "env_steps": 3, "updates": 1, "wall_s": 1.0, "loss/td": 2.0}]
    for step, point, (i, final) in itertools.product(steps, points, enumerate(finals)):
        score = float(final) * step / 1000
        taken = {"env_steps": 0 if offline else step, "updates": step if offline else step // 10}
        scores = {"eval/return": 20 * score, "eval/length": 9.0, "eval/win_rate": score}
        lines.append({"seed": seed + i, **point, **taken, "wall_s": 5 + step / 10, **scores, **(logged or {})})
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(yaml.safe_dump(tree))
    (run_dir / "versions.json").write_text(json.dumps(versions or {"jaxshare": "0.1.0", "jax": "0.10.2"}))
    (run_dir / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in (*lines, *more)))
    return run_dir


def played(run_dir, scores, **more):
    """evaluation.json as jaxshare.evaluate writes it."""
    rows = [{"seed": i, "env_steps": 1000, "return": x, "return_std": 1.0} for i, x in enumerate(scores)]
    found = {"checkpoint": 9, "episodes": 128, "policy": "greedy", "eval_seed": 10_000, "runs": rows, **more}
    (run_dir / "evaluation.json").write_text(json.dumps(found))


def random_play(path, count, *arguments):
    """A data set of so many episodes of an environment in which actions are uniformly random."""
    program = build.prepare(cli.settings(["algo=facmac", *arguments]))
    act = random_actor(program.env.spec.action)
    algorithm = dataclasses.replace(program.algorithm, initial_carry=lambda batch: (), act=act)
    ctx = Context(hparams={}, clock=start_clock(), env_steps=jnp.int32(0))
    players = rollout.Players(program.env, algorithm, {}, ctx, explore=True)
    play = jax.jit(lambda key: rollout.episodes(players, key, count).episode)
    episodes = jax.tree.map(np.asarray, play(jax.random.key(0)))
    return own.save(records.from_rollout(episodes, card=card.card_of(program.env.spec)), path)

"""Whether QMIX-divide is QMIX: gradients of both on the same batch.

python benchmarks/differ_identity.py OUT.json
"""

from __future__ import annotations

import argparse
import json
import pathlib
from functools import cache
from typing import Any

import _common
import jax
import jax.numpy as jnp
import numpy as np

from jaxshare import cli
from jaxshare.learners.passes import with_values
from jaxshare.learners.records import View
from jaxshare.run import build
from jaxshare.training import rollout

TASKS = ("3m", "2s3z")
MIXERS = ("vdn", "qmix", "qplex")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, help="the JSON file to write")
    options = parser.parse_args()
    cli.run_command(lambda: identity(options.out))


def identity(out: pathlib.Path) -> None:
    """For each mixer and task the largest difference of any gradient, in float64.

    It is a share of the largest gradient. Eight episodes of random play; what DIFFER is set to is
    preset=differ/fig3_divide. The control leaves dead agents out, which changes gradients: the same
    comparison must see that.
    """
    differences = {}
    for task in TASKS:
        for mixer in MIXERS:
            differences[f"{mixer} on {task}"] = difference(task, mixer)
    result = {
        "dtype": "float64",
        "relative_difference": differences,
        "largest": max(differences.values()),
        "control": difference("3m", "qmix", "differ.alive_mask=true"),
    }
    text = json.dumps(result, indent=1)
    out.write_text(text + "\n", encoding="utf-8")
    print(text)


def difference(task: str, mixer: str, *settings: str) -> float:
    """The largest difference of any gradient with DIFFER and without, as a share.

    settings: of DIFFER.
    """
    plain = _flat(_gradients(task, mixer, ["modifiers=[]"]))
    divided = _flat(_gradients(task, mixer, ["modifiers=[differ]", *settings]))
    assert plain.dtype == np.float64
    assert plain.shape == divided.shape
    return float(np.abs(plain - divided).max() / np.abs(plain).max())


def _flat(gradients: Any) -> np.ndarray:
    """All numbers of a tree, [P]."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradients)])


def _gradients(task: str, mixer: str, settings: list[str]) -> Any:
    """Gradients of a learner's whole loss on the task's episodes: {part: tree}."""
    usual = ["preset=differ/fig3_divide", f"env.scenario={task}", f"algo={mixer}"]
    _, parts, algorithm = _learner(cli.settings([*usual, *settings]))
    learner, episodes = algorithm.init(jax.random.key(0)), _episodes(task)
    with jax.enable_x64(True):
        params, target, batch = jax.tree.map(_wide, (learner.params, learner.target_params, episodes))

        def loss(params: Any, target: Any, batch: Any) -> Any:
            ctx = _context(algorithm, "float64")
            state = learner.replace(params=params, target_params=target)
            view = with_values(View(parts, state, params, batch, ctx, key=None))
            return parts.steps[parts.main].loss(view.replace(key=jax.random.key(2)))[0]

        return jax.device_get(jax.jit(jax.grad(loss))(params, target, batch))


def _wide(x: jax.Array) -> jax.Array:
    return x.astype("float64") if jnp.issubdtype(x.dtype, jnp.floating) else x


@cache
def _episodes(task: str) -> Any:
    """Eight episodes of random play (exploration begins with 1): an Episode [T(+1), 8, ...]."""
    env, _, algorithm = _learner(cli.settings(["preset=differ/fig3_divide", f"env.scenario={task}"]))
    params, ctx = algorithm.init(jax.random.key(0)).params, _context(algorithm, "float32")
    play = jax.jit(lambda key: rollout.episodes(rollout.Players(env, algorithm, params, ctx, True), key, 8).episode)
    return play(jax.random.key(1))


def _learner(settings: Any) -> tuple[Any, Any, Any]:
    """Environment, the learner's parts, and what they make."""
    env = build.make_env(settings)
    parts = build.make_parts(settings, env.spec)
    return env, parts, parts.assemble()


def _context(algorithm: Any, dtype: str) -> Any:
    return _common.context(algorithm.hparams, dtype, total_env_steps=1)


if __name__ == "__main__":
    main()

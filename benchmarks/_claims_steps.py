"""Steps of benchmarks/claims.py that are no command of jaxshare.

python benchmarks/_claims_steps.py identity OUT.json      gradients of QMIX and QMIX-divide on the same batch
python benchmarks/_claims_steps.py standardise SET.jds    a copy of a data set whose rewards have mean 0 and deviation 1
"""

from __future__ import annotations

import argparse
import json
import pathlib
from functools import cache
from typing import Any

from jaxshare import cli

IDENTITY_TASKS = ("3m", "2s3z")
MIXERS = ("vdn", "qmix", "qplex")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="step", required=True)
    for name in ("identity", "standardise"):
        commands.add_parser(name).add_argument("path", type=pathlib.Path)
    options = parser.parse_args()
    cli.run_command(lambda: {"identity": identity, "standardise": standardise}[options.step](options.path))


def standardise(path: pathlib.Path) -> None:
    """Write it beside the data set."""
    import offline

    offline.standardised(path)


def identity(out: pathlib.Path) -> None:
    """For each mixer and task the largest difference of any gradient, as a share of the largest gradient, in float64.

    Eight episodes of random play; what DIFFER is set to is preset=differ/fig3_divide. The control leaves dead agents
    out, which changes gradients: the same comparison must see that.
    """
    found: dict[str, Any] = {"dtype": "float64", "relative_difference": {}}
    for task in IDENTITY_TASKS:
        for mixer in MIXERS:
            found["relative_difference"][f"{mixer} on {task}"] = _difference(task, mixer)
    found["largest"] = max(found["relative_difference"].values())
    found["control"] = _difference("3m", "qmix", "differ.alive_mask=true")
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def _difference(task: str, mixer: str, *more: str) -> float:
    import jax
    import numpy as np

    base, divided = (
        jax.tree.leaves(_gradients(task, mixer, own)) for own in (["modifiers=[]"], ["modifiers=[differ]", *more])
    )
    flat = [np.concatenate([np.ravel(x) for x in leaves]) for leaves in (base, divided)]
    assert flat[0].dtype == np.float64
    assert flat[0].shape == flat[1].shape
    return float(np.abs(flat[0] - flat[1]).max() / np.abs(flat[0]).max())


def _gradients(task: str, mixer: str, more: list[str]) -> Any:
    """Gradients of a learner's whole loss on the task's episodes: {part: tree}."""
    import jax
    import jax.numpy as jnp

    from jaxshare.algos import _value

    settings = cli.settings(["preset=differ/fig3_divide", f"env.scenario={task}", f"algo={mixer}", *more])
    _, parts, algorithm = _learner(settings)
    learner, episodes = algorithm.init(jax.random.key(0)), _episodes(task)
    with jax.enable_x64(True):
        wide = lambda x: x.astype("float64") if jnp.issubdtype(x.dtype, jnp.floating) else x  # noqa: E731
        params, target, batch = jax.tree.map(wide, (learner.params, learner.target_params, episodes))

        def loss(params: Any, target: Any, batch: Any) -> Any:
            ctx = _context(algorithm, "float64")
            values = _value._values(parts, params, target, batch, ctx)
            return parts.loss(values, batch, ctx, jax.random.key(2))[0]

        return jax.device_get(jax.jit(jax.grad(loss))(params, target, batch))


@cache
def _episodes(task: str) -> Any:
    """Eight episodes of random play (exploration begins with 1): an Episode [T(+1), 8, ...]."""
    import jax

    from jaxshare import rollout

    env, _, algorithm = _learner(cli.settings(["preset=differ/fig3_divide", f"env.scenario={task}"]))
    params, ctx = algorithm.init(jax.random.key(0)).params, _context(algorithm, "float32")
    play = jax.jit(lambda key: rollout.episodes(env, algorithm, params, ctx, key, 8, explore=True).episode)
    return play(jax.random.key(1))


def _learner(settings: Any) -> tuple[Any, Any, Any]:
    """Environment, the learner's parts, and what they make."""
    from jaxshare.run import build

    env = build.make_env(settings)
    parts = build.make_parts(settings, env.spec)
    return env, parts, parts.assemble()


def _context(algorithm: Any, dtype: str) -> Any:
    from _common import context

    return context(algorithm.hparams, dtype, total_env_steps=1)


if __name__ == "__main__":
    main()

"""The smallest runs that still do everything, and how to compare what they leave behind."""

import contextlib
import hashlib
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare import cli
from jaxshare.run import build
from jaxshare.run import train as training
from jaxshare.run.checkpoint.checkpoints import Checkpoints

REPOSITORY = pathlib.Path(__file__).parent.parent
ENVIRONMENT = {  # of commands that tests run: the suite's compilation cache
    **os.environ,
    "JAX_COMPILATION_CACHE_DIR": str(REPOSITORY / ".cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
}

# 16 environment steps a chunk (2 iterations of 4 episodes of 2 steps), the first 8 for the prefill: 24, 40, 56, 64
SIZES = (
    "num_envs=4", "batch_size=4", "replay.capacity=16", "eval.every=16", "eval.episodes=4", "algo.hidden_dim=8",
    "algo.target_update_period=3", "progress=false",
)  # fmt: skip
QMIX = ("algo=qmix", "algo.embed_dim=4", "algo.hypernet_dim=4")
TWO_STEP = ("env=matrix", "env.game=two_step", "total_env_steps=64")
DIFFER = ("modifiers=[differ]",)
FULL = (*TWO_STEP, *QMIX, *DIFFER, *SIZES)
PLAIN = (*TWO_STEP, "algo=vdn", *SIZES)


@contextlib.contextmanager
def optimised():
    """Compile as users do: without optimisations the order of a sum may depend on the number of devices."""
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", True)


def settings(run_dir, *arguments):
    return cli.settings([f"run_dir={run_dir}", *arguments])


def train(run_dir, *arguments, max_chunks=None):
    return training.train(settings(run_dir, *arguments), max_chunks)


def restore(run_dir, *arguments):
    """(clock, states of all runs, replays included) of the newest checkpoint."""
    chosen = settings(run_dir, *arguments)
    shapes = jax.eval_shape(build.prepare(chosen).init, jnp.int32(0))
    checkpoints = Checkpoints(pathlib.Path(run_dir))
    try:
        return checkpoints.restore(checkpoints.latest(), shapes, len(chosen.runs()), with_replay=True)
    finally:
        checkpoints.close()


def steps_saved(run_dir):
    """Iterations of the complete checkpoints, oldest first."""
    folder = pathlib.Path(run_dir) / "checkpoints"
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def records(run_dir, but=("wall_s",)):
    lines = (pathlib.Path(run_dir) / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in but} for line in lines]


def files(folder):
    """{path: hash} of everything in a folder."""
    paths = sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def assert_equal(a, b):
    """Bitwise equal trees."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b, tolerance=1e-5):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)

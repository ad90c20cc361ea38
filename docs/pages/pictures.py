"""Pictures of the environments, drawn by their own `render` after some steps of random play.

    PYTHONPATH=. python docs/pages/pictures.py

They are in the repository, so that the site needs no compiling; whoever changes a painter makes them again.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import jaxshare

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "pictures"
SCENES = {  # file: environment, its settings, steps before the picture
    "smax": ("smax", {"scenario": "2s3z"}, 9),
    "lbf": ("lbf", {"scenario": "10x10-3p-3f"}, 3),
    "rware": ("rware", {"scenario": "tiny-4ag"}, 20),
    "mpe_spread": ("mpe", {"scenario": "spread"}, 4),
    "mpe_sparse_tag": ("mpe", {"scenario": "sparse_tag"}, 4),
    "mpe_pred_prey": ("mpe", {"scenario": "pred_prey_3a"}, 4),
}
WIDTH = 320


def draw(name, settings, steps):
    """The picture of a state, [height, width, 3] uint8."""
    env = jaxshare.make_env(name, **settings)
    step = jax.jit(env.step)
    key = jax.random.key(1)
    state, timestep = jax.jit(env.reset)(key)
    for i in range(steps):
        key = jax.random.key(10 + i)
        if hasattr(env.spec.action, "num_actions"):
            action = jax.random.categorical(key, jnp.where(timestep.avail, 0.0, -1e9))
        else:
            shape = (env.spec.num_agents, env.spec.action.dim)
            action = jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
        state, timestep = step(state, action, key)
    return env.render(jax.tree.map(np.asarray, state))


def main():
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    for file, scene in SCENES.items():
        picture = Image.fromarray(np.asarray(draw(*scene)))
        height = round(WIDTH * picture.height / picture.width)
        small = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
        small.quantize(64).save(FOLDER / f"{file}.png", optimize=True)


if __name__ == "__main__":
    main()

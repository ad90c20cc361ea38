"""One episode as a film (a GIF): what there is to see, beside a bar for every agent."""

from __future__ import annotations

import pathlib

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from jaxshare.run.saved import SavedRun
from jaxshare.settings.run_parts import POLICIES
from jaxshare.trees import EnvState
from jaxshare.types import RefusedError

BARS = ("individual_reward", "q_taken", "value")  # the first that the algorithm has is drawn
MILLISECONDS = 200  # of a frame


def check(run: SavedRun, gif: str | None, number: int) -> None:
    """Raise RefusedError for a film that cannot be made: of the settings gif and gif_run."""
    env = run.program.env
    if gif and env.render is None:
        raise RefusedError(f"gif={gif}: env={env.spec.name} has no picture of its states.")
    most = len(run.labels) - 1
    if not 0 <= number <= most:
        raise RefusedError(f"gif_run={number} must be between 0 and {most}.")


def write(run: SavedRun, number: int, path: pathlib.Path) -> None:
    """Play one episode with one of the runs (0 is the first seed), and write it as a GIF."""
    program = run.program
    env = program.evaluator
    assert env.render is not None
    if env.host:
        env.host.record()

    # play, and look at what the algorithm makes of it
    explore = next(iter(POLICIES[run.settings.run.eval.policy].values()))
    play = jax.jit(lambda s, h, c: program.play(s, h, c, 1, keep_state=True, explore=explore))
    state = run.states[number]
    hparams = run.hparams(number)
    played = play(state, hparams, run.clock)
    ctx = program.context(state, hparams, run.clock)
    inspected = jax.jit(program.algorithm.inspect)(state.learner, played.episode, ctx)

    # frames [T+1], values [T, N] and team rewards [T] of the episode's own steps
    name = next(name for name in (*BARS, *inspected) if name in inspected)
    length = int(played.episode.mask.sum())
    frames = [env.render(_state_at(played.env_state, t)) for t in range(length + 1)]
    alive = np.asarray(played.episode.alive[:length, 0])
    values = np.where(alive, np.asarray(inspected[name][:length, 0]), np.nan)  # the dead: no bar
    reward = np.asarray(program.returns_per_step(played.episode)[:length, 0])
    write_frames(frames, values, reward, name.replace("_", " "), path)


def _state_at(states: EnvState, step: int) -> EnvState:
    """The environment's state before one step; states: leaves [T+1, 1, ...]."""
    return jax.tree.map(lambda x: np.asarray(x[step, 0]), states)


def write_frames(
    frames: list[np.ndarray],
    values: np.ndarray,
    reward: np.ndarray,
    title: str,
    path: pathlib.Path,
) -> None:
    """Frames [T+1] beside bars of values [T, N]; the team reward [T] of each step in the title."""
    low = min(np.nanmin(values), 0.0)
    high = max(np.nanmax(values), 0.0)
    figure = Figure(figsize=(7.6, 3.8))
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    pictures = []
    for t, frame in enumerate(frames):
        left.clear()
        left.imshow(frame)
        left.axis("off")
        left.set_title(f"step {t}")

        # the last frame shows what the last step led to, beside the bars of that step
        step = min(t, len(values) - 1)
        right.clear()
        right.bar(range(values.shape[1]), np.nan_to_num(values[step]), color="tab:blue")
        right.set_ylim(low * 1.1 - 1e-3, high * 1.1 + 1e-3)
        right.set_xticks(range(values.shape[1]))
        right.set_xlabel("agent")
        right.set_title(f"{title}; team reward {reward[step]:.2f}", fontsize=9)
        canvas.draw()
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = pictures
    first.save(path, save_all=True, append_images=rest, duration=MILLISECONDS, loop=0)

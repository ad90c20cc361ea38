"""One episode as a film (a GIF), or some of its steps as a picture.

What there is to see, beside a bar for every agent.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from jaxshare.run.saved import SavedRun
from jaxshare.settings.run_parts import POLICIES
from jaxshare.trees import EnvState
from jaxshare.types import RefusedError

BARS = ("individual_reward", "q_taken", "value")  # the first that the algorithm has is drawn
MILLISECONDS = 200  # of a frame
STEPS = 4  # of a picture, where none are chosen


@dataclass(frozen=True)
class Film:
    """An episode of T steps of N agents, as it is shown."""

    frames: list[np.ndarray]  # [T+1], each [height, width, 3]
    values: np.ndarray  # [T, N]; NaN of the dead
    reward: np.ndarray  # [T] of the team
    title: str  # what the values are

    @cached_property
    def scale(self) -> tuple[float, float]:
        """From the lowest to the highest value of all steps, 0 among them, and a little more."""
        low = min(np.nanmin(self.values), 0.0)
        high = max(np.nanmax(self.values), 0.0)
        return low * 1.1 - 1e-3, high * 1.1 + 1e-3


def check(run: SavedRun, shown: dict[str, str | None], number: int) -> None:
    """Raise RefusedError for what cannot be drawn: of the settings gif, picture and gif_run.

    shown: the files to write, by the key that names them.
    """
    env = run.program.env
    for key, path in shown.items():
        if path and env.render is None:
            raise RefusedError(f"{key}={path}: env={env.spec.name} has no picture of its states.")
    most = len(run.labels) - 1
    if not 0 <= number <= most:
        raise RefusedError(f"gif_run={number} must be between 0 and {most}.")


def steps_of(chosen: Sequence[str]) -> list[int]:
    """The setting picture_steps as numbers. Raises RefusedError if one is no step."""
    steps = []
    for text in chosen:
        if not str(text).isdecimal():
            raise RefusedError(
                f"picture_steps has {text!r}, which is no step of an episode: give whole numbers "
                "from 0 on, as in picture_steps=[3,12]."
            )
        steps.append(int(text))
    return steps


def play(run: SavedRun, number: int) -> Film:
    """Play one episode with one of the runs (0 is the first seed)."""
    program = run.program
    env = program.evaluator
    assert env.render is not None
    if env.host:
        env.host.record()

    # play, and look at what the algorithm makes of it
    explore = next(iter(POLICIES[run.settings.run.eval.policy].values()))
    once = jax.jit(lambda s, h, c: program.play(s, h, c, 1, keep_state=True, explore=explore))
    state = run.states[number]
    hparams = run.hparams(number)
    played = once(state, hparams, run.clock)
    ctx = program.context(state, hparams, run.clock)
    inspected = jax.jit(program.algorithm.inspect)(state.learner, played.episode, ctx)

    # of the episode's own steps
    name = next(name for name in (*BARS, *inspected) if name in inspected)
    length = int(played.episode.mask.sum())
    frames = [env.render(_state_at(played.env_state, t)) for t in range(length + 1)]
    alive = np.asarray(played.episode.alive[:length, 0])
    values = np.where(alive, np.asarray(inspected[name][:length, 0]), np.nan)
    reward = np.asarray(program.returns_per_step(played.episode)[:length, 0])
    return Film(frames, values, reward, name.replace("_", " "))


def _state_at(states: EnvState, step: int) -> EnvState:
    """The environment's state before one step; states: leaves [T+1, 1, ...]."""
    return jax.tree.map(lambda x: np.asarray(x[step, 0]), states)


# ---------------------------------------------------------------------------------- drawing


def write_gif(film: Film, path: pathlib.Path) -> None:
    """All frames, one after another."""
    figure = Figure(figsize=(7.6, 3.8))
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    pictures = []
    for t in range(len(film.frames)):
        _draw_frame(left, film, t)

        # the last frame shows what the last step led to, beside the bars of that step
        _draw_bars(right, film, min(t, len(film.values) - 1))
        canvas.draw()
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = pictures
    first.save(path, save_all=True, append_images=rest, duration=MILLISECONDS, loop=0)


def write_picture(film: Film, steps: Sequence[int], path: pathlib.Path) -> list[int]:
    """Chosen steps side by side, each above its bars, as a PNG (DIFFER's Figs. 8 and 10).

    steps: which; without any some from the first to the last. What an episode has not is left out.
    Returns the steps that were drawn.
    """
    length = len(film.values)
    if not steps:
        spaced = np.linspace(0, length - 1, min(STEPS, length))
        steps = [round(step) for step in spaced]
    drawn = [step for step in steps if step < length] or [length - 1]

    # a column for each step
    figure = Figure(figsize=(3.8 * len(drawn), 6.6))
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(drawn), squeeze=False)
    for column, step in enumerate(drawn):
        _draw_frame(axes[0, column], film, step)
        _draw_bars(axes[1, column], film, step)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.print_figure(path, format="png")
    return drawn


def _draw_frame(axes: Axes, film: Film, step: int) -> None:
    axes.clear()
    axes.imshow(film.frames[step])
    axes.axis("off")
    axes.set_title(f"step {step}")


def _draw_bars(axes: Axes, film: Film, step: int) -> None:
    """A bar for each agent, on one scale for all steps; the dead have none."""
    agents = range(film.values.shape[1])
    axes.clear()
    axes.bar(agents, np.nan_to_num(film.values[step]), color="tab:blue")
    axes.set_ylim(*film.scale)
    axes.set_xticks(agents)
    axes.set_xlabel("agent")
    axes.set_title(f"{film.title}; team reward {film.reward[step]:.2f}", fontsize=9)

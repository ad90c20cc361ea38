"""The card of a data set: where it comes from and what is in it, as a JSON file holds it.

environment, scenario, agent_types [N], composition, common_reward, spec, versions, git_commit,
episodes, and of the team returns and lengths the mean, standard deviation (over episodes, divisor
E), least and greatest value; a histogram of the returns of all episodes, and for every agent one
for each level at which it played. Nothing here is discounted.
"""

from __future__ import annotations

import importlib.metadata
import pathlib
import platform
import subprocess

import numpy as np

from jaxshare import __version__
from jaxshare.data.environment import spec_card
from jaxshare.data.records import LEVELS, UNKNOWN, Array, Card
from jaxshare.types import EnvSpec

BINS = 20  # of the histograms
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "jaxmarl", "tensorstore")


def card_of(spec: EnvSpec, composition: str | None = None, **more: object) -> Card:
    """The part of a card that is known before anything is collected. more: further plain values."""
    environment, _, scenario = spec.name.partition("/")
    agent_types = [spec.group_names[group] for group in spec.groups]
    return {
        "environment": environment,
        "scenario": scenario,
        "agent_types": agent_types,
        "composition": composition,
        "common_reward": spec.common_reward,
        "spec": spec_card(spec),
        **provenance(),
        **more,
    }


def provenance() -> Card:
    """Versions of the packages that are installed, and the commit if this is a checkout."""
    versions = {"jaxshare": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "git_commit": _commit(pathlib.Path(__file__).resolve().parents[2]),
    }


def _commit(checkout: pathlib.Path) -> str | None:
    """Hash of the checkout's commit, with "-dirty" if files differ from it.

    None if it is not a checkout of ours.
    """
    if not (checkout / ".git").exists():
        return None
    describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    command = ["git", "-C", str(checkout), *describe]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def summary(returns: Array, lengths: Array, level: Array, component: Array) -> Card:
    """What a card says of the episodes: returns [E], lengths [E], level [E, N], component [E]."""
    # by component of the composition
    components = {}
    for number in np.unique(component):
        of_component = returns[component == number]
        about = {"episodes": len(of_component), "returns": _statistics(of_component)}
        components[str(number)] = about

    # histograms with common edges
    edges = _edges(returns)
    agents = [_by_level(returns, of_agent, edges) for of_agent in level.T]
    histogram = {
        "edges": edges.tolist(),
        "all": _histogram(returns, edges),
        "agents": agents,
    }
    return {
        "episodes": len(returns),
        "steps": int(lengths.sum()),
        "returns": _statistics(returns),
        "lengths": _statistics(lengths),
        "components": components,
        "histogram": histogram,
    }


def _edges(values: Array) -> Array:
    low = float(values.min())
    high = float(values.max())
    return np.linspace(low, high if high > low else low + 1.0, BINS + 1)


def _histogram(values: Array, edges: Array) -> list[int]:
    return np.histogram(values, edges)[0].tolist()


def _by_level(returns: Array, level: Array, edges: Array) -> dict[str, list[int]]:
    """Histograms of team returns for one agent, by the name of the level at which it played."""
    names = {UNKNOWN: "unknown"} | dict(enumerate(LEVELS))
    histograms = {}
    for number in np.unique(level):
        of_level = returns[level == number]
        histograms[names[int(number)]] = _histogram(of_level, edges)
    return histograms


def _statistics(values: Array) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
    }

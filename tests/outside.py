"""Packages of another name for tests: really installed, or as far as an importer can tell."""

import pathlib
import subprocess
import sys
import tomllib
import zipfile

import tiny

from jaxshare.plugins import entries, presets

PROJECT = pathlib.Path(__file__).parent / "plugin_package"

GAME = '''
"""A game in a file: agents are paid for playing 1."""
from dataclasses import dataclass
import jax.numpy as jnp
from jaxshare.settings.fields import static
from jaxshare.types import Discrete, Env, EnvSpec, TimeStep

@dataclass(frozen=True)
class Config:
    """Settings of the game."""
    pay: float = static(1.0, least=0, help="pay of each 1")

def make(config):
    spec = EnvSpec("game", 2, 1, 1, Discrete(2), 1, (0, 0), ("player",))
    def show(reward, over):
        ones = jnp.ones((2, 1))
        return TimeStep(ones, ones[0], jnp.ones((2, 2), bool), jnp.ones(2, bool), reward, over, jnp.array(False), {})
    def reset(key):
        return jnp.int32(0), show(jnp.zeros(2), jnp.array(False))
    def step(state, action, key):
        return state + 1, show(config.pay * action.mean() * jnp.ones(2), jnp.array(True))
    return Env(spec, reset, step)
'''

MODIFIER = '''
"""Rewards times a factor."""
from dataclasses import dataclass

@dataclass(frozen=True)
class Config:
    """Settings."""
    factor: float = 0.5

def make(config, learner):
    def relabel(view):
        reward = view.hparams["shrunk.factor"] * view.batch.reward
        return view.batch.replace(reward=reward), view.stats
    return learner.extend(relabel=relabel, hparams={"shrunk.factor": config.factor})
'''


def wheel(project, folder):
    """The wheel of a project of pure Python, made of its pyproject.toml without its build backend."""
    described = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    name = described["name"].replace("-", "_")
    info = f"{name}-{described['version']}.dist-info"
    points = []
    for group, offers in described["entry-points"].items():
        points += [f"[{group}]", *(f"{key} = {value}" for key, value in offers.items())]
    content = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {described['name']}\nVersion: {described['version']}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "\n".join(points) + "\n",
    }
    for path in sorted((project / name).rglob("*")):
        if path.suffix in (".py", ".yaml"):
            content[str(path.relative_to(project))] = path.read_text()
    content[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*content, f"{info}/RECORD"])
    made = folder / f"{name}-{described['version']}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for file, text in content.items():
            archive.writestr(file, text)
    return made


def install(project, target):
    """Install a project into a folder, offline."""
    target.mkdir()
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        target,
    ]
    subprocess.run([*command, wheel(project, target.parent)], check=True, capture_output=True)


def distribution(folder, name, points, version="1.0", **modules):
    """Files of an installed package: modules by name, and entry points {group: {name: value}}."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, offers in points.items():
        lines += [f"[jaxshare.{group}]", *(f"{key} = {value}" for key, value in offers.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)


def forget(*modules):
    """Forget what a test imported from outside; modules: how names of modules begin, besides ours."""
    entries._imported.clear()
    presets._files.clear()
    for name in list(sys.modules):
        if name.startswith(("jaxshare_file_", "plug_", "theirs", *modules)):
            del sys.modules[name]


def command(name, *arguments, cwd, path=()):
    """Run `python -m jaxshare.<name>` in a folder, with more folders to import from: the finished process."""
    environment = {**tiny.ENVIRONMENT, "PYTHONPATH": ":".join(map(str, [tiny.REPOSITORY, *path]))}
    line = [sys.executable, "-m", f"jaxshare.{name}", *map(str, arguments)]
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)

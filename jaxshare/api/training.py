"""Training from Python, in a process where JAX may have started."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxshare import cli, registry
from jaxshare.api import keywords
from jaxshare.api.run import Run, load
from jaxshare.commands import report as command
from jaxshare.plugins import arguments as plugins
from jaxshare.plugins import references
from jaxshare.run.callbacks import Callback
from jaxshare.run.train import train as train_settings
from jaxshare.types import Env

GROUPS = ("preset", "algo", "env")


def train(
    algo: str | None = None,
    env: str | Env | None = None,
    modifiers: str | Sequence[str] = (),
    callbacks: Iterable[Callback] = (),
    settings: Mapping[str, Any] | None = None,
    **named: object,
) -> Run:
    """Train, as `python -m jaxshare.train` does, and return the run.

        run = jaxshare.train(algo="qmix", env="smax", scenario="3m", seeds=2, lr=1e-3)

    algo, env, modifiers: names of `python -m jaxshare.list`, or what `register` added; env may be
    an `Env` of your own. Without them the command line's defaults hold.
    callbacks: objects of classes derived from `Callback`; they see metrics and may stop the run.
    named: settings by their names on the command line: seeds, total_env_steps, run_dir, preset, ….
    Of the environment, the algorithm and the modifiers that are named here, what stands after the
    last dot is enough where only one has it: scenario is env.scenario, and lr is algo.hparams.lr. A
    mapping stands for a group: eval={"every": 1000}.
    settings: the same by full names: {"differ.alpha": 0.6}; for names that are no identifiers.

    Without run_dir the run gets a folder of its own under runs/. SIGTERM, Ctrl-C and their like
    save first, and are raised as StoppedError.
    Raises RefusedError for settings that there are not or that do not go together; HostError.
    """
    lines = arguments(algo, env, modifiers, {**named, **(settings or {})})
    return load_own(train_settings(cli.settings(lines), watchers=callbacks))


def load_own(run_dir: pathlib.Path) -> Run:
    """The run that this very process has trained: whatever it names was named here."""
    return load(run_dir, trust=True)


def arguments(
    algo: str | None,
    env: str | Env | None,
    modifiers: str | Sequence[str],
    named: Mapping[str, object],
) -> list[str]:
    """The command line that says the same. Raises RefusedError for a name that is no setting."""
    named = dict(named)
    modifiers = [modifiers] if isinstance(modifiers, str) else modifiers
    if isinstance(env, Env):
        env = registry.register_env(env)
    chosen = {"preset": named.pop("preset", None), "algo": algo, "env": env}
    lines = [f"{group}={chosen[group]}" for group in GROUPS if chosen[group] is not None]
    if modifiers:
        lines.append(f"modifiers=[{','.join(modifiers)}]")

    # what is named by dotted path or file is imported, and has a short name from then on
    lines = plugins.understood(lines)
    cli.register()
    owners = ("env", "algo", "algo.hparams", *map(references.short_name, modifiers))
    return [*lines, *keywords.arguments(named, cli.known_keys(lines), owners)]


def report(
    runs: str | pathlib.Path | Run | Iterable[str | pathlib.Path | Run], **settings: object
) -> dict[str, Any]:
    """Compare runs, as `python -m jaxshare.report` does: tables, pictures and a page.

    runs: run directories, folders of them, or runs.
    settings: those of the command, such as out="report".
    Raises RefusedError.
    """
    known = [field.name for field in dataclasses.fields(command.Config)]
    keywords.check_known("report(…", settings, known)
    several = [runs] if isinstance(runs, str | pathlib.Path | Run) else list(runs)
    folders = [str(run.run_dir if isinstance(run, Run) else run) for run in several]
    values: dict[str, Any] = {"runs": folders, **settings}
    return command.report(command.Config(**values))

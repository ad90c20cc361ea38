"""Many runs by one command, in turn or through a launcher, and hydra's own options: hydra's main.

A launcher (joblib, submitit, ray) may run jobs in other processes and in other folders. So a job
that fails returns plain values, which any launcher can send back; the command prints them all, and
its exit status tells.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import pathlib
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from jaxshare import cli, spelling, surroundings
from jaxshare.plugins import arguments as plugins
from jaxshare.run.signals import StoppedError
from jaxshare.run.staging import is_remote
from jaxshare.settings.hydra import config_dir, from_config, refusal
from jaxshare.settings.records import Settings
from jaxshare.types import HostError, RefusedError

FOLDER = "JAXSHARE_FOLDER"  # environment variable of the jobs of a multirun
PLUGINS = "JAXSHARE_PLUGINS"  # environment variable of the jobs: what they import from outside
SWEEP_DIR = "hydra.sweep.dir="
MESSAGE = "jaxshare.failed"  # key of what a failed job returns
MAKER = "instantiate_launcher"  # hydra's method that we watch
_submitter: int | None = None  # process id of the command that started the jobs


@dataclass(frozen=True)
class Failure:
    """A job that did not reach its end."""

    number: int
    name: str  # the settings in which it differs from the others
    message: str


def run(arguments: Sequence[str]) -> None:
    """Hydra's main with these arguments; exits with status 1 if a job failed.

    Raises RefusedError for what is wrong with the arguments.
    """
    global _submitter
    _submitter = os.getpid()

    # what is wrong with the arguments is told before anything is started
    arguments = plugins.understood(arguments)
    cli.register()
    sweeping = any(argument == "-m" or argument.startswith("--mu") for argument in arguments)
    lines = [cli.spelled(argument, sweeping) for argument in arguments]
    settings = [line for line in lines if not line.startswith("-") and "=" in line]
    cli.check_arguments(settings, sweeping)

    # start the jobs
    sys.argv[1:] = _anchored(lines) if sweeping else lines
    main = hydra.main(config_path=str(config_dir()), config_name="config", version_base="1.3")
    failures: list[Failure] = []
    try:
        with _raising(), _watched(failures):
            main(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise refusal(error) from error
    finally:
        for failure in failures:
            about = f"{failure.number} ({failure.name})" if failure.name else str(failure.number)
            print(f"failed: job {about}: {failure.message}", file=sys.stderr)
    if failures:
        sys.exit(1)


def _anchored(lines: Sequence[str]) -> list[str]:
    """The arguments with the folder in which they were given, for jobs that run in another one."""
    # where the jobs write
    folder = pathlib.Path.cwd()
    sweep_dir = f"runs/multirun-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    others = []
    for line in lines:
        override = spelling.parse(line) if line.startswith(SWEEP_DIR) else None
        if override is None:
            others.append(line)
        else:
            sweep_dir = str(override.value())

    # what they import from outside
    outside = plugins.to_send()
    if outside:
        others.append(f"++hydra.job.env_set.{PLUGINS}={spelling.quoted(outside)}")
    jobs_write_to = spelling.quoted(str(folder / sweep_dir))
    command_is_in = spelling.quoted(str(folder))
    return [
        *others,
        f"{SWEEP_DIR}{jobs_write_to}",
        f"++hydra.job.env_set.{FOLDER}={command_is_in}",
    ]


# ------------------------------------------------------------------------------------------ one job


def job(cfg: DictConfig) -> dict[str, str] | None:
    """Train. None, or why that failed, in plain values; it runs where a launcher puts it."""
    surroundings.prepare_process()
    from jaxshare.run.train import train  # with orbax

    is_here = _submitter == os.getpid()
    try:
        train(_settings(cfg, is_here), at_once=is_here)
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)
        if is_here:  # the signal was for the command
            sys.exit(128 + stopped.signum)
        return {MESSAGE: str(stopped)}
    except (RefusedError, HostError, OSError) as error:  # the other jobs go on
        message = cli.told(error)
        print(f"error: {message}", file=sys.stderr)
        return {MESSAGE: message}
    return None


def _settings(cfg: DictConfig, is_here: bool) -> Settings:
    """The job's settings, with paths as the command meant them wherever the job runs."""
    hydra_config = HydraConfig.get()
    folder = pathlib.Path(_submitting_folder(hydra_config))
    if not is_here and not hydra_config.job.chdir:
        _enter(folder, cfg.run_dir)
    if not is_here:
        plugins.receive(str(hydra_config.job.env_set.get(PLUGINS, "")))
    return _from_hydra(cfg, hydra_config)


def _enter(folder: pathlib.Path, run_dir: str | None) -> None:
    """Go to the folder in which the command was given.

    Raises RefusedError if it is not here, and run_dir is one in it.
    """
    if folder.is_dir():
        os.chdir(folder)
        surroundings.see_current_folder()
    elif not is_remote(run_dir) and not pathlib.Path(run_dir or ".").is_absolute():
        raise RefusedError(
            f"run_dir={run_dir}: the command was given in {folder}, which {platform.node()} does "
            "not have. Name a folder that both machines have by its whole path, as in "
            "run_dir=/shared/runs/demo."
        )


def _from_hydra(cfg: DictConfig, job: HydraConf) -> Settings:
    """Settings of one job of hydra's own main.

    Each job of a multirun gets a run directory of its own, by number. A relative run_dir is one of
    the folder in which the command was given, wherever a launcher puts the job.
    """
    overrides = spelling.overrides(job.overrides.task, spelling.training_kinds())
    cli.check_modifiers(cfg.modifiers, overrides)
    settings = cli.permitted(from_config(cfg, job.runtime.choices), job.runtime.choices, overrides)
    if job.mode != RunMode.MULTIRUN:
        return settings
    if is_remote(cfg.run_dir):
        run_dir = f"{cfg.run_dir.rstrip('/')}/{job.job.num}"
    else:
        base = pathlib.Path(_submitting_folder(job), cfg.run_dir or job.sweep.dir)
        run_dir = str(base / str(job.job.num))
    run = dataclasses.replace(settings.run, run_dir=run_dir)
    return dataclasses.replace(settings, run=run)


def _submitting_folder(job: HydraConf) -> str:
    """The folder in which the command was given, of which jobs elsewhere are told in a variable."""
    return str(job.job.env_set.get(FOLDER, job.runtime.cwd))


# ---------------------------------------------------------------------------------------- launchers


class _Watched:
    """A launcher whose failed jobs are noted, whatever launcher it is."""

    def __init__(self, launcher: Launcher, failures: list[Failure]) -> None:
        self._launcher = launcher
        self._failures = failures

    def __getattr__(self, name: str) -> object:
        return getattr(self._launcher, name)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """The launcher's own; a launcher that breaks down has run none of its jobs to the end."""
        names = _names(job_overrides)
        try:
            returns = self._launcher.launch(job_overrides, initial_job_idx)
        except (HydraException, OmegaConfBaseException):
            raise
        except Exception as error:
            why = f"{type(self._launcher).__name__} failed: {_in_short(error)}"
            for number, name in enumerate(names, initial_job_idx):
                self._failures.append(Failure(number, name, why))
            return []

        # note the jobs that failed by themselves
        for number, (name, result) in enumerate(zip(names, returns, strict=False), initial_job_idx):
            message = _message(result)
            if message is not None:
                self._failures.append(Failure(number, name, message))
        return returns


def _message(result: JobReturn) -> str | None:
    """Why a job failed, or None."""
    value = result._return_value
    if result.status == JobStatus.FAILED:  # not refused by us: a mistake of the program
        return _in_short(value)
    return value[MESSAGE] if isinstance(value, dict) and MESSAGE in value else None


def _names(job_overrides: Sequence[Sequence[str]]) -> list[str]:
    """Of each job, the settings in which it differs from others."""
    lines = [filter_overrides(overrides) for overrides in job_overrides]
    common = set(lines[0]).intersection(*lines) if len(lines) > 1 else set()
    names = []
    for job_lines in lines:
        names.append(" ".join(line for line in job_lines if line not in common))
    return names


def _in_short(error: object) -> str:
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0]}"


@contextmanager
def _watched(failures: list[Failure]) -> Iterator[None]:
    """Note the failed jobs of the launcher that hydra makes."""
    make = getattr(Plugins, MAKER)

    def make_watched(*args: object, **kwargs: object) -> _Watched:
        return _Watched(make(*args, **kwargs), failures)

    # of the class: launchers send its instance to other processes
    setattr(Plugins, MAKER, make_watched)
    try:
        yield
    finally:
        setattr(Plugins, MAKER, make)


@contextmanager
def _raising() -> Iterator[None]:
    """Let hydra raise its errors, which it would print by itself."""
    name = "HYDRA_FULL_ERROR"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before

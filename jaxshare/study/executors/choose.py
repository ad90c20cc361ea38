"""The executor that a command asks for."""

from __future__ import annotations

import importlib
import pathlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxshare.study.executors.base import Executor, Resources
from jaxshare.study.executors.local import Local, all_cores, all_gpus
from jaxshare.types import RefusedError

NAMES = ("local", "ray", "slurm")
PACKAGES = {"ray": "ray", "slurm": "submitit"}  # that an executor needs
AUTO = "auto"  # address: the cluster of this machine, or none
ANSWER = 10.0  # seconds in which a cluster must answer
SLURM_AT_ONCE = 100  # jobs of an array at a time


@dataclass(frozen=True)
class Wanted:
    """What a command says about where its jobs run."""

    name: str = "local"  # of NAMES
    at_once: int = 0  # 0: as many as there is room for
    address: str = AUTO  # of Ray
    slurm: Mapping[str, str] = field(default_factory=dict)  # settings of Slurm's
    resources: Resources = field(default_factory=Resources)


def make(wanted: Wanted, root: pathlib.Path, folder: pathlib.Path) -> Executor:
    """The executor. root: of the runs; folder: where commands are given.

    Raises RefusedError for a package that is not installed, or a cluster that does not answer.
    """
    _require(wanted.name)
    if wanted.name == "ray":
        return _ray(wanted, folder)
    if wanted.name == "slurm":
        return _slurm(wanted, root, folder)
    return Local(wanted.at_once or room(wanted.resources), folder, wanted.resources)


def room(resources: Resources) -> int:
    """How many jobs fit on this machine at once. Raises RefusedError if not one does."""
    cores = len(all_cores())
    if resources.cpus > cores:
        raise RefusedError(f"cpus={resources.cpus}: this machine has {cores} cores: ask for less.")
    places = cores // (resources.cpus or 1)
    if resources.gpus:
        gpus = len(all_gpus())
        places = min(places, int(gpus / resources.gpus))
        if not places:
            raise RefusedError(
                f"gpus={resources.gpus:g}: this machine has {gpus} GPUs: ask for less, or use a "
                "cluster with executor=ray or executor=slurm.",
            )
    return places


def _require(name: str) -> None:
    package = PACKAGES.get(name)
    if package is None:
        return
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise RefusedError(
            f"executor={name} needs the package {package}: pip install 'jaxshare[{name}]'.",
        ) from error


def _ray(wanted: Wanted, folder: pathlib.Path) -> Executor:
    from jaxshare.study.executors.ray_core import Ray

    try:
        _check_answer(wanted.address)
        return Ray(wanted.address, folder, wanted.resources)
    except (OSError, ValueError, RuntimeError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RefusedError(
            f"address={wanted.address}: no Ray cluster answers there ({why[:150]}): start one "
            "with `ray start --head`, name its host:port, or say address=local for this machine.",
        ) from error


def _check_answer(address: str) -> None:
    """Raise OSError if nobody listens at host:port: Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and "://" not in address and port.isdigit():
        socket.create_connection((host, int(port)), ANSWER).close()


def _slurm(wanted: Wanted, root: pathlib.Path, folder: pathlib.Path) -> Executor:
    from jaxshare.study.executors.slurm import Cluster, Slurm

    at_once = wanted.at_once or SLURM_AT_ONCE
    try:
        return Slurm(root, folder, wanted.resources, Cluster(wanted.slurm, at_once=at_once))
    except (RuntimeError, NameError, ValueError, AssertionError) as error:
        why = str(error).strip().splitlines()[0]
        raise RefusedError(
            f"executor=slurm: {why[:300]}. It runs where sbatch does; slurm.NAME=VALUE are "
            "settings of sbatch, such as slurm.partition=gpu.",
        ) from error

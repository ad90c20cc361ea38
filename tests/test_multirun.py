"""Many runs by one command: what fails anywhere is told here, and a relative run_dir is one of here."""

import multiprocessing
import os
import pathlib
import sys
import types

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import run_job, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import open_dict

from jaxshare import multirun
from jaxshare.run.signals import StoppedError
from jaxshare.types import HostError, RefusedError


class ElsewhereLauncher(Launcher):
    """Every job in a process and a folder of its own; what it returns is sent back, as joblib and submitit do."""

    folder = ""
    breaks = False

    def setup(self, *, hydra_context, task_function, config):
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides, initial_job_idx):
        if self.breaks:
            raise ConnectionError("the queue is closed\nand more")
        return [self._run(i, overrides) for i, overrides in enumerate(job_overrides, initial_job_idx)]

    def _run(self, number, overrides):
        here, there = multiprocessing.get_context("fork").Pipe()
        process = multiprocessing.get_context("fork").Process(target=self._job, args=(number, overrides, there))
        process.start()
        result = here.recv()
        process.join()
        return result

    def _job(self, number, overrides, out):
        os.chdir(self.folder)
        setup_globals()
        cfg = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(cfg):
            cfg.hydra.job.id = cfg.hydra.job.num = number
        HydraConfig.instance().set_config(cfg)
        out.send(
            run_job(
                hydra_context=self.context,
                task_function=self.task,
                config=cfg,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        )


ElsewhereLauncher.__module__ = "hydra_plugins.elsewhere"  # where hydra looks for launchers


def trained(settings, at_once):
    """Instead of training: leave a file, or fail as seeds says. at_once: only in the process of the command."""
    assert at_once == (os.getpid() == multirun._submitter)
    seeds = settings.run.seeds
    if seeds == 2:
        raise RefusedError("two is refused.")
    if seeds == 3:
        raise HostError("three broke\non the host")
    if seeds == 4:
        raise OSError(28, "No space left on device", "metrics.jsonl")
    if seeds == 5:
        raise StoppedError(15, "five was stopped.")
    if seeds == 6:
        raise ZeroDivisionError("six is a mistake")
    folder = pathlib.Path(settings.run.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trained").write_text(settings.run.data)


@pytest.fixture
def command(monkeypatch, tmp_path):
    """`jaxshare.train` with arguments, in a folder of its own: the exit status."""
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("jaxshare.run.train.train", trained)
    # configuring closes the handlers there are, and absl's closes the stream that pytest captures
    monkeypatch.setattr("hydra._internal.logging_config.HydraDictConfigurator.configure", lambda self: None)
    monkeypatch.setattr(ElsewhereLauncher, "folder", str(tmp_path / "there"))
    plugins = types.ModuleType("hydra_plugins")
    plugins.__path__ = []
    plugins.elsewhere = types.ModuleType("hydra_plugins.elsewhere")
    plugins.elsewhere.ElsewhereLauncher = ElsewhereLauncher
    for module in (plugins, plugins.elsewhere):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    Plugins.instance().register(ElsewhereLauncher)
    node = {"_target_": "hydra_plugins.elsewhere.ElsewhereLauncher"}
    ConfigStore.instance().store(group="hydra/launcher", name="elsewhere", node=node, provider="test")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["jaxshare-train"])
        try:
            multirun.run(["-m", "env=matrix", *arguments])
        except SystemExit as stopped:
            return stopped.code
        return 0

    return run


@pytest.mark.parametrize("launcher", ["basic", "elsewhere"])
def test_every_failed_job_is_told_and_the_others_go_on(command, capfd, launcher, tmp_path):
    assert command(f"hydra/launcher={launcher}", "seeds=2,1,3,4", "run_dir=runs/a,b") == 1
    *_, two, three, broke, four = [line for line in capfd.readouterr().err.splitlines() if line]
    assert two == "failed: job 0 (seeds=2): two is refused."
    assert (three, broke) == ("failed: job 2 (seeds=3): three broke", "on the host")
    assert four == "failed: job 3 (seeds=4): metrics.jsonl: No space left on device"
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("trained")] == ["here/runs/a,b/1/trained"]


def test_a_job_that_was_stopped_elsewhere(command, capfd):
    assert command("hydra/launcher=elsewhere", "seeds=5,1") == 1
    assert "failed: job 0 (seeds=5): five was stopped." in capfd.readouterr().err


def test_a_signal_to_the_command_stops_it(command):
    assert command("seeds=5,1") == 128 + 15
    assert not list(pathlib.Path().rglob("trained"))


def test_jobs_that_all_succeed(command, capfd):
    assert command("hydra/launcher=elsewhere", "seeds=1", "data=~/a,größe") == 0
    assert "failed" not in capfd.readouterr().err
    (default,) = pathlib.Path("runs").glob("multirun-*")
    learned = [(default / str(job) / "trained").read_text() for job in range(2)]
    assert learned == [os.path.expanduser("~/a"), "größe"]


def test_a_mistake_of_the_program_is_told_with_its_job(command, capfd):
    with pytest.raises(ZeroDivisionError):
        command("hydra/launcher=elsewhere", "seeds=2,6")
    errors = capfd.readouterr().err
    assert "failed: job 0 (seeds=2): two is refused." in errors
    assert "failed: job 1 (seeds=6): ZeroDivisionError: six is a mistake" in errors


def test_a_launcher_that_breaks(command, capfd, monkeypatch):
    monkeypatch.setattr(ElsewhereLauncher, "breaks", True)
    assert command("hydra/launcher=elsewhere", "seeds=1,2") == 1
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        f"failed: job {i} (seeds={i + 1}): ElsewhereLauncher failed: ConnectionError: the queue is closed"
        for i in range(2)
    ]


def test_a_folder_that_the_other_machine_does_not_have(command, capfd, monkeypatch, tmp_path):
    is_dir = pathlib.Path.is_dir
    here = tmp_path / "here"
    monkeypatch.setattr(pathlib.Path, "is_dir", lambda self: self != here and is_dir(self))
    assert command("hydra/launcher=elsewhere", "seeds=1,7", "run_dir=runs/x") == 1
    assert f"the command was given in {here}, which" in capfd.readouterr().err
    assert command("hydra/launcher=elsewhere", "seeds=1,7", f"run_dir={tmp_path}/x") == 0
    assert (tmp_path / "x" / "1" / "trained").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["algo=QMIX,vdn"], ["algo=QMIX", "Did you mean qmix?"]),
        (["algo=qmix,vdn", "learning_rate=1,2"], ["learning_rate", "algo.hparams.lr"]),
        (["algo=qmix,vdn", "algo.embed=1"], ["algo.embed"]),
        (["total_env_steps=1e3,1.5"], ["total_env_steps=1.5", "whole number"]),
        (["env.kwargs.x=größe,b"], ["'ö'"]),
        (["hydra/launcher=slurm"], ["hydra/launcher", "slurm"]),
        (["algo=iql,qmix", "algo.embed_dim=4"], ["algo.embed_dim"]),  # qmix has it, iql does not
        (["seeds=1,many"], ["seeds", "many"]),
    ],
)
def test_what_is_wrong_is_told_before_anything_runs(command, arguments, words):
    with pytest.raises(RefusedError) as caught:
        command(*arguments)
    assert [word for word in words if word not in str(caught.value)] == [], caught.value
    assert not list(pathlib.Path().rglob("trained"))

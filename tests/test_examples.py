"""docs/examples: every script runs, and does what it says."""

import json
import os
import re
import runpy
import subprocess
import sys

import outside
import pytest
import tiny

from jaxshare import cli, registry

FOLDER = tiny.REPOSITORY / "docs" / "examples"
SCRIPTS = {path.name for path in FOLDER.glob("*.py")}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The folder in which all are run, since one reads what another has written."""
    folder = tmp_path_factory.mktemp("examples")
    before = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)
    outside.forget()


def run(name, *arguments):
    """Run a script as `python SCRIPT ARGUMENTS` does, but in this process, where JAX has started."""
    before = sys.argv
    sys.argv = [name, *arguments]
    try:
        runpy.run_path(str(FOLDER / name), run_name="__main__")
    finally:
        sys.argv = before


def test_every_script_is_in_the_list():
    assert set(re.findall(r"^\| \[(\w+\.py)\]\(\1\)", (FOLDER / "README.md").read_text(), re.M)) == SCRIPTS
    assert len(SCRIPTS) == 4  # whoever adds one adds its test below


def test_training_stops_and_its_run_is_evaluated(here, capsys):
    run("train_with_callback.py")
    printed = capsys.readouterr().out
    ends = re.findall(r"^seed [01]: return ([\d.]+) after (\d+) steps$", printed, re.M)
    assert len(ends) == 2
    for value, steps in ends:
        assert float(value) >= 7
        assert int(steps) < 4000, "it went on to the end"

    run("evaluate_saved.py", "runs/callback")
    printed = capsys.readouterr().out
    assert re.findall(r"^seed ([01]): return [78]\.00 over 32 episodes$", printed, re.M) == ["0", "1"]
    rewards = [float(reward) for reward in re.findall(r", reward ([\d.]+)$", printed, re.M)]
    assert f"this episode's return {sum(rewards):.1f}\n" in printed
    assert len(rewards) == 2
    assert sum(rewards) == float(ends[0][0])


def test_the_environment_is_learned(here, capsys):
    run("own_environment.py")
    first, last = map(
        float, re.search(r"at the start ([\d.]+), at the end ([\d.]+),", capsys.readouterr().out).groups()
    )
    assert first < last
    assert last > 3


def test_the_environment_is_one_of_the_command_line(here):
    settings = cli.settings([f"env={FOLDER / 'own_environment.py'}", "algo=vdn", "env.agents=5"])
    spec = registry.get("env", settings.env_name).make(settings.env).spec
    assert (spec.num_agents, spec.action.num_actions, spec.episode_limit) == (5, 5, 4)


@pytest.mark.slow
def test_the_study_is_run_and_read(tmp_path):
    environment = {**tiny.ENVIRONMENT, "PYTHONPATH": str(tiny.REPOSITORY)}
    line = [sys.executable, str(FOLDER / "small_study.py")]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^lr [-\de.]+: returns of the seeds \[[^,]+, [^,]+\]$", done.stdout, re.M)) == 2
    result = json.loads((tmp_path / "runs/small_study/results.json").read_text())
    assert f"the check is {result['claims']['rates']['small']['verdict']};" in done.stdout

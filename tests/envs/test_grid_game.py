"""The environment of CONTRIBUTING.md, built by a stranger: its code block as a file outside of the package."""

import re

import contract
import jax
import jax.numpy as jnp
import numpy as np
import outside
import pytest
import tiny

from jaxshare import cli, registry
from jaxshare.settings.validate import check_all
from jaxshare.types import RefusedError

TEXT = (tiny.REPOSITORY / "CONTRIBUTING.md").read_text()
SECTION = TEXT.partition("## Add an environment")[2].partition("\n## ")[0]
(GAME,) = re.findall(r"^```python\n(.*?)^```$", SECTION, re.M | re.S)
LINES = 35


@pytest.fixture
def path(tmp_path):
    """The file."""
    file = tmp_path / "meeting.py"
    file.write_text(GAME)
    yield file
    outside.forget()


def made(path, *arguments):
    """The environment that the settings of a command line name."""
    settings = cli.settings([f"env={path}", "algo=vdn", *arguments])
    check_all(settings)
    return registry.get("env", settings.env_name).make(settings.env)


def test_it_is_short():
    assert len(GAME.splitlines()) <= LINES


def test_it_keeps_the_contract(path):
    env = made(path)
    contract.check_arrays(env)
    contract.check_first_step(env)


def test_it_is_the_game_that_it_says(path):
    env = made(path, "env.side=3")
    start = jnp.array([[0, 0], [0, 2]])
    state, timestep = env.step((start, jnp.int32(0)), jnp.array([3, 0]), jax.random.key(0))
    np.testing.assert_allclose(timestep.obs, np.array([[0, 1, 0, 2], [0, 2, 0, 1]]) / 3)
    np.testing.assert_array_equal(timestep.reward, [0, 0])
    assert not timestep.terminated
    _, timestep = env.step(state, jnp.array([3, 1]), jax.random.key(0))
    assert not timestep.terminated, "they passed each other"
    _, timestep = env.step(state, jnp.array([3, 0]), jax.random.key(0))
    np.testing.assert_array_equal(timestep.reward, [1, 1])
    assert timestep.terminated
    assert timestep.info["won"] == 1
    _, timestep = env.step((start, jnp.int32(19)), jnp.array([0, 0]), jax.random.key(0))
    assert timestep.truncated
    assert not timestep.terminated


def test_its_settings_have_ranges(path):
    with pytest.raises(RefusedError, match=r"env\.side=1"):
        made(path, "env.side=1")


@pytest.mark.slow
def test_it_can_be_trained(path, tmp_path):
    run_dir = tmp_path / "run"
    arguments = ("algo=vdn", "total_env_steps=400", *tiny.SIZES[:-1])
    done = outside.command("train", f"env={path}", f"run_dir={run_dir}", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert any("eval/win_rate" in record for record in tiny.records(run_dir))

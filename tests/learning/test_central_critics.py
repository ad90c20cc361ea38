"""Which equilibrium of climbing actor-critics find, and what central critics are good for (MARL-book lecture)."""

import numpy as np
import pytest
import tiny

pytestmark = pytest.mark.slow

CLIMBING = (
    "env=matrix", "env.game=climbing", "num_envs=10", "seeds=10", "total_env_steps=20000", "eval.every=10000",
    "eval.episodes=1", "checkpoint.every=0", "progress=false",
)  # fmt: skip
TALK = (
    "env=mpe", "env.scenario=speaker_listener", "num_envs=10", "seeds=2", "total_env_steps=200000", "eval.every=50000",
    "eval.episodes=256", "checkpoint.every=0", "progress=false", "modifiers=[standardise]",
    "algo.hparams.entropy_coef=0.01",
)  # fmt: skip


def final_returns(run_dir):
    """The last greedy return of every seed."""
    last = {}
    for record in tiny.records(run_dir):
        if "eval/return" in record:
            last[record["seed"]] = record["eval/return"]
    return np.array(list(last.values()))


def test_pac_finds_the_best_joint_action(tmp_path):
    found = final_returns(tiny.train(tmp_path / "run", *CLIMBING, "algo=pac"))
    assert len(found) == 10
    assert np.sum(found == 11) >= 8


@pytest.mark.parametrize("algo", ["maa2c", "ia2c"])
def test_a2c_settles_for_less(tmp_path, algo):
    found = final_returns(tiny.train(tmp_path / "run", *CLIMBING, f"algo={algo}"))
    assert len(found) == 10
    assert np.sum((found == 7) | (found == 5)) >= 6


def test_the_listener_learns_to_go_somewhere(tmp_path):
    """It leaves -79 (an untrained team) for the middle of the landmarks at least, about -16."""
    found = final_returns(tiny.train(tmp_path / "run", *TALK, "algo=maa2c"))
    assert np.all(found > -20)

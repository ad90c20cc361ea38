"""Probes with known values: what needs memory, and what needs a mixer that VDN's sum is not."""

import pytest
import tiny

SMALL = ("env=matrix", "num_envs=8", "replay.capacity=512", "eval.episodes=64", "progress=false", "algo.hidden_dim=16")
RECALL = (
    *SMALL, "env.game=recall", "algo=qmix", "algo.optimizer=adam", "algo.hparams.lr=3e-3", "algo.obs_last_action=false",
    "algo.embed_dim=8", "algo.hypernet_dim=8", "algo.hparams.epsilon_anneal_steps=3000", "total_env_steps=9000",
    "eval.every=3000", "algo.target_update_period=50",
)  # fmt: skip
# all actions are explored for ever, as in the paper: the values of the whole tree are learned
TWO_STEP = (
    *SMALL, "env.game=two_step", "algo.optimizer=adam", "algo.hparams.lr=2e-3", "algo.hparams.epsilon_end=1.0",
    "algo.target_update_period=50", "total_env_steps=6000", "eval.every=3000",
)  # fmt: skip


def final_returns(run_dir):
    last = {}
    for record in tiny.records(run_dir):
        if "eval/return" in record:
            last[record["seed"]] = record["eval/return"]
    return list(last.values())


@pytest.mark.slow
def test_a_recurrent_team_remembers(tmp_path):
    tiny.train(tmp_path, *RECALL)
    assert final_returns(tmp_path) == [1.0]


@pytest.mark.slow
def test_a_feed_forward_team_cannot(tmp_path):
    tiny.train(tmp_path, *RECALL, "algo.recurrent=false", "total_env_steps=3000")
    assert final_returns(tmp_path)[0] < 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("algo", "best"), [("qmix", 8.0), ("vdn", 7.0)])
def test_two_step_needs_more_than_a_sum(tmp_path, algo, best):
    """Rashid et al. 2018, section 5: QMIX finds the 8, VDN takes the safe 7."""
    tiny.train(tmp_path, *TWO_STEP, f"algo={algo}", "seeds=2")
    assert final_returns(tmp_path) == [best, best]

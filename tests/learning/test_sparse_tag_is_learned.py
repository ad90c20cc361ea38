"""Shared experience in the sparse predator-prey task."""

import pytest
import test_central_critics as others
import tiny

pytestmark = pytest.mark.slow

HUNT = (
    "algo=seac", "env=mpe", "env.scenario=sparse_tag", "total_env_steps=600000", "eval.every=300000",
    "eval.episodes=200", "eval.policy=stochastic", "checkpoint.every=0", "progress=false",
)  # fmt: skip


def test_seac_catches_the_slow_prey(tmp_path):
    """Untrained it returns about -0.1, a straight chase 1.9."""
    returns = others.final_returns(tiny.train(tmp_path / "run", *HUNT))
    assert returns.min() > 1.0

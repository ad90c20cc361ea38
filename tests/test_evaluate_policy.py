"""Evaluations play greedily, as in training, or both; the best parameters of a run are kept, and played elsewhere."""

import json
from contextlib import closing
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxshare import cli
from jaxshare.commands import evaluate
from jaxshare.evaluation.tables import tables
from jaxshare.run import EVALUATION, build
from jaxshare.run.checkpoint.checkpoints import Checkpoints
from jaxshare.run.fleet import Fleet
from jaxshare.run.saver import Saver
from jaxshare.training.counting import start_clock
from jaxshare.types import RefusedError

CLIMBING = ("env=matrix", "env.game=climbing", "algo.hidden_dim=4", "eval.num_envs=0", "progress=false")
EVERY_JOINT_ACTION = -31 / 9  # mean payoff of the climbing game


def compiled(*arguments):
    """A function: values of hyper-parameters -> returns [B] of untrained parameters, greedy and stochastic."""
    program = build.prepare(tiny.settings("unused", *CLIMBING, *arguments))

    def play(values):
        state = program.init(jnp.int32(0))
        rounds = [program.play(state, values, start_clock(), 4096, explore=explore) for explore in (False, True)]
        return [program.returns(played.episode) for played in rounds]

    jitted, usual = jax.jit(play), program.algorithm.hparams
    return lambda **h: map(np.asarray, jitted({name: jnp.float32(x) for name, x in {**usual, **h}.items()}))


def assert_even(returns):
    np.testing.assert_allclose(returns.mean(), EVERY_JOINT_ACTION, atol=3 * returns.std() / returns.size**0.5)


def test_a_greedy_policy_repeats_itself_and_a_stochastic_one_draws():
    """An untrained actor chooses about evenly (its last layer starts at a hundredth)."""
    greedy, stochastic = compiled("algo=iac")()
    assert np.unique(greedy).size == 1
    assert_even(stochastic)


def test_for_values_a_stochastic_policy_is_the_exploration_of_training_at_that_step():
    play = compiled("algo=vdn", "algo.recurrent=false")
    greedy, wild = play(epsilon_start=1.0, epsilon_end=1.0)
    same, quiet = play(epsilon_start=0.0, epsilon_end=0.0)
    assert np.unique(greedy).size == 1
    np.testing.assert_array_equal(same, greedy)
    np.testing.assert_array_equal(quiet, greedy)
    assert_even(wild)


# ------------------------------------------------------------------------------------------------------------- a run

# evaluations at 8 (after the prefill), 24, 40, 56 and 64 environment steps
ARGUMENTS = (*tiny.TWO_STEP, "algo=vdn", "algo.recurrent=false", *tiny.SIZES, "seeds=2", "checkpoint.best=true")
ARGUMENTS += ("eval.policy=both", "checkpoint.every=16", "checkpoint.keep=9", "algo.hparams.lr=0.05")
SCORES = {8: (3.0, 1.0), 24: (5.0, 0.5), 40: (2.0, 0.25), 56: (5.0, -1.0), 64: (4.0, -2.0)}  # of two runs
BEST = [(56, 5.0), (8, 1.0)]  # of equals, the latest


@pytest.fixture(scope="module")
def seen():
    """{environment steps: parameters of both runs} at the evaluations of `run_dir`."""
    return {}


@pytest.fixture(scope="module")
def scripted(seen):
    """Evaluations whose greedy returns are SCORES."""
    original = Fleet.evaluate

    def fake(runs):
        found, steps = original(runs), int(runs.env_steps[0])
        seen.setdefault(steps, [runs.params(i) for i in range(2)])
        return {**found, "return": np.array(SCORES[steps])}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fleet, "evaluate", fake)
        yield


@pytest.fixture(scope="module")
def run_dir(scripted, tmp_path_factory):
    # one device: a program that other tests compile as well
    return tiny.train(tmp_path_factory.mktemp("best") / "run", *ARGUMENTS, "parallel.devices=1")


@cache
def shapes():
    return jax.eval_shape(build.prepare(tiny.settings("unused", *ARGUMENTS)).init, jnp.int32(0))


def best_of(run_dir, step=None):
    checkpoints = Checkpoints(run_dir, read_only=True)
    try:
        return checkpoints.best(checkpoints.latest() if step is None else step, shapes(), 2)
    finally:
        checkpoints.close()


def test_the_log_has_both_policies(run_dir):
    shown = [record for record in tiny.records(run_dir) if "eval/return" in record]
    assert len(shown) == 2 * len(SCORES)
    assert all({"eval/length", "eval/stochastic_return", "eval/stochastic_length"} <= record.keys() for record in shown)


def test_each_run_keeps_the_parameters_of_its_best_evaluation(run_dir, seen):
    assert list(seen) == list(SCORES)
    found = best_of(run_dir)
    assert [(best.env_steps, best.score) for best in found] == BEST
    tiny.assert_equal([best.params for best in found], [seen[steps][i] for i, (steps, _) in enumerate(BEST)])
    leaves = [jax.tree.leaves(seen[steps][0]) for steps in (24, 56)]
    assert any(np.any(a != b) for a, b in zip(*leaves, strict=True))


def test_every_checkpoint_has_the_best_so_far(run_dir):
    first, *rest = tiny.steps_saved(run_dir)  # the first is written before the first evaluation
    assert best_of(run_dir, first) is None
    found = [[(best.env_steps, best.score) for best in best_of(run_dir, step)] for step in rest]
    assert found == [[(24, 5.0), (8, 1.0)], [(24, 5.0), (8, 1.0)], BEST, BEST]


def assert_same_best(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert (one.env_steps, one.score) == (other.env_steps, other.score)
        tiny.assert_equal(one.params, other.params)


def test_a_run_that_goes_on_remembers_its_best(run_dir):
    chosen = tiny.settings(run_dir, *ARGUMENTS, "resume=auto")
    program, _ = build.lay_out(chosen)
    with closing(program):
        begin = Saver(run_dir, chosen, program).beginning(resuming=True)
    assert_same_best(begin.best, best_of(run_dir))


@pytest.mark.slow
def test_stopping_in_the_middle_changes_nothing(run_dir, tmp_path, optimised):
    """The second run's best is from before, the first one's from after."""
    tiny.train(tmp_path / "half", *ARGUMENTS, max_chunks=1)
    tiny.train(tmp_path / "half", *ARGUMENTS, "resume=auto")
    tiny.train(tmp_path / "whole", *ARGUMENTS)
    assert_same_best(best_of(tmp_path / "half"), best_of(tmp_path / "whole"))


@pytest.fixture(scope="module")
def found(run_dir):
    """What `evaluate` says of the best, with the final checkpoint beside it."""
    return evaluate.evaluate(evaluate.Config(run_dir=str(run_dir), episodes=8, checkpoint="best", final=True))


def test_the_best_is_played_on_other_episodes(run_dir, found):
    assert found == json.loads((run_dir / EVALUATION).read_text())
    assert (found["checkpoint"], found["eval_seed"], found["policy"]) == ("best", 10_001, "both")
    assert found["selected_on"] == {"eval_seed": 10_000, "episodes": 4, "policy": "greedy"}
    assert [(run["env_steps"], run["selected_return"]) for run in found["runs"]] == BEST
    assert found["mean"]["selected_return"] == 3.0
    assert found["final"]["checkpoint"] == tiny.steps_saved(run_dir)[-1]
    assert [run["env_steps"] for run in found["final"]["runs"]] == [64, 64]
    best, final = (table.title for table in tables(found))
    assert "seed 10000" in best
    assert "seed 10001" in best
    assert final.startswith("final checkpoint")


def test_what_is_played_are_the_kept_parameters(found, seen):
    program = build.prepare(tiny.settings("unused", *ARGUMENTS, "eval.seed=10001"))
    hparams = {name: jnp.float32(value) for name, value in program.algorithm.hparams.items()}
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes())

    @jax.jit
    def mean(params):
        state = zeros.replace(learner=zeros.learner.replace(params=params))
        return program.returns(program.play(state, hparams, start_clock(), 8).episode).mean()

    for i, (steps, _) in enumerate(BEST):
        assert found["runs"][i]["return"] == pytest.approx(float(mean(seen[steps][i])))
        assert found["final"]["runs"][i]["return"] == pytest.approx(float(mean(seen[64][i])))


def test_one_policy_alone_has_no_prefix(run_dir, found):
    alone = evaluate.evaluate(
        evaluate.Config(run_dir=str(run_dir), episodes=8, policy="stochastic", checkpoint="best", seed=10_001)
    )
    for one, other in zip(found["runs"], alone["runs"], strict=True):
        assert one["stochastic_return"] == other["return"]
        assert one["stochastic_return_std"] == other["return_std"]
        assert "stochastic_return" not in other


# -------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("checkpoint=best", "seed=10000"), r"seed=10000: these episodes chose"),
        (("checkpoint=last",), r"checkpoint=last is neither"),
        (("checkpoint=7777",), r"has no checkpoint 7777; it has: \d+"),
        (("final=true",), r"final=true has no effect.*Add checkpoint=best"),
        (("policy=lazy",), r"policy=lazy is not one of greedy, stochastic, both"),
        (("episodes=0",), r"episodes=0 must be at least 1"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(run_dir, arguments, message):
    with pytest.raises(RefusedError, match=message):
        evaluate.evaluate(cli.small_config(evaluate.Config, [f"run_dir={run_dir}", *arguments]))


def test_a_run_without_best_parameters_is_refused(run_dir, monkeypatch):
    monkeypatch.setattr(Checkpoints, "best", lambda *args: None)  # as of a checkpoint without them, above
    with pytest.raises(RefusedError, match=r"checkpoint=best: .* holds none. Train with checkpoint.best=true"):
        evaluate.evaluate(evaluate.Config(run_dir=str(run_dir), checkpoint="best"))


def test_an_unknown_policy_of_a_run_is_refused(tmp_path):
    with pytest.raises(RefusedError, match=r"eval\.policy=lazy is not one of greedy, stochastic, both"):
        build.prepare(tiny.settings(tmp_path, *tiny.PLAIN, "eval.policy=lazy"))

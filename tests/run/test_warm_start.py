"""init_from=RUN: a run that begins with the parameters of another one."""

import shutil

import jax
import numpy as np
import pytest
import tiny

from jaxshare.types import RefusedError

SHORT = (*tiny.PLAIN, "checkpoint.every=0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two seeds that have learned."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    tiny.train(run_dir, *SHORT, "seeds=2")
    _, states = tiny.restore(run_dir, *SHORT, "seeds=2")
    return run_dir, [state.learner for state in states]


def first_learners(run_dir, *arguments):
    """What a new run has before it learns: the learners of its first checkpoint."""
    tiny.train(run_dir, *arguments, max_chunks=0)
    _, states = tiny.restore(run_dir, *arguments)
    return [state.learner for state in states]


def assert_begins_with(learners, others):
    for learner, other in zip(learners, others, strict=True):
        tiny.assert_equal(learner.params, other.params)
        tiny.assert_equal(learner.target_params, other.target_params)


def test_runs_begin_with_the_run_of_their_place(trained, tmp_path):
    source, others = trained
    begun = first_learners(tmp_path, *SHORT, "seeds=2", f"init_from={source}")
    assert_begins_with(begun, others)
    # the optimiser begins anew
    moments = [np.asarray(leaf) for leaf in jax.tree.leaves(begun[0].opt_state)]
    assert all((moment == 0).all() for moment in moments if moment.dtype.kind == "f")


def test_one_seed_begins_with_the_run_of_that_seed(trained, tmp_path):
    source, others = trained
    begun = first_learners(tmp_path, *SHORT, "seed=1", f"init_from={source}")
    assert_begins_with(begun, others[1:])


def test_it_learns_on_and_goes_on_without_the_other_run(trained, tmp_path):
    source, others = trained
    shutil.copytree(source, tmp_path / "source")
    arguments = (*SHORT, "seeds=2", f"init_from={tmp_path / 'source'}")
    tiny.train(tmp_path / "run", *arguments, max_chunks=1)
    shutil.rmtree(tmp_path / "source")
    tiny.train(tmp_path / "run", *arguments, "resume=auto")
    _, states = tiny.restore(tmp_path / "run", *arguments)
    pairs = zip(jax.tree.leaves(states[0].learner.params), jax.tree.leaves(others[0].params), strict=True)
    assert any((new != old).any() for new, old in pairs)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("algo.hidden_dim=9",), "does not fit; params.agent"),
        (("env.game=climbing",), "does not fit: the environment .*offers 3 actions"),
        (("seeds=3",), "holds 2 runs .*this command has 3"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(trained, tmp_path, arguments, words):
    source, _ = trained
    with pytest.raises(RefusedError, match=rf"^init_from={source}.*{words}"):
        tiny.train(tmp_path / "run", *SHORT, f"init_from={source}", *arguments)
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    for folder, words in ((tmp_path, "has no checkpoint"), (tmp_path / "none", "does not exist")):
        with pytest.raises(RefusedError, match=f"^init_from={folder} {words}"):
            tiny.train(tmp_path / "run", *SHORT, f"init_from={folder}")

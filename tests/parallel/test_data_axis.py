"""One run over two devices: the same numbers as on one, little between devices, and resuming on fewer or more."""

import functools
import re
import subprocess
import sys
from typing import NamedTuple

import jax
import numpy as np
import pytest
import tiny
from combinations import FAST

from jaxshare import cli
from jaxshare.run import build
from jaxshare.run.fleet import Fleet
from jaxshare.types import RefusedError

TOLERANCE = 1e-5
LARGEST_GATHER = 2**16  # numbers
REDUCED = 1.5  # times the parameters
SMALL = (
    "env=lbf", "env.scenario=5x5-2p-1f", "env.max_steps=10", "num_envs=8", "algo.hidden_dim=8", "progress=false",
    "total_env_steps=2000", "parallel.shards=2",
)  # fmt: skip
# five updates in each of two iterations
REPLAY = ("algo=qmix", "batch_size=8", "replay.capacity=32", "updates_per_episode=0.625", "algo.embed_dim=4")
CASES = {
    "qmix": (2, REPLAY),
    "differ": (2, (*REPLAY, "modifiers=[differ]", "differ.select=per_expected")),
    "seac": (10, ("algo=seac",)),
    "ippo": (2, ("algo=ippo", "algo.segment_length=8", "algo.epochs=3", "algo.minibatches=2")),
}
COLLECTIVE = re.compile(r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")
ARRAY = re.compile(r"\w+\[([\d,]*)\]")


class Learned(NamedTuple):
    """A case after its iterations."""

    state: object  # of the run, as numpy arrays
    metrics: dict
    placed: object  # the state on its devices
    text: str  # of the compiled program


@functools.cache
def learned(case, data):
    """A case over `data` devices: its beginning and iterations as one program."""
    iterations, arguments = CASES[case]
    settings = cli.settings([*SMALL, *arguments, f"parallel.data={data}"])
    program, layout = build.lay_out(settings)
    fleet = Fleet(program, layout, settings)
    hparams = {name: np.float32(value) for name, value in program.algorithm.hparams.items()}

    def learn(seed, clock):
        # without a prefill: what an iteration collects is as much as it draws, and less to compile
        return program.chunk(iterations, program.init(seed), hparams, clock)

    lifted = layout.lift(learn, donate=False, batched=1, out=(layout.of_state, layout.sharding))
    compiled = lifted.lower(fleet._seeds()[0], fleet.clock).compile(FAST)
    (state, metrics), _ = compiled(fleet._seeds()[0], fleet.clock)
    fleet.states = [state]
    one_run = fleet.unstacked(settings.run.replay.capacity)[0]
    return Learned(one_run, metrics, state, compiled.as_text())


def collectives(text):
    """(kind, numbers) of each collective that a program has."""
    for line in text.splitlines():
        match = COLLECTIVE.search(line)
        if match:
            shapes = [[int(size) for size in sizes.split(",") if size] for sizes in ARRAY.findall(match[1])]
            yield match[2], sum(int(np.prod(shape)) for shape in shapes)


@pytest.mark.parametrize("case", CASES)
def test_two_devices_learn_what_one_learns(case):
    one = learned(case, 1)
    two = learned(case, 2)
    assert one.state.updates >= 10
    tiny.assert_close(one.state, two.state, TOLERANCE)
    tiny.assert_close(one.metrics["collect"], two.metrics["collect"], TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_nothing_large_passes_between_devices(case):
    """XLA would rather compute everything on every device than fail: this is what tells."""
    two = learned(case, 2)
    parameters = sum(x.size for x in jax.tree.leaves(two.state.learner.params))
    passed = list(collectives(two.text))
    reduced = sum(count for kind, count in passed if kind == "all-reduce")
    assert 0.9 * parameters <= reduced <= REDUCED * parameters
    assert max([0, *(count for kind, count in passed if kind != "all-reduce")]) <= LARGEST_GATHER
    assert not list(collectives(learned(case, 1).text))


def test_a_replay_lies_in_halves():
    """Each device holds one of the two rings, and parameters whole."""
    placed = learned("qmix", 2).placed
    assert placed.replay.obs.shape[:3] == (1, 2, 16)
    assert {shard.data.shape[:3] for shard in placed.replay.obs.addressable_shards} == {(1, 1, 16)}
    assert {x.is_fully_replicated for x in jax.tree.leaves(placed.learner)} == {True}
    streams = learned("ippo", 2).placed.streams
    assert {shard.data.shape for shard in streams.first.addressable_shards} == {(1, 4)}


# ------------------------------------------------------------------------------------ whole runs

RUN = (*tiny.TWO_STEP, *tiny.QMIX, *tiny.SIZES, "parallel.shards=2")
TWO = "parallel.data=2"
RESUME = "resume=auto"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tiny.train(tmp_path_factory.mktemp("whole") / "run", *RUN)


def assert_as(run_dir, whole):
    clock, states = tiny.restore(run_dir, *RUN)
    expected_clock, expected = tiny.restore(whole, *RUN)
    assert clock == expected_clock
    tiny.assert_close(states, expected, TOLERANCE)


@pytest.mark.parametrize("parts", [(TWO, "parallel.data=1"), ("parallel.data=1", TWO)])
def test_a_run_goes_on_with_another_number_of_devices(whole, tmp_path, parts):
    tiny.train(tmp_path, *RUN, parts[0], max_chunks=2)
    tiny.train(tmp_path, *RUN, parts[1], RESUME)
    assert_as(tmp_path, whole)


def test_shards_that_follow_the_devices_stay_when_devices_go(tmp_path):
    arguments = RUN[:-1]
    tiny.train(tmp_path, *arguments, TWO, max_chunks=1)
    with pytest.raises(RefusedError, match=r"parallel\.shards was 2, now 1"):
        tiny.train(tmp_path, *arguments, RESUME)
    tiny.train(tmp_path, *arguments, "parallel.shards=2", RESUME, max_chunks=1)


@pytest.mark.slow
def test_two_seeds_on_four_devices(tmp_path):
    """Each seed is what it is alone; four devices need a process of their own."""
    run_dir = tmp_path / "run"
    arguments = [*RUN, TWO, "parallel.devices=4", "seeds=2", f"run_dir={run_dir}"]
    command = [sys.executable, "-m", "jaxshare.train", *arguments]
    done = subprocess.run(
        command, cwd=tiny.REPOSITORY, env=tiny.ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "2 run(s) on 4 cpu device(s), 2 for each run" in done.stdout + done.stderr
    tiny.train(tmp_path / "alone", *RUN, "seeds=2")
    _, states = tiny.restore(run_dir, *RUN, "seeds=2")
    _, expected = tiny.restore(tmp_path / "alone", *RUN, "seeds=2")
    tiny.assert_close(states, expected, TOLERANCE)


# -------------------------------------------------------------------------------------- refusals

REFUSED = {
    "parallel.data=2 parallel.shards=3": "parallel.data=2 does not divide parallel.shards=3",
    "parallel.data=2 parallel.shards=1": "parallel.data=2 does not divide parallel.shards=1",
    "parallel.data=2 parallel.strategy=vmap": "parallel.strategy=vmap",
    "parallel.data=2 parallel.devices=3": "parallel.devices=3 cannot be shared out",
    "parallel.shards=3": "num_envs=4 cannot be dealt evenly into parallel.shards=3",
    "parallel.data=2 batch_size=5": "batch_size=5 cannot be dealt evenly into parallel.shards=2",
    "parallel.data=2 replay.capacity=17": "replay.capacity=17 cannot be dealt evenly",
    "parallel.data=2 algo=maddpg algo.window=1 algo.recurrent=false": "parallel.data=2: algo.window=1",
    "parallel.data=4 algo=ippo algo.minibatches=2": "num_envs=4 in algo.minibatches=2",
    "parallel.data=2 algo=iac modifiers=[rs_pps]": r"modifiers=\[rs_pps\] watch or play",
    "parallel.shards=2 env=gymnasium": "parallel.shards=2 is for JAX environments",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_cannot_be_dealt_out_is_refused_in_words(arguments):
    base = ["env=matrix", "algo=vdn", *tiny.SIZES[:3], "progress=false"]
    with pytest.raises(RefusedError, match=REFUSED[arguments]):
        build.lay_out(cli.settings([*base, *arguments.split()]))

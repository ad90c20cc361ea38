"""benchmarks/accelerator.py: it runs in small, is never late, says what is missing, and can find a difference."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny

sys.path.insert(0, str(tiny.REPOSITORY / "benchmarks"))

import _accelerator_parts as parts
import _accelerator_speed as speed
import accelerator

BENCHMARKS = tiny.REPOSITORY / "benchmarks"
ENVIRONMENT = {**tiny.ENVIRONMENT, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def run(*arguments):
    command = [sys.executable, str(BENCHMARKS / "accelerator.py"), *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def test_in_small_every_part_is_measured(tmp_path):
    done = run("small=true", f"out={tmp_path}")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "accelerator.json").read_text())
    assert {name: part["state"] for name, part in record["parts"].items()} == dict.fromkeys(
        accelerator.SHARES, "finished"
    )
    rows = {name: part["rows"] for name, part in record["parts"].items()}
    assert all(row["agrees"] and row["losses"] for row in rows["losses"])
    assert {row["batch"] for row in rows["tree"]} == {8}
    assert rows["win"][-1]["reached"]
    assert rows["win"][-1]["seconds"] > 0
    (cell,) = rows["speed"]
    assert min(cell[name] for name in ("env_steps_per_s", "updates_per_s", "compile_seconds", "peak_mb")) > 0
    table = (tmp_path / "accelerator.md").read_text()
    assert all(f"| {name} | {row['what']} |" in table for name in rows for row in rows[name])
    assert record["machine"] in table


def test_without_a_gpu_it_says_what_to_do():
    done = run("losses")
    assert done.returncode == 1
    assert done.stderr.startswith("error: No GPU is here")
    assert "pip install 'jaxshare[cuda12]'" in done.stderr
    assert "small=true" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_words_are_parts():
    with pytest.raises(accelerator.RefusedError, match=r"'wins' is not a part\. Known: losses, tree"):
        accelerator.measure(["wins", "small=true"])


def test_a_part_that_is_late_is_ended_and_what_it_had_counts(tmp_path, monkeypatch):
    script = tmp_path / "_accelerator_parts.py"
    script.write_text(
        "import sys, time\n"
        "open(sys.argv[1], 'a').write('{\"what\": 1}\\n{\"what\": ')\n"
        "open(sys.argv[2], 'w').close()\n"
        "time.sleep(600)\n"
    )
    monkeypatch.setattr(accelerator, "HERE", tmp_path)
    part = accelerator.child([str(tmp_path / "began")], dict(os.environ), 3.0)
    assert (tmp_path / "began").exists()
    assert part == accelerator.Part("cut off after 3 s", [{"what": 1}])


def test_cells_without_time_are_named(monkeypatch):
    monkeypatch.setattr(speed, "together", lambda batch, end, environment: [(cell, None) for cell in batch])
    state, rows = speed.measured(False, 0.0, {})
    assert rows == []
    assert state.count(";") == len(speed.cells(False)) - 1 == 33
    assert "QMIX + DIFFER, SMAX 3m, 64 seeds" in state


@pytest.mark.parametrize("other", [[1.0, 0.002], [1.0, np.nan]])
def test_another_loss_is_a_difference(other):
    numbers = {"loss/td": np.array([1.0, 0.0])}
    assert parts.largest_difference(numbers, numbers) == 0.0
    assert parts.largest_difference(numbers, {"loss/td": np.array(other)}) > parts.TOLERANCE


def test_losses_that_cancel_are_measured_by_a_floor():
    assert parts.largest_difference({"x": np.array([1e-8])}, {"x": np.array([2e-8])}) < parts.TOLERANCE


def test_learners_on_policy_can_be_traced():
    case = parts.case_of("IAC", small=True)
    _, losses = jax.eval_shape(case.updates, *jax.eval_shape(case.begin))
    assert losses
    assert {len(x.shape) and x.shape[0] for x in losses.values()} == {parts.UPDATES}


def test_settings_of_all_cells_are_settings():
    for cell in (*speed.cells(False)[:5], *speed.cells(True)):
        chosen = parts.cli.settings(cell.arguments)
        assert len(chosen.runs()) == cell.seeds

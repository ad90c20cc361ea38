"""All speed benchmarks, one after another, and one table: aim, measured, verdict, versions, machine.

    python benchmarks/speed.py                  `make bench`: under half an hour on two cores
    python benchmarks/speed.py --only learner seeds
    python benchmarks/speed.py --table          only write the table again from benchmarks/results/*.json

Writes benchmarks/results/speed.md. Every script can be run alone and keeps its own figures in benchmarks/results; a
row whose script was not run this time is made from them, and the table says when they were measured.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import _common
import memory
import startup

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results"
LIMIT_S = 1200  # of one script: a hang is a failure
RACE_S = 30  # of learning to a win rate of 0.75
STEPS_AIM = 1.3  # times the plain rival's steps a second


@dataclass(frozen=True)
class Row:
    """A line of the table. met: None where there is no aim."""

    aim: str
    what: str
    measured: str
    met: bool | None
    day: str = ""  # measured then; empty: as the rest of its file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(SCRIPTS), default=tuple(SCRIPTS))
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args()
    began, failed = time.time(), []
    for name in () if options.table else options.only:
        print(f"== {name} ({(time.time() - began) / 60:.1f} min so far)", flush=True)
        if not ran(SCRIPTS[name].command):
            failed.append(name)
    text = table()
    (RESULTS / "speed.md").write_text(text, encoding="utf-8")
    print(text)
    if failed:
        raise SystemExit(f"failed or out of time, so that their rows are old or missing: {', '.join(failed)}")


def ran(command: tuple[str, ...]) -> bool:
    """Whether the script ended well within its time."""
    environment = {**os.environ, "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu")}
    try:
        done = subprocess.run([sys.executable, *command], cwd=HERE.parent, env=environment, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def table() -> str:
    """The table from what is in benchmarks/results."""
    lines = ["| aim | what | measured | met | on |", "|---|---|---|---|---|"]
    for script in SCRIPTS.values():
        path = RESULTS / script.results
        if not path.exists():
            lines.append(f"| | `{' '.join(script.command)}` | not run | | |")
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        found = found.get(script.part, {}) if script.part else found
        day = day_of(found)
        for row in script.rows(found):
            met = {None: "", True: "yes", False: "**no**"}[row.met]
            lines.append(f"| {row.aim} | {row.what} | {row.measured} | {met} | {row.day or day} |")
    return "\n".join([*lines, "", _common.machine(), ""])


def day_of(found: dict[str, Any]) -> str:
    """The day in the line about the machine."""
    day = re.search(r"\b20\d\d-\d\d-\d\d\b", json.dumps(found))
    return day.group() if day else ""


# ------------------------------------------------------------------------------------------- what the figures say


def of_learner(found: dict[str, Any]) -> Iterator[Row]:
    """Aim 1."""
    for name, one in found["shapes"].items():
        yield Row(
            "update ≥ 2× the plain rival's", f"one QMIX update, {name}",
            f"{one['ours_ms']:.1f} ms, {one['ratio']:.2f}×; {100 * one['ours_share_of_peak']:.0f} % of the peak "
            f"(rival {100 * one['rival_share_of_peak']:.0f} %); limits: products alone {one['limit_ms']:.1f} ms, "
            f"halves on two devices without exchange {one.get('halves_ratio', float('nan')):.2f}×",
            one["ratio"] >= 2,
        )  # fmt: skip


def of_seeds(found: dict[str, Any]) -> Iterator[Row]:
    """Aim 3."""
    one, starts = found["throughput"], found["starts"]
    what = f"{one['seeds']} seeds ({one['strategy']}, {one['devices']} devices) / one seed alone, updates/s"
    measured = f"{one['ratio']:.2f}×; limit: two processes, one seed and one core each, {one['pair_ratio']:.2f}×"
    yield Row(f"≥ {one['aim']}×", what, measured, one["ratio"] >= one["aim"])
    yield Row("no hang in 100 starts", "starts of four seeds on MPE", f"{starts['hung']} of {starts['starts']} hung",
              starts["hung"] == 0 and starts["starts"] >= 100, day_of(starts))  # fmt: skip


def of_overheads(found: dict[str, Any]) -> Iterator[Row]:
    """Aim 4."""
    for row in found["rows"]:
        if row["learner"] == row["rival"]:
            continue
        aim = 1.1 if row["learner"] == "qplex" else 1.05
        what = f"{row['learner']} / {row['rival']}, per update of {row['steps']} steps"
        yield Row(f"≤ {aim}×", what, f"{row['ratio']:.3f}×", row["ratio"] <= aim)


def of_seac(found: dict[str, Any]) -> Iterator[Row]:
    """Aim 4, which has no number for SEAC."""
    for name, one in found["tasks"].items():
        measured = (
            f"{1 + one['overhead_percent']['wall'] / 100:.2f}× (work of an update {one['update_flops_ratio']:.2f}×)"
        )
        yield Row("", f"SEAC / IAC per environment step, {name}", measured, None)


def of_startup(found: dict[str, Any]) -> Iterator[Row]:
    """Aim 7."""
    for name, aim in startup.AIMS.items():
        measured = found["seconds"][name]
        yield Row(f"≤ {aim:g} s", startup.LABELS[name], f"{measured:.1f} s", measured <= aim)


def of_rollouts(found: dict[str, Any]) -> Iterator[Row]:
    """Part of aim 2."""
    for name, one in found.items():
        if name != "machine":
            what = f"episodes until the last has ended / a scan to the limit, {name}"
            yield Row("", what, f"{one['scan / ours']:.2f}× as fast", None)


def of_training(found: dict[str, Any]) -> Iterator[Row]:
    """Aim 2, steps per second."""
    for name, one in found.items():
        if not isinstance(one, dict) or "ours" not in one:
            continue
        ours, rival = one["ours"], one["rival"]
        measured = (
            f"{ours['steps_per_second']:,.0f} against {rival['steps_per_second']:,.0f}, replay ratios "
            f"{ours['replay_ratio']:.1f} and {rival['replay_ratio']:.1f}: {one['ratio']:.2f}×"
        )
        what = f"QMIX while learning, environment steps/s, {name}, against the plain rival's"
        yield Row(f"≥ {STEPS_AIM}×", what, measured, one["ratio"] >= STEPS_AIM)


def of_packed(found: dict[str, Any]) -> Iterator[Row]:
    """Slots and times of packed batches; each task with its worst kind of lengths."""
    for task in ("3m", "2s3z", "MMM2"):
        rows = [row for row in found["slots"] if row["task"] == task]
        worst = max(rows, key=lambda row: row["packed"])
        measured = f"{worst['packed']:.2f}; cut at quarters {worst['cut']:.2f}"
        yield Row("≤ 1.4", f"slots per real transition, lengths like {task}'s", measured, worst["packed"] <= 1.4)
    for one in found["times"]:
        measured = f"{one['packed_ms']:.1f} / {one['cut_ms']:.1f} ms: {one['ratio']:.2f}×"
        yield Row("", f"one QMIX update, packed / cut batches, {one['size']}", measured, None)


def of_race(found: dict[str, Any]) -> Iterator[Row]:
    """Aim 2, seconds to a win rate."""
    for side in ("ours", "rival") if found else ():
        first, last = found[side].get("first"), found[side]["tests"][-1]
        at = f"{first['seconds']:.0f} s, {first['env_steps']:,} steps" if first else "not reached"
        rest = f"; {last['win_rate']:.2f} after {last['seconds']:.0f} s, {last['env_steps']:,} steps"
        each = found[side].get("seconds_of_each_seed", {})
        if len(each) > 1:
            rest += f"; median of {len(each)} seeds, the others " + ", ".join(
                "not reached" if value is None else f"{value:.0f} s"
                for seed, value in each.items()
                if seed != str(found[side]["seed"])
            )
        met = bool(first) and first["seconds"] <= RACE_S if side == "ours" else None
        aim = f"≤ {RACE_S} s" if side == "ours" else ""
        yield Row(aim, f"seconds to a test win rate of {found['target']} on 3m, {side}", at + rest, met)


def of_sum_tree(found: dict[str, Any]) -> Iterator[Row]:
    """Aim 5."""
    rows, drift = [r for r in found["rows"] if r["best_rival"].startswith("flashbax")], found["drift"]
    slower = [f"{r['what']} {r['leaves']}/{r['batch']} ({r['ratio']:.2f})" for r in rows if r["ratio"] > 1]
    yield Row("never slower than flashbax", "sum-tree: build, set, sample, one tree or eight under vmap",
              f"{len(rows) - len(slower)} of {len(rows)} cells at least as fast; slower: {', '.join(slower) or 'none'}",
              not slower)  # fmt: skip
    for r in found["rows"]:
        if r not in rows:
            measured = f"{r['ratio']:.2f}× the time of {r['best_rival']}"
            yield Row("", f"as many draws from {r['leaves']:,} fresh priorities", measured, None)
    yield Row("zero drift", f"root after {drift['updates']:,} updates and zeroing",
              ", ".join(f"{name} {value:g}" for name, value in drift["root"].items()),
              drift["root"]["ours"] == 0)  # fmt: skip


def of_memory(found: dict[str, Any]) -> Iterator[Row]:
    """Aim 6."""
    for one in found["memory"].values():
        day, what = day_of(one), f"peak memory, {one['scenario']}, 5000 episodes in {one['dtype']}"
        measured = (
            f"{one['peak_mb']:,.0f} MB for a replay of {one['replay_mb']:,.0f} MB: {one['ratio']:.2f}×; "
            f"{one['compiler_mb']:,.0f} MB until all is compiled, then {one['before_mb']:,.0f} MB without a replay"
        )
        aim = f"≤ {memory.AIM} × (replay + {memory.BASE_MB} MB)"
        yield Row(aim, what, measured, one["ratio"] <= memory.AIM, day)
        if one["scenario"] == memory.LARGE:
            yield Row("≤ 16 GB", what, f"{one['peak_mb'] / 1e3:.1f} GB", one["peak_mb"] <= 16_000, day)
    for one in found["learning"].values():
        rates = ", ".join(f"{rate:.2f}" for rate in one["last_win_rates"])
        yield Row("", f"win rates after {one['steps']:,} steps of 3m, {one['dtype']}", rates, None, day_of(one))


@dataclass(frozen=True)
class Script:
    """A benchmark: its command, the file of its figures, and the rows they give."""

    command: tuple[str, ...]
    results: str
    rows: Callable[[dict[str, Any]], Iterator[Row]]
    part: str = ""  # of the file; empty: all of it


def _script(
    rows: Callable[..., Iterator[Row]],
    name: str,
    *options: str,
    keep: str = "--save",
    results: str = "",
    part: str = "",
) -> Script:
    results = f"{results or name}.json"
    kept = (keep,) if keep == "--save" else (keep, f"benchmarks/results/{results}")
    return Script((f"benchmarks/{name}.py", *options, *kept), results, rows, part)


SCRIPTS = {
    "learner": _script(of_learner, "learner", "--repeats", "8", "--shapes", "3m", "2s3z", "10 agents"),
    "seeds": _script(of_seeds, "seeds", keep="--json"),
    "overheads": _script(of_overheads, "overheads", "--repeats", "8", keep="--json"),
    "seac_overhead": _script(of_seac, "seac_overhead", "--agents", keep="--json", results="seac_agents"),
    "sum_tree": _script(of_sum_tree, "sum_tree", "--quick", keep="--json"),
    "packed": _script(of_packed, "packed"),
    "rollouts": _script(of_rollouts, "rollouts", keep="--json"),
    "training": _script(of_training, "training", "--rounds", "6", "--capacity", "640", part="steps_per_second"),
    "race": _script(
        of_race,
        "training",
        "--to-win-rate",
        "0.75",
        "--most-seconds",
        "150",
        "--seeds",
        "0",
        "1",
        "2",
        part="to_win_rate",
    ),
    "memory": _script(of_memory, "memory"),
    "startup": _script(of_startup, "startup"),
}


if __name__ == "__main__":
    main()

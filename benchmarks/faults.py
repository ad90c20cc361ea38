"""What a run survives: kills, signals, damaged checkpoints, power loss and full disks, in numbers.

    python benchmarks/faults.py                     everything, about ten minutes on two cores
    python benchmarks/faults.py --only power        one kind: kills, signals, damage, power or disk
    python benchmarks/faults.py --trials 20 --save  more of each; also benchmarks/results/faults.json

In every trial something happens to a small run (iql on a matrix game, 13 checkpoints), then the same
command goes on. It has survived if that ends well, and with the same bits if the last checkpoint and
the metrics are those of a run that nothing happened to.

kills    SIGKILL, every second one while a checkpoint is written, the others at any moment
signals  SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 at any moment after the first checkpoint
damage   every file of the newest checkpoint with a bit flipped, cut in half, emptied and deleted, read
         as resuming reads it; some of these also go on to the end
power    the run writes into a file system on a loop device; its blocks are copied while it is stopped
         for the moment of the copy, and it goes on in the copy. Where nothing can be mounted, a disk
         is played that forgets what was not synced (_faults_disk.py)
disk     the file system is filled up at any moment, later emptied again
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import _faults_disk
import _faults_run
from _faults_run import Outcome

from jaxshare.run.checkpoint.step_folders import UNFINISHED
from jaxshare.types import RefusedError

OUT = pathlib.Path(__file__).parent / "results" / "faults.json"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
SIDE_BY_SIDE = 2  # trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(KINDS), help="one kind")
    parser.add_argument("--trials", type=int, default=12, help="of each kind (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default %(default)s)")
    parser.add_argument("--save", action="store_true", help=f"write {OUT.name} into benchmarks/results")
    options = parser.parse_args()
    import _common

    random.seed(options.seed)
    summary: dict[str, Any] = {"machine": _common.machine(), "trials": options.trials, "kinds": {}}
    print(summary["machine"])
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = pathlib.Path(name)
        whole = folder / "whole"
        for _ in range(2):  # the second one goes on from the end, which fills the cache for those that go on
            outcome = _faults_run.go_on(whole, whole)
            assert outcome.same_bits, outcome
        for kind in [options.only] if options.only else KINDS:
            summary["kinds"][kind] = row = campaign(kind, folder, whole, options.trials)
            print(line(kind, row), flush=True)
    if options.save:
        OUT.write_text(json.dumps(summary, indent=1) + "\n")


def campaign(kind: str, folder: pathlib.Path, whole: pathlib.Path, trials: int) -> dict[str, Any]:
    """All trials of one kind, counted."""
    started = time.monotonic()
    outcomes: list[Outcome] = KINDS[kind](folder / kind, whole, trials)
    notes = Counter(outcome.note for outcome in outcomes if outcome.note)
    return {
        "trials": len(outcomes),
        "survived": sum(outcome.survived for outcome in outcomes),
        "to_the_end": sum(outcome.same_bits is not None for outcome in outcomes),
        "same_bits": sum(bool(outcome.same_bits) for outcome in outcomes),
        "notes": dict(sorted(notes.items())),
        "messages": sorted({outcome.message for outcome in outcomes if outcome.message}),
        "seconds": round(time.monotonic() - started, 1),
    }


def line(kind: str, row: dict[str, Any]) -> str:
    """One line of the table, and below it what commands said that did not go on."""
    notes = "; ".join(f"{count} {note}" for note, count in row["notes"].items())
    counts = (
        f"{row['survived']:4d} of {row['trials']:4d} survived, "
        f"{row['same_bits']:3d} of {row['to_the_end']:3d} same bits"
    )
    return "\n  ".join([f"{kind:8s}{counts}  ({notes}; {row['seconds']:.0f} s)", *row["messages"]])


def side_by_side(trial: Callable[[int], Outcome], number: int) -> list[Outcome]:
    """Some trials at a time."""
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        return list(pool.map(trial, range(number)))


# ---------------------------------------------------------------------------------------------- kinds


def kills(folder: pathlib.Path, whole: pathlib.Path, trials: int) -> list[Outcome]:
    """SIGKILL."""

    def trial(number: int) -> Outcome:
        run_dir = folder / str(number)
        process = _faults_run.start(run_dir)
        if number % 2:
            _faults_run.at_checkpoint(process, run_dir, after=random.randrange(8))
            time.sleep(random.uniform(0, 0.05))
        elif number % 4:
            time.sleep(random.uniform(0, 5))
        else:
            _faults_run.after_first_checkpoint(process, run_dir)
        _faults_run.kill(process)
        names = _faults_run.checkpoint_names(run_dir)
        note = "between checkpoints"
        if not any(name.isdigit() for name in names):
            note = "before the first checkpoint"
        elif any(UNFINISHED in name for name in names):
            note = "during a checkpoint"
        return _faults_run.go_on(run_dir, whole, note)

    return side_by_side(trial, trials)


def signals(folder: pathlib.Path, whole: pathlib.Path, trials: int) -> list[Outcome]:
    """What a person, a shell or a scheduler sends; a run that saved at once lost nothing."""

    def trial(number: int) -> Outcome:
        signum = SIGNALS[number % len(SIGNALS)]
        run_dir = folder / str(number)
        process = _faults_run.start(run_dir)
        _faults_run.after_first_checkpoint(process, run_dir)
        process.send_signal(signum)
        message = _faults_run.finish(process)
        polite = process.returncode in (0, 128 + signum) and _faults_run.said_in_one_sentence(message)
        how = "saved and said so" if polite else "died without saving"
        return _faults_run.go_on(run_dir, whole, f"{signal.Signals(signum).name} {how}")

    return side_by_side(trial, max(trials, len(SIGNALS)))


def damage(folder: pathlib.Path, whole: pathlib.Path, trials: int) -> list[Outcome]:
    """Every single damage is read as resuming reads it; `trials` of them go on to the end as well."""
    run_dir = folder / "run"
    half = _faults_run.interrupted(folder / "half")
    steps = sorted(int(name) for name in _faults_run.checkpoint_names(half) if name.isdigit())
    files = [path for path in (half / "checkpoints" / str(steps[-1])).rglob("*") if path.is_file()]
    cases = [(path.relative_to(half), name) for path in sorted(files) for name in _faults_disk.DAMAGES]
    chosen = set(random.sample(range(len(cases)), min(trials, len(cases))))

    outcomes = []
    for number, (path, name) in enumerate(cases):
        shutil.copytree(half, run_dir)
        _faults_disk.DAMAGES[name](run_dir / path)
        warnings: list[str] = []
        try:
            read = _faults_run.newest(run_dir, warnings.append)
        except RefusedError as error:
            outcomes.append(Outcome(False, None, "refused", str(error)))
        else:
            fell_back = read is not None and read.step == steps[-2] and len(warnings) == 1
            note = "told, and read from the one before" if fell_back else f"READ IN SILENCE: {path} {name}"
            outcomes.append(Outcome(fell_back, None, note))
        if number in chosen:
            outcomes[-1] = _faults_run.go_on(run_dir, whole, f"{outcomes[-1].note}, to the end")
        shutil.rmtree(run_dir)
    return outcomes


def power(folder: pathlib.Path, whole: pathlib.Path, trials: int) -> list[Outcome]:
    """Images of a file system at any moment of runs."""
    if _faults_disk.can_mount():
        images = _faults_disk.images_of_mounted(folder, trials, _faults_run.start)
    else:
        images = _faults_disk.images_of_forgetful(folder, trials, _faults_run.train_here)

    def trial(number: int) -> Outcome:
        image = images[number]
        with image.opened() as run_dir:
            note = "goes on" if _faults_disk.has_checkpoint(run_dir) else "starts anew"
            if image.had_checkpoint and note == "starts anew":
                note = "LOST ITS CHECKPOINTS"
            return _faults_run.go_on(run_dir, whole, f"{image.kind}, {note}")

    return side_by_side(trial, len(images))


def disk(folder: pathlib.Path, whole: pathlib.Path, trials: int) -> list[Outcome]:
    """A full disk, which is later made free again."""
    if not _faults_disk.can_mount():
        print("disk: nothing can be mounted here, so no disk was filled")
        return []

    def trial(number: int) -> Outcome:
        with _faults_disk.mounted(folder / f"{number}.img", folder / str(number)) as place:
            run_dir = place / "run"
            process = _faults_run.start(run_dir)
            if number % 3:
                _faults_run.after_first_checkpoint(process, run_dir)
            _faults_disk.fill(place)
            message = _faults_run.finish(process)
            (place / "filler").unlink()
            if process.returncode == 0:
                note = "ended before the disk was full"
            elif _faults_run.said_in_one_sentence(message):
                note = "said in one sentence"
            else:
                note = f"TOLD IN {len(message.splitlines())} LINES"
            return _faults_run.go_on(run_dir, whole, note)

    return side_by_side(trial, trials)


KINDS: dict[str, Callable[[pathlib.Path, pathlib.Path, int], list[Outcome]]] = {
    "kills": kills,
    "signals": signals,
    "damage": damage,
    "power": power,
    "disk": disk,
}

if __name__ == "__main__":
    main()

"""A small learner for cluster.py: python _cluster_learner.py NAME STEPS SECONDS_OF_A_STEP.

It goes on from NAME.checkpoint, saves every fifth step and when it is told to end, and writes NAME.txt.
"""

import pathlib
import signal
import sys
import time

EVERY = 5


def save(path: pathlib.Path, done: int, state: int) -> None:
    new = path.with_suffix(".new")
    new.write_text(f"{done} {state}")
    new.replace(path)


def main() -> None:
    name, steps, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    checkpoint, result = pathlib.Path(f"{name}.checkpoint"), pathlib.Path(f"{name}.txt")
    done, state = map(int, checkpoint.read_text().split()) if checkpoint.exists() else (0, sum(map(ord, result.name)))
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    while done < steps and not signals:
        state = (state * 1103515245 + 12345) % 2**31
        done += 1
        time.sleep(seconds)
        if done % EVERY == 0:
            save(checkpoint, done, state)
    if signals:
        save(checkpoint, done, state)
        sys.exit(128 + signals[0])
    new = result.with_suffix(".result")
    new.write_text(str(state))
    new.replace(result)


if __name__ == "__main__":
    main()

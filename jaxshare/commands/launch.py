"""python -m jaxshare.launch: one training command in several processes of this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType

from jaxshare import cli
from jaxshare.run.signals import ENDS
from jaxshare.types import RefusedError

HELP = """\
usage: python -m jaxshare.launch [processes=2] [devices=1] -- key=value ...

Train one run over several processes of this machine, each with some devices (docs/devices.md).
What stands behind -- are the arguments of jaxshare.train. Example:
  python -m jaxshare.launch processes=2 devices=1 -- algo=ippo env=lbf run_dir=runs/two

  processes   how many
  devices     of each process; parallel.data is processes x devices, unless it is set. On GPUs the
              first process sees the first ones, and so on.

The first process writes, and its exit status is that of the command. When one process ends, the
others are ended soon after. A signal to this command, or to any of the processes, saves first; the
same signal again ends all at once.
"""
DEFAULTS = {"processes": 2, "devices": 1}
GPUS = "CUDA_VISIBLE_DEVICES"
POLL_SECONDS = 0.1
AFTER_A_FAILURE = 4.0  # ours: to end by itself when another process has failed
AFTER_THE_END = 60.0  # ours: when another has ended well
TO_DIE = 3.0  # ours: after SIGTERM, which a process that waits for a dead one does not hear


def main() -> None:
    """Entry point."""
    cli.run_command(_main)


def _main() -> None:
    arguments = sys.argv[1:]
    if not arguments or any(a in ("-h", "--help") for a in arguments):
        print(HELP)
        return
    numbers, rest = parsed(arguments)
    sys.exit(launch(numbers["processes"], numbers["devices"], rest))


def parsed(arguments: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Our own numbers, and the arguments of jaxshare.train. Raises RefusedError."""
    if "--" not in arguments:
        raise RefusedError(
            "arguments of jaxshare.train stand behind --, as in processes=2 -- algo=ippo env=lbf."
        )

    # ours stand before it
    split = list(arguments).index("--")
    numbers = dict(DEFAULTS)
    for argument in arguments[:split]:
        key, _, value = argument.partition("=")
        if key not in DEFAULTS:
            raise RefusedError(
                f"'{argument}' is not understood: before -- stand processes=N and devices=N."
            )
        if not value.isdecimal() or int(value) < 1:
            raise RefusedError(f"{argument}: use a whole number from 1 on.")
        numbers[key] = int(value)
    return numbers, list(arguments[split + 1 :])


def launch(processes: int, devices: int, arguments: Sequence[str]) -> int:
    """Start all processes, and end them when one has ended. Returns the exit status."""
    # the same for all
    common = [f"parallel.processes={processes}", f"parallel.coordinator=127.0.0.1:{_free_port()}"]
    if not any(argument.startswith("parallel.data=") for argument in arguments):
        common.append(f"parallel.data={processes * devices}")

    # sessions of their own: a terminal's Ctrl-C comes here, and from here to the first process
    started = []
    for process in range(processes):
        command = [sys.executable, "-m", "jaxshare.train", *arguments, *common]
        started.append(
            subprocess.Popen(
                [*command, f"parallel.process={process}"],
                env=seeing(os.environ, process, devices),
                stdout=None if process == 0 else subprocess.DEVNULL,
                start_new_session=True,
            )
        )
    try:
        _pass_on_signals(started[0])
        return _watch(started)
    finally:
        _end(started)


def seeing(environment: Mapping[str, str], process: int, devices: int) -> dict[str, str]:
    """The environment of a process that sees its own GPUs only."""
    usable = environment.get(GPUS)
    first = process * devices
    names = [str(i) for i in range(first, first + devices)]
    if usable is not None:
        names = usable.split(",")[first : first + devices]
    return {**environment, GPUS: ",".join(names)}


def _watch(started: list[subprocess.Popen[bytes]]) -> int:
    """Wait until one process ends, and a while for the others. Returns the exit status of all."""
    # until something has ended
    while all(process.poll() is None for process in started):
        time.sleep(POLL_SECONDS)
    failed = any(process.poll() for process in started)
    until = time.monotonic() + (AFTER_A_FAILURE if failed else AFTER_THE_END)
    while any(process.poll() is None for process in started) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)

    # the first process knows why it ended; where it hangs, one that has failed
    codes = [process.poll() for process in started]
    number = next((i for i, code in enumerate(codes) if code), 0)
    code = codes[0] if codes[0] else codes[number]
    if codes[0] is None:
        print(f"process {number} ended with status {code}: all are ended.", file=sys.stderr)
    if code is None:
        return 1
    return code if code >= 0 else 128 - code


def _end(started: list[subprocess.Popen[bytes]]) -> None:
    """End what is still there."""
    # politely at first
    running = [process for process in started if process.poll() is None]
    for process in running:
        process.terminate()
    until = time.monotonic() + TO_DIE
    for process in running:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))
        if process.poll() is None:
            process.kill()
            process.wait()


def _pass_on_signals(first: subprocess.Popen[bytes]) -> None:
    """Hand signals that announce an end on to the first process, which saves and ends all."""

    passed_on = []

    def pass_on(signum: int, frame: FrameType | None) -> None:
        # a second time: without waiting for what it saves
        if signum in passed_on:
            raise KeyboardInterrupt
        passed_on.append(signum)
        if first.poll() is None:
            first.send_signal(signum)

    for signum in ENDS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, pass_on)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""What one GPU gives: the CPU's losses, speed and memory with many seeds, the sum-tree, seconds to a win rate.

    python benchmarks/accelerator.py                    `make gpu`: four parts in eight minutes at most
    python benchmarks/accelerator.py losses win         those parts
    python benchmarks/accelerator.py minutes=20         more time; most of it goes to `speed`
    python benchmarks/accelerator.py small=true         tiny sizes on the CPU: whether it runs, not how fast

losses  A few updates of QMIX, QMIX + DIFFER, SEAC and IPPO from the same state and data, on the CPU and on the GPU of
        one process: the largest difference of any loss, over the largest value of that loss (0.01 if that is more).
        Products in float32 must agree to 1e-3. Where they are rounded (compute.matmul_precision=tensorfloat32,
        compute.dtype=bfloat16) the difference is only shown.
tree    The sum-tree against flashbax's setters and sampler (sum_tree.py).
win     16 vmapped seeds of QMIX on SMAX 3m: seconds of training until their mean test win rate is 0.75.
speed   The four learners on SMAX 3m and LBF with 1, 32, 8, 64 vmapped seeds, each a process of its own: environment
        steps and updates of all seeds per second, seconds to compile, most memory on the device; QMIX on 3m with
        32 seeds with rounded products, too. The environment's share is the speed of training over that of the same
        environments with random actions and nothing else.
        Several compile at a time, on other cores; none does while another is measured.

Every part has a share of the time, and leaves what it does not need to the next; one that is not ready is ended, and
what it had measured counts. Results go to benchmarks/results/accelerator.json and .md (out=FOLDER: elsewhere).
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import _accelerator_speed as speed

from jaxshare import cli
from jaxshare.settings.fields import file_path, flag, static
from jaxshare.types import RefusedError

HERE = pathlib.Path(__file__).parent
SHARES = {"losses": 0.2, "tree": 0.1, "win": 0.25, "speed": 0.45}  # of the time, in this order
ABOUT_S = 60.0  # to start JAX once and be told what is here
NO_GPU = (
    "No GPU is here: JAX has only '{platform}'. Install its plugin on a machine with NVIDIA's driver, by `make gpu "
    "CUDA=12` (or 13) or pip install 'jaxshare[cuda12]', or use small=true, which tries the script on the CPU."
)


@dataclass(frozen=True)
class Options:
    """What may be set."""

    minutes: float = static(8.0, above=0, help="all parts together take no longer")
    small: bool = flag(False, help="tiny sizes on the CPU")
    out: str = file_path(str(HERE / "results"), help="the folder of accelerator.json and accelerator.md")


def main() -> None:
    """Entry point."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    cli.run_command(lambda: measure(sys.argv[1:]))


def measure(arguments: list[str]) -> None:
    """Run the parts that were named, or all, and write what they say after each."""
    names = [argument for argument in arguments if "=" not in argument]
    for name in names:
        if name not in SHARES:
            raise RefusedError(f"'{name}' is not a part. Known: {', '.join(SHARES)}.")
    options = cli.small_config(Options, [argument for argument in arguments if "=" in argument])
    if options.minutes <= 0:
        raise RefusedError(f"minutes={options.minutes} is no time. Use minutes=8 or so.")
    end = time.monotonic() + 60 * options.minutes
    environment = surroundings(options.small)

    # where it is
    about = child(["about"], environment, ABOUT_S).rows
    if not about:
        raise RefusedError("JAX could not be started: what it wrote is above.")
    record: dict[str, Any] = {**about[0], "small": options.small, "minutes": options.minutes, "parts": {}}
    print(record["machine"], flush=True)
    if record["platform"] == "cpu" and not options.small:
        raise RefusedError(NO_GPU.format(platform=record["platform"]))

    # part after part, each with its share of the time that is left
    chosen = [name for name in SHARES if name in names or not names]
    for i, name in enumerate(chosen):
        share = SHARES[name] / sum(SHARES[later] for later in chosen[i:])
        limit = share * (end - time.monotonic())
        start = time.monotonic()
        print(f"== {name}: at most {limit:.0f} s", flush=True)
        if name == "speed":
            part = Part(*speed.measured(options.small, limit, environment))
        else:
            part = child([name, str(int(options.small))], environment, limit)
        seconds = time.monotonic() - start
        record["parts"][name] = {"state": part.state, "seconds": seconds, "rows": part.rows}
        print(f"   {part.state}, {seconds:.0f} s", flush=True)
        write(record, pathlib.Path(options.out))
    print(table(record))


def surroundings(small: bool) -> dict[str, str]:
    """The environment of the processes that measure."""
    environment = dict(os.environ)
    if small:
        environment["JAX_PLATFORMS"] = "cpu"
    else:
        # the GPU, and the CPU beside it; and seconds to compile are of compiling
        environment.pop("JAX_PLATFORMS", None)
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    return environment


@dataclass(frozen=True)
class Part:
    """What came of a part. state: "finished", or why not; rows: {"what", "measured", figures}."""

    state: str
    rows: list[dict[str, Any]]


def child(arguments: list[str], environment: dict[str, str], limit: float) -> Part:
    """A part in a process of its own, ended after `limit` seconds; its rows as far as it came."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "rows"
        path.touch()
        command = [sys.executable, str(HERE / "_accelerator_parts.py"), str(path), *arguments]
        process = subprocess.Popen(command, env=environment)
        try:
            status = process.wait(timeout=limit)
            state = "finished" if not status else f"failed with status {status}: what it wrote is on the screen"
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            state = f"cut off after {limit:.0f} s"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    # the last line may be half of one
    return Part(state, [json.loads(line) for line in lines if line.endswith("\n")])


def write(record: dict[str, Any], folder: pathlib.Path) -> None:
    """Both files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "accelerator.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / "accelerator.md").write_text(table(record), encoding="utf-8")


def table(record: dict[str, Any]) -> str:
    """All that was measured."""
    lines = ["| part | what | measured |", "|---|---|---|"]
    for name, part in record["parts"].items():
        # of several looks at the same thing, the last
        last = {row["what"]: row["measured"] for row in part["rows"]}
        lines.extend(f"| {name} | {what} | {measured} |" for what, measured in last.items())
        if part["state"] != "finished":
            lines.append(f"| {name} | the rest | {part['state']} |")
    small = "Tiny sizes on a CPU: no figures, only whether it runs. " if record["small"] else ""
    about = f"{small}{record['device']}, {record['processor']}; {record['machine']}"
    return "\n".join([*lines, "", about, ""])


if __name__ == "__main__":
    main()

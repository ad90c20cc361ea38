"""python -m jaxshare.list: what there is, and which algorithms and modifiers go together."""

from __future__ import annotations

import sys

from jaxshare import cli, registry, surroundings
from jaxshare.compatibility import refusal
from jaxshare.plugins import installed, presets
from jaxshare.plugins.entries import GROUPS, Entry
from jaxshare.settings import hydra
from jaxshare.terminal import filled
from jaxshare.types import Box, Discrete, RefusedError

HELP = """\
usage: python -m jaxshare.list

Show every algorithm, environment (installed, or how to install it; its scenarios), modifier, logger
and preset, and which combinations are allowed. Those of other installed packages have the package's
name beside them. The table is made by assembling each combination on a small made-up task, so it
cannot be out of date.
"""


WIDTH = 11  # of names
INDENT = " " * (WIDTH + 3)


def main() -> None:
    """Entry point."""
    cli.run_command(_main)


def _main() -> None:
    if any(a in ("-h", "--help") for a in sys.argv[1:]):
        print(HELP)
        return
    if sys.argv[1:]:
        raise RefusedError(f"'{sys.argv[1]}': jaxshare.list takes no arguments.")
    surroundings.check_devices()

    # what there is
    _print_entries("algorithms (algo=...)", "algo")
    _print_entries("environments (env=...)", "env")
    _print_entries("modifiers (modifiers=[...])", "modifiers")
    _print_entries("loggers (logger=[...])", "logger")
    print(
        "presets (preset=...)\n  "
        + "\n  ".join([*hydra.presets(), *presets.with_packages()])
        + "\n"
    )
    _print_table()

    # what cannot be used
    ours = {kind: list(registry.modules(kind)) for kind in GROUPS} | {"preset": presets.of_ours()}
    for problem in installed.problems(ours):
        print(f"warning: {problem}", file=sys.stderr)


def _print_entries(title: str, kind: str) -> None:
    print(title)
    for name in registry.names(kind):
        try:
            entry = registry.entry(kind, name)
        except RefusedError:
            print(filled("cannot be used: see the warnings below", f"  {name:<{WIDTH}} ", INDENT))
            continue
        _print_entry(entry)
    print()


def _print_entry(entry: Entry) -> None:
    module = entry.module
    package = f" ({entry.origin.words()})" if entry.origin else ""
    print(filled(f"{registry.summary(module)}{package}", f"  {entry.name:<{WIDTH}} ", INDENT))
    if entry.kind == "env":
        missing = registry.lacking(module)
        where = "on the host" if getattr(module, "HOST", False) else "JAX"
        actions = getattr(module, "ACTIONS", "")
        state = f"not installed: {missing}" if missing else "installed"
        facts = [where, actions and f"{actions} actions", state]
        print(filled(", ".join(filter(None, facts)), INDENT, INDENT))
    if hasattr(module, "scenarios"):
        print(filled(", ".join(module.scenarios()), INDENT, INDENT))


def _print_table() -> None:
    modifiers = {"(none)": (), **{name: (name,) for name in registry.loaded("modifiers")}}
    box = Box(1, (-1.0,), (1.0,))
    kinds: dict[str, Discrete | Box] = {"discrete actions": Discrete(3), "continuous actions": box}
    print("which go together (+ allowed, o with algo.share_params=none, - refused)")
    print(_row("", list(modifiers), "environments with"))

    # a row for each algorithm
    reasons: dict[str, list[str]] = {}  # reason, with {} for the algorithm -> algorithms
    for algo in registry.loaded("algo"):
        allowed = [kind for kind, action in kinds.items() if refusal(algo, (), action) is None]
        if not allowed:  # one from outside, for other tasks than the made-up one
            reasons.setdefault(str(refusal(algo, (), Discrete(3))), []).append(algo)
            continue
        cells = []
        for names in modifiers.values():
            reason = refusal(algo, names, kinds[allowed[0]])
            alone = reason and refusal(algo, names, kinds[allowed[0]], share_params="none")
            cells.append("+" if reason is None else "o" if alone is None else "-")
            if reason and alone:
                reasons.setdefault(reason.replace(f"algo={algo}", "algo={}"), []).append(algo)
        print(_row(algo, cells, ", ".join(allowed)))

    # why the others are refused
    for reason, algos in reasons.items():
        print(filled(reason.replace("{}", " | ".join(algos)), "  - ", "    "))


def _row(name: str, cells: list[str], last: str) -> str:
    columns = " ".join(f"{cell:>{WIDTH}}" for cell in cells)
    return f"  {name:<{WIDTH}} {columns}   {last}"

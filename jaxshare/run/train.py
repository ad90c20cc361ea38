"""From settings to a trained run directory: check, lay out, read, lock, train."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable
from contextlib import closing

from jaxshare.run import build, callbacks, folder, gang, offline, programs, signals, staging
from jaxshare.run.callbacks import Callback
from jaxshare.run.loggers import require
from jaxshare.run.memory import check_memory
from jaxshare.run.shared_fleet import SharedFleet, follow
from jaxshare.run.timeline import Timeline
from jaxshare.run.training import Training
from jaxshare.run.warm_start import read_start
from jaxshare.settings.records import Settings


def train(
    settings: Settings,
    max_chunks: int | None = None,
    at_once: bool = False,
    watchers: Iterable[Callback] = (),
    lets_diverge: bool = False,
) -> pathlib.Path:
    """Run to the end, or for `max_chunks` chunks, or until a signal or a callback.

    Returns the run directory. Of several processes the first does all this, and the others
    compute as it says.
    at_once: a signal that finds nothing to save ends this process, in the middle of a compilation
    if need be, and compiled programs are kept for the next start; for commands.
    watchers: called after the callbacks of every run.
    lets_diverge: a run whose numbers become nan or inf goes on beside the others, and all end when
    none of them is finite any more; else the first one ends all.
    Raises RefusedError for what cannot be done, StoppedError after a signal.
    """
    watchers = callbacks.checked(watchers)
    with staging.on_this_machine(settings) as (settings, senders):
        watchers = [*watchers, *senders]
        return _train(settings, max_chunks, at_once, watchers, lets_diverge)


def _train(
    settings: Settings,
    max_chunks: int | None,
    at_once: bool,
    watchers: list[Callback],
    lets_diverge: bool,
) -> pathlib.Path:
    """The same with a run directory of this machine."""
    # what is to be run
    timeline = Timeline()
    settings = offline.fitted(folder.as_begun(settings))
    with timeline.timing("layout"):
        program, layout = build.lay_out(settings)
    if at_once:
        devices = tuple(layout.mesh.devices.flat)
        store = programs.kept_by(settings, devices)
        layout = dataclasses.replace(layout, kept=store)
    team = gang.current() if settings.run.parallel.processes > 1 else None
    if team is not None:
        team.agree(folder.plain(settings))
        if not team.leads:
            follow(SharedFleet(program, layout, settings), team)
            return pathlib.Path(settings.run.run_dir)
    with (
        closing(program),
        gang.told_of_the_end(team),
        signals.watching(at_once) as watch,
    ):
        require(settings.run.logger)
        with timeline.timing("memory estimate"):
            size = check_memory(program, layout, offline.num_bytes(settings, program))

        # before anything is written
        with watch.computing("reading of the data"):
            data = offline.load(settings, program)
        with watch.computing("reading of init_from"):
            start = None if folder.goes_on(settings) else read_start(settings, program)

        new_name = not settings.run.run_dir
        with folder.in_use(settings) as opened:
            watch.on_leaving(opened.lock.release)
            with Training(opened, program, layout, watch, timeline, lets_diverge) as training:
                watch.on_leaving(program.close)
                # what may change when a run goes on, now that its checkpoint was read
                folder.write_settings(opened.settings, opened.run_dir)
                training.introduce(size, new_name)
                training.watchers.extend(watchers)
                training.loop(data, start, max_chunks)
    return opened.run_dir

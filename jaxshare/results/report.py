"""A report on runs: read, computed, shown and written."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxshare.results import (
    latex,
    marl_eval,
    numbers,
    page,
    pictures,
    plain,
    screen,
    sentences,
    study,
    tables,
)
from jaxshare.results.numbers import Report
from jaxshare.run import output
from jaxshare.settings.validate import check_record
from jaxshare.terminal import open_console
from jaxshare.types import RefusedError

if TYPE_CHECKING:
    from jaxshare.results.settings import Config

REPORT = "report.json"


def make(config: Config) -> dict[str, Any]:
    """Read, compute, show and write: what report.json holds. Raises RefusedError, OSError."""
    check(config)

    # what is compared
    compared = study.read(config)
    out = pathlib.Path(config.out)
    output.check_writable(out, "out", folder=True)
    output.check_writable(out / REPORT, "out")  # before the bootstraps, which take long

    # its numbers, first on the console
    report = Report(compared, numbers.make(compared, config), config)
    how = list(sentences.explained(report))
    screen.show(report, how)

    # the same as files
    out.mkdir(parents=True, exist_ok=True)
    content = plain.plain(report, how)
    written = [*_write(report, how, out), out / REPORT]
    written[-1].write_text(_json(content, allow_nan=False), encoding="utf-8")
    names = ", ".join(path.name for path in written)
    console = open_console()
    console.print(f"written: {out}: {names}\nopen:    {out / 'report.html'}")
    return content


def check(config: Config) -> None:
    """Raise RefusedError for settings that have no meaning, or no effect."""
    if not config.runs:
        raise RefusedError("no run is named: python -m jaxshare.report runs/*.")
    check_record(config)
    if config.last > 1 and config.score != "curve":
        pair = f"last={config.last} has no effect with score={config.score}"
        raise RefusedError(f"{pair}: say score=curve.")


def _write(report: Report, how: Sequence[str], out: pathlib.Path) -> list[pathlib.Path]:
    """Pictures, tables and the page, which has all of them: the files."""
    drawn = pictures.draw(report, out)
    files = [*drawn.values(), *tables.write(report, out)]
    files += [out / "tables.tex", out / "marl_eval.json"]
    files[-2].write_text(latex.latex(report), encoding="utf-8")
    files[-1].write_text(_json(marl_eval.marl_eval(report)), encoding="utf-8")
    return [*files, page.write(report, how, drawn, out)]


def _json(content: object, allow_nan: bool = True) -> str:
    return json.dumps(content, indent=1, allow_nan=allow_nan) + "\n"

"""The one place where consoles are opened: text is shown as it stands, whatever it holds."""

from __future__ import annotations

import textwrap

from rich.console import Console
from rich.progress import Progress


def open_console(soft_wrap: bool = True) -> Console:
    """A console that takes no markup: names and paths of people may hold `[/a]` or `:smile:`."""
    return Console(highlight=False, soft_wrap=soft_wrap, markup=False, emoji=False)


def filled(text: str, first: str, rest: str) -> str:
    """Text in lines that fit a terminal of 120 columns; first, rest: what lines begin with."""
    return textwrap.fill(
        text, 118, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )


def open_progress(console: Console, wanted: bool) -> Progress:
    """A bar for a task or several.

    Nobody sees it who does not want it, or who looks at no terminal.
    """
    return Progress(console=console, disable=not (wanted and console.is_terminal))

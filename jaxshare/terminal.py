"""The one place where consoles are opened: text is shown as it stands, whatever it holds."""

from __future__ import annotations

from rich.console import Console


def open_console(soft_wrap: bool = True) -> Console:
    """A console that takes no markup: names and paths of people may hold `[/a]` or `:smile:`."""
    return Console(highlight=False, soft_wrap=soft_wrap, markup=False, emoji=False)

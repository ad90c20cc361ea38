"""HTML in which every text is escaped: names and paths of people may hold <script>."""

from __future__ import annotations

import html
from collections.abc import Iterable


class Markup(str):
    """HTML, as `element` makes it. Any other text is escaped."""


def element(name: str, *content: object, **attributes: object) -> Markup:
    """<name attribute='value'>content</name>: text is escaped, and markup stands as it is."""
    words = "".join(f" {key}='{_escaped(value)}'" for key, value in attributes.items())
    return Markup(f"<{name}{words}>{joined(content)}</{name}>")


def joined(content: Iterable[object], separator: str = "") -> Markup:
    """One after the other: text is escaped, and markup stands as it is."""
    return Markup(separator.join(_escaped(part) for part in content))


def _escaped(part: object) -> str:
    return part if isinstance(part, Markup) else html.escape(str(part))


def image(data: str, caption: str) -> Markup:
    """<img> of a data URL."""
    return Markup(f"<img alt='{_escaped(caption)}' src='{_escaped(data)}'>")

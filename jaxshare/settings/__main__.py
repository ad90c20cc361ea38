"""python -m jaxshare.settings > docs/settings.md: the page of all settings."""

from __future__ import annotations

from jaxshare.settings.page import page

if __name__ == "__main__":
    print(page(), end="")

"""Pages and parts of pages that are made from the code, the presets and the results, into docs/generated."""

from pages import algorithms, entries, settings
from pages.links import DOCS

FOLDER = DOCS / "generated"
MAKERS = (algorithms.pages, entries.pages, settings.pages)


def write_all(app=None):
    """Write all of them. A file that is as it was is not touched, so that Sphinx does not read it again."""
    made = {}
    for maker in MAKERS:
        made.update(maker())

    # those that are no longer made go
    for path in sorted(FOLDER.rglob("*.md")):
        if str(path.relative_to(FOLDER)) not in made:
            path.unlink()
    for name, text in made.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)

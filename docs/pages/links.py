"""Links of files that are read both here and in the repository, and files that pages show whole.

A file names others by their place in the repository. On the site some of them have pages elsewhere, and those that
are shown by `{include}` stand in another folder.
"""

import os
import pathlib
import re

DOCS = pathlib.Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
PAGES = {  # files and folders of the repository that have another page of docs/
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/results/speed.md": "speed_table.md",
    "docs/settings.md": "generated/settings/index.md",
    "jaxshare/algos": "generated/algorithms/index.md",
}
EXAMPLES = "docs/examples/"

INCLUDE = re.compile(r"^```\{include\} (\S+)\n((?::[\w-]+:.*\n)*)```$", re.M)
LINK = re.compile(r"\]\(([^()#\s]+)((?:#[^()\s]*)?)\)")
ANCHOR = re.compile(r'^<a id="([\w-]+)"></a>$', re.M)


def rewrite(app, docname, source):
    """Before a page is read: what it includes is put in, and links lead to pages."""
    page = pathlib.Path(app.env.doc2path(docname))
    source[0] = whole(source[0], page, page, app.env.note_dependency)


def whole(text, file, page, note=lambda path: None):
    """The text of a file as a page has it."""

    def included(match):
        path = (file.parent / match[1]).resolve()
        note(str(path))
        options = dict(re.findall(r"^:([\w-]+): ?(.*)$", match[2], re.M))
        return whole(_section(path.read_text(), options), path, page, note).strip("\n")

    def linked(match):
        link, anchor = match.groups()
        if anchor and f'<a id="{anchor[1:]}">' in _markdown(file.parent / link):
            return f"]({anchor})"  # a label, which Sphinx knows wherever it is
        return f"]({target(link, file, page)}{anchor})"

    parts = re.split(r"(^```.*?^```$)", text, flags=re.M | re.S)
    for i, part in enumerate(parts):
        if part.startswith("```"):
            parts[i] = INCLUDE.sub(included, part)
        else:
            parts[i] = LINK.sub(linked, ANCHOR.sub(r"(\1)=", part))
    return "".join(parts)


def _markdown(path):
    """The text of a page, or nothing."""
    return path.read_text() if path.suffix == ".md" and path.is_file() else ""


def _section(text, options):
    """The part of a file that is included: `start-after` and `end-before` are texts in it.

    `raise-headings`: headings are one level higher.
    """
    if "start-after" in options:
        text = text.split(options["start-after"], 1)[1]
    if "end-before" in options:
        text = text.split(options["end-before"], 1)[0]
    if "raise-headings" in options:
        text = re.sub(r"^#(#+ )", r"\1", text, flags=re.M)
    return text


def target(link, file, page):
    """Where a link of a file leads from a page: to what has a page of its own, or to the file."""
    if "://" in link or link.startswith("mailto:"):
        return link
    path = (file.parent / link).resolve()
    if not path.exists() or ROOT not in path.parents:
        return link
    name = str(path.relative_to(ROOT))
    if name in PAGES:
        path = DOCS / PAGES[name]
    elif name.startswith(EXAMPLES) and path.suffix == ".py":
        path = DOCS / "generated" / "examples" / f"{path.stem}.md"
    return os.path.relpath(path, page.parent)

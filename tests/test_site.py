"""The site: it is built without a warning, no link of it is dead, and a browser shows it at any width."""

import html.parser
import subprocess
import sys
import urllib.parse

import browser
import pytest
import tiny

from jaxshare import registry

WIDTHS = (1280, 390)  # of a desktop and of a telephone
LOOKED_AT = ("index", "generated/algorithms/qmix", "results")
LINKS = {"a": "href", "link": "href", "img": "src", "script": "src"}


def build(folder, notebooks):
    """Build it, every warning an error."""
    environment = {**tiny.ENVIRONMENT, "PYTHONPATH": str(tiny.REPOSITORY), "NOTEBOOKS": notebooks}
    line = [
        sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(folder / "doctrees"),
        str(tiny.REPOSITORY / "docs"), str(folder / "site"),
    ]  # fmt: skip
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return folder / "site"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, its notebooks shown but not run."""
    for package in ("sphinx", "furo", "myst_nb"):
        pytest.importorskip(package, reason="the extra docs")
    return build(tmp_path_factory.mktemp("site"), "off")


class Page(html.parser.HTMLParser):
    """What a page names, and where it leads."""

    def __init__(self, text):
        super().__init__()
        self.names = set()
        self.links = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.names |= {values[key] for key in ("id", "name") if values.get(key)}
        link = values.get(LINKS.get(tag, ""))
        if link:
            self.links.append(link)


@pytest.fixture(scope="module")
def pages(site):
    """{path: page} of the whole site."""
    return {path: Page(path.read_text()) for path in site.rglob("*.html") if "_static" not in path.parts}


def dead(path, link, pages):
    """Whether a link within the site leads nowhere."""
    parts = urllib.parse.urlsplit(link)
    goal = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
    if not goal.exists():
        return True
    name = urllib.parse.unquote(parts.fragment)
    return bool(name) and goal in pages and name not in pages[goal].names


def test_no_link_is_dead(pages):
    assert len(pages) > 60
    count = 0
    broken = []
    for path, page in pages.items():
        inside = [link for link in page.links if not urllib.parse.urlsplit(link).scheme]
        count += len(inside)
        broken += [f"{path.name}: {link}" for link in inside if dead(path, link, pages)]
    assert count > 1000
    assert broken == []


def test_dead_links_are_noticed(tmp_path):
    path = tmp_path / "a.html"
    path.write_text('<h1 id="top">x</h1>')
    known = {path: Page(path.read_text())}
    assert [dead(path, link, known) for link in ("#top", "a.html#top", "#end", "a.html#end", "b.html")] == [
        False, False, True, True, True,
    ]  # fmt: skip


def test_it_needs_nothing_from_elsewhere(site):
    """Scripts, styles and pictures are its own."""
    for path in site.rglob("*.html"):
        for tag in ('<script src="http', '<link rel="stylesheet" href="http', '<img src="http', '<script src="//'):
            assert tag not in path.read_text(), path.name


def test_every_entry_has_its_place(site):
    for name in registry.modules("algo"):
        text = (site / "generated" / "algorithms" / f"{name}.html").read_text()
        assert "algo.hparams." in text, name
    table = (site / "generated" / "algorithms" / "index.html").read_text()
    assert all(f'href="{name}.html"' in table for name in registry.modules("algo"))
    modifiers = Page((site / "generated" / "modifiers.html").read_text()).names
    assert {name.replace("_", "-") for name in registry.modules("modifiers")} <= modifiers
    environments = (site / "environments.html").read_text()
    assert all(f">{name}</span>" in environments for name in registry.modules("env"))


def test_every_page_can_be_reached(site, pages):
    start = site / "index.html"
    reached = {start}
    left = [start]
    while left:
        path = left.pop()
        for link in pages[path].links:
            goal = (path.parent / urllib.parse.urlsplit(link).path).resolve()
            if goal in pages and goal not in reached:
                reached.add(goal)
                left.append(goal)
    assert {path.name for path in set(pages) - reached} <= {"search.html", "genindex.html", "py-modindex.html"}


needs_browser = pytest.mark.skipif(bool(browser.missing()), reason=browser.missing())
WITHOUT_PICTURE = "return [...document.images].filter(x => x.complete && !x.naturalWidth).map(x => x.src)"


def wide(chromium, paths):
    """Pages that scroll sideways, of those that are opened at both widths. All of their pictures must be there."""
    names = []
    for path in sorted(paths):
        for width in WIDTHS:
            chromium.open(path, width)
            if chromium.ask("return document.documentElement.scrollWidth > innerWidth"):
                names.append(f"{path.name} at {width}")
            assert chromium.ask(WITHOUT_PICTURE) == [], path.name
    return names


@needs_browser
def test_a_browser_shows_pages_at_any_width(site, tmp_path):
    """Nothing scrolls sideways; pictures of three pages are left for people to look at."""
    with browser.started() as chromium:
        assert wide(chromium, [site / f"{name}.html" for name in (*LOOKED_AT, "api", "concepts", "differ")]) == []
        for name in LOOKED_AT:
            for width in WIDTHS:
                chromium.open(site / f"{name}.html", width)
                picture = tmp_path / f"{name.replace('/', '_')}_{width}.png"
                chromium.picture(picture)
                assert picture.stat().st_size > 10_000


@needs_browser
def test_a_page_that_is_too_wide_is_noticed(tmp_path):
    path = tmp_path / "wide.html"
    path.write_text('<div style="width: 800px">x</div>')
    with browser.started() as chromium:
        assert wide(chromium, [path]) == ["wide.html at 390"]


@needs_browser
@pytest.mark.slow
def test_a_browser_shows_every_page_at_any_width(pages):
    with browser.started() as chromium:
        assert wide(chromium, pages) == []


@pytest.mark.slow
def test_its_notebooks_run(tmp_path):
    """A failing cell fails the build, and every notebook has a result."""
    for package in ("sphinx", "furo", "myst_nb", "ipykernel"):
        pytest.importorskip(package, reason="the extra docs")
    built = build(tmp_path, "on")
    notebooks = [path for path in (tiny.REPOSITORY / "docs" / "notebooks").glob("*.md") if path.stem != "index"]
    assert len(notebooks) == 5
    for path in notebooks:
        assert "cell_output" in (built / "notebooks" / f"{path.stem}.html").read_text(), path.stem

"""What no file of the repository may hold: package registries, paths of somebody's machine, broken links."""

import functools
import re
import shutil
import subprocess

import pytest
import tiny

# whom a file may send somebody to; whoever adds an address adds its host here
HOSTS = {
    "127.0.0.1",
    "arxiv.org",
    "github.com",
    "hydra.cc",
    "joschu.net",
    "optuna.org",
    "www.apache.org",
    "www.w3.org",
}
URL = re.compile(r"\b(?:https?|ftp|git|ssh)://(?:[^\s/@]+@)?([\w.-]+)", re.ASCII)
# registries without an address before them, written backwards: this file is one that is looked at
BACKWARDS = ("ipyp", "detsohnohtyp", "adnocana", "egrof-adnoc", "sjmpn", "oi.rcgh")
REGISTRIES = re.compile("|".join(re.escape(word[::-1]) for word in BACKWARDS), re.I)
# folders that are somebody's; those of a made-up user in a test are not
MACHINE = re.compile(r"(?<![\w.~$}*/-])/(?:work|root|opt|mnt|srv|Users|home/(?!other/))[\w./-]*")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@functools.cache
def texts():
    """{path: text} of every tracked file that is text."""
    if shutil.which("git") is None or not (tiny.REPOSITORY / ".git").exists():
        pytest.skip("no checkout")
    line = ["git", "ls-files", "-z"]
    listed = subprocess.run(line, cwd=tiny.REPOSITORY, capture_output=True, text=True, check=True).stdout
    read = {}
    for name in filter(None, listed.split("\0")):
        path = tiny.REPOSITORY / name
        if not path.is_file():  # deleted, and not yet committed
            continue
        content = path.read_bytes()
        if b"\0" not in content:
            read[name] = content.decode()
    return read


def findings(text):
    """What a text must not hold."""
    hosts = [f"the host {host}" for host in URL.findall(text) if host not in HOSTS]
    registries = [f"the registry {name}" for name in REGISTRIES.findall(text)]
    machines = [f"the path {path}" for path in MACHINE.findall(text)]
    return hosts + registries + machines


def test_no_file_names_a_registry_or_a_machine():
    assert len(texts()) > 500
    assert {name: findings(text) for name, text in texts().items() if findings(text)} == {}


@pytest.mark.parametrize(
    ("text", "expected"),  # without the bars, which keep them out of this file
    [
        ("pip install -i https:|//index.example/simple", "the host index.example"),
        ("git+ssh:|//me@code.example/x.git", "the host code.example"),
        ("from Py|PI", "the registry Py|PI"),
        ("cd /|root/x", "the path /|root/x"),
        ("DATA = '/|home/jo/sets'", "the path /|home/jo/sets"),
    ],
)
def test_it_finds_them(text, expected):
    assert findings(text.replace("|", "")) == [expected.replace("|", "")]


@pytest.mark.parametrize(
    "text",
    [
        "https://arxiv.org/abs/1",
        "$HOME/x",
        "~/work/x",
        "runs/root/x",
        "a/opt/b",
        "/home/other/bin",
        "{out}/data/x",
        "and/or",
    ],
)
def test_it_lets_others_be(text):
    assert findings(text) == []


GENERATED = ("generated/", "../generated/")


def test_links_between_pages_lead_somewhere():
    broken = []
    for name, text in texts().items():
        if name.endswith(".md"):
            folder = (tiny.REPOSITORY / name).parent
            # pages that the site makes of the code are there in the built site, where test_site.py follows links
            links = [target for target in LINK.findall(text) if "://" not in target]
            targets = [target for target in links if not (name.startswith("docs/") and target.startswith(GENERATED))]
            broken += [f"{name}: {target}" for target in targets if not (folder / target).exists()]
    assert broken == []

"""What is built of the checkout, without a network: a wheel and an archive of sources, seen from a clean folder."""

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest
import tiny

ROOT = tiny.REPOSITORY
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# what a user's process says of the package in the folder `site`
LOOK = """
import importlib.metadata, json, sys
import jaxshare
from jaxshare import cli
from jaxshare.settings.hydra import presets

distribution = importlib.metadata.distribution("jaxshare")
scripts = distribution.entry_points.select(group="console_scripts")
print(json.dumps({
    "file": jaxshare.__file__,
    "version": distribution.version,
    "scripts": {script.name: callable(script.load()) for script in scripts},
    "presets": len(presets()),
    "algo": cli.settings(["preset=main_job"]).algo_name,
}))
"""


def build(folder, out, *targets):
    """Build the project in a folder with what is installed here."""
    line = [sys.executable, "-m", "hatchling", "build", *targets, "-d", str(out)]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr or done.stdout


def files(folder, *patterns):
    """Paths of files, as they stand in an archive: caches, and pages that are made for the site, are not in it."""
    paths = [path for pattern in patterns for path in (ROOT / folder).rglob(pattern) if path.is_file()]
    names = {str(path.relative_to(ROOT)) for path in paths}
    return {name for name in names if not re.search(r"(^|/)(__pycache__|\.\w+_cache)/|^docs/generated/", name)}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The archive of sources, unpacked."""
    pytest.importorskip("hatchling", reason="the extra test")
    out = tmp_path_factory.mktemp("sources")
    build(ROOT, out, "-t", "sdist")
    (archive,) = out.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(out, filter="data")
    return out / f"jaxshare-{PROJECT['version']}"


@pytest.fixture(scope="module")
def wheel(sources, tmp_path_factory):
    """The wheel, built from the archive of sources as an installer does."""
    out = tmp_path_factory.mktemp("wheel")
    build(sources, out, "-t", "wheel")
    return next(out.glob("*.whl"))


def test_the_sources_are_whole(sources):
    inside = {str(path.relative_to(sources)) for path in sources.rglob("*") if path.is_file()}
    wanted = (
        files("jaxshare", "*") | files("configs", "*.yaml") | files("tests", "*.py") | files("docs", "*.md", "*.py")
    )
    top = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Makefile", "pyproject.toml"}
    assert (wanted | top) - inside == set()


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    information = {name for name in inside if ".dist-info/" in name}
    configs = {f"jaxshare/{name}" for name in files("configs", "*")}
    assert inside - information == files("jaxshare", "*") | configs
    assert "jaxshare/py.typed" in inside
    assert "jaxshare/configs/config.yaml" in inside
    assert any(name.endswith("licenses/LICENSE") for name in information)


def test_the_wheel_says_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(name).decode()
    assert "License-Expression: Apache-2.0" in text
    assert "Classifier: Typing :: Typed" in text
    assert set(re.findall(r"^Provides-Extra: (.+)$", text, re.M)) == set(PROJECT["optional-dependencies"])


def test_it_works_from_a_clean_folder(wheel, tmp_path):
    pytest.importorskip("pip")
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(pip, check=True, capture_output=True, timeout=600)

    folder = tmp_path / "clean"
    folder.mkdir()
    environment = {**tiny.ENVIRONMENT, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    says = json.loads(done.stdout)
    assert says == {
        "file": str(site / "jaxshare" / "__init__.py"),
        "version": PROJECT["version"],
        "scripts": dict.fromkeys(PROJECT["scripts"], True),
        "presets": len(files("configs/preset", "*.yaml")),
        "algo": "qmix",
    }


def test_the_image_has_what_building_takes(tmp_path):
    """What the Dockerfile copies, as far as .dockerignore lets it, is enough for a wheel with everything."""
    pytest.importorskip("hatchling", reason="the extra test")
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    let_in = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.M)
    names = " ".join(copied).split()
    assert set(names) == set(let_in)
    folder = tmp_path / "image"
    folder.mkdir()
    for name in names:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, folder / name)
        else:
            shutil.copy(path, folder / name)
    build(folder, tmp_path, "-t", "wheel")
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        assert {"jaxshare/py.typed", "jaxshare/configs/config.yaml"} <= set(archive.namelist())


def test_what_is_installed_here_is_within_the_ranges():
    """And so are the versions that docs/install.md names."""
    specifiers = pytest.importorskip("packaging.specifiers")
    text = (ROOT / "docs" / "install.md").read_text()
    tried = dict(re.findall(r"^\| `([\w-]+)` \| ([\d.]+) \|$", text, re.M))
    ranges = dict(re.match(r"([\w-]+)(.*)", line).groups() for line in PROJECT["dependencies"])
    assert set(ranges) | {"jaxlib", "python"} == set(tried)
    for name, allowed in {**ranges, "python": PROJECT["requires-python"]}.items():
        assert tried[name] in specifiers.SpecifierSet(allowed), name
        if name != "python":
            assert importlib.metadata.version(name) in specifiers.SpecifierSet(allowed), name

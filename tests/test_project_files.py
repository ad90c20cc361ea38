"""Files for others' tools: they can be read, and what they name is there."""

import json
import os
import re
import tomllib

import pytest
import tiny
import yaml

import jaxshare

ROOT = tiny.REPOSITORY
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def read(name):
    return yaml.safe_load((ROOT / name).read_text())


def test_there_is_one_version_and_one_licence():
    citation = read("CITATION.cff")
    project = PYPROJECT["project"]
    assert jaxshare.__version__ == project["version"] == citation["version"]
    assert project["license"] == citation["license"] == "Apache-2.0"
    assert f"\n## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()
    assert "Apache License\n" in (ROOT / "LICENSE").read_text()


def test_the_five_works_can_be_cited():
    works = read("CITATION.cff")["references"]
    files = (ROOT / "benchmarks" / "claims").glob("*.yaml")
    claimed = {path.stem.partition("_")[0] for path in files} - {"study"}  # a work may have several
    assert len(works) == len(claimed) == 5
    for work in works:
        assert work["title"]
        assert work["year"] >= 2020
        assert all(author["family-names"] for author in work["authors"])


def test_changes_are_told_newest_first():
    text = (ROOT / "CHANGELOG.md").read_text()
    days = re.findall(r"^### (\d{4}-\d\d-\d\d)$", text, re.M)
    assert len(days) > 1
    assert days == sorted(set(days), reverse=True)
    assert "**Results change**" in text


def test_hooks_are_local_and_their_tools_are_of_the_extra():
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    commands = {hook["id"]: hook["entry"].split() for hook in repository["hooks"]}
    assert set(commands) == {"ruff-check", "ruff-format", "mypy", "mypy-benchmarks", "style"}
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    extra = {re.match(r"[\w-]+", line).group() for line in PYPROJECT["project"]["optional-dependencies"]["test"]}
    for tool, *arguments in commands.values():
        if tool == "python":
            assert (ROOT / arguments[0]).is_file()
        else:
            assert tool in extra


def test_the_workflow_does_what_ci_run_does():
    (job,) = read(".github/workflows/ci.yml")["jobs"].values()
    *before, last = job["steps"]
    assert last == {"run": ".ci/run"}
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    (python,) = [step["with"]["python-version"] for step in before if "setup-python" in step["uses"]]
    assert python == PYPROJECT["project"]["requires-python"].removeprefix(">=")


def test_the_container_is_the_dockerfile():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())["build"]
    file = ROOT / ".devcontainer" / container["dockerfile"]
    text = file.read_text()
    stages = re.findall(r"^FROM (\S+)(?: AS (\w+))?$", text, re.M)
    names = [name for _, name in stages]
    assert file.resolve() == ROOT / "Dockerfile"
    assert container["target"] in names
    assert stages[-1][0] == "run", "what is built if no stage is named"
    extras = {container["args"]["EXTRAS"], *re.findall(r"cuda\d+", text)}
    assert extras >= {"test", "cuda12", "cuda13"}
    assert extras <= set(PYPROJECT["project"]["optional-dependencies"])


@pytest.mark.parametrize("path", [path for path in FORMS if path.stem != "config"], ids=lambda path: path.stem)
def test_forms_ask_for_something(path):
    form = yaml.safe_load(path.read_text())
    assert form["name"]
    assert form["description"]
    fields = form["body"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_forms_ask_for_what_a_run_leaves():
    bug, question, reproduction = (
        read(f".github/ISSUE_TEMPLATE/{name}.yml") for name in ("bug", "question", "not_reproduced")
    )
    for form in (bug, reproduction):
        required = {field["id"] for field in form["body"] if field.get("validations", {}).get("required")}
        assert {"command", "versions"} <= required
    assert "lines" in {field["id"] for field in bug["body"]}
    assert len(question["body"]) < len(bug["body"])
    assert len(FORMS) == 4


def test_slow_tests_that_are_listed_are_there():
    names = [line for line in (ROOT / "tests" / "slow.txt").read_text().splitlines() if not line.startswith("#")]
    assert names == sorted(set(names))
    for name in names:
        path, function = name.partition("[")[0].split("::")
        assert f"def {function}(" in (ROOT / path).read_text(), name


def test_the_readme_is_read_in_a_few_minutes():
    content = (ROOT / "README.md").read_text()
    assert len(content.encode()) <= 9000
    prose = re.sub(r"```.*?```|^\|.*?$|^#.*?$|^\* ", "", content, flags=re.S | re.M)
    sentences = re.split(r"(?<=[.:;?])\s+", prose)
    assert max(len(sentence.split()) for sentence in sentences) <= 40
    assert content.index("make install") < content.index("## Train") < 2000

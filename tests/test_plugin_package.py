"""A package of another name, really installed: its entries are listed, train, and are found again."""

import json
import shutil

import outside
import pytest
import yaml


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the package installed in it."""
    pytest.importorskip("pip")
    target = tmp_path_factory.mktemp("installed") / "site"
    outside.install(outside.PROJECT, target)
    return target


@pytest.fixture(scope="module")
def trained(site, tmp_path_factory):
    """A folder with a run of everything that the package has, and what its command printed."""
    here = tmp_path_factory.mktemp("trained")
    done = outside.command("train", "preset=team_games/small", "run_dir=run", cwd=here, path=[site])
    assert done.returncode == 0, done.stderr
    return here, done.stdout


def test_a_preset_of_the_package_trains_with_all_that_it_has(trained, site):
    here, printed = trained
    assert "averaged+scaled on meeting" in printed
    tree = yaml.safe_load((here / "run" / "config.yaml").read_text())
    assert (tree["algo_name"], tree["env_name"], tree["env"]) == (
        "averaged",
        "meeting",
        {"cells": 4},
    )
    assert tree["run"]["num_envs"] == 4
    assert tree["modifiers"] == {"scaled": {"factor": 0.25}}
    origin = {"how": "installed", "package": "team-games", "version": "1.2"}
    assert tree["origins"] == {
        "algo": {"averaged": {**origin, "module": "team_games.averaged"}},
        "env": {"meeting": {**origin, "module": "team_games.meeting"}},
        "modifiers": {"scaled": {**origin, "module": "team_games.scaled"}},
        "logger": {"table": {**origin, "module": "team_games.table:Table"}},
    }
    table = (here / "run" / "table.tsv").read_text()
    assert table.startswith("averaged seed_0\n")
    assert "\tloss/td\t" in table


@pytest.mark.slow
def test_it_is_evaluated_and_goes_on(trained, site, tmp_path):
    here = shutil.copytree(trained[0], tmp_path / "copy")
    done = outside.command("evaluate", "run_dir=run", "episodes=4", cwd=here, path=[site])
    assert done.returncode == 0, done.stderr
    assert json.loads((here / "run" / "evaluation.json").read_text())["runs"][0]["length"] == 4
    line = ("preset=team_games/small", "run_dir=run", "resume=auto", "logger=[]")
    done = outside.command("train", *line, cwd=here, path=[site])
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_without_the_package_the_message_says_what_was_used(trained):
    done = outside.command("evaluate", "run_dir=run", cwd=trained[0])
    assert done.returncode == 1
    assert "algo=averaged was package team-games 1.2, which is not installed here" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_it_is_listed_and_helped_with(site, tmp_path):
    done = outside.command("list", cwd=tmp_path, path=[site])
    assert done.returncode == 0, done.stderr
    listed = " ".join(done.stdout.split())
    for text in (
        "averaged Q_tot is the mean of the agents' utilities, with a weight in front. (package team-games 1.2)",
        "meeting Two agents on a line",
        "scaled Rewards times a factor",
        "table RUN/table.tsv",
        "team_games/small (package team-games 1.2)",
    ):
        assert text in listed
    head, *rows = done.stdout[done.stdout.index("which go together") :].splitlines()[1:]
    (row,) = [row.split() for row in rows if row.startswith("  averaged ")]
    cells = dict(zip(head.split(), row[1:], strict=False))
    assert [cells[name] for name in ("(none)", "differ", "scaled", "cql")] == ["+", "+", "+", "-"]
    assert not done.stderr
    done = outside.command("train", "--help", "algo=averaged", "env=meeting", cwd=tmp_path, path=[site])
    for text in (
        "|averaged",
        "|meeting",
        "scaled",
        "team_games/small",
        "algo.weight=2.0",
        "of the mean",
    ):
        assert text in done.stdout
    done = outside.command("train", "algo=average", cwd=tmp_path, path=[site])
    assert "Did you mean averaged" in done.stderr


@pytest.mark.slow
def test_files_in_a_multirun_and_by_the_users_word(tmp_path):
    (tmp_path / "games").mkdir()
    (tmp_path / "games" / "coin.py").write_text(outside.GAME)
    (tmp_path / "shrunk.py").write_text(outside.MODIFIER)
    line = (
        "-m",
        "algo=iql",
        "env=games/coin.py",
        "env.pay=1,2",
        "modifiers=[./shrunk.py]",
        "shrunk.factor=0.5",
    )
    sizes = (
        "algo.hidden_dim=4",
        "total_env_steps=8",
        "num_envs=4",
        "batch_size=4",
        "eval.episodes=4",
    )
    done = outside.command("train", *line, *sizes, "run_dir=runs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    pay = [yaml.safe_load((tmp_path / "runs" / job / "config.yaml").read_text())["env"]["pay"] for job in "01"]
    assert pay == [1.0, 2.0]
    refused = outside.command("evaluate", "run_dir=runs/1", "episodes=4", cwd=tmp_path)
    assert refused.returncode == 1
    assert f"plugins=[{tmp_path}/games/coin.py,{tmp_path}/shrunk.py]" in refused.stderr
    argument = "plugins=[games/coin.py,shrunk.py]"
    done = outside.command("evaluate", "run_dir=runs/1", "episodes=4", argument, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "games" / "coin.py").write_text(outside.GAME + "\n")
    done = outside.command("evaluate", "run_dir=runs/1", argument, cwd=tmp_path)
    assert "has changed since" in done.stderr

"""Curves of several runs on one axis, and the one function that draws them."""

import ast

import numpy as np
import pytest
import tiny
from matplotlib.figure import Figure

from jaxshare.results import curves, figures, learning_curve, statistics
from jaxshare.results.curves import Curve
from jaxshare.results.figures import Line, Panel
from jaxshare.results.statistics import Bootstrap

# two runs that were evaluated at different steps: 2 x from 0 to 40, and 4 x from 10 to 30
SHORT = Curve(np.array([10.0, 30.0]), np.array([40.0, 120.0]))
LONG = Curve(np.array([0.0, 20.0, 40.0]), np.array([0.0, 40.0, 80.0]))


def record(seed, env_steps, updates=0, **metrics):
    return {"seed": seed, "env_steps": env_steps, "updates": updates, "wall_s": 1.0, **metrics}


def drawn(panel):
    axis = Figure().subplots()
    figures.draw_curves(axis, panel)
    return axis


# --------------------------------------------------------------------------------------- one axis


def test_runs_are_compared_as_far_as_all_of_them_go():
    grid = curves.common_grid([SHORT, LONG], points=5)
    np.testing.assert_allclose(grid, [10, 15, 20, 25, 30])
    np.testing.assert_allclose(
        curves.along([SHORT, LONG], grid),
        [[40, 20], [60, 30], [80, 40], [100, 50], [120, 60]],
    )
    mean = curves.mean_curve([SHORT, LONG], points=3)
    np.testing.assert_allclose(mean.x, [10, 20, 30])
    np.testing.assert_allclose(mean.y, [30, 60, 90])
    assert not mean.has_band


def test_a_statistic_of_curves_is_that_of_its_points():
    bootstrap = Bootstrap(resamples=50, confidence=0.9, seed=3)
    several = [SHORT, LONG, LONG]
    curve = curves.statistic_curve(statistics.iqm, several, bootstrap, points=3)
    at_the_end = statistics.interval(
        statistics.iqm,
        [np.array([120.0, 60.0, 60.0])],
        *bootstrap.arguments(),
    )
    assert (curve.y[-1], curve.low[-1], curve.high[-1]) == (
        at_the_end.value,
        at_the_end.low,
        at_the_end.high,
    )
    assert curve.has_band
    assert not curves.statistic_curve(statistics.iqm, [LONG], bootstrap).has_band


def test_evaluations_are_the_curves_of_their_runs():
    records = [
        record(0, 8, **{"eval/return": 1.0, "sweep.lr": 0.1}),
        record(0, 8, **{"loss/td": 1.0, "sweep.lr": 0.1}),
        record(1, 8, **{"eval/return": 2.0, "sweep.lr": 0.1}),
        record(0, 24, **{"eval/return": 3.0, "sweep.lr": 0.1}),
    ]
    by_run = curves.learning_curves(records, "eval/return")
    assert list(by_run) == ["seed 0, lr=0.1", "seed 1, lr=0.1"]
    assert (by_run["seed 0, lr=0.1"].x.tolist(), by_run["seed 0, lr=0.1"].y.tolist()) == (
        [8, 24],
        [1, 3],
    )
    assert list(curves.by_run(records, "loss/td")) == ["seed 0, lr=0.1"]


# ------------------------------------------------------------------------------------ one picture


def test_lines_and_bands_are_drawn_as_they_are():
    look = figures.looks(["a", "b", "c"])
    band = Curve(LONG.x, LONG.y, LONG.y - 1, LONG.y + 2)
    nothing = np.full(2, np.nan)
    unknown = Curve(SHORT.x, SHORT.y, nothing, nothing)
    lines = [Line(band, "a", look["a"]), Line(unknown, "b", look["b"]), Line(LONG, "", look["c"])]
    axis = drawn(Panel(lines, title="t", x_label="steps", y_label="return", y_range=(0, 90)))
    assert [line.get_ydata().tolist() for line in axis.lines] == [
        band.y.tolist(),
        SHORT.y.tolist(),
        LONG.y.tolist(),
    ]
    (filled,) = axis.collections  # of the one that has an interval
    heights = filled.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (-1, 82)
    assert axis.get_legend_handles_labels()[1] == ["a", "b"]
    assert (axis.get_title(), axis.get_xlabel(), axis.get_ylabel()) == ("t", "steps", "return")
    assert axis.get_ylim() == (0, 90)
    assert axis.xaxis.get_major_formatter()(20_000) == "20k"


def test_stairs_hold_up_to_the_next_point():
    line = Line(Curve(LONG.x, LONG.y, LONG.y, LONG.y), "a", figures.Look("red"))
    axis = drawn(Panel([line], stairs=True, counts=False, scored_at=30.0))
    assert axis.lines[0].get_drawstyle() == "steps-post"
    assert [20, 0] in axis.collections[0].get_paths()[0].vertices.tolist()
    assert axis.lines[1].get_xdata() == [30.0, 30.0]
    assert axis.get_legend_handles_labels()[1] == ["a", "where scores are taken"]


def test_a_legend_has_no_more_entries_than_can_be_told_apart():
    names = [str(i) for i in range(300)]
    look = figures.looks(names)
    lines = [Line(LONG, name, look[name]) for name in names]
    figure = Figure()
    axis = figure.subplots()
    figures.draw_curves(axis, Panel(lines))
    figures.legend_below(figure, [axis, axis])
    figures.legend_inside(axis)
    for legend in (figure.legends[0], axis.get_legend()):
        assert [text.get_text() for text in legend.get_texts()] == names[: figures.MOST_NAMES]


def test_the_picture_of_a_run_has_every_seed_and_the_mean():
    records = [record(s, x, **{"eval/return": float(s * x)}) for x in (0, 10) for s in (1, 3)]
    panel = learning_curve._panel(records, "eval/return")
    lines = {line.label: line.curve for line in panel.lines}
    assert list(lines) == ["seed 1", "seed 3", "mean"]
    assert lines["seed 3"].y.tolist() == [0, 30]
    assert lines["mean"].y[-1] == 20
    assert (panel.x_label, panel.y_label) == ("environment steps", "test return")
    (alone,) = learning_curve._panel(records[::2], "eval/return").lines
    assert alone.label == "seed 1"


def test_thousands_of_seeds_have_one_name_together(tmp_path):
    records = [record(s, x, **{"eval/return": 1.0}) for x in (0, 10) for s in range(3000)]
    labels = [line.label for line in learning_curve._panel(records, "eval/return").lines]
    assert len(labels) == 3001
    assert [label for label in labels if label] == ["each of 3,000 runs", "mean"]


def test_a_learner_from_a_data_set_is_drawn_against_updates(tmp_path):
    records = [record(0, 0, x, **{"eval/return": 1.0, "eval/win_rate": 0.5}) for x in (0, 10)]
    panel = learning_curve._panel(records, "eval/win_rate")
    assert (panel.x_label, panel.y_label, panel.y_range) == ("updates", "test win rate", (0, 1.02))
    run_dir = tmp_path / r"$\frac{"  # no formula
    run_dir.mkdir()
    assert learning_curve.draw(records, run_dir).read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("call", "place"),
    [("interp", "results/curves.py"), ("fill_between", "results/figures.py")],
)
def test_there_is_one_of_each(call, place):
    """Whoever puts curves on one axis, or draws them, does it there."""
    package = tiny.REPOSITORY / "jaxshare"
    users = set()
    for path in package.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        if any(isinstance(node, ast.Attribute) and node.attr == call for node in nodes):
            users.add(str(path.relative_to(package)))
    assert users == {place}

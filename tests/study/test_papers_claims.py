"""benchmarks/claims: claims can be decided, and their figures are of what they say now."""

import jax.numpy as jnp
import pytest
import tiny
import tiny_studies  # noqa: F401 - finds the scripts of benchmarks/
import yaml

from jaxshare import cli, registry
from jaxshare.ops import schedules
from jaxshare.settings import hydra
from jaxshare.study import book as books
from jaxshare.study import cost, figures
from jaxshare.study import plan as planning
from jaxshare.study.language import BUDGETS

FOLDER = tiny.REPOSITORY / "benchmarks" / "claims"
BOOK = books.read(FOLDER, base=tiny.REPOSITORY)
CASES = [(name, budget) for name in BOOK.studies for budget in BUDGETS]
PLANS = {case: planning.make(BOOK, *case) for case in CASES}
COSTS = FOLDER / BOOK.paths.costs
GROUPS = ("preset", "algo", "env", "modifiers")


def settings_of(job):
    return {key: value.replace("{root}", "runs") for key, value in job.settings.items()}


def trainings(budget=None):
    found = {}
    for (_, of_plan), plan in PLANS.items():
        if plan and budget in (None, of_plan):
            found |= {job.name: job for job in plan.jobs.values() if job.kind == "train"}
    return found


def test_the_claims_of_all_papers_are_there():
    assert {name.partition("_")[0] for name in BOOK.studies} == set(BOOK.paths.sections)
    for name in (
        "divide",
        "hetero",
        "homo",
        "qplex",
        "maser",
        "coma",
        "warm_up",
        "spread",
        "shares",
    ):
        assert f"differ_{name}" in BOOK.studies
    assert {claim.title[:2] for name, claim in BOOK.studies.items() if name.startswith("sit_")} >= {
        f"K{i}" for i in range(1, 8)
    }


@pytest.mark.parametrize("name", BOOK.studies)
def test_a_claim_can_be_decided_or_says_why_not(name):
    claim = BOOK.studies[name]
    assert claim.is_claim
    if claim.not_run:
        assert PLANS[name, "small"] is None
        assert len(claim.not_run) > 20
        return
    assert not isinstance(claim.full, str)
    for budget in BUDGETS:
        plan = PLANS[name, budget]
        if isinstance(getattr(claim, budget), str):
            assert plan is None
            assert len(getattr(claim, budget)) > 20
            continue
        deciding = [check for check in claim.checks if check.decides]
        assert deciding
        for check in deciding:  # what it needs is among the jobs
            if check.quantity.json:
                assert plan.scripts[check.quantity.json] in plan.jobs
                continue
            tasks = check.tasks or plan.tasks
            tasks = [t for t in tasks if all((t, a) in plan.cells for a in check.arms)]
            assert tasks
            if check.quantity.decomposition:
                pairs = [(task, arm) for task in tasks for arm in check.arms]
                assert all(pair in plan.decompositions for pair in pairs)
        for job in plan.jobs.values():
            assert all(need in plan.jobs for need in job.needs)
        used = {arm for check in claim.checks for arm in check.arms}
        assert {arm for _, arm in plan.cells} <= used | {"PP-PPS"}  # shown beside the others only


def test_what_the_papers_say_is_of_arms_and_tasks_that_exist():
    for name, claim in BOOK.studies.items():
        for task, arms in claim.values.items():
            assert task in claim.tasks, name
            for numbers in arms.values():
                assert len(numbers) in (1, 2), name


def test_runs_are_shared_and_named_apart():
    first, second = PLANS["differ_hetero", "small"], PLANS["differ_shares", "small"]
    assert first.cells["MMM2", "DIFFER"] == second.cells["MMM2", "DIFFER"]
    assert first.cells["MMM2", "DIFFER"] != first.cells["MMM2", "QMIX"]
    assert len({job.out for job in trainings("small").values()}) == len(trainings("small"))
    assert not set(trainings("small")) & set(trainings("full"))


def small_jobs():
    jobs = {}
    for (_, budget), plan in PLANS.items():
        jobs |= plan.jobs if plan and budget == "small" else {}
    return jobs


def test_measured_costs_are_of_jobs_that_exist_and_all_fit_into_three_hours():
    table = cost.read(COSTS)
    jobs = small_jobs()
    assert len(table) >= 10
    assert set(table) <= {job.speed for job in jobs.values()}
    for kind in table.values():
        assert all(value >= 0 for value in kind.values())
        assert kind["start_s"] > 0
        assert kind.get("rate", 1.0) > 0
    each = [cost.seconds(job, table) for job in jobs.values()]
    assert sum(seconds for seconds in each if seconds is not None) / 2 < 3 * 3600  # two cores


def test_every_job_of_the_small_budget_has_a_measured_cost():
    assert {job.speed for job in small_jobs().values()} - set(cost.read(COSTS)) == set()


def composed(jobs):
    for job in jobs:
        settings = settings_of(job)
        found = cli.settings([f"{k}={v}" for k, v in settings.items()])
        assert found.run.seeds == job.seeds
        assert (found.run.total_updates if job.offline else found.run.total_env_steps) == job.total
        assert bool(found.run.data) == job.offline


def kinds(jobs):
    """One of the jobs that name the same algorithm, environment and modifiers."""
    found = {}
    for job in jobs:
        own = settings_of(job)
        found.setdefault(tuple(own.get(key) for key in (*GROUPS[1:], "preset")), job)
    return found


def test_the_kinds_of_runs_are_valid_settings():
    """A fifth of them here, other ones by turns of the list; the rest below."""
    jobs = list(kinds(trainings("small").values()).values())
    assert len(jobs) > 20
    composed(jobs[::5])


@pytest.mark.slow
@pytest.mark.parametrize("budget", BUDGETS)
def test_every_run_is_valid_settings(budget):
    composed(trainings(budget).values())


def test_presets_that_claims_name_exist():
    for job in trainings().values():
        assert settings_of(job).get("preset") in (None, *hydra.presets())


# -------------------------------------------------------------------------------------- exploration

EXPLORED = 2 / 3  # of every run: then exploration ends, so that the last third is of the policy


def exploration_of(settings):
    """Swept scalars of a run's algorithm, from preset and settings, without composing them."""
    chosen = {}
    if "preset" in settings:
        text = yaml.safe_load(
            (tiny.REPOSITORY / "configs" / "preset" / f"{settings['preset']}.yaml").read_text(),
        )
        chosen = {key: value for entry in text["defaults"] for key, value in entry.items()}
    name = settings.get("algo") or chosen.get("override /algo", "qmix")
    hparams = {**vars(registry.get("algo", name).Config().hparams)}
    if "preset" in settings and "algo" not in settings:
        hparams |= text.get("algo", {}).get("hparams", {})
    for key, value in settings.items():
        if key.startswith("algo.hparams."):
            hparams[key.removeprefix("algo.hparams.")] = value
    return {key: float(value) for key, value in hparams.items()}


def epsilon(hparams, steps, total):
    return float(schedules.exploration_rate(hparams, jnp.int32(steps), total))


def test_exploration_does_not_outlive_any_budget():
    """All claims with all budgets: epsilon of runs that collect."""
    of_kind = {}
    for job in trainings().values():
        hparams = exploration_of(settings_of(job))
        if not job.offline and "epsilon_anneal_steps" in hparams:
            of_kind.setdefault((job.total, *sorted(hparams.items())), (job, hparams))
    assert len(of_kind) > 15
    for job, hparams in of_kind.values():
        for share in (EXPLORED, 1.0):
            rate = epsilon(hparams, int(share * job.total), job.total)
            assert rate == pytest.approx(hparams["epsilon_end"], abs=1e-6), (job.name, share, rate)


@pytest.mark.parametrize(("total", "rate"), [(24_000, 0.544), (18_000, 0.658), (9_000, 0.829)])
def test_the_same_steps_in_a_smaller_budget_would_outlive_it(total, rate):
    """What the check above must see: 50,000 steps of exploration at the end of a small budget."""
    usual = {**vars(registry.get("algo", "qmix").Config().hparams)}
    assert epsilon(usual, total, total) == pytest.approx(rate, abs=1e-6)
    half = {**usual, "epsilon_anneal_fraction": 0.5}
    assert epsilon(half, total // 4, total) == pytest.approx(0.525, abs=1e-6)
    assert epsilon(half, total // 2, total) == pytest.approx(0.05, abs=1e-6)


# ------------------------------------------------------------------------------------------ figures


def test_no_figures_rest_on_earlier_settings_of_their_claim():
    """The kept ones are of the commands that the claims name now."""
    kept = figures.read(FOLDER / BOOK.paths.figures)
    assert kept
    for (name, budget), plan in PLANS.items():
        of_claim = kept.get(name, {}).get(budget, {})
        if plan is not None and "commands" in of_claim:
            remedy = f"{name}: python -m jaxshare.study judge benchmarks/claims {name}"
            assert of_claim["commands"] == plan.commands(), remedy


def test_scripts_that_claims_name_exist():
    for plan in PLANS.values():
        for job in plan.jobs.values() if plan else ():
            if job.kind == "script":
                assert (tiny.REPOSITORY / job.arguments[0]).is_file()


def test_results_keep_their_names():
    """Runs of earlier versions are found."""
    names = {job.name for job in small_jobs().values()}
    assert {
        "identity-20cd6f71", "cost-ddf419a0", "tables-be1e12c7", "overhead-06479355",
        "seac-sparse_tag-b3d7e2d8", "sit-2s3z-2s3z_low-75ec9b33", "set-CN_3ls3l_low_std",
    } <= names  # fmt: skip


@pytest.mark.slow
def test_the_identity_is_exact_and_its_control_sees_a_difference():
    import differ_identity

    assert differ_identity.difference("3m", "vdn") < 1e-12
    assert differ_identity.difference("3m", "vdn", "differ.alive_mask=true") > 1e-3

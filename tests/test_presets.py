"""Every preset can be read, its parts go together, and it trains; and it says what its name says."""

import dataclasses

import jax
import made_runs
import pytest
import tiny
import yaml

from jaxshare import cli, registry
from jaxshare.algos.coma import algorithm as coma
from jaxshare.algos.comix import algorithm as comix
from jaxshare.algos.icq import algorithm as icq
from jaxshare.algos.seac import algorithm as seac
from jaxshare.algos.seql import algorithm as seql
from jaxshare.algos.sit import settings as sit
from jaxshare.data import paper_sets
from jaxshare.learners.value_settings import ValueConfig, ValueHParams
from jaxshare.modifiers.periodic import sharing
from jaxshare.run import build
from jaxshare.settings import hydra
from jaxshare.settings.fields import declared
from jaxshare.types import Discrete, EnvSpec

SMALL = ("num_envs=2", "batch_size=2", "replay.capacity=4", "eval.every=16", "eval.episodes=2", "progress=false")
SMALL += ("total_env_steps=32", "updates_per_episode=1", "algo.hidden_dim=4", "checkpoint.every=0")
GAME = ("env=matrix", "env.game=two_step")
PPS = [f"pps/{algo}_{kind}" for algo in ("qmix", "vdn") for kind in ("a", "rs", "pp")]


def chosen(preset, *more):
    settings = cli.settings([f"preset={preset}", *more])
    missing = registry.lacking(registry.get("env", settings.env_name))
    if missing:
        pytest.skip(missing)
    return settings


def differences(config, usual, but=()):
    return {f.name for f in dataclasses.fields(usual) if getattr(config, f.name) != getattr(usual, f.name)} - {*but}


@pytest.mark.parametrize("preset", hydra.presets())
def test_the_parts_of_a_preset_go_together(preset):
    settings = chosen(preset)
    env = build.make_env(settings)
    try:
        build.make_algorithm(settings, env.spec)
    finally:
        if env.host:
            env.host.close()


@pytest.mark.slow
@pytest.mark.parametrize("preset", hydra.presets())
def test_a_preset_trains(preset, tmp_path):
    settings = chosen(preset)
    short = ["env.max_steps=4"] if hasattr(settings.env, "max_steps") else []
    short += ["algo.minibatches=1"] if hasattr(settings.algo, "minibatches") else []  # of two environments
    offline = settings.algo_name in ("icq", "sit")  # which learn from data sets only
    if offline:
        short = [
            f"data={made_runs.random_play(tmp_path / 'set.jds', 8, *GAME)}",
            *GAME,
            "total_updates=8",
            "eval.every=4",
        ]
        short += ["algo.stage1_updates=4"] if settings.algo_name == "sit" else []
    tiny.train(tmp_path / "run", f"preset={preset}", *SMALL, *short)
    shown = tiny.records(tmp_path / "run")
    assert shown[-1]["updates"] >= 4
    assert offline or shown[-1]["env_steps"] >= 32
    assert "eval/return" in shown[-1]
    assert any(key.startswith("loss/") for record in shown for key in record)


@pytest.mark.parametrize("preset", PPS)
def test_pps_has_the_hyper_parameters_of_table_1(preset):
    settings, (algo, kind) = chosen(preset), preset.removeprefix("pps/").split("_")
    assert settings.algo_name == algo
    assert list(settings.modifiers) == [f"{kind}_pps"]
    assert settings.modifiers[f"{kind}_pps"].period == 300
    assert (settings.run.batch_size, settings.run.replay.capacity, settings.run.total_env_steps) == (96, 5000, 10**6)
    assert (settings.run.eval.every, settings.run.eval.episodes) == (5000, 32)
    assert (settings.algo.optimizer, settings.algo.share_params) == ("adam", "none")
    assert (settings.algo.target_update, settings.algo.target_update_period) == ("hard", 200)
    hparams = settings.algo.hparams
    assert (hparams.lr, hparams.gamma, hparams.epsilon_start, hparams.epsilon_end) == (5e-4, 0.99, 1.0, 0.05)
    assert hparams.epsilon_anneal_steps == 50_000
    assert settings.algo.bootstrap_on_timeout  # code: `dw` is false at the episode limit
    if kind != "a":
        assert settings.modifiers[f"{kind}_pps"].buffer == 96
    if algo == "qmix":
        assert settings.algo.hypernet_layers == 1


@pytest.mark.parametrize("kind", ["a", "rs", "pp"])
@pytest.mark.parametrize("algo", ["qmix", "vdn"])
def test_table_1_of_pps_is_there_whole(algo, kind):
    """What is another than in the presets that follow the code."""
    whole, usual = chosen(f"pps/table1_{algo}_{kind}"), chosen(f"pps/{algo}_{kind}")
    assert differences(whole.algo, usual.algo, but=("hparams",)) == {"init", "target_update"}
    assert (whole.algo.init, whole.algo.target_update) == ("orthogonal", "soft")
    assert differences(whole.algo.hparams, usual.algo.hparams) == {"tau"}
    assert (whole.algo.hparams.tau, whole.run.num_envs) == (0.05, 1)
    assert differences(whole.run, usual.run) == {"num_envs"}
    averages, others = whole.modifiers[f"{kind}_pps"], usual.modifiers[f"{kind}_pps"]
    assert differences(averages, others) == ({"share"} if kind == "pp" else set())


@pytest.mark.parametrize("algo", ["qmix", "vdn"])
def test_the_control_of_pps_is_a_pps_without_averages(algo):
    control, usual = chosen(f"pps/{algo}_own"), chosen(f"pps/{algo}_a")
    assert list(control.modifiers) == []
    assert (control.algo, control.run, control.env) == (usual.algo, usual.run, usual.env)


def test_both_readings_of_the_personalized_layer():
    """Eight pairs of tensors: embed, two halves of the GRU, head; four and four."""
    literal, code, usual = (chosen(f"pps/qmix_pp{name}") for name in ("_layer4", "_code", ""))
    assert differences(literal.modifiers["pp_pps"], usual.modifiers["pp_pps"]) == {"share"}
    assert (literal.algo, literal.run) == (usual.algo, usual.run)
    assert differences(code.modifiers["pp_pps"], usual.modifiers["pp_pps"]) == {"share", "rule", "init"}
    assert differences(code.algo, usual.algo) == {"init"}
    spec = EnvSpec("fake", 2, 30, 48, Discrete(9), 5, (0, 0), ("unit",))
    shared = []
    for settings in (literal, code):
        learner = registry.get("algo", "qmix").make(settings.algo, spec)
        shared.append(sharing.decided("pp_pps", settings.modifiers["pp_pps"], learner).tensors["agent"])
    everything = set(sharing.decided("pp_pps", chosen("pps/qmix_a").modifiers["a_pps"], learner).tensors["agent"])
    assert shared[0] | shared[1] == everything
    assert not shared[0] & shared[1]


def test_the_recurrent_seql_is_seql_with_the_settings_of_the_family():
    algo = chosen("seql/recurrent").algo
    assert (algo.weighting, algo.views) == (seql.Config().weighting, seql.Config().views)
    assert differences(algo, ValueConfig(), but=("hparams",)) == {"share_params", "obs_agent_id"}
    assert algo.share_params == "none"
    assert differences(algo.hparams, ValueHParams()) == {"tau"}  # of no effect: the target is copied
    assert algo.target_update == "hard"


def test_comix_on_predator_prey_is_the_default_but_for_the_target():
    settings = chosen("comix/pred_prey")
    assert differences(settings.algo, comix.Config(), but=("hparams",)) == set()
    assert differences(settings.algo.hparams, comix.HParams()) == {"tau"}
    assert settings.env.scenario == "pred_prey_3a"


def test_comix_on_mujoco_has_the_settings_of_facmac():
    settings = cli.settings(["preset=comix/mamujoco"])
    assert differences(settings.algo, comix.Config(), but=("hparams",)) == {
        "hidden_dim", "obs_last_action", "obs_agent_id",
    }  # fmt: skip
    hparams = settings.algo.hparams
    assert differences(hparams, comix.HParams()) == {"lr", "gamma", "uniform_steps"}
    assert (settings.algo.hidden_dim, hparams.lr, hparams.gamma, hparams.uniform_steps) == (400, 1e-3, 0.99, 10_000)
    assert (hparams.tau, hparams.adam_eps, hparams.grad_clip, hparams.action_noise) == (1e-3, 1e-2, 0.5, 0.1)
    steps = settings.run.batch_size * settings.run.updates_per_episode
    assert steps == 100  # transitions learned from per environment step, as in the code


def test_papers_of_level_based_foraging_have_the_rules_of_their_time():
    """All were made with lbforaging 1.x; 2.0.0 has five times as much food that needs everyone."""
    rules = {name: cli.settings([f"preset={name}"]).env.rules for name in hydra.presets() if name.endswith("lbf")}
    assert rules == dict.fromkeys(
        ("epymarl/ia2c_lbf", "epymarl/maa2c_lbf", "lecture/lbf", "seac/lbf", "seac/fig11_lbf"), "v1"
    )


@pytest.mark.parametrize("task", ["lbf", "rware"])
def test_figure_11_is_seql_from_transitions_and_iql_with_the_same_settings(task):
    settings = chosen(f"seac/fig11_{task}")
    assert differences(settings.algo, seql.Config(), but=("hparams",)) == {"window"}
    changed = {"epsilon_anneal_fraction"} | ({"lr"} if task == "rware" else set())
    assert differences(settings.algo.hparams, seql.HParams()) == changed
    steps = build.make_env(settings).spec.episode_limit
    assert (settings.algo.window, settings.run.batch_size, settings.run.updates_per_episode) == (1, 128, steps)
    assert settings.run.replay.capacity * steps == 10**6
    alone = chosen(f"seac/fig11_{task}", "algo=iql")
    assert (alone.algo_name, alone.run) == ("iql", settings.run)
    assert differences(settings.algo, alone.algo, but=("hparams",)) == set()
    assert differences(settings.algo.hparams, alone.algo.hparams) == set()


@pytest.mark.parametrize("name", ["idqn", "vdn"])
def test_the_lectures_algorithms_learn_from_transitions_with_networks_of_their_own(name):
    """And nothing else is another than in the family."""
    settings = chosen(f"lecture/{name}")
    other = {"window", "share_params", "recurrent", "obs_last_action", "obs_agent_id", "double_q"}
    other |= {"target_update_period"}
    assert differences(settings.algo, registry.get("algo", settings.algo_name).Config(), but=("hparams",)) == (
        other | {"clip"} if name == "idqn" else other
    )
    assert differences(settings.algo.hparams, ValueHParams()) == set()
    assert settings.env == chosen("lecture/lbf").env
    assert settings.run.updates_per_episode == settings.env.max_steps


@pytest.mark.parametrize("preset", [name for name in hydra.presets() if name.startswith("pps/")])
def test_what_pps_is_compared_with_has_the_same_time_limit(preset):
    text = (tiny.REPOSITORY / "configs" / "preset" / f"{preset}.yaml").read_text()
    assert yaml.safe_load(text)["algo"]["bootstrap_on_timeout"] is True


@pytest.mark.parametrize("preset", [name for name in hydra.presets() if name.startswith("differ/")])
def test_differ_trains_for_the_steps_of_its_appendix_b(preset):
    text = (tiny.REPOSITORY / "configs" / "preset" / f"{preset}.yaml").read_text()
    assert yaml.safe_load(text)["total_env_steps"] == 2_005_000


def test_coma_is_that_of_its_authors():
    """PyMARL's coma.yaml, default.yaml, critic and learner."""
    settings = chosen("differ/fig13_coma")
    algo, h = settings.algo, settings.algo.hparams
    assert (settings.algo_name, settings.run.num_envs) == ("coma", 8)
    assert (algo.hidden_dim, algo.critic_dim, algo.recurrent, algo.share_params) == (64, 128, True, "all")
    assert (algo.obs_last_action, algo.obs_agent_id) == (True, True)
    assert (algo.critic_obs, algo.critic_last_actions, algo.critic_agent_id) == (True, True, True)
    assert (algo.critic_steps, algo.target_update, algo.target_update_period) == ("slices", "hard", 200)
    assert (algo.mask_before_softmax, algo.optimizer, algo.returns) == (False, "rmsprop", "td_lambda")
    assert (h.lr, h.critic_lr, h.grad_clip, h.gamma, h.td_lambda) == (5e-4, 5e-4, 10.0, 0.99, 0.8)
    assert (h.epsilon_start, h.epsilon_end, h.epsilon_anneal_steps) == (0.5, 0.01, 100_000)
    assert (h.rms_decay, h.rms_eps, h.entropy_coef, h.value_coef) == (0.99, 1e-5, 0.0, 1.0)


def test_the_critic_of_the_authors_coma_reads_what_theirs_does():
    """COMA-5: state 48, observations 30, 9 actions, 3 agents -> 135 numbers."""
    algo = chosen("differ/fig13_coma").algo
    spec = EnvSpec("fake", 3, 30, 48, Discrete(9), 5, (0, 0, 0), ("unit",))
    shapes = jax.eval_shape(coma.make(algo, spec).assemble().init, jax.random.key(0)).params
    width = {name: shapes[name]["embed"]["linear"]["kernel"].shape for name in ("actor", "critic")}
    assert width == {"actor": (30 + 9 + 3, 64), "critic": (135, 128)}


def test_icq_has_the_lambda_of_sits_table_and_its_codes_on_request():
    assert icq.HParams().td_lambda == 0.8  # SIT's Table 11
    settings = cli.settings(["preset=offline/icq_code"])
    assert (settings.algo_name, settings.algo.mixture, settings.algo.softmax_axis) == ("icq", True, "batch")
    h = settings.algo.hparams
    assert (h.td_lambda, h.grad_clip, h.lr, h.critic_lr) == (0.75, 20.0, 5e-4, 1e-4)
    assert (h.epsilon_start, h.epsilon_end, h.epsilon_anneal_updates) == (0.5, 0.05, 5_000)


def test_the_code_and_the_claims_cite_the_same_figure_for_lambda():
    """SEAC's appendix B: Figure 10 has the returns for several lambda; Figure 6 the importance weights."""
    claim = yaml.safe_load((tiny.REPOSITORY / "benchmarks" / "claims" / "seac.yaml").read_text())["claims"][
        "seac_lambda"
    ]
    assert "Fig. 10" in claim["source"]
    assert "Fig. 10" in declared(seac.HParams)["sharing"].source


def test_pqn_for_smax_is_the_default_and_for_mpe_jaxmarls():
    """purejaxql's pqn_vdn_rnn_smax, and JaxMARL's pqn_vdn_ff_mpe."""
    smax, mpe = chosen("pqn/smax"), chosen("pqn/mpe")
    assert smax.algo == registry.get("algo", "pqn").Config()
    assert (smax.run.num_envs, mpe.run.num_envs, mpe.run.total_env_steps) == (128, 256, 2 * 10**6)
    changed = differences(mpe.algo, smax.algo, ["hparams"])
    assert changed == {"recurrent", "hidden_dim", "segment_length", "fresh_targets"}
    hparams = mpe.algo.hparams
    changed = differences(hparams, smax.algo.hparams)
    assert changed == {"lr", "lr_anneal", "gamma", "td_lambda", "epsilon_end"}
    assert (hparams.lr, hparams.gamma, hparams.td_lambda, hparams.epsilon_end) == (5e-4, 0.9, 0.3, 0.1)
    small = chosen("pqn/smax_3m")  # what benchmarks/README.md has measured
    changed = differences(small.algo, smax.algo, ["hparams"])
    assert changed == {"hidden_dim", "segment_length", "minibatches"}
    assert differences(small.algo.hparams, smax.algo.hparams) == {"lr", "epsilon_end"}
    assert (small.run.num_envs, small.algo.segment_length, small.algo.minibatches) == (32, 32, 4)


# ---------------------------------------------------------------------------------------------- SIT

TABLES_10_AND_11 = {
    "lr": 5e-4, "critic_lr": 1e-4, "reward_lr": 1e-4, "gamma": 0.99, "grad_clip": 10.0, "alpha": 0.2, "beta": 0.1,
    "eta": 1.0, "priority_range": 20.0, "min_ess": 0.0, "kappa": 1.0,
}  # fmt: skip


def test_sit_as_in_the_paper_has_its_tables_and_none_of_our_repairs():
    settings = cli.settings(["preset=sit/paper"])
    algo, hparams = settings.algo, settings.algo.hparams
    assert {name: getattr(hparams, name) for name in TABLES_10_AND_11} == TABLES_10_AND_11
    assert (settings.run.total_updates, algo.stage1_updates, settings.run.batch_size) == (35_000, 20_000, 32)
    assert (algo.ensemble, algo.reward_dim, algo.attention_dim, algo.hidden_dim, algo.critic_dim) == (5, 64, 64, 64, 32)
    assert differences(algo, sit.Config(), but=("hparams",)) == {
        "lift_rewards", "filter", "share_params", "literal_weight",
    }  # fmt: skip
    assert differences(hparams, sit.HParams()) == {"min_ess"}


def test_sit_as_printed_adds_the_misprints_to_it():
    paper, printed = (cli.settings([f"preset=sit/{name}"]).algo for name in ("paper", "printed"))
    assert differences(printed, paper) == {"literal_return", "literal_bootstrap", "literal_actor"}


def test_icq_as_in_sits_paper_is_its_equation_and_its_width():
    algo = cli.settings(["preset=offline/icq_paper"]).algo
    assert differences(algo, icq.Config()) == {"form", "critic_dim"}
    assert (algo.form, algo.critic_dim) == ("paper", 32)
    hparams = algo.hparams
    assert (hparams.beta, hparams.td_lambda, hparams.critic_lr, hparams.lr) == (0.1, 0.8, 1e-4, 5e-4)


@pytest.mark.parametrize(("environment", "scenario"), paper_sets.PRESETS)
def test_every_task_of_sit_has_a_preset_of_its_pools(environment, scenario):
    settings = cli.settings([f"preset=sit/pools_{scenario.lower()}"])
    assert (settings.env_name, settings.env.scenario) == (environment, scenario)
    assert settings.algo_name == ("facmac" if environment == "mamujoco" else "qmix")
    assert (settings.run.checkpoint.keep, settings.run.checkpoint.replay) == (1000, False)


SEAC_TASKS = (
    ("env=mpe", "env.scenario=sparse_tag"),
    ("env=smax", "env.scenario=3m", "env.reward=sparse"),
    ("env=lbf", "env.rules=v1", "env.max_steps=25", "env.scenario=15x15-3p-4f"),
    ("env=lbf", "env.rules=v1", "env.max_steps=25", "env.scenario=8x8-2p-2f-coop"),
    ("env=rware", "env.scenario=small-4ag", "total_env_steps=150000000"),
    ("env=rware", "env.scenario=tiny-4ag", "total_env_steps=40000000"),
)
COLUMNS = ("iac", "snac", "seac", "qmix", "maddpg", "roma")
CHEAP_TASK = SEAC_TASKS[3]


@pytest.mark.parametrize(
    ("column", "task"),
    [
        pytest.param(column, task, marks=() if task is CHEAP_TASK else pytest.mark.slow)
        for column in COLUMNS
        for task in SEAC_TASKS
    ],
)
def test_every_column_of_seacs_table_1_goes_with_every_task(column, task):
    settings = chosen(f"seac/table1_{column}", *task)
    assert settings.algo_name == column
    assert settings.run.checkpoint.best
    assert settings.run.eval.episodes == 100
    env = build.make_env(settings)
    assert build.make_algorithm(settings, env.spec).spec == env.spec


def test_the_actor_critics_of_seacs_table_1_have_its_table_2():
    for column in ("iac", "snac", "seac"):
        settings = cli.settings([f"preset=seac/table1_{column}"])
        assert settings.algo == registry.get("algo", column).Config()
        assert (settings.run.num_envs, settings.run.eval.policy) == (4, "stochastic")


def test_the_games_of_the_lecture():
    """Each preset plays the game of its name; all last as long as those that were there before, but central Q."""
    steps = {"pac": 500_500, "central_q": 50_000}
    for name in hydra.presets():
        algo, _, game = name.removeprefix("lecture/").rpartition("_")
        if name.startswith("lecture/") and game in ("climbing", "hunt"):
            settings = chosen(name)
            assert settings.env.game == {"hunt": "stag_hunt"}.get(game, game)
            algo = algo.removesuffix("_stag").removesuffix("_pareto")
            assert settings.algo_name == algo
            assert settings.run.total_env_steps == steps.get(algo, 100_000)
    pareto, usual = chosen("lecture/pac_pareto_climbing"), chosen("lecture/pac_climbing")
    assert differences(pareto.algo, usual.algo) == {"values", "n_step"}
    assert (pareto.algo.values, pareto.algo.n_step, pareto.run) == ("pareto", 1, usual.run)

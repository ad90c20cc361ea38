"""COMIX: QMIX for continuous actions (de Witt et al. 2020, arXiv 2003.06709).

Later Peng et al. 2021, FACMAC.

    Q_i(tau_i, u_i): one network whose input holds the action, one number out
    u*_i = argmax_u Q_i(tau_i, u), for every agent alone, by the cross-entropy method (ops/cem.py)
    y = R + discount Q_tot(Q_1(tau_1', u*_1), ..., Q_N; s'),   u* and Q of the target networks
    L = sum m (y - Q_tot)^2 / sum m

Q_tot is QMIX's: non-decreasing in every Q_i, so that the best joint action is made of the agents'
best ones. With mixer=vdn this is COVDN; a single agent has no mixer (code), Q_tot = Q_1. The
defaults are those of the code for predator-prey (preset=comix/pred_prey: with a faster target); for
MuJoCo it has only FACMAC's settings, lr 1e-3, gamma 0.99, hidden_dim 400, uniform_steps 10 000
(preset=comix/mamujoco).

Departures. code: its recurrent agent chooses every action from an empty memory (acting and in
targets), and the target memory follows the target's own actions; ours: memory follows the actions
taken, everywhere. code: tanh covers [-1, 1] whatever the action box; ours:
networks read actions with the box mapped onto [-1, 1]. code: double_q and weight decay are read by
nobody; ours: double_q works and is off. Not done: Ornstein-Uhlenbeck noise (off in the code), NAF
and convex networks instead of the search.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from jaxshare.algos.comix import search
from jaxshare.learners.learner import Learner
from jaxshare.learners.records import Policy
from jaxshare.learners.utilities import drawn
from jaxshare.learners.value import compute_values, monotone_mixer, value_learner
from jaxshare.learners.value_losses import team_td_loss
from jaxshare.learners.value_settings import ValueConfig, ValueHParams
from jaxshare.models.agents import q_network
from jaxshare.models.base import sharing_sets
from jaxshare.models.inputs import Reads, bounded
from jaxshare.models.mixers import Mixer, vdn_mixer
from jaxshare.settings.fields import UNITS, default, nested, static
from jaxshare.settings.shared import HyperNetwork, Noise
from jaxshare.types import Box, EnvSpec, RefusedError

MIXERS = ("qmix", "vdn")
CODE = "code: comix_pp.yaml"


@dataclass(frozen=True)
class HParams(Noise, ValueHParams):
    """Swept scalars of the value family, and of exploration. code: comix_pp.yaml."""

    lr: float = default(1e-2, CODE)
    gamma: float = default(0.85, CODE)
    grad_clip: float = default(0.5, CODE)
    adam_eps: float = default(1e-2, CODE)
    tau: float = default(1e-3, CODE)
    epsilon_start: float = default(0.0, "ours: none, the code has none but uniform_steps")
    epsilon_end: float = default(0.0, "ours: none, the code has none but uniform_steps")
    action_noise: float = default(0.1, CODE)
    uniform_steps: float = default(0.0, "code: comix_pp.yaml; 10 000 for MuJoCo")


@dataclass(frozen=True)
class Config(HyperNetwork, ValueConfig):
    """Settings of the value family, the mixer's and the search's. code: comix_pp.yaml."""

    recurrent: bool = default(
        False,
        "code: COMIX; true in comix_pp.yaml, but never used for acting",
    )
    double_q: bool = default(False, CODE)
    bootstrap_on_timeout: bool = default(
        True,
        "code: COMIX, the limit of its tasks is no terminal state",
    )
    optimizer: str = default("adam", CODE)
    target_update: str = default("soft", CODE)
    mixer: str = static(
        "qmix",
        choices=MIXERS,
        help="how utilities are mixed: by QMIX, or by a sum (COVDN)",
        source=CODE,
    )
    embed_dim: int = default(64, CODE)
    hypernet_dim: int = default(64, CODE)
    hypernet_layers: int = default(2, CODE)
    cem_samples: int = static(
        64,
        least=1,
        most=UNITS,
        help="actions in each round of the search",
        source=CODE,
    )
    cem_elites: int = static(
        6,
        least=2,
        most=UNITS,
        help="actions of which the next round is made",
        source=CODE,
    )
    cem_rounds: int = static(2, least=1, most=100, help="rounds of the search", source=CODE)
    hparams: HParams = nested(HParams)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cem_elites > self.cem_samples:
            raise RefusedError(
                f"algo.cem_elites={self.cem_elites} must be at most "
                f"algo.cem_samples={self.cem_samples}."
            )


def make(config: Config, spec: EnvSpec) -> Learner:
    """Utilities of an action, a search for the best one, a monotone mixer.

    Raises RefusedError for discrete actions.
    """
    box = _continuous(spec)
    reads = Reads(spec, config.obs_last_action, config.obs_agent_id)
    param_sets = sharing_sets(config.share_params, spec.groups)
    agent = q_network(
        input_dim=reads.dim + box.dim,
        num_actions=1,
        hidden_dim=config.hidden_dim,
        recurrent=config.recurrent,
        param_sets=param_sets,
    )
    agent = drawn(config, agent)
    learner = value_learner("comix", config, spec, _mixer(config, spec), team_td_loss, agent)

    # what the best actions are is searched for, acting and learning
    learner = learner.with_main(compute=partial(compute_values, search.utilities))
    return replace(
        learner,
        policy=Policy(networks=("agent",), choose=search.choose),
        whole_rows="its search for the best next actions draws by step, for all episodes at once",
    )


def _continuous(spec: EnvSpec) -> Box:
    if not isinstance(spec.action, Box):
        raise RefusedError(
            f"algo=comix needs continuous actions; env={spec.name} has discrete ones (use "
            "algo=qmix, or a continuous task such as env=mpe env.scenario=pred_prey_3a)."
        )
    return bounded("comix", spec)


def _mixer(config: Config, spec: EnvSpec) -> Mixer:
    if config.mixer == "vdn" or spec.num_agents == 1:
        return vdn_mixer()
    return monotone_mixer(config, spec)

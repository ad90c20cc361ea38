"""PQN, parallelised Q-network (Gallici et al. 2024, ICLR 2025, https://arxiv.org/abs/2407.04811).

Q-learning from what was just collected: no replay, no target network. What keeps it stable is layer
norm in the agents' network and many environments at a time. With Q = Q_tot = f(Q_1, ..., Q_N), or
of each agent alone where there is no mixer,

    G_t = r_t + gamma ((1 - lambda) max_a Q(t+1, a) + lambda G_{t+1})             (Peng's Q(lambda))
    L = mean[(sg(G) - Q)^2]

over `epochs` passes in `minibatches` parts of whole streams. G ends with its episode, and with the
piece. It is made anew for each part, with the parameters of that moment, or with
fresh_targets=false once, before the first. Actions are epsilon-greedy.

Settings are those of the authors' VDN on SMAX, pqn_vdn_rnn_smax; presets pqn/* have the others. An
environment on the host needs rollout=episodes. With modifiers=[differ] the shares are of the error
of the lambda-return, and it selects within each part; there is no replay to select from.

Departures:
code: SMAX has batch norm, of inputs as well; paper, code for MPE and ours: layer norm.
code: a time limit is an end; ours: a cut episode, and every piece, bootstraps from its true
successor, so that the last step of a piece is learned from (bootstrap_on_timeout=false: an end).
code: four steps of the piece before are learned from again; ours: memory goes on from where it was.
code: feed-forward it deals single steps into minibatches; ours: whole streams.
code: flax's first weights; ours: torch's, as in the value family.
ours: mixer=qmix and none; the authors have VDN only.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.algos.pqn.networks import Sizes, normed_network
from jaxshare.algos.pqn.values import choose, compute_values, prepare
from jaxshare.learners.learner import Learner
from jaxshare.learners.optimisers import annealed
from jaxshare.learners.records import Net, Optimizer, Phase, Policy, Source, Step, Targets
from jaxshare.learners.utilities import num_choices
from jaxshare.learners.value import JOINT, monotone_mixer
from jaxshare.learners.value_losses import (
    individual_td_loss,
    mean_utility,
    taken_utilities,
    team_td_loss,
)
from jaxshare.models.base import sharing_sets
from jaxshare.models.inputs import Reads
from jaxshare.models.mixers import Mixer, vdn_mixer
from jaxshare.settings.fields import default, flag, nested, static
from jaxshare.settings.shared import (
    SWEPT,
    Adam,
    Agents,
    Annealing,
    Epsilon,
    HyperNetwork,
    Lambda,
    Learning,
    OnPolicy,
    RMSprop,
)
from jaxshare.settings.shared import Optimizer as OptimizerSettings
from jaxshare.settings.validate import check_record
from jaxshare.types import EnvSpec

SMAX = "code: purejaxql's pqn_vdn_rnn_smax"
QMIX = "code: PyMARL's qmix.yaml"

RUN = {"num_envs": 128}  # code: purejaxql's pqn_vdn_rnn_smax


@dataclass(frozen=True)
class HParams(Annealing, Lambda, Adam, RMSprop, Epsilon, Learning):
    """Swept scalars. code: purejaxql's pqn_vdn_rnn_smax."""

    lr: float = default(2.5e-4, SMAX)
    lr_anneal: float = default(1.0, SMAX)
    gamma: float = default(0.99, SMAX)
    td_lambda: float = default(0.85, SMAX)
    grad_clip: float = default(1.0, SMAX)
    adam_eps: float = default(1e-8, "code: optax's RAdam, as purejaxql has it")
    epsilon_start: float = default(1.0, SMAX)
    epsilon_end: float = default(0.01, SMAX)
    epsilon_anneal_fraction: float = default(0.1, SMAX)


@dataclass(frozen=True)
class Config(HyperNetwork, OptimizerSettings, OnPolicy, Agents):
    """Static settings. code: purejaxql's pqn_vdn_rnn_smax."""

    mixer: str = static(
        "vdn",
        choices=("none", "vdn", "qmix"),
        help="Q_tot of the utilities: their sum (vdn), by QMIX's network, or none: all alone",
        source="paper: PQN-VDN",
    )
    hidden_dim: int = default(512, SMAX)
    layers: int = static(
        2,
        least=1,
        most=16,
        help="layers of the agents' networks before the GRU, or before the last one",
        source=SMAX,
    )
    layer_norm: bool = flag(
        True,
        help="layer norm after each of algo.layers, before its ReLU",
        source="paper: PQN; code: pqn_vdn_rnn_mpe, batch norm for SMAX",
    )
    obs_last_action: bool = default(False, SMAX)
    obs_agent_id: bool = default(True, SMAX)
    segment_length: int = default(128, SMAX)
    epochs: int = default(4, SMAX)
    minibatches: int = default(16, SMAX)
    fresh_targets: bool = flag(
        True,
        help="returns are made anew for each minibatch; false: once, before the first",
        source="code: pqn_vdn_rnn_smax; false in pqn_vdn_ff_mpe",
    )
    optimizer: str = default("radam", SMAX)
    bootstrap_on_timeout: bool = flag(
        True,
        help="the value of the state counts after a time limit; false: as after a true end",
        source="ours: as on policy; code: purejaxql has false",
    )
    embed_dim: int = default(32, QMIX, help="units of the mixer's layer; only with mixer=qmix")
    hypernet_dim: int = default(
        64,
        QMIX,
        help="hidden units of what makes its weights; only with mixer=qmix hypernet_layers=2",
    )
    hypernet_layers: int = default(
        2,
        QMIX,
        help="layers of the networks that make the mixer's weights; only with mixer=qmix",
    )
    hparams: HParams = nested(HParams, help=SWEPT)

    def __post_init__(self) -> None:
        check_record(self, "algo.")


def make(config: Config, spec: EnvSpec) -> Learner:
    """A learner of utilities from segments. Raises RefusedError for continuous actions."""
    reads = Reads(spec, config.obs_last_action, config.obs_agent_id)
    num_actions = num_choices("pqn", spec)
    sizes = Sizes(config.hidden_dim, config.layers, config.recurrent, config.layer_norm)
    param_sets = sharing_sets(config.share_params, spec.groups)
    networks: dict[str, Net] = {"agent": normed_network(sizes, num_actions, reads.dim, param_sets)}

    # the team's error, or each agent's
    mixer = mixer_of(config, spec)
    if mixer is not None:
        networks["mixer"] = mixer
    step = Step(
        loss=individual_td_loss if mixer is None else team_td_loss,
        optimizer_groups={},
        rest=JOINT,
        compute=compute_values,
        report=mean_utility,
    )

    # passes over what was just collected
    phase = Phase(
        steps={JOINT: step},
        prepare=None if config.fresh_targets else prepare,
        epochs=config.epochs,
        minibatches=config.minibatches,
    )
    policy = Policy(networks=("agent",), choose=choose)
    targets = Targets(networks=(), update="none")
    return Learner(
        name="pqn",
        spec=spec,
        config=config,
        networks=networks,
        reads=reads,
        policy=policy,
        phases=(phase,),
        main=JOINT,
        source=source_of(config),
        targets=targets,
        optimizer=Optimizer(kind=config.optimizer),
        utilities="agent",
        schedule=annealed,
        inspect=(taken_utilities,),
    )


def source_of(config: Config) -> Source:
    """Pieces of streams of episodes, or whole episodes."""
    if config.rollout == "segments":
        length = config.segment_length
        return Source(experience="segment", sample=None, segment_length=length)
    return Source(experience="episode", sample=None)


def mixer_of(config: Config, spec: EnvSpec) -> Mixer | None:
    """The mixer that settings ask for."""
    if config.mixer == "vdn":
        return vdn_mixer()
    return monotone_mixer(config, spec) if config.mixer == "qmix" else None

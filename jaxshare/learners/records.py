"""What a learner is made of: views, steps, phases, a policy, experience, target networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from jaxshare.learners.keys import UpdateKeys, counted
from jaxshare.training.replay import uniform_without_replacement
from jaxshare.trees import Batch, Params, Tree
from jaxshare.types import Array, Clock, Context, EnvSpec, HParams, LearnerState, Metrics, TimeStep

if TYPE_CHECKING:
    from jaxshare.learners.learner import Learner

Settings: TypeAlias = Any  # a frozen dataclass, each algorithm's its own, with `hparams`
# what has parameters: `init(key)`, as a rule `param_sets`, `unroll` or `apply`
Net: TypeAlias = Any
Key: TypeAlias = Any  # an Array, or None where somebody only looks
Part: TypeAlias = Any  # what a field of one of these records holds


@dataclass(frozen=True)
class View:
    """What every loss, hook and inspection is given, so that all have one signature, f(view).

    learner: what learns, with its networks and settings; state: all its numbers now;
    params: those that a gradient is taken of, else the state's;
    batch: an `Episode`, or on policy a `Segment`; of `Learner.tables` the whole data set;
    values: what `Step.compute` read from the batch, with a gradient;
    targets: what `Phase.prepare` made before the steps, constant;
    tables: what `Learner.tables` made of a whole data set, constant;
    key: one for each part that may draw: compute, loss, aux, prepare, hooks; None elsewhere, and
    where somebody only looks.
    """

    learner: Learner
    state: LearnerState
    params: Params
    batch: Batch
    ctx: Context
    key: Key
    values: Tree = None
    targets: Tree = None
    tables: Tree = None

    def replace(self, **changes: Part) -> View:
        """The same with other fields."""
        return dataclasses.replace(self, **changes)

    def after(self, state: LearnerState) -> View:
        """The same once the learner has changed."""
        return self.replace(state=state, params=state.params)

    @property
    def spec(self) -> EnvSpec:
        """The environment's static facts."""
        return self.learner.spec

    @property
    def config(self) -> Settings:
        """The algorithm's settings."""
        return self.learner.config

    @property
    def target_params(self) -> Params:
        """Of what has target networks."""
        return self.state.target_params

    @property
    def stats(self) -> dict[str, Any]:
        """Running statistics."""
        return self.state.stats

    @property
    def hparams(self) -> HParams:
        """Swept scalars."""
        return self.ctx.hparams

    @property
    def clock(self) -> Clock:
        """Counters common to all runs."""
        return self.ctx.clock

    @property
    def env_steps(self) -> Array:
        """Valid environment steps of this run, [] i32."""
        return self.ctx.env_steps


Loss = Callable[[View], tuple[Array, Metrics]]  # (scalar, metrics)
Hook = Callable[[View], tuple[LearnerState, Metrics]]
Inspection = Callable[[View], dict[str, Array]]  # {name: [T, B, N]}


@dataclass(frozen=True)
class Step:
    """One optimiser step on a batch.

    loss: what is minimised, times `weight`; compute: the view's `values`, which the loss is given;
    report: (View, loss) -> metrics that there are whatever the loss is;
    optimizer_groups: names of networks that each group trains, with its own state and clip;
    rest: the group of all networks that no step names ("": they stay as they are);
    rate: which hyper-parameter is the learning rate;
    due: whether it is made now, from the un-batched clock; metrics are zeros where it is not; None:
    always;
    advance: takes the place of a gradient of a loss, see `optimisers.advance`; it returns
    (state, targets for the later steps, metrics);
    fixed: why no modifier may replace the loss, as the end of a sentence.
    """

    loss: Loss | None
    optimizer_groups: Mapping[str, tuple[str, ...]]
    compute: Callable[[View], Any] | None = None
    rest: str = ""
    rate: str = "lr"
    weight: float = 1.0
    report: Callable[[View, Array], Metrics] | None = None
    due: Callable[[Clock], Array] | None = None
    advance: Callable[[View], tuple[LearnerState, Any, Metrics]] | None = None
    fixed: str = ""


@dataclass(frozen=True)
class Phase:
    """What an update does with a batch: its steps in order, then the hooks, then the target
    networks.

    prepare: what the steps aim at, made with the parameters before them, constant;
    epochs, minibatches: passes over the batch, and parts of its streams in each; on policy only;
    draw: (View of a whole data set, batch size) -> View of a batch; None: the run draws;
    due: which of several phases it is, from the un-batched clock;
    relabels, hooks: whether rewards are relabelled before it; whether hooks and targets follow it;
    keys: what each of its parts draws with.
    """

    steps: dict[str, Step]
    prepare: Callable[[View], Any] | None = None
    epochs: int = 1
    minibatches: int = 1
    draw: Callable[[View, int], View] | None = None
    due: Callable[[Clock], Array] | None = None
    relabels: bool = True
    hooks: bool = True
    keys: Callable[[Array, Phase, Learner], UpdateKeys] = counted


@dataclass(frozen=True)
class Acting:
    """What a policy is given at a step of B environments.

    memory: of the networks that act, each [B, N, H]; x: what they read, [1, B, N, D]; previous: the
    encoded actions before, [B, N, A or U]; explore: whether it learns or is evaluated.
    """

    learner: Learner
    params: Params
    memory: dict[str, Array]
    x: Array
    previous: Array
    timestep: TimeStep
    ctx: Context
    key: Array
    explore: bool


@dataclass(frozen=True)
class Chosen:
    """What it does. action: [B, N] i32, or [B, N, U] in the box; extras: stored beside it, {name:
    [B, ...]}.
    """

    action: Array
    memory: dict[str, Array]
    extras: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Policy:
    """How the agents act.

    networks: whose memory is carried from step to step, first the one that the agents act by;
    explore: (logits, avail, ctx) -> logits of the policy that plays while learning; None: the
    policy itself.
    """

    networks: tuple[str, ...]
    choose: Callable[[Acting], Chosen]
    explore: Callable[[Array, Array, Context], Array] | None = None

    @property
    def acting(self) -> str:
        """The network that the agents act by."""
        return self.networks[0]


EXPERIENCE = ("replay", "episode", "segment", "dataset")
ON_POLICY = ("episode", "segment")


@dataclass(frozen=True)
class Source:
    """Where experience comes from.

    experience: replay (of episodes) | episode, segment (what was just collected) | dataset
    (never collects);
    sample: as in `Algorithm`; window: 0, or steps of the pieces that a batch holds; segment_length:
    of a piece.
    """

    experience: str = "replay"
    sample: Callable[[Array, Array, int, int, Context], Array] | None = uniform_without_replacement
    window: int = 0
    segment_length: int = 0

    def __post_init__(self) -> None:
        _one_of("experience", self.experience, EXPERIENCE)


@dataclass(frozen=True)
class Targets:
    """Target networks.

    networks: that have one; None: all; update: none, soft (Polyak with hparams.tau), or hard: a
    copy every `period` updates, counted from update `start`; follow: takes the place of these
    rules.
    """

    networks: tuple[str, ...] | None = None
    update: str = "hard"
    period: int = 200
    start: int = 0
    follow: Callable[[View], LearnerState] | None = None

    def __post_init__(self) -> None:
        _one_of("update", self.update, ("none", "soft", "hard"))


@dataclass(frozen=True)
class Optimizer:
    """How gradients become updates.

    kind: rmsprop (torch's) | adam | radam;
    rates: by group the hyper-parameter that is its learning rate, where that is not the step's;
    clip: what hparams.grad_clip is the largest norm of: all gradients of a group (group), each
    parameter set of a group whose networks have equally many (set), or each agent's share of the
    mean loss (agent);
    largest_norm: of parameter sets that are clipped apart the largest norm is reported, not that of
    all.
    """

    kind: str = "rmsprop"
    clip: str = "group"
    rates: dict[str, str] = field(default_factory=dict)
    largest_norm: bool = False

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, ("rmsprop", "adam", "radam"))
        _one_of("clip", self.clip, ("group", "set", "agent"))


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{what}={value!r} is none of {', '.join(known)}")

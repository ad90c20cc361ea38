"""The one record of a learner: what an algorithm makes, and what a modifier changes.

An algorithm is a function (settings, EnvSpec) -> `Learner`, a modifier a function
(settings, Learner) -> Learner, and `Learner.assemble` makes the `Algorithm` that is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from jaxshare.learners import checks
from jaxshare.learners.assembly import assembled
from jaxshare.learners.packed import why_whole
from jaxshare.learners.records import (
    Hook,
    Inspection,
    Loss,
    Net,
    Optimizer,
    Part,
    Phase,
    Policy,
    Settings,
    Source,
    Step,
    Targets,
    View,
)
from jaxshare.models.inputs import Reads
from jaxshare.trees import Batch, Tree
from jaxshare.types import Algorithm, Array, Context, EnvSpec, LearnerState, RefusedError

ALGORITHM = "the algorithm"  # owner of a loss that no other algorithm has
Relabelled = tuple[Batch, dict[str, Tree]]  # a batch, and the statistics after it
# what anybody may add to
ADDITIVE = (
    "networks",
    "aux",
    "shaping",
    "stats",
    "relabel",
    "after_update",
    "observe",
    "before_update",
    "inspect",
    "checks",
    "hparams",
)


@dataclass(frozen=True)
class Learner:
    """The parts of a learner.

    Parts of the main step have one owner each and are claimed. `ADDITIVE` ones are tuples or
    dictionaries, to which everybody adds. Others are replaced.

    networks: all that has parameters, by name, in the order in which first parameters are drawn:
    anything with `init(key)`; what agents have says whose parameters are whose by `param_sets`;
    reads: what agents are given of an observation; policy: how they act;
    phases: what an update does, as a rule one; main: the name of the step of the first phase that
    modifiers change;
    utilities: the network of utilities, which the network named mixer, if there is one, mixes;
    None: there is none;
    critic_reads: what critics are given, as their family says; action_critics: whether actors'
    actions are part of it;
    aux: added to the main step's loss, unless that has `advance`;
    shaping: View -> values, changes them before any loss;
    stats: running statistics by name, with their first values, or functions that make those;
    relabel: View -> (batch, stats), before anything is learned from it;
    after_update: after the steps; observe: View of what was just collected -> stats;
    before_update: (View, play) -> LearnerState, see `Algorithm`; inspect: what people look at in
    evaluations;
    schedule: View -> Context, hyper-parameters that change with what was collected;
    tables: View of a whole data set -> what phases read as `View.tables`, kept in the statistics by
    the learner's name;
    checks: Learner -> None, raise RefusedError where modifiers have added what does not work;
    hparams: swept scalars of the modifiers, as "differ.alpha"; owners: of single-owner parts;
    yields: parts of its own that a modifier may replace all the same, as ("loss",);
    whole_rows: why it needs batches with one episode a row, as a clause; "": it does not, as far as
    all of its functions say so (learners/packed.py);
    finish: Algorithm -> Algorithm, of a learner whose `spec` is not the environment's (joint.py).
    """

    name: str
    spec: EnvSpec
    config: Settings
    networks: dict[str, Net]
    reads: Reads
    policy: Policy
    phases: tuple[Phase, ...]
    main: str
    source: Source = field(default_factory=Source)
    targets: Targets = field(default_factory=Targets)
    optimizer: Optimizer = field(default_factory=Optimizer)
    utilities: str | None = None
    critic_reads: Callable[..., Array] | None = None
    action_critics: bool = False
    aux: tuple[Loss, ...] = ()
    shaping: tuple[Callable[[View], Tree], ...] = ()
    stats: dict[str, Tree] = field(default_factory=dict)
    relabel: tuple[Callable[[View], Relabelled], ...] = ()
    after_update: tuple[Hook, ...] = ()
    observe: tuple[Callable[[View], dict[str, Tree]], ...] = ()
    before_update: tuple[Callable[[View, Callable[..., Any]], LearnerState], ...] = ()
    inspect: tuple[Inspection, ...] = ()
    schedule: Callable[[View], Context] | None = None
    tables: Callable[[View], dict[str, Tree]] | None = None
    checks: tuple[Callable[[Learner], None], ...] = ()
    hparams: dict[str, float] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    yields: tuple[str, ...] = ()
    whole_rows: str = ""
    finish: Callable[[Algorithm], Algorithm] | None = None

    @property
    def steps(self) -> dict[str, Step]:
        """The steps of all phases, by name."""
        return {name: step for phase in self.phases for name, step in phase.steps.items()}

    @property
    def mixer(self) -> Net:
        """What mixes utilities, or None."""
        return self.networks.get("mixer")

    @property
    def param_sets(self) -> dict[str, tuple[int, ...]]:
        """The parameter set of each agent, by the names of the networks that agents have."""
        sets = {name: getattr(net, "param_sets", None) for name, net in self.networks.items()}
        return {name: of_agents for name, of_agents in sets.items() if of_agents}

    def with_main(self, **parts: Part) -> Learner:
        """The same with other parts of the main step."""
        first = self.phases[0]
        step = replace(first.steps[self.main], **parts)
        phase = replace(first, steps={**first.steps, self.main: step})
        return replace(self, phases=(phase, *self.phases[1:]))

    def with_own_loss(self, loss: Loss, *family: Loss) -> Learner:
        """The same with a loss that is the algorithm's own, unless it is one of its family's."""
        if loss in family:
            return self.with_main(loss=loss)
        owned = replace(self, owners={**self.owners, "loss": ALGORITHM})
        return owned.with_main(loss=loss, fixed="")

    def with_network(self, name: str, network: Net) -> Learner:
        """The same with another network of this name."""
        return replace(self, networks={**self.networks, name: network})

    def claim(self, owner: str, wraps: tuple[str, ...] = (), **parts: Part) -> Learner:
        """The learner with single-owner parts of its main step replaced by a modifier.

        wraps: names of those that the new ones keep within them. Raises RefusedError naming both
        owners if a part is taken, and if a loss that is the algorithm's own, or whose targets
        cannot be replaced, would be lost.
        """
        for part in parts:
            holder = self.owners.get(part, ALGORITHM)
            if holder != ALGORITHM:
                raise RefusedError(
                    f"modifiers {holder} and {owner} both replace the {part} of {self.name}: use "
                    "one."
                )
        if "loss" in parts and "loss" not in wraps:
            self._refuse_to_lose_the_loss(owner)
        changed = self.with_main(**parts)
        return replace(changed, owners={**self.owners, **dict.fromkeys(parts, owner)})

    def _refuse_to_lose_the_loss(self, owner: str) -> None:
        if "loss" not in self.yields and "loss" in self.owners:
            raise RefusedError(
                f"modifiers=[{owner}] would replace the loss of algo={self.name}, which brings one "
                f"of its own, so that algo={self.name} would learn by {owner}'s alone. Use "
                f"modifiers=[], or {owner} with an algorithm that learns by its family's loss, "
                "such as qmix."
            )
        fixed = self.steps[self.main].fixed
        if fixed:
            raise RefusedError(
                f"modifiers=[{owner}] replaces the loss of algo={self.name} {fixed}."
            )

    def extend(self, **parts: Part) -> Learner:
        """Add to parts: an entry to those that are tuples, entries to those that are dictionaries.

        Raises RefusedError for a part to which nothing is added, and for a name that is there.
        """
        longer: dict[str, Part] = {}
        for name, part in parts.items():
            # a part that grows, and an entry that is new
            if name not in ADDITIVE:
                raise RefusedError(
                    f"extend({name}=…): nothing is added to this part of algo={self.name}. Parts "
                    f"that grow: {', '.join(ADDITIVE)}. Others are replaced by dataclasses.replace."
                )
            old = getattr(self, name)
            if not isinstance(old, dict):
                longer[name] = (*old, part)
                continue
            for key in part:
                if key in old:
                    raise RefusedError(
                        f"extend({name}=…): algo={self.name} has {key} already. Use another name."
                    )
            longer[name] = {**old, **part}
        return replace(self, **longer)

    def assemble(self) -> Algorithm:
        """The finished algorithm. Raises RefusedError where parts do not go together."""
        checks.check(self)
        for check in self.checks:
            check(self)
        algorithm = assembled(self)
        return algorithm if self.finish is None else self.finish(algorithm)


def offers(learner: Learner) -> frozenset[str]:
    """What modifiers, commands and tests may rely on.

    utilities: a network of utilities, which a mixer, if there is one, mixes; mixer: there is one;
    policy: the agents act by a network of this kind, named actor;
    action_critics: critics that read the actions of actors; personal_networks: at least one network
    of which every agent has its own parameters; own_loss: a loss that no other algorithm has;
    packed: batches may have several episodes a row, see `packed.why_whole`.
    """
    # networks, and whose they are
    utilities = learner.utilities is not None
    mixer = utilities and learner.mixer is not None
    policy = learner.policy.acting == "actor"
    personal = personal_networks(learner) != ()

    # how it learns
    own_loss = learner.owners.get("loss") == ALGORITHM
    packed = not why_whole(learner)
    have = {
        "utilities": utilities,
        "mixer": mixer,
        "policy": policy,
        "action_critics": learner.action_critics,
        "personal_networks": personal,
        "own_loss": own_loss,
        "packed": packed,
    }
    return frozenset(name for name, there in have.items() if there)


def personal_networks(learner: Learner) -> tuple[str, ...]:
    """Names of the networks of which every agent has its own parameters."""
    alone = tuple(range(learner.spec.num_agents))
    return tuple(name for name, sets in learner.param_sets.items() if sets == alone)

"""Settings of the particle environments, and how many agents a task has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from jaxshare.settings.fields import static, time_limit
from jaxshare.types import RefusedError

FROM_JAXMARL = ("spread", "tag", "speaker_listener")
HUNTS = ("sparse_tag", "sparse_tag_dense_penalty")
SEEKERS = {"CN_3ls3l": 3, "CN_4ls4l": 4}
PURSUIT = "PP_3p1p"
PRED_PREY = {"pred_prey_3a": 3, "pred_prey_6a": 6, "pred_prey_9a": 9}  # predators
SCENARIOS = (*FROM_JAXMARL, *HUNTS, *SEEKERS, PURSUIT, *PRED_PREY)
PREYS = ("flee", "random")
AGENTS = 100  # ours: they are traced one by one


class Size(NamedTuple):
    """How many agents a task may have."""

    least: int
    usual: int
    most: int | None = None


SIZES = {
    "spread": Size(2, 3),
    "tag": Size(1, 3),
    "sparse_tag": Size(2, 3),  # as many as catch the prey
    "sparse_tag_dense_penalty": Size(2, 3),
    "speaker_listener": Size(2, 2, 2),
    PURSUIT: Size(3, 3, 3),
}


@dataclass(frozen=True)
class Config:
    """Settings of the particle environments."""

    scenario: str = static("spread", choices=SCENARIOS, help="which task", source="ours")
    num_agents: int | None = static(
        None,
        least=1,
        most=AGENTS,
        help="agents; null: 3 in spread, tag and sparse_tag*; fixed in all others",
        source="code: mpe2; SEAC in sparse_tag*",
    )
    local_ratio: float = static(
        0.5,
        least=0,
        most=1,
        help="weight of an agent's own collisions, 0 for a purely common reward; spread only",
        source="code: mpe2",
    )
    prey: str = static(
        "flee",
        choices=PREYS,
        help="how prey moves: it flees, by rules of the task's authors, or at random",
        source="ours in tag and sparse_tag*; FACMAC's in pred_prey_*; SIT's in PP_3p1p",
    )
    view_radius: float = static(
        1.5,
        least=0,
        note="It is a distance: 1e9 to see all.",
        help="an agent sees what is no farther than this; pred_prey_* only",
        source="code: FACMAC",
    )
    catch_distance: float = static(
        0.15,
        least=0,
        help="distance between the bodies of adjacent ones; sparse_tag only",
        source="ours",
    )
    boundary_penalty: float = static(
        0.05,
        least=0,
        help="what each step costs that a predator ends outside the map; sparse_tag only",
        source="ours",
    )
    predator_speed: float = static(
        1.0,
        least=0,
        help="largest speed of predators; sparse_tag only",
        source="code: mpe2's simple_tag",
    )
    prey_speed: float = static(
        0.3,
        least=0,
        help="largest speed of prey; sparse_tag only",
        source='ours; paper: SEAC, "slowly moving"',
    )
    max_steps: int = time_limit(25, source="code: mpe2's max_cycles, and FACMAC's limit")


def num_agents(config: Config) -> int:
    """How many agents the task has. Raises RefusedError for a number that it cannot have."""
    fixed = {**SEEKERS, **PRED_PREY}.get(config.scenario)
    size = SIZES[config.scenario] if fixed is None else Size(fixed, fixed, fixed)
    n = size.usual if config.num_agents is None else config.num_agents
    if n < size.least or (size.most is not None and n > size.most):
        bound = f"exactly {size.least}" if size.most == size.least else f"at least {size.least}"
        raise RefusedError(f"env.num_agents={n}: {config.scenario} needs {bound}.")
    return n

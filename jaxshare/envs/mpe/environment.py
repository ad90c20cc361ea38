"""Multi-agent particle environments: spread, tag, speaker-listener, and tasks of single papers.

Sources: Lowe et al. 2017 (MADDPG). `spread`, `tag` and `speaker_listener` run jaxmarl 0.2.0's code;
its physics, observations and rewards agree with those of mpe2 to 3e-6 from the same state. The
others run on own code for the same physics (`particles`).

Faithful in `spread`, `tag`, `speaker_listener`: physics, start states, observations, rewards.
Departs, on purpose:

* `max_steps` is exact (25 by default, as in mpe2). jaxmarl plays one step more than it is told.
* The only end is the time limit, and that is `truncated`, never `terminated` (but for the catch in
  `sparse_tag`).
* Observations are padded with zeros, and actions with unavailable ones, to the largest of any
  agent. In speaker-listener the speaker has three actions (words), the listener five (moves).
* tag: the original is a competition, whose prey learns too. Here the predators are the team, all
  with the same reward, and the prey is part of the environment: `prey=flee` takes the move that
  ends farthest from the nearest predator and inside the arena, `prey=random` moves at random.
  Returns are therefore not those of the competitive game.
* The state is the observations of the agents, one after the other.

spread: each agent pays for its own collisions (share `local_ratio`), all pay for uncovered
landmarks (the rest). Rewards are therefore individual unless `local_ratio` is 0.

`pred_prey_3a`, `pred_prey_6a`, `pred_prey_9a`: FACMAC's predator-prey, the one task here with
continuous actions (two numbers per agent); see `pred_prey`. `prey=flee` is FACMAC's prey.

`sparse_tag`: the sparse predator-prey of SEAC (Christianos et al. 2020). paper: three predators, a
slowly moving prey; "if at least two predators are adjacent to the prey, then they succeed and each
receive a reward of one"; agents pay for leaving the map; all else is 0; individual rewards. Its
best policies return 1.93 and 2.04, its untrained ones about -0.04, sums over the predators. No code
was published. ours:

* "They" are the adjacent ones, and success ends the episode (`terminated`): so the best returns lie
  between 2 and 3.
* Adjacent means that less than `catch_distance` lies between the two bodies.
* A predator pays `boundary_penalty` for every step that it ends outside the map (a coordinate
  beyond ±1), and nothing inside. Predators and prey start within ±0.7, so that leaving the map
  takes a few steps.
* Bodies, obstacles and observations are those of tag. Speeds are at most `predator_speed` and
  `prey_speed`.
* Distance, charge and the prey's speed were chosen by what scripted predators return and by whether
  SEAC learns (`tests/envs/hunters.py`): random play -0.08, standing still 0.03, a straight chase
  1.9. With a distance of 0.1 and a prey of 0.5, catches before any learning are nearly all given by
  the start, and in 1.5 million steps SEAC learned to stay inside and nothing else.
* The prey of the paper was trained with MADDPG and dense rewards to avoid the predators; this one
  follows `prey`: by default tag's rule, which looks one move ahead, away from the nearest predator,
  and keeps off the edge.
* `info` says whether there was a catch (`caught`).

`sparse_tag_dense_penalty`: what was called sparse_tag before. The same, except that every predator
gets +1 on every step with a catch, nothing ends an episode but the limit, all start anywhere in the
map, and a predator pays simple_tag's charge: 0 up to 0.9 from the centre line, 1 at 1.0, more
outside. That charge outweighs all there is to win: standing still returns about -11, and who
catches the prey on 2.6 steps of an episode still has -7. Its distance (0.1), charge and speeds (1
and 0.5) are fixed.

`CN_3ls3l`, `CN_4ls4l`: cooperative navigation of SIT (Tian et al. 2023). paper: spread with three
or four agents and as many landmarks; an agent sees itself, one other agent and two landmarks. ours:
those are the nearest ones (agent, then landmarks, the nearest first). All receive the sum over the
agents of what each earned in the first version of spread, unweighted, without the constant -1 that
it charged an agent for touching itself: only then are the returns that the paper reports possible
(-37 for its best policy). It is twice the sum of what `spread` gives with `local_ratio` 0.5.

`PP_3p1p`: the predator-prey of SIT. paper: three slower predators, one faster prey that always
moves straight away from the nearest predator (`prey=flee`; nothing keeps it in the arena); a
predator sees itself, one other predator and the prey. ours: the nearest other; the prey's velocity
is seen, tag's two obstacles are there and are not. The reward is not in the paper, only that
returns are negative: all receive - (sum of the predators' distances to the prey) + 10 for each
predator that touches it. Random play returns -156 here and about -270 there (it returns -159 and
-244 in the two navigations, inside the paper's ranges): compare methods on this task, not numbers
with the paper.

In the tasks of SIT the state is the whole world (all velocities, positions and landmarks).
"""

from __future__ import annotations

from jaxshare.envs.mpe import hunts, navigation, originals, pred_prey, pursuit
from jaxshare.envs.mpe.settings import (
    FROM_JAXMARL,
    PRED_PREY,
    SCENARIOS,
    SEEKERS,
    Config,
    num_agents,
)
from jaxshare.settings.validate import check_record
from jaxshare.types import Env

ACTIONS = "discrete or continuous"


def scenarios() -> tuple[str, ...]:
    """Names of the tasks, without importing jaxmarl."""
    return SCENARIOS


def make(config: Config) -> Env:
    """One particle environment. Raises RefusedError for a wrong task, prey or number of agents."""
    check_record(config, "env.")
    n = num_agents(config)
    name = config.scenario

    # those of jaxmarl, then our own
    if name in FROM_JAXMARL:
        return originals.make(config, n)
    if name in PRED_PREY:
        return pred_prey.make(config)
    if name in SEEKERS:
        return navigation.make(config, n)
    if name == "sparse_tag":
        return hunts.sparse_tag(config, n)
    if name == "sparse_tag_dense_penalty":
        return hunts.sparse_tag_dense_penalty(config, n)
    return pursuit.make(config, n)

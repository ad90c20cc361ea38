"""What is static about the two teams of a battle."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from jaxshare.envs.smax.units import NAMES, UNIT_TYPES, UnitType
from jaxshare.envs.smax.units import damage as hit

NUM_MOVES = 5  # actions of all units before those with a target
STOP = 4


@dataclass(frozen=True)
class Army:
    """N units: n allies, then M enemies. What unit i does to unit j is in row i and column j.

    The enemies count units from the last to the first, as in jaxmarl: "slot" k of theirs is ally
    n-1-k, or friend N-1-k for a healer.
    """

    allies: tuple[str, ...]  # names of types
    enemies: tuple[str, ...]

    @property
    def num_allies(self) -> int:
        """n."""
        return len(self.allies)

    @property
    def num_enemies(self) -> int:
        """M."""
        return len(self.enemies)

    @cached_property
    def kinds(self) -> np.ndarray:
        """The number of each unit's type, [N] i32."""
        return np.array([NAMES.index(name) for name in (*self.allies, *self.enemies)], np.int32)

    @cached_property
    def types(self) -> list[UnitType]:
        """The type of each unit."""
        return [UNIT_TYPES[kind] for kind in self.kinds]

    @cached_property
    def speed(self) -> np.ndarray:
        """[N]."""
        return self._numbers("speed")

    @cached_property
    def reach(self) -> np.ndarray:
        """[N]."""
        return self._numbers("reach")

    @cached_property
    def sight(self) -> np.ndarray:
        """[N]."""
        return self._numbers("sight")

    @cached_property
    def radius(self) -> np.ndarray:
        """[N]."""
        return self._numbers("radius")

    @cached_property
    def health(self) -> np.ndarray:
        """At the start, [N]."""
        return self._numbers("health")

    @cached_property
    def cooldown(self) -> np.ndarray:
        """[N]; the most energy of a healer."""
        return self._numbers("cooldown")

    def _numbers(self, field: str) -> np.ndarray:
        return np.array([getattr(unit, field) for unit in self.types], np.float32)

    @cached_property
    def heals(self) -> np.ndarray:
        """Whether it is a healer, [N] bool."""
        return np.array([unit.heals for unit in self.types])

    @cached_property
    def healers(self) -> np.ndarray:
        """Numbers of the H units that are healers, [H]."""
        return np.flatnonzero(self.heals)

    # --------------------------------------------------------------- what units do to others

    @cached_property
    def is_enemy(self) -> np.ndarray:
        """[N] bool."""
        return np.arange(len(self.kinds)) >= self.num_allies

    @cached_property
    def _friends(self) -> np.ndarray:
        return self.is_enemy[:, None] == self.is_enemy[None, :]

    @cached_property
    def _other(self) -> np.ndarray:
        return ~np.eye(len(self.kinds), dtype=bool)

    @cached_property
    def damage(self) -> np.ndarray:
        """Health that a hit takes, [N, N]; nobody shoots at friends."""
        pairs = itertools.product(self.types, self.types)
        table = np.array([hit(shooter, target) for shooter, target in pairs], np.float32)
        return table.reshape(len(self.kinds), -1) * ~self._friends

    @cached_property
    def can_heal(self) -> np.ndarray:
        """[N, N] bool."""
        flesh = np.array([unit.flesh for unit in self.types])
        return self.heals[:, None] & flesh[None, :] & self._friends & self._other

    @cached_property
    def pushes(self) -> np.ndarray:
        """1 where two units collide, [N, N]."""
        layer = np.array([unit.layer for unit in self.types])
        return ((layer[:, None] == layer[None, :]) & self._other).astype(np.float32)

    @cached_property
    def contact(self) -> np.ndarray:
        """The distance at which two units touch, [N, N]."""
        return self.radius[:, None] + self.radius[None, :]

    @cached_property
    def splashers(self) -> np.ndarray:
        """Numbers of the K units whose hits burn a line, [K]."""
        return np.flatnonzero([unit.splash is not None for unit in self.types])

    @cached_property
    def lines(self) -> np.ndarray:
        """Half the length and half the width of the burnt lines, [2, K]."""
        lines = [self.types[i].splash for i in self.splashers]
        return np.array(lines, np.float32).reshape(-1, 2).T

    # -------------------------------------------------------------------- whom actions aim at

    @cached_property
    def first(self) -> np.ndarray:
        """[N]: action NUM_MOVES + k of unit i aims at unit first[i] + order[i] * k."""
        total = len(self.kinds)
        of_enemies = np.where(self.heals, total - 1, self.num_allies - 1)
        of_allies = np.where(self.heals, 0, self.num_allies)
        return np.where(self.is_enemy, of_enemies, of_allies)

    @cached_property
    def order(self) -> np.ndarray:
        """See `first`, [N]."""
        return np.where(self.is_enemy, -1, 1)

    @cached_property
    def slots(self) -> np.ndarray:
        """How many units it can aim at, [N]."""
        return np.where(self.is_enemy == self.heals, self.num_enemies, self.num_allies)

    @property
    def num_ally_actions(self) -> int:
        """Of every ally."""
        return self._num_actions(self.heals[: self.num_allies], self.num_enemies)

    @property
    def num_enemy_actions(self) -> int:
        """Of every enemy."""
        return self._num_actions(self.heals[self.num_allies :], self.num_allies)

    def _num_actions(self, heals: np.ndarray, num_foes: int) -> int:
        most = max(self.num_allies, self.num_enemies)
        return NUM_MOVES + (most if heals.any() else num_foes)

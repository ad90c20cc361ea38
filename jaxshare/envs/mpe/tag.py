"""Bodies of simple_tag: predators, one prey and two obstacles."""

from __future__ import annotations

from jaxshare.envs.mpe.particles import Bodies
from jaxshare.envs.mpe.task import World

PREDATOR = 0.075  # radii of mpe2's simple_tag
PREY = 0.05
OBSTACLE = 0.2
PREDATOR_ACCEL = 3.0  # mpe2's simple_tag
PREDATOR_SPEED = 1.0  # mpe2's simple_tag
PREY_SPEED = 1.3  # mpe2's simple_tag
OBSTACLES = 2  # mpe2's simple_tag
OBSTACLE_RANGE = 0.9  # mpe2's simple_tag
WORLD = World(OBSTACLES, OBSTACLE_RANGE, OBSTACLE, PREDATOR_ACCEL)


def tag_bodies(predators: int, predator_speed: float, prey_speed: float) -> Bodies:
    """The predators, then the prey."""
    radius = (PREDATOR,) * predators + (PREY,)
    max_speed = (predator_speed,) * predators + (prey_speed,)
    return Bodies(radius=radius, max_speed=max_speed, obstacles=(OBSTACLE,) * OBSTACLES)

"""Data sets of teams whose agents play at different levels, from a run's checkpoints.

Tian et al. 2023 (SIT), appendix C.2: checkpoints of one run are cut by their return into pools
(random, medium, expert); for every episode each agent draws one checkpoint from the pool that the
composition gives it, and plays its own individual policy of it. ours: the draw is made anew for
every episode, and policies explore a little (`epsilon`), which the paper leaves open.
"""

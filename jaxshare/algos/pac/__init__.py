"""PAC: Pareto actor-critic."""

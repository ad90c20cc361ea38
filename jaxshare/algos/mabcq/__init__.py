"""MABCQ: batch-constrained Q-learning of a team."""

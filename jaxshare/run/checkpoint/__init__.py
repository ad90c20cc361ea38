"""Checkpoints of a run: their files, what is in them, and what can be wrong with them."""

"""A run directory: who may write in it, what stands in it, and how a run in it is stopped and goes on."""

"""A run directory: who may write in it, what stands in it, and how a run in it stops and goes on."""

EVALUATION = "evaluation.json"  # in it: what jaxshare.evaluate has played

# checkpoints by name, instead of their iteration
LATEST = "latest"
BEST = "best"  # each run's parameters at its best evaluation

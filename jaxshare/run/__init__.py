"""A run, around its compiled program.

Its directory, who may write in it, what stands in it, and how a run in it is stopped and goes on.
"""

EVALUATION = "evaluation.json"  # in it: what jaxshare.evaluate has played

# checkpoints by name, instead of their iteration
LATEST = "latest"
BEST = "best"  # each run's parameters at its best evaluation

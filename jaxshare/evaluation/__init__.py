"""What the evaluate command does: episodes played with a run's policies, their scores and a film."""

EVALUATION = "evaluation.json"  # in the run directory
BEST = "best"  # the checkpoint with each run's parameters at its best evaluation

"""What the evaluate command does: episodes of a run's policies, their scores and a film."""

"""What the evaluate command does: episodes played with a run's policies, their scores and a film."""

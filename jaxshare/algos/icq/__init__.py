"""ICQ-MA: implicit constraint Q-learning of a team."""

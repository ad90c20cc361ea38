"""MACQL: conservative Q-learning of a team."""

"""SEQL: shared-experience Q-learning."""

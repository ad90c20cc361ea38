"""SEAC: shared-experience actor-critic."""

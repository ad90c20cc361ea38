"""jaxshare: cooperative multi-agent reinforcement learning in JAX with shared rewards, experience and parameters."""

__version__ = "0.1.0"

"""Equations: pure functions of arrays (jax and chex only), each with its paper and equation number."""

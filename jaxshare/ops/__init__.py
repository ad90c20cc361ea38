"""Equations: pure functions of arrays (jax and chex only), with papers and equation numbers."""

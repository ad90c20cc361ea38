"""Shared settings of the test-suite: hostile flags, a compilation cache, two CPU devices."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# compiling is most of the time: a quarter less without most optimisations (commands that tests start inherit it)
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
CACHE = pathlib.Path(__file__).parent.parent / ".cache" / "jax"

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
jax.config.update("jax_numpy_rank_promotion", "raise")

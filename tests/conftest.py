"""Shared settings of the test-suite: hostile flags, a compilation cache, two CPU devices."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
CACHE = pathlib.Path(__file__).parent.parent / ".cache" / "jax"

import jax  # noqa: E402
import pytest  # noqa: E402
import tiny  # noqa: E402

jax.config.update("jax_num_cpu_devices", 2)
jax.devices()  # JAX starts here, with two devices: later a run of one seed would ask for one, for all tests after it
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
jax.config.update("jax_numpy_rank_promotion", "raise")
# compiling is most of the suite's time: a quarter less without most optimisations
jax.config.update("jax_disable_most_optimizations", True)


SLOW = frozenset((pathlib.Path(__file__).parent / "slow.txt").read_text().splitlines())


def pytest_collection_modifyitems(items):
    """Tests of tests/slow.txt are slow ones, as those that are marked where they stand."""
    for item in items:
        if item.nodeid in SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def optimised():
    """As users compile, in a whole module."""
    with tiny.optimised():
        yield

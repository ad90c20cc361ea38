"""What every combination computes in its first updates is what it was. See `pins`."""

import numpy as np
import pins
import pytest

# one of each way to collect and learn: from a replay with a modifier, from segments, from a data set
QUICK = {"qmix differ fading", "seac fading", "bc fading"}


def rows():
    """All combinations; most are slow."""
    for combination in pins.combinations():
        marks = () if combination.name in QUICK else pytest.mark.slow
        yield pytest.param(combination, id=combination.name, marks=marks)


@pytest.mark.parametrize("combination", [*rows()])
def test_nothing_has_moved(combination):
    assert pins.compare(combination, pins.load()) == []


def test_there_is_a_pin_for_every_combination_and_no_other():
    names = {combination.name for combination in pins.combinations()}
    assert names == pins.load()["pins"].keys()
    assert names >= QUICK


# ----------------------------------------------------------------------------------------------- can a pin move?


def pin(**arrays):
    tree = {name: np.array(array, np.float32) for name, array in arrays.items()}
    return {"bits": pins.digest(tree), "arrays": pins.summary(tree)}


OLD = pin(weights=[1.0, -2.0, 3.0])


@pytest.mark.parametrize("same_machine", [True, False])
def test_what_moved_is_named(same_machine):
    assert pins.moved(OLD, OLD, same_machine) == []
    assert "weights" in pins.moved(OLD, pin(weights=[1.0, -2.0, 3.001]), same_machine)[0]
    assert "no longer" in pins.moved(OLD, pin(), same_machine)[0]
    assert "new" in pins.moved(pin(), OLD, same_machine)[0]
    assert pins.moved(OLD, pin(weights=[np.nan, -2.0, 3.0]), same_machine)


def test_the_last_bits_count_on_the_same_machine_only():
    near = pin(weights=[np.nextafter(np.float32(1), np.float32(2)), -2.0, 3.0])
    assert "last bits" in pins.moved(OLD, near, same_machine=True)[0]
    assert pins.moved(OLD, near, same_machine=False) == []

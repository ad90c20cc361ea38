"""Spaces of Gymnasium and what may be shown in them: observations, actions, flags, rewards.

What contradicts an environment's own declaration is refused by `Misfit`, whose text is a sentence
for the user. Of a Box the number of entries is checked; its bounds are not, since nothing is read
by them. Of what is coded by its space (Discrete, MultiDiscrete, MultiBinary) every value is
checked, since another would stand for something else.
"""

import numpy as np

NUMBERS = "biuf"  # kinds of arrays: bool, integers and floats
LONGEST = 160  # characters of a value in a message
MOST_INTEGER = 2**53  # beyond it numbers are no longer exact, and a bound stands for none


class Misfit(ValueError):
    """An environment does not keep to its own declaration or to its interface."""

    plain = True  # a sentence for the user, who needs no traceback


def text_of(value):
    """A value in a message: on one line, cut where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def number_of(value, what):
    """A float of whatever numpy calls one number. Raises Misfit."""
    if isinstance(value, (float, int)):
        return float(value)
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in NUMBERS:
        raise Misfit("{} is {}, which is not a number".format(what, text_of(value)))
    return float(array.ravel()[0])


def flag_of(value, what):
    """A bool of whatever numpy calls one flag; None is False. Raises Misfit."""
    if value is None or isinstance(value, (bool, int)):
        return bool(value)
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in NUMBERS:
        raise Misfit("{} is {}, which is not a flag".format(what, text_of(value)))
    return bool(array.ravel()[0])


# ------------------------------------------------------------------------------------- observations


class Reader:
    """Turns what is shown in a space into a vector of `size` numbers.

    They are in the order of `gymnasium.spaces.flatten`.
    place: where the space lies within another, as in "load.kind".
    """

    def __init__(self, space, place=""):
        self.space = space
        self.place = place
        self.kind = type(space).__name__
        self.parts = []  # (key or index, Reader)
        if self.kind in ("Dict", "Tuple"):
            within = space.spaces.items() if self.kind == "Dict" else enumerate(space.spaces)
            before = place + "." if place else ""
            self.parts = [(key, Reader(part, before + str(key))) for key, part in within]
        self.size = sum(part.size for _, part in self.parts) if self.parts else self._own_size()

    def __call__(self, value, agent):
        """The vector; `agent` is whose it is. Raises Misfit."""
        if self.kind == "Box":
            vector = np.ravel(value)
            if vector.size == self.size and vector.dtype.kind in NUMBERS:
                return vector
            raise self._misfit(value, agent)
        if self.kind == "Dict":
            if not (isinstance(value, dict) and all(key in value for key, _ in self.parts)):
                raise self._misfit(value, agent)
            return _joined([part(value[key], agent) for key, part in self.parts])
        if self.kind == "Tuple":
            if not (isinstance(value, (tuple, list)) and len(value) == len(self.parts)):
                raise self._misfit(value, agent)
            return _joined([part(value[i], agent) for i, part in self.parts])
        return self._coded(value, agent)

    def _own_size(self):
        if self.kind == "Box":
            return int(np.prod(self.space.shape, dtype=int))
        import gymnasium

        return int(gymnasium.spaces.flatdim(self.space))

    def _coded(self, value, agent):
        """What is no Box and holds no others; a Discrete value becomes one-hot."""
        if self.kind in ("Discrete", "MultiDiscrete"):
            counts = np.ravel(getattr(self.space, "nvec", getattr(self.space, "n", 0)))
            start = np.ravel(getattr(self.space, "start", 0))
            index = self._integers(value, counts.size, agent) - start

            # one-hot of each number
            if (index < 0).any() or (index >= counts).any():
                raise self._misfit(value, agent)
            vector = np.zeros(self.size, np.float32)
            vector[np.cumsum(counts) - counts + index] = 1
            return vector
        if self.kind == "MultiBinary":
            vector = self._integers(value, self.size, agent)
            if (vector < 0).any() or (vector > 1).any():
                raise self._misfit(value, agent)
            return vector
        import gymnasium

        if not self.space.contains(value):
            raise self._misfit(value, agent)
        return np.ravel(gymnasium.spaces.flatten(self.space, value))

    def _integers(self, value, count, agent):
        """So many whole numbers."""
        array = np.ravel(value)
        if (
            array.size != count
            or array.dtype.kind not in NUMBERS
            or (array != np.rint(array)).any()
        ):
            raise self._misfit(value, agent)
        return array.astype(np.int64)

    def _misfit(self, value, agent):
        place = " as " + self.place if self.place else ""
        return Misfit(
            "agent {} shows {}{}, which is not in its space {}".format(
                agent, text_of(value), place, self.space
            )
        )


def _joined(vectors):
    return np.concatenate(vectors) if vectors else np.zeros(0, np.float32)


# ------------------------------------------------------------------------------------------ actions


def actions_of(spaces):
    """{"num_actions"} of Discrete spaces, or {"low", "high"} of Boxes; one per agent.

    Raises Misfit.
    A Box of whole numbers is made half a number wider at both ends, so that rounding gives each an
    equal share.
    """
    kinds = sorted({type(space).__name__ for space in spaces})
    if kinds == ["Discrete"]:
        return {"num_actions": max(int(space.n) for space in spaces)}
    if kinds != ["Box"]:
        raise Misfit(
            "actions of kind {}: all agents must have Discrete ones, or all Boxes".format(
                ", ".join(kinds)
            )
        )

    # the range of each number, to which actions are scaled
    bounds = {"low": [], "high": []}
    for space in spaces:
        margin = 0.5 if is_whole(space) else 0.0
        low, high = (np.ravel(side).astype(np.float64) for side in (space.low, space.high))
        largest = max(abs(low).max(initial=0), abs(high).max(initial=0))
        unbounded = is_whole(space) and largest > MOST_INTEGER
        if unbounded or not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise Misfit(
                "a Box of actions has no bounds, to which numbers in [-1, 1] could be scaled"
            )
        bounds["low"].append((low - margin).tolist())
        bounds["high"].append((high + margin).tolist())
    return bounds


def is_whole(space):
    """Whether a Box holds whole numbers."""
    return np.dtype(space.dtype).kind in "biu"


def action_for(space, action):
    """One agent's action as its space has it: a Python number, or an array as the Box says."""
    if type(space).__name__ == "Discrete":
        return int(action) + int(getattr(space, "start", 0))
    if is_whole(space):
        whole = np.rint(np.asarray(action, np.float64)).reshape(space.shape)
        return np.clip(whole, space.low, space.high).astype(space.dtype)
    return np.asarray(action, space.dtype).reshape(space.shape)


def avail_of(spaces):
    """[N, A] bool: agents with fewer actions than others never have the rest. None for Boxes."""
    if any(type(space).__name__ != "Discrete" for space in spaces):
        return None
    counts = np.array([int(space.n) for space in spaces])
    return np.arange(counts.max())[None] < counts[:, None]


def middle_of(space):
    """An action in the middle of a Box, as numbers in its own range."""
    low, high = (np.ravel(side).astype(np.float64) for side in (space.low, space.high))
    return low + (high - low) / 2

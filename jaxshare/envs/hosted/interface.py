"""PettingZoo's parallel interface: how an environment is made, what reset and step must return."""

import importlib
import re

from .spaces import Misfit, text_of

RESULTS = ("observations", "rewards", "terminations", "truncations", "infos")  # of a step
MASK = "action_mask"


def made(id, kwargs, draw):
    """The environment at an import path, ready to draw itself if that is asked for and offered."""
    # what makes it
    where, _, name = id.partition(":")
    factory = importlib.import_module(where)
    for part in (name or "parallel_env").split("."):
        factory = getattr(factory, part)
    env = factory(**kwargs)
    if hasattr(env, "agent_iter"):
        raise ValueError(
            "it is one of PettingZoo's AEC environments, in which agents take turns: name a "
            "function that returns a parallel one, as in env.id=module:parallel_env"
        )

    # another one that draws itself
    modes = (getattr(env, "metadata", None) or {}).get("render_modes") or ()
    if draw and "rgb_array" in modes and "render_mode" not in kwargs:
        try:
            drawing = factory(render_mode="rgb_array", **kwargs)
        except Exception:
            return env
        env.close()
        return drawing
    return env


def first_shown(env, seed):
    """(observations, infos) of a reset. Raises Misfit for another interface."""
    try:
        result = env.reset(seed=seed)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error) or "seed" not in str(error):
            raise
        raise Misfit(
            "its reset() takes no seed: PettingZoo's is reset(seed=None, options=None)"
        ) from error

    # (observations, infos)
    if isinstance(result, dict):
        raise Misfit(
            "its reset() returns observations only, as the old interface had it: (observations, "
            "infos) is expected"
        )
    if not (isinstance(result, (tuple, list)) and len(result) == 2):
        raise Misfit(
            "its reset() returns {}: (observations, infos) is expected".format(text_of(result))
        )
    return dicts_of(("observations", "infos"), result, "reset")


def checked_results(result):
    """The five dicts of a step. Raises Misfit for another interface."""
    if not (isinstance(result, (tuple, list)) and len(result) == len(RESULTS)):
        old = isinstance(result, (tuple, list)) and len(result) == 4
        what = "four results, as the old interface had it" if old else text_of(result)
        raise Misfit("its step() returns {}: ({}) is expected".format(what, ", ".join(RESULTS)))
    return dicts_of(RESULTS, result, "step")


def dicts_of(names, values, doing):
    """The values as dicts by the names of agents; infos may be None."""
    dicts = []
    for name, value in zip(names, values):
        if name == "infos" and value is None:
            value = {}
        if not isinstance(value, dict):
            raise Misfit(
                "the {} of its {}() are {}: a dict by the names of agents is expected".format(
                    name, doing, text_of(value)
                )
            )
        dicts.append(value)
    return dicts


def without_mask(space):
    """The space of what an agent observes: of a dict that holds an action mask, all the rest."""
    if type(space).__name__ != "Dict" or MASK not in space.spaces:
        return space
    return type(space)({key: part for key, part in space.spaces.items() if key != MASK})


def grouped(names, obs_spaces, action_spaces):
    """{"groups", "group_names"}: one group for each name without its number and pair of spaces."""
    kinds = []
    groups = []
    for name, obs, action in zip(names, obs_spaces, action_spaces):
        kind = (re.sub(r"[_\d]+$", "", str(name)) or "agent", obs, action)
        if kind not in kinds:
            kinds.append(kind)
        groups.append(kinds.index(kind))
    prefixes = [prefix for prefix, _, _ in kinds]
    first = [str(names[groups.index(i)]) for i in range(len(kinds))]
    unique = [p if prefixes.count(p) == 1 else f for p, f in zip(prefixes, first)]
    return {"groups": groups, "group_names": unique}

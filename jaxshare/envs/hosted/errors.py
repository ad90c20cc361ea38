"""What went wrong in an environment, in words that can be sent to the trainer."""

import importlib.util
import os
import traceback

FAILURES = (Exception, SystemExit)  # of an environment
PLACE = ("slot", "episode", "seed", "step", "doing")
FACTS = (*PLACE, "pid", "error", "missing", "traceback")  # that a SlotError holds
NOWHERE = dict.fromkeys(PLACE)  # of what is no environment's


class SlotError(Exception):
    """Something went wrong in an environment: what, where, and the traceback as text.

    place: {"slot", "episode", "seed", "step", "doing"}; None where there is none.
    """

    def __init__(self, place, error):
        super().__init__(str(error))
        lines = traceback.format_exception(type(error), error, error.__traceback__)

        # a sentence for the user needs no traceback
        trace = "" if getattr(error, "plain", False) else "".join(lines)
        self.facts = {
            **place,
            "pid": os.getpid(),
            "error": words_of(error),
            "missing": missing_module(error),
            "traceback": trace,
        }


def words_of(error):
    """What an error says, with its kind unless it is a sentence for the user."""
    return str(error) if getattr(error, "plain", False) else f"{type(error).__name__}: {error}"


def missing_module(error):
    """What an error, or what led to it, could not import because it is not here; None if nothing.

    A package if the whole of it is missing, else the module within it.
    """
    while error is not None:
        name = error.name if isinstance(error, ImportError) else None
        if name and not is_here(name):
            package = name.partition(".")[0]
            return name if is_here(package) else package
        error = error.__cause__ or error.__context__
    return None


def is_here(name):
    """Whether there is a module of this name, sound or not."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # of a parent, or of what has no specification
        return False

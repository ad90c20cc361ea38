"""Where the numbers of a pool lie in the memory that trainer and workers share."""

import numpy as np


class Columns:
    """Where each number of a slot lies in its row of the shared block [slots, width] of float32.

    The first column is the pool's own: the token, an int32.
    """

    FIELDS = ("obs", "state", "reward", "avail", "alive", "terminated", "truncated", "info")

    def __init__(self, about):
        agents = about["num_agents"]
        self.shapes = {
            "obs": (agents, about["obs_dim"]),
            "state": (about["state_dim"],),
            "reward": (agents,),
            "avail": (agents, about.get("num_actions") or 0),
            "alive": (agents,),
            "terminated": (),
            "truncated": (),
        }
        self.shapes["info"] = (len(about.get("info", ())),)

        # one behind the other, after the token
        self.slices = {}
        start = 1
        for name in self.FIELDS:
            size = int(np.prod(self.shapes[name], dtype=int))
            self.slices[name] = slice(start, start + size)
            start += size
        self.width = start

    @property
    def ends(self):
        """Where terminated and truncated lie."""
        return slice(self.slices["terminated"].start, self.slices["truncated"].stop)

    def views(self, row):
        """The fields of one row, as views of it.

        "obs" is a list of one view for each agent, "flat" the view of all; "ends" are terminated
        and truncated.
        """
        views = {}
        for name in self.FIELDS:
            views[name] = row[self.slices[name]].reshape(self.shapes[name])
        views["obs"] = list(views["obs"])
        views["flat"] = row[self.slices["obs"]]
        views["ends"] = row[self.ends]
        return views


def layout_of(about, slots):
    """The shared arrays of a pool: {name: (shape, dtype)}."""
    agents = about["num_agents"]
    action = ((slots, agents), "int32")
    if not about.get("num_actions"):
        action = ((slots, agents, box_dim(about)), "float32")
    return {
        "seed": ((slots,), "uint32"),
        "action": action,
        "block": ((slots, Columns(about).width), "float32"),
    }


def box_dim(about):
    """Numbers per agent of a continuous action: the most that any agent has."""
    return max(len(low) for low in about["low"])


def size_of(layout):
    """Bytes of the shared arrays."""
    return sum(4 * int(np.prod(shape, dtype=int)) for shape, _ in layout.values())


def arrays_in(buffer, layout):
    """The shared arrays, one after the other in a buffer; each number takes four bytes."""
    arrays = {}
    offset = 0
    for name, (shape, dtype) in layout.items():
        count = int(np.prod(shape, dtype=int))
        arrays[name] = np.frombuffer(buffer, dtype, count, offset).reshape(shape)
        offset += 4 * count
    return arrays

r"""What trainer and workers tell each other: data only.

Whoever reads a message runs none of it, as unpickling would.

A message is a word, a line of JSON, and the bytes of its arrays one after the other:

    step                                        a word alone
    open\n{"list": [...]}\n                     with a value
    ok\n{"array": ["uint8", [4, 4, 3]]}\n....    with the bytes of an array behind it

Numbers, text and None stand for themselves. Tuples are read back as lists. The keys of a dict keep
their types.
"""

import json

import numpy as np

KINDS = "biuf"  # of arrays: bool, integers and floats; no objects
PLAIN = (bool, int, float, str, type(None))
KEYS = (bool, int, float, str)
# what reading raises of what is no message
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)


class MessageError(ValueError):
    """This is no message of ours, or it cannot be made one."""


def encode(word, value=None):
    """A word and a value (None: none) as bytes. Raises MessageError for what is no data."""
    if value is None:
        return word.encode()
    blocks = []
    text = json.dumps(_packed(value, blocks))
    return b"".join([word.encode(), b"\n", text.encode(), b"\n", *blocks])


def decode(message):
    """(word, value) of a message. Raises MessageError."""
    # a word, and perhaps a value
    word, newline, rest = message.partition(b"\n")
    if not newline:
        return word.decode("ascii", "replace"), None
    text, _, block = rest.partition(b"\n")
    try:
        value, used = _unpacked(json.loads(text.decode()), block, 0)
    except UNREADABLE as error:
        raise MessageError("{}: {}".format(type(error).__name__, error)) from error
    if used != len(block):
        raise MessageError("{} bytes of arrays, but {} were announced".format(len(block), used))
    return word.decode("ascii", "replace"), value


def _packed(value, blocks):
    """A value as JSON knows it; the bytes of arrays go to `blocks`."""
    # numbers and texts
    if isinstance(value, (np.bool_, np.number)):
        return _packed(value.item(), blocks)
    if isinstance(value, PLAIN):
        return value

    # what holds others
    if isinstance(value, (list, tuple)):
        return {"list": [_packed(item, blocks) for item in value]}
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, KEYS):
                raise MessageError("a key of kind {} is no data".format(type(key).__name__))
        return {"dict": [[key, _packed(item, blocks)] for key, item in value.items()]}

    # bytes go behind the text
    if isinstance(value, np.ndarray) and value.dtype.kind in KINDS:
        blocks.append(np.ascontiguousarray(value).tobytes())
        return {"array": [value.dtype.str, list(value.shape)]}
    raise MessageError("a value of kind {} is no data".format(type(value).__name__))


def _unpacked(value, block, start):
    """(value, where the bytes of the next array begin)."""
    if isinstance(value, PLAIN):
        return value, start
    ((kind, content),) = value.items()
    if kind == "list":
        items = []
        for packed in content:
            item, start = _unpacked(packed, block, start)
            items.append(item)
        return items, start
    if kind == "dict":
        entries = {}
        for key, packed in content:
            entries[key], start = _unpacked(packed, block, start)
        return entries, start
    if kind != "array":
        raise MessageError("a value of kind {}".format(kind))

    # an array: of numbers, and no more of them than there are bytes
    name, shape = content
    dtype = np.dtype(str(name))
    if dtype.kind not in KINDS or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise MessageError("an array of {} and shape {}".format(dtype, shape))
    count = 1
    for size in shape:
        count *= size
    array = np.frombuffer(block, dtype, count, start).reshape(shape)
    return array.copy(), start + count * dtype.itemsize

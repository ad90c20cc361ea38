"""jaxshare's own format: a folder `<name>.jds` of zarr arrays in chunks, and `card.json`.

card.json (see `header`) names the fields. Each is a Zarr v3 array of its name, episode first, as
`records.flat` names them; a field without elements is not stored. Chunks are compressed by zstd and
carry a checksum (crc32c); a chunk that is missing is an error, not zeros. What a set claims is held
to `limits` before anything is allocated.

While a `Writer` works, the folder is called `<name>.jds.unfinished` and its card says so; the last
thing that `close` does is to rename it. So `<name>.jds` is whole whenever it exists. obs and state
are rounded to the dtype on disk: float16 (relative error 2^-11 between 6e-5 and 65504, below that
absolute 2^-25), bfloat16 (2^-8) or float32 (none).
"""

from jaxshare.data.own.header import CARD, UNFINISHED
from jaxshare.data.own.stored import Stored, load, open
from jaxshare.data.own.writer import SUFFIX, Writer, save

__all__ = ["CARD", "SUFFIX", "UNFINISHED", "Stored", "Writer", "load", "open", "save"]
